//! Whether the peer lives: a word in shared memory that its kernel clears at its death, and a descriptor that tells of it.
//!
//! Both are needed. The word is cleared by Xen's unmap-notify when the peer's process dies, or by the peer itself; only the peer can
//! fake it, against itself. The descriptor ([`Liveness`]) is the socket of the local transport, or an eventfd that a watch on the
//! peer's domain marks, and wakes who sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use crate::sync::{
    AtomicU32,
    Ordering::{Acquire, Release},
};

/// Attached and alive. Death clears the low byte (which unmap-notify can do); a word of zero is a peer that has not come yet.
const ALIVE: u32 = 0x0101;
const DEAD: u32 = 0x0100;

/// What the word says of its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    NotYet,
    Alive,
    Gone,
}

/// Says in `word` that this side is there.
pub(crate) fn attach(word: &AtomicU32) {
    word.store(ALIVE, Release);
}

/// Says in `word` that this side has gone. All it wrote before is there for the peer to read.
pub(crate) fn leave(word: &AtomicU32) {
    word.store(DEAD, Release);
}

/// Reads the peer's word. Nonsense counts as dead.
pub(crate) fn read(word: &AtomicU32) -> Life {
    match word.load(Acquire) {
        0 => Life::NotYet,
        ALIVE => Life::Alive,
        _ => Life::Gone,
    }
}

/// A descriptor that becomes readable, or hangs up, when the peer is gone.
#[derive(Debug)]
pub struct Liveness(OwnedFd);

/// Marks a peer as gone, for whoever finds out (a watch on its domain).
#[derive(Debug)]
pub struct PeerMark(OwnedFd);

impl Liveness {
    pub(crate) const FLAGS: PollFlags =
        PollFlags::IN.union(PollFlags::HUP).union(PollFlags::ERR).union(PollFlags::RDHUP);

    /// The peer holds the other end of this socket and never sends on it.
    pub fn socket(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// The peer is gone when the [`PeerMark`] says so.
    ///
    /// # Errors
    /// Those of `eventfd` and `dup`.
    pub fn pair() -> io::Result<(Self, PeerMark)> {
        let fd = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let twin = rustix::io::fcntl_dupfd_cloexec(&fd, 0)?;
        Ok((Self(fd), PeerMark(twin)))
    }

    /// The descriptor, for epoll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A second descriptor of the same.
    ///
    /// # Errors
    /// Those of `dup`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?))
    }

    /// Whether the peer is gone. Does not wait.
    pub fn is_gone(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.fd(), Self::FLAGS)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An interrupted poll is asked again by whoever asks next.
        rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

impl PeerMark {
    /// The peer is gone: wakes everyone who sleeps on the channel. May be called more than once.
    pub fn mark_gone(&self) {
        // Fails only when the counter is full, and then it is readable already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_word_cleared_by_the_kernel_reads_as_gone() {
        let word = AtomicU32::new(0);
        assert_eq!(read(&word), Life::NotYet);
        attach(&word);
        assert_eq!(read(&word), Life::Alive);
        // What UNMAP_NOTIFY_CLEAR_BYTE does: one byte, the first.
        word.store(u32::from_le_bytes([0, 1, 0, 0]), Release);
        assert_eq!(read(&word), Life::Gone);
    }

    #[test]
    fn a_closed_socket_is_a_dead_peer() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let liveness = Liveness::socket(ours.into());
        assert!(!liveness.is_gone());
        drop(theirs);
        assert!(liveness.is_gone());
    }
}
