//! The death of a peer's domain, or of its device: noticed by a watch, told to every channel with that peer.
//!
//! Closing an event channel says nothing to the other end, and a domain that is destroyed clears no byte. So one thread watches
//! `@releaseDomain` (backends) or the backend's node (guests), asks anew about each peer when the watch fires, and marks the dead.
//! It says not *which* domain died, so each is asked: one or two round trips a peer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use super::domain::Identity;
use super::error::XenError;
use super::xenstore::{Client, Store as _, Watch};
use crate::life::{Liveness, PeerMark};

/// The special node whose watch fires when any domain shuts down or is destroyed.
pub const RELEASE_DOMAIN: &str = "@releaseDomain";

/// Between two tries to reach a xenstored that is gone.
const RETRY: Duration = Duration::from_secs(1);

/// Watches peers for their end. Dropped, it notices nothing any more; the channels' own signs still work.
#[derive(Debug)]
pub struct Deaths {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    node: String,
    peers: Mutex<Vec<(Peer, PeerMark)>>,
    /// Written when a peer was added, or at the end.
    nudge: OwnedFd,
}

#[derive(Debug)]
enum Peer {
    Domain(Identity),
    /// Lives while this node exists and holds a state before Closing.
    Device(String),
    /// This struct is being dropped.
    Stop,
}

impl Deaths {
    /// Of domains, through `@releaseDomain`: for Dom0, and for driver domains that may read it.
    ///
    /// # Errors
    /// `EACCES`: this domain may not watch it.
    pub fn of_domains(xenstore: &Client) -> Result<Self, XenError> {
        Self::start(xenstore, RELEASE_DOMAIN.to_owned())
    }

    /// Of the one device whose state is at `node`: for guests, who may watch their backend's nodes only.
    ///
    /// # Errors
    /// `EACCES`: not a node of a backend of ours.
    pub fn of_device(xenstore: &Client, node: &str) -> Result<Self, XenError> {
        Self::start(xenstore, node.to_owned())
    }

    fn start(xenstore: &Client, node: String) -> Result<Self, XenError> {
        let watch = xenstore.watch(&node)?;
        let nudge = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| XenError::Call { call: "eventfd", source: errno.into() })?;
        let shared = Arc::new(Shared { node, peers: Mutex::default(), nudge });
        let thread = thread::Builder::new()
            .name("xen-deaths".into())
            .stack_size(64 << 10)
            .spawn({
                let (shared, xenstore) = (Arc::clone(&shared), xenstore.clone());
                move || shared.run(xenstore, watch)
            })
            .map_err(|source| XenError::Call { call: "clone", source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Tells of the end of `peer`. Take one for each domain and give its channels clones: an entry is kept until the peer's end.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub fn domain(&self, peer: Identity) -> Result<Liveness, XenError> {
        self.add(Peer::Domain(peer))
    }

    /// Tells of the end of the backend's device that [`Deaths::of_device`] watches.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub fn device(&self) -> Result<Liveness, XenError> {
        self.add(Peer::Device(self.shared.node.clone()))
    }

    fn add(&self, peer: Peer) -> Result<Liveness, XenError> {
        let (liveness, mark) =
            Liveness::pair().map_err(|source| XenError::Call { call: "eventfd", source })?;
        self.shared.peers().push((peer, mark));
        // It may be dead already, and its death's event taken: look at once.
        self.shared.nudge();
        Ok(liveness)
    }
}

impl Drop for Deaths {
    fn drop(&mut self) {
        if let Ok((_, mark)) = Liveness::pair() {
            self.shared.peers().push((Peer::Stop, mark));
            self.shared.nudge();
            if let Some(thread) = self.thread.take() {
                // A thread that panicked has ended too.
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn run(&self, mut xenstore: Client, mut watch: Watch) {
        loop {
            let complete = match self.look(&xenstore) {
                Ok(true) => true,
                Ok(false) => return,
                Err(_) => false,
            };
            match watch.take() {
                Ok(1..) => continue,
                // A look that failed is repeated: the event that asked for it has been taken.
                Ok(0) => self.wait(complete.then_some(&watch)),
                // xenstored is gone or was restarted: a new connection and watch, and then a look.
                Err(_) => {
                    self.wait(None);
                    if let Ok(again) = Client::connect()
                        && let Ok(watching) = again.watch(&self.node)
                    {
                        (xenstore, watch) = (again, watching);
                    }
                }
            }
        }
    }

    /// Asks about every peer and marks the dead. False: it is the end.
    fn look(&self, xenstore: &Client) -> Result<bool, XenError> {
        let known = std::mem::take(&mut *self.peers());
        let mut asked = Vec::with_capacity(known.len());
        let mut failed = None;
        for (peer, mark) in known {
            let alive = match &peer {
                Peer::Stop => return Ok(false),
                Peer::Domain(identity) => identity.is_alive(xenstore),
                Peer::Device(node) => device_is_alive(xenstore, node),
            };
            match alive {
                Ok(false) => mark.mark_gone(),
                Ok(true) => asked.push((peer, mark)),
                Err(error) => {
                    asked.push((peer, mark));
                    failed = Some(error);
                }
            }
        }
        self.peers().extend(asked);
        failed.map_or(Ok(true), Err)
    }

    /// Until the watch fires or a peer is added; without a watch at most [`RETRY`].
    fn wait(&self, watch: Option<&Watch>) {
        let retry = Timespec { tv_sec: RETRY.as_secs().try_into().unwrap_or(1), tv_nsec: 0 };
        let other = watch.map_or(self.nudge.as_fd(), AsFd::as_fd);
        let mut fds = [
            PollFd::from_borrowed_fd(self.nudge.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(other, PollFlags::IN),
        ];
        // An interrupted wait is one that looks for nothing.
        let _ = rustix::event::poll(&mut fds, if watch.is_some() { None } else { Some(&retry) });
        let _ = rustix::io::read(&self.nudge, &mut [0; 8]);
    }

    fn nudge(&self) {
        let _ = rustix::io::write(&self.nudge, &1_u64.to_ne_bytes());
    }

    fn peers(&self) -> MutexGuard<'_, Vec<(Peer, PeerMark)>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn device_is_alive(xenstore: &Client, state_node: &str) -> Result<bool, XenError> {
    match xenstore.read_decimal(state_node, 8) {
        Ok(state) => Ok(!super::device::is_ending(state)),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
