//! Who may use which reply slot.
//!
//! A thread that calls keeps its lane until it ends, so that the usual call takes no lock. When few lanes are left, threads borrow
//! one for each call and wait for it if they must. A lane whose call was given up is not used again until its late reply came.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::layout::LANES;

/// Lanes that no thread keeps.
const SHARED_LANES: usize = 8;
/// How often a thread without a lane looks whether a late reply freed one: nobody rings for those.
const LOOK: Duration = Duration::from_millis(5);

/// The lanes of one channel.
#[derive(Debug)]
pub(crate) struct Lanes {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    free: Vec<u16>,
    /// Lanes of calls that were given up, with the sequence of the reply that will come.
    given_up: Vec<(u16, u32)>,
}

/// A lane kept by a thread. Goes back when the thread ends.
struct Kept {
    lanes: Weak<Lanes>,
    lane: u16,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(lanes) = self.lanes.upgrade() {
            lanes.free(self.lane);
        }
    }
}

thread_local! {
    /// The lanes that this thread keeps, one a channel, while no call uses them.
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

impl Lanes {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { free: (0..LANES).rev().collect(), given_up: Vec::with_capacity(LANES.into()) };
        Arc::new(Self { state: Mutex::new(state), freed: Condvar::new() })
    }

    /// A lane for one call; `None` when the deadline came first, or `stop` said that none will be free any more. `answered` tells whether a
    /// given-up call's reply has come.
    #[inline]
    pub(crate) fn take(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        stop: impl Fn() -> bool,
        answered: impl Fn(u16, u32) -> bool,
    ) -> Option<Lane<'_>> {
        match self.kept() {
            Some(kept) => Some(Lane { lanes: self, lane: kept.lane, kept: Some(kept) }),
            None => self.take_free(deadline, stop, answered),
        }
    }

    fn kept(self: &Arc<Self>) -> Option<Kept> {
        // While the thread's variables are being destroyed there is none: lanes are borrowed then.
        KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            let own = kept.iter().position(|k| std::ptr::eq(k.lanes.as_ptr(), Arc::as_ptr(self)))?;
            Some(kept.swap_remove(own))
        })
        .ok()
        .flatten()
    }

    #[cold]
    fn take_free(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        stop: impl Fn() -> bool,
        answered: impl Fn(u16, u32) -> bool,
    ) -> Option<Lane<'_>> {
        let mut state = self.lock();
        loop {
            state.sweep(&answered);
            if let Some(lane) = state.free.pop() {
                let keep = state.free.len() >= SHARED_LANES;
                let kept = keep.then(|| Kept { lanes: Arc::downgrade(self), lane });
                return Some(Lane { lanes: self, lane, kept });
            }
            let now = Instant::now();
            // A peer that died answers no call that was given up: those lanes never come back.
            if stop() || deadline.is_some_and(|at| at <= now) {
                return None;
            }
            let look = deadline.map_or(LOOK, |at| at.saturating_duration_since(now).min(LOOK));
            state = match self.freed.wait_timeout(state, look) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn free(&self, lane: u16) {
        self.lock().free.push(lane);
        self.freed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sweep(&mut self, answered: impl Fn(u16, u32) -> bool) {
        let Self { free, given_up } = self;
        given_up.retain(|(lane, seq)| {
            let came = answered(*lane, *seq);
            if came {
                free.push(*lane);
            }
            !came
        });
    }
}

/// A lane in use by one call. Dropped, it can be used again.
pub(crate) struct Lane<'a> {
    lanes: &'a Lanes,
    lane: u16,
    kept: Option<Kept>,
}

impl Lane<'_> {
    pub(crate) fn number(&self) -> u16 {
        self.lane
    }

    /// The caller no longer waits for the reply to `seq`.
    pub(crate) fn give_up(mut self, seq: u32) {
        if let Some(mut kept) = self.kept.take() {
            // Its drop must not free the lane.
            kept.lanes = Weak::new();
        }
        self.lanes.lock().given_up.push((self.lane, seq));
        std::mem::forget(self);
    }
}

impl Drop for Lane<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(kept) = self.kept.take() else {
            return self.lanes.free(self.lane);
        };
        // Where the thread's variables are gone, the closure is dropped with `kept` in it, which frees the lane.
        let _ = KEPT.try_with(move |all| all.borrow_mut().push(kept));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NEVER: fn(u16, u32) -> bool = |_, _| false;
    const GOES_ON: fn() -> bool = || false;

    fn free(lanes: &Lanes) -> usize {
        lanes.lock().free.len()
    }

    #[test]
    fn a_thread_keeps_its_lane_and_gives_it_back_at_its_end() {
        let lanes = Lanes::new();
        let twin = lanes.clone();
        std::thread::spawn(move || {
            let first = twin.take(None, GOES_ON, NEVER).unwrap().number();
            assert_eq!(twin.take(None, GOES_ON, NEVER).unwrap().number(), first);
            assert_eq!(free(&twin), 63);
        })
        .join()
        .unwrap();
        assert_eq!(free(&lanes), 64);
    }

    #[test]
    fn two_calls_at_once_on_one_thread_have_two_lanes() {
        let lanes = Lanes::new();
        let (a, b) = (lanes.take(None, GOES_ON, NEVER).unwrap(), lanes.take(None, GOES_ON, NEVER).unwrap());
        assert_ne!(a.number(), b.number());
    }

    #[test]
    fn more_threads_than_lanes_wait_for_one_another() {
        let lanes = Lanes::new();
        let held: Vec<_> = (0..64).map(|_| lanes.take(None, GOES_ON, NEVER).unwrap()).collect();
        let soon = Some(Instant::now() + Duration::from_millis(10));
        assert!(lanes.take(soon, GOES_ON, NEVER).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| lanes.take(None, GOES_ON, NEVER).map(|lane| lane.number()));
            drop(held);
            // This thread kept some of what it held; those that were borrowed went back.
            assert!(waiting.join().unwrap().is_some());
        });
    }

    #[test]
    fn a_lane_given_up_comes_back_with_its_late_reply() {
        let lanes = Lanes::new();
        let all: Vec<_> = (0..64).map(|_| lanes.take(None, GOES_ON, NEVER).unwrap()).collect();
        for lane in all {
            lane.give_up(9);
        }
        assert_eq!(free(&lanes), 0);
        let started = Instant::now();
        assert!(lanes.take(Some(started + Duration::from_secs(5)), || true, NEVER).is_none());
        assert!(started.elapsed() < Duration::from_secs(5), "waited for a peer that is gone");
        let only = lanes.take(None, GOES_ON, |lane, seq| lane == 5 && seq == 9).unwrap();
        assert_eq!(only.number(), 5);
    }
}
