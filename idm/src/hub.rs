//! Where the threads of one side sleep: a doorbell, a liveness descriptor, and the [`Queue`] of who waits for them.
//!
//! No thread of its own: `libvgpu` may not start any. One doorbell wakes one thread, which wakes the others.

use std::io;
use std::time::{Duration, Instant};

use crate::doorbell::Waiter;
use crate::error::{ChannelError, Peer};
use crate::life::Liveness;
pub(crate) use crate::queue::End;
use crate::queue::Queue;
use crate::spin::Spin;
use crate::sync::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// The sleeping place of one side of a channel.
#[derive(Debug)]
pub(crate) struct Hub {
    waiter: Waiter,
    liveness: Option<Liveness>,
    queue: Queue,
    gone: AtomicBool,
    sleeps: AtomicU64,
}

impl Hub {
    pub(crate) fn new(waiter: Waiter, liveness: Option<Liveness>) -> Self {
        Self {
            waiter,
            liveness,
            queue: Queue::new(),
            gone: AtomicBool::new(false),
            sleeps: AtomicU64::new(0),
        }
    }

    /// Whether the peer is known to be gone. Does not ask anew.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Acquire)
    }

    /// The peer is gone, by what its life word says. Sleepers need no waking: the one who found out was awake, the leader looks for itself.
    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Release);
    }

    /// Looks at the liveness descriptor now.
    pub(crate) fn ask_liveness(&self) {
        if self.liveness.as_ref().is_some_and(Liveness::is_gone) {
            self.set_gone();
        }
    }

    /// What tells of the peer's death.
    pub(crate) fn liveness(&self) -> Option<&Liveness> {
        self.liveness.as_ref()
    }

    /// How often a thread polled the doorbell: system calls.
    pub(crate) fn sleeps(&self) -> u64 {
        self.sleeps.load(Relaxed)
    }

    /// The descriptors to poll, for an event loop in place of [`Hub::wait_until`].
    #[cfg(feature = "tokio")]
    pub(crate) fn sources(&self) -> (&Waiter, Option<&Liveness>) {
        (&self.waiter, self.liveness.as_ref())
    }

    /// Announces a sleep in `parked`, for an event loop that will look again and then wait for [`Hub::sources`].
    #[cfg(feature = "tokio")]
    pub(crate) fn announce(&self, parked: &AtomicU32) {
        self.queue.announce(parked);
    }

    /// Sleeps until `ready`, which is asked after each wake-up, the peer's end, or the deadline. `parked` is this side's shared word.
    ///
    /// # Errors
    /// Those of the doorbell.
    pub(crate) fn wait_until(
        &self,
        parked: &AtomicU32,
        deadline: Option<Instant>,
        ready: impl FnMut() -> bool,
    ) -> io::Result<End> {
        self.queue.sleep_until(parked, deadline, ready, || self.is_gone(), || self.lead(deadline))
    }

    /// Tries until `step` has a result: polling first, then asleep, at most `limit`. `parked` is this side's shared word.
    ///
    /// # Errors
    /// Those of `step`; [`ChannelError::PeerGone`]; [`ChannelError::TimedOut`] with `what` was waited for; the doorbell's.
    pub(crate) fn block(
        &self,
        (peer, what): (Peer, &'static str),
        spin: &Spin,
        parked: &AtomicU32,
        limit: Option<Duration>,
        mut step: impl FnMut() -> Result<Option<usize>, ChannelError>,
    ) -> Result<usize, ChannelError> {
        let mut result = Ok(None);
        let mut done = || {
            result = step();
            !matches!(result, Ok(None))
        };
        if !done()
            && let Some(start) = spin.until(&mut done)
        {
            let deadline = limit.and_then(|limit| start.checked_add(limit));
            let end = self.wait_until(parked, deadline, &mut done);
            spin.slept(start);
            match end.map_err(ChannelError::system("wait for the peer"))? {
                End::Ready => {}
                End::Gone => return Err(ChannelError::PeerGone(peer)),
                End::TimedOut => {
                    return Err(ChannelError::TimedOut { peer, what, limit: limit.unwrap_or_default() });
                }
            }
        }
        // `done` said that there is a result.
        Ok(result?.unwrap_or_default())
    }

    fn lead(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.sleeps.fetch_add(1, Relaxed);
        let woken = self.waiter.wait(self.liveness.as_ref(), deadline)?;
        if woken.gone {
            self.set_gone();
        }
        Ok(())
    }
}
