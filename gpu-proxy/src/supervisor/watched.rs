//! A descriptor that a task waits for.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits on `fd` until it is readable. Hanging up counts.
///
/// # Errors
/// The system's.
pub fn watch(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an Arc of an OwnedFd always gives the same descriptor, and keeps it open as long as the registration has the Arc.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
