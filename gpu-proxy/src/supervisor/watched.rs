//! A descriptor that a task waits for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::foreign::Foreign;

/// What gives the same descriptor at any time, and keeps it open. The reactor relies on it: so all that do are named here.
pub trait Lasting: AsRawFd {}
impl Lasting for OwnedFd {}
impl Lasting for Foreign<OwnedFd> {}
impl Lasting for Foreign<UnixStream> {}

/// Waits on `fd` until it is readable. Hanging up counts.
///
/// # Errors
/// The system's.
pub fn watch<T: Lasting>(fd: Arc<T>) -> io::Result<AsyncFd<Arc<T>>> {
    // SAFETY: an Arc of what lasts always gives the same descriptor, and keeps it open as long as the registration has the Arc.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
