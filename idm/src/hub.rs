//! Where the threads of one side sleep. One doorbell wakes one of them: it leads, and wakes the others.
//!
//! A thread that has nothing to do announces its sleep ([`crate::park`]), looks again, and becomes the leader, who polls the doorbell and
//! the liveness descriptor; if there is a leader already, it follows on a condition variable. Whatever wakes the leader, it steps
//! down and wakes all; each looks for its own news, and the first that finds none leads next.
//! No thread of its own: `libvgpu` may not start any.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::doorbell::Waiter;
use crate::life::Liveness;
use crate::park::Sleeper;
use crate::sync::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// Why a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// What was waited for is there.
    Ready,
    /// It is not, and the peer is gone.
    Gone,
    /// It is not, and the limit ran out.
    TimedOut,
}

/// The sleeping place of one side of a channel.
#[derive(Debug)]
pub(crate) struct Hub {
    waiter: Waiter,
    liveness: Option<Liveness>,
    state: Mutex<State>,
    turn: Condvar,
    gone: AtomicBool,
    sleeps: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    sleeper: Sleeper,
    asleep: u32,
    led: bool,
}

impl Hub {
    pub(crate) fn new(waiter: Waiter, liveness: Option<Liveness>) -> Self {
        Self {
            waiter,
            liveness,
            state: Mutex::default(),
            turn: Condvar::new(),
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
        self.lock().sleeper.announce(parked);
    }

    /// Sleeps until `ready`, which is asked after each wake-up, the peer's end, or the deadline. `parked` is this side's shared word.
    ///
    /// # Errors
    /// Those of the doorbell.
    pub(crate) fn wait_until(
        &self,
        parked: &AtomicU32,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> bool,
    ) -> io::Result<End> {
        let mut state = self.lock();
        state.asleep += 1;
        let end = loop {
            state.sleeper.announce(parked);
            // Asked first: what the peer wrote before its end is looked at after it.
            let gone = self.is_gone();
            if ready() {
                break Ok(End::Ready);
            }
            if gone {
                break Ok(End::Gone);
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                break Ok(End::TimedOut);
            }
            if state.led {
                state = self.follow(state, deadline);
                continue;
            }
            state.led = true;
            drop(state);
            let woken = self.lead(deadline);
            state = self.lock();
            state.led = false;
            self.turn.notify_all();
            if let Err(e) = woken {
                break Err(e);
            }
        };
        state.asleep -= 1;
        if state.asleep == 0 {
            state.sleeper.awake(parked);
        }
        end
    }

    fn lead(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.sleeps.fetch_add(1, Relaxed);
        let woken = self.waiter.wait(self.liveness.as_ref(), deadline)?;
        if woken.gone {
            self.set_gone();
        }
        Ok(())
    }

    fn follow<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        // Without a deadline a follower still looks up now and then: the leader could be a thread that the program killed.
        let limit =
            deadline.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(Instant::now()));
        match self.turn.wait_timeout(state, limit) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
