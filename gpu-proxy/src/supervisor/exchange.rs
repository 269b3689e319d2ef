//! The supervisor's end of a worker's exchange (`crate::exchange`): one task a worker, which answers from what its zone shares.
//!
//! The worker may be anybody's by now. So its questions are of fixed form, come one after the other at a bounded pace, and one that asks
//! what nobody asks, or leaves answers lying, is ended.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use vgpu_zone_api::shim::ZoneId;

use super::Supervisor;
use super::foreign::{Foreign, close, has_descriptors};
use super::pace::Pace;
use super::process::{is_end, kill};
use super::shared::Given;
use super::watched::watch;
use super::worker_id::WorkerId;
use crate::exchange::{Question, answer, asked};

/// Our end and the worker's.
pub(super) fn make() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// The task that answers a worker.
#[derive(Debug)]
pub(super) struct Exchanging {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Exchanging {
    /// Returns when nothing is answered any more, and what lay in the socket is closed: its worker has ended.
    pub(super) async fn end(self) {
        // A task that has ended by itself hears nothing.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

impl Supervisor {
    /// Answers the worker until it is gone. One that breaks the exchange is ended.
    pub(super) fn exchange_with(
        self: &Arc<Self>,
        (zone, worker): (ZoneId, WorkerId),
        ours: OwnedFd,
        pidfd: Arc<OwnedFd>,
    ) -> Exchanging {
        let supervisor = Arc::clone(self);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let socket = Arc::new(Foreign::new(ours));
            match supervisor.answer_all((zone, worker), &socket, stopped).await {
                // A worker that has ended has closed its end.
                Err(error) if !is_end(&error) => {
                    log::warn!("zone {zone}: a worker breaks the exchange, and is ended: {error}");
                    kill(&pidfd);
                }
                Ok(()) | Err(_) => {}
            }
            close(Arc::into_inner(socket)).await;
        });
        Exchanging { stop, task }
    }

    /// Until it is `stopped`. What it has begun it ends: no descriptor is on its way then.
    async fn answer_all(
        &self,
        (zone, worker): (ZoneId, WorkerId),
        socket: &Arc<Foreign>,
        mut stopped: oneshot::Receiver<()>,
    ) -> io::Result<()> {
        let (readable, own, of_zone) =
            (watch(Arc::clone(socket))?, Pace::of_exchanges(), self.zones().pace_of_exchanges(zone));
        let turn = async || {
            own.wait().await;
            if let Some(of_zone) = &of_zone {
                of_zone.wait().await;
            }
        };
        loop {
            let mut ready = tokio::select! {
                biased;
                _ = &mut stopped => return Ok(()),
                ready = readable.readable() => ready?,
            };
            let Ok(with_fds) = ready.try_io(|socket| has_descriptors(&**socket.get_ref())) else { continue };
            let (question, given) = receive(socket, with_fds?).await?;
            tokio::select! {
                biased;
                _ = &mut stopped => {
                    // Its memory is not free before.
                    close(given.map(Given::into_descriptor)).await;
                    return Ok(());
                }
                () = turn() => {}
            }
            let (answered, gone) = {
                let mut zones = self.zones();
                (zones.exchange(zone, worker, self.device, (question, given)), zones.take_gone(zone))
            };
            // Before the answer: who let go of memory takes it for free then.
            close(gone).await;
            answer(&**socket, answered)?;
        }
    }

    /// A worker's process is reaped: returns when what it shared is closed here, and the device's memory with it.
    pub(super) async fn end_sharing(&self, zone: ZoneId, worker: WorkerId) {
        let gone = {
            let mut zones = self.zones();
            zones.ended_sharing(zone, worker);
            zones.take_gone(zone)
        };
        close(gone).await;
    }
}

/// The question that is there. One with descriptors is received where nobody else waits: they are looked at, a wrong one's are closed, and the
/// kernel closes at once what it cannot hand over.
async fn receive(socket: &Arc<Foreign>, with_fds: bool) -> io::Result<(Question, Option<Given>)> {
    let socket = Arc::clone(socket);
    let receive = move || {
        let (question, fd) = asked(&*socket)?;
        Ok((question, fd.map(Given::look_at)))
    };
    if with_fds { spawn_blocking(receive).await.map_err(io::Error::other)? } else { receive() }
}

#[cfg(test)]
mod tests;
