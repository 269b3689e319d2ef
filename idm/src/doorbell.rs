//! Doorbells: how a side that sleeps is woken. A [`Doorbell`] rings, the peer's [`Waiter`] waits.
//!
//! An eventfd between two processes; an event channel between two domains comes from the `xen` transport through [`Signal`] and
//! [`Wake`]. Ringing means only "look again": rings may merge, and may come for nothing.
//!
//! The peer may hold the same eventfd: it can ring without end (that costs us wake-ups, and the loop that serves one peer serves no
//! other), and by filling the counter of an eventfd made blocking it can stall the one who rings it, which is the worker of that
//! peer alone. A process that serves many peers must ring from a task of each.

use std::fmt;
use std::io;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::{Errno, ReadWriteFlags};

use crate::life::Liveness;

/// What can wake a peer. Implemented by a transport.
pub trait Signal: Send + Sync + fmt::Debug {
    /// Wakes the peer, or leaves a mark that it finds when it goes to sleep. Never waits.
    ///
    /// # Errors
    /// The transport's, when the peer can no more be reached.
    fn ring(&self) -> io::Result<()>;
}

/// What can be woken by a peer. Implemented by a transport.
pub trait Wake: Send + Sync + fmt::Debug {
    /// Readable once the peer rang. May be given to epoll.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Takes back what made [`Wake::fd`] readable. Called after each wake-up, before the work; never waits.
    ///
    /// # Errors
    /// The transport's.
    fn drain(&self) -> io::Result<()>;

    /// Lets the next ring through, where `drain` holds rings back (an event channel stays masked until its events are worked off).
    /// Called before each sleep.
    ///
    /// # Errors
    /// The transport's.
    fn rearm(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Rings the peer.
#[derive(Debug)]
pub enum Doorbell {
    /// An eventfd that the peer waits on.
    EventFd(OwnedFd),
    /// What a transport brings.
    Other(Box<dyn Signal>),
}

impl Doorbell {
    /// Wakes the peer. Never waits.
    ///
    /// # Errors
    /// The transport's, when the peer can no more be reached.
    pub fn ring(&self) -> io::Result<()> {
        match self {
            Self::EventFd(fd) => match rustix::io::write(fd, &1u64.to_ne_bytes()) {
                // A full counter is a bell that already rings.
                Ok(_) | Err(Errno::AGAIN) => Ok(()),
                Err(e) => Err(e.into()),
            },
            Self::Other(signal) => signal.ring(),
        }
    }
}

/// Waits for the peer's ring.
#[derive(Debug)]
pub enum Waiter {
    /// An eventfd that the peer rings.
    EventFd(OwnedFd),
    /// What a transport brings.
    Other(Box<dyn Wake>),
}

/// What a [`Waiter`] woke for. Both can be true; neither is, when the limit ran out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Woken {
    /// The peer rang. The ring is drained.
    pub rang: bool,
    /// The peer is gone.
    pub gone: bool,
}

impl Waiter {
    /// Readable once the peer rang.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::EventFd(fd) => fd.as_fd(),
            Self::Other(wake) => wake.fd(),
        }
    }

    /// Takes back what made the descriptor readable.
    ///
    /// # Errors
    /// The transport's.
    pub fn drain(&self) -> io::Result<()> {
        match self {
            Self::EventFd(fd) => drain_eventfd(fd.as_fd()),
            Self::Other(wake) => wake.drain(),
        }
    }

    /// Lets the next ring through.
    ///
    /// # Errors
    /// The transport's.
    pub fn rearm(&self) -> io::Result<()> {
        match self {
            Self::EventFd(_) => Ok(()),
            Self::Other(wake) => wake.rearm(),
        }
    }

    /// Sleeps until the peer rings, is gone, or `deadline` has come. A signal handler of the process does not end the sleep.
    ///
    /// # Errors
    /// Those of `poll` and of the transport.
    pub fn wait(&self, liveness: Option<&Liveness>, deadline: Option<Instant>) -> io::Result<Woken> {
        self.rearm()?;
        loop {
            let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
            let mut fds = [
                PollFd::from_borrowed_fd(self.fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(liveness.map_or(self.fd(), Liveness::fd), Liveness::FLAGS),
            ];
            let used = if liveness.is_some() { 2 } else { 1 };
            match rustix::event::poll(&mut fds[..used], timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(_) => {}
            }
            let woken = Woken {
                rang: !fds[0].revents().is_empty(),
                gone: liveness.is_some() && !fds[1].revents().is_empty(),
            };
            if woken.rang {
                self.drain()?;
            }
            return Ok(woken);
        }
    }
}

/// A doorbell of this process and its waiter: two descriptors of one eventfd. Either can be sent to another process.
///
/// # Errors
/// Those of `eventfd` and `dup`.
pub fn eventfd_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let fd = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let twin = rustix::io::fcntl_dupfd_cloexec(&fd, 0)?;
    Ok((fd, twin))
}

/// Reads the counter without ever waiting for it: a peer that shares the eventfd may have made it blocking, and may have read it first.
fn drain_eventfd(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut count = [0; 8];
    // An offset of -1 is "where the file stands": the only one a counter has.
    match rustix::io::preadv2(fd, &mut [IoSliceMut::new(&mut count)], u64::MAX, ReadWriteFlags::NOWAIT) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn timespec(duration: std::time::Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(20))
    }

    #[test]
    fn a_ring_wakes_once() {
        let (bell, ear) = eventfd_pair().unwrap();
        let (bell, ear) = (Doorbell::EventFd(bell), Waiter::EventFd(ear));
        bell.ring().unwrap();
        bell.ring().unwrap();
        assert_eq!(ear.wait(None, soon()).unwrap(), Woken { rang: true, gone: false });
        assert_eq!(ear.wait(None, soon()).unwrap(), Woken::default());
    }

    #[test]
    fn a_full_counter_still_rings_and_never_blocks() {
        let (bell, ear) = eventfd_pair().unwrap();
        rustix::io::write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        Doorbell::EventFd(bell).ring().unwrap();
        assert!(Waiter::EventFd(ear).wait(None, soon()).unwrap().rang);
    }

    #[test]
    fn draining_never_blocks_even_if_the_peer_made_the_eventfd_blocking() {
        let (bell, ear) = eventfd_pair().unwrap();
        rustix::fs::fcntl_setfl(&bell, rustix::fs::OFlags::empty()).unwrap();
        Waiter::EventFd(ear).drain().unwrap();
    }

    #[test]
    fn a_waiter_hears_of_the_peers_death() {
        let (_bell, ear) = eventfd_pair().unwrap();
        let (liveness, mark) = Liveness::pair().unwrap();
        mark.mark_gone();
        assert!(Waiter::EventFd(ear).wait(Some(&liveness), None).unwrap().gone);
    }
}
