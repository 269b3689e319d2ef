//! What others hand over, or have sent and nobody has read, is closed where nobody else waits. The last close of a descriptor may take
//! as long as its file likes: to free a GPU's memory takes its time, and what a worker or a program sends is of its own choice. A socket
//! closes what lies in its queue with itself.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags};
use tokio::runtime::Handle;

/// A descriptor, or a socket, of which only a thread that nobody waits for has the last close: dropped anywhere, it is closed there.
pub struct Foreign<T: Send + 'static = OwnedFd>(Option<T>);

impl<T: Send + 'static> Foreign<T> {
    /// To be closed so.
    pub fn new(held: T) -> Self {
        Self(Some(held))
    }
}

impl<T: Send + 'static> Deref for Foreign<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: AsFd + Send + 'static> AsFd for Foreign<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl<T: AsRawFd + Send + 'static> AsRawFd for Foreign<T> {
    fn as_raw_fd(&self) -> RawFd {
        (**self).as_raw_fd()
    }
}

impl<T: Send + 'static> fmt::Debug for Foreign<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Foreign")
    }
}

impl<T: Send + 'static> Drop for Foreign<T> {
    fn drop(&mut self) {
        // Where there is no runtime nobody is held up.
        if let (Some(held), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(held));
        }
    }
}

/// Closes them, and returns when that is done.
pub async fn close(all: impl IntoIterator<Item = Foreign>) {
    let all: Vec<_> = all.into_iter().filter_map(|mut foreign| foreign.0.take()).collect();
    if !all.is_empty() {
        // The runtime is ending, or a close has panicked: then there is nothing to wait for.
        let _ = tokio::task::spawn_blocking(move || drop(all)).await;
    }
}

/// Whether descriptors lie beside the next message. It stays where it is, and so do they: nothing is closed by looking.
///
/// # Errors
/// What the system says: that there is no message yet, on a socket that is told not to wait.
pub fn has_descriptors(socket: impl AsFd) -> io::Result<bool> {
    let (mut byte, mut no_room) = ([0], RecvAncillaryBuffer::default());
    let into = &mut [IoSliceMut::new(&mut byte)];
    let looked = rustix::net::recvmsg(socket, into, &mut no_room, RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC)?;
    // There is no room for any, so that they don't fit is how they show.
    Ok(looked.flags.contains(ReturnFlags::CTRUNC))
}

/// That none do, where none belong. Who reads the message has them closed there and then.
///
/// # Errors
/// As [`has_descriptors`]; `InvalidData` if they do.
pub fn without_descriptors(socket: impl AsFd) -> io::Result<()> {
    if has_descriptors(socket)? { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod tests;
