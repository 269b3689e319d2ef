//! A node that is watched, and everything below it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;

use super::XsError;
use super::client::Client;
use super::wire::Op;

/// Set by the reading thread, taken by whoever waits. Events run together: each only ever says "look again".
#[derive(Debug)]
pub(super) struct Signal {
    event: OwnedFd,
    gone: AtomicBool,
}

impl Signal {
    pub(super) fn new() -> Result<Self, Errno> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, gone: AtomicBool::new(false) })
    }

    pub(super) fn fire(&self) {
        // Full after 2^64-1 events that nobody took: it is readable then, and that is all that is needed.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    pub(super) fn end(&self) {
        self.gone.store(true, Ordering::Release);
        self.fire();
    }
}

/// A watch on a node and all below it. Fires once at once, and now and then without cause: always read the state again.
/// Ends on drop.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    path: String,
    token: u32,
    signal: Arc<Signal>,
}

impl Client {
    /// Watches `path`: a node, or `@releaseDomain` (some domain died) if this domain may.
    ///
    /// # Errors
    /// `E2BIG`, `ENOSPC`: too many watches for this domain (100 with oxenstored).
    pub fn watch(&self, path: &str) -> Result<Watch, XsError> {
        let signal = Arc::new(Signal::new().map_err(|errno| XsError::Gone(errno.to_string()))?);
        let token = self.register(&signal)?;
        // Made before the request is sent: the first event may overtake the answer.
        let watch = Watch { client: self.clone(), path: path.to_owned(), token, signal };
        let text = token.to_string();
        self.request(Op::Watch, 0, path, &[path.as_bytes(), b"\0", text.as_bytes(), b"\0"])?;
        Ok(watch)
    }
}

impl Watch {
    /// Waits until it fires: true, or false when `limit` is over.
    ///
    /// # Errors
    /// [`XsError::Gone`]: the connection ended, no event will ever come.
    pub fn wait(&self, limit: Duration) -> Result<bool, XsError> {
        let end = Instant::now() + limit;
        loop {
            if self.take()? > 0 {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = rustix::event::Timespec::try_from(left).ok();
            match rustix::event::poll(&mut [PollFd::new(&self.signal.event, PollFlags::IN)], timeout.as_ref())
            {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(XsError::Gone(errno.to_string())),
            }
        }
    }

    /// How often it fired since the last time it was asked. Never blocks. Events that xenstored has not sent yet and that are alike it may make one
    /// (Xen 4.17 and later).
    ///
    /// # Errors
    /// As [`Watch::wait`].
    pub fn take(&self) -> Result<u64, XsError> {
        let mut count = [0; 8];
        let read = rustix::io::read(&self.signal.event, &mut count);
        let fired = read.map_or(0, |_| u64::from_ne_bytes(count));
        if self.signal.gone.load(Ordering::Acquire) {
            return Err(self.client.gone());
        }
        Ok(fired)
    }
}

impl AsFd for Watch {
    /// Readable when the watch has fired, or will never fire again.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.event.as_fd()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.client.forget(self.token);
        let text = self.token.to_string();
        let payload: [&[u8]; 4] = [self.path.as_bytes(), b"\0", text.as_bytes(), b"\0"];
        // If it fails the connection is gone, or the watch never came to be.
        let _ = self.client.request(Op::Unwatch, 0, &self.path, &payload);
    }
}
