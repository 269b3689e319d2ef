//! Threads of one side that sleep for one bell: one of them leads and waits for it, the others follow and are woken by the leader.
//!
//! A thread that has nothing to do announces its sleep ([`crate::park`]), looks again, and becomes the leader, who waits for the bell;
//! if there is a leader already, it follows on a condition variable. Whatever wakes the leader, it steps down and wakes all; each looks
//! for its own news, and the first that finds none leads next.
//! Pure: what waiting for the bell means, and whether the peer is gone, is the caller's (`hub.rs`).

use std::io;
use std::time::{Duration, Instant};

use crate::park::Sleeper;
use crate::sync::{AtomicU32, Condvar, Mutex, MutexGuard, lock};

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

/// The threads of one side that sleep.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    turn: Condvar,
}

#[derive(Debug, Default)]
struct State {
    sleeper: Sleeper,
    asleep: u32,
    led: bool,
    following: u32,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::default()), turn: Condvar::new() }
    }

    /// Announces a sleep in `parked`, for an event loop that will look again and then wait for the bell itself.
    #[cfg(feature = "tokio")]
    pub(crate) fn announce(&self, parked: &AtomicU32) {
        lock(&self.state).sleeper.announce(parked);
    }

    /// Sleeps until `ready`, which is asked after each wake-up, `gone`, or the deadline. `parked` is this side's shared word; `lead` waits
    /// for the bell, without the lock.
    ///
    /// # Errors
    /// Those of `lead`.
    pub(crate) fn sleep_until(
        &self,
        parked: &AtomicU32,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> bool,
        gone: impl Fn() -> bool,
        lead: impl Fn() -> io::Result<()>,
    ) -> io::Result<End> {
        let mut state = lock(&self.state);
        state.asleep += 1;
        let end = loop {
            state.sleeper.announce(parked);
            // Asked first: what the peer wrote before its end is looked at after it.
            let gone = gone();
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
                state.following += 1;
                state = self.follow(state, deadline);
                state.following -= 1;
                continue;
            }
            state.led = true;
            drop(state);
            let woken = lead();
            state = lock(&self.state);
            state.led = false;
            // Waking nobody would still be a system call, between the bell and the news.
            if state.following > 0 {
                self.turn.notify_all();
            }
            if let Err(e) = woken {
                break Err(e);
            }
            // Before another sleep is announced, for which a peer that goes on would ring.
            if ready() {
                break Ok(End::Ready);
            }
        };
        state.asleep -= 1;
        if state.asleep == 0 {
            state.sleeper.awake(parked);
        }
        end
    }

    fn follow<'a>(&self, state: MutexGuard<'a, State>, deadline: Option<Instant>) -> MutexGuard<'a, State> {
        // Without a deadline a follower still looks up now and then: the leader could be a thread that the program killed.
        let limit =
            deadline.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(Instant::now()));
        match self.turn.wait_timeout(state, limit) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::park::Caller;

    #[test]
    fn a_peer_that_goes_on_while_its_news_wakes_this_side_rings_once() {
        let (queue, parked, caller) = (Queue::new(), AtomicU32::new(0), Caller::default());
        let (came, rings) = (Cell::new(false), Cell::new(0));
        let ring = || rings.set(rings.get() + u32::from(caller.must_ring(&parked)));
        let ready = || {
            if came.get() {
                ring();
            }
            came.get()
        };
        let lead = || {
            came.set(true);
            ring();
            Ok(())
        };
        let end = queue.sleep_until(&parked, None, ready, || false, lead).unwrap();
        assert_eq!((end, rings.get()), (End::Ready, 1));
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::*;
    use crate::park::Caller;
    use crate::sync::Ordering::Relaxed;

    /// One side's queue, and what its peer writes and rings.
    struct Model {
        queue: Queue,
        parked: AtomicU32,
        news: [AtomicU32; 2],
        caller: Caller,
        bell: Notify,
    }

    impl Model {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                queue: Queue::new(),
                parked: AtomicU32::new(0),
                news: Default::default(),
                caller: Caller::default(),
                bell: Notify::new(),
            })
        }

        fn tell(&self, which: usize) {
            self.news[which].store(1, Relaxed);
            if self.caller.must_ring(&self.parked) {
                self.bell.notify();
            }
        }

        /// Ends only when the news has come: loom reports a sleep that nobody ends.
        fn hear(&self, which: usize) {
            let ready = || self.news[which].load(Relaxed) == 1;
            let lead = || {
                self.bell.wait();
                Ok(())
            };
            let end = self.queue.sleep_until(&self.parked, None, ready, || false, lead);
            assert_eq!(end.unwrap(), End::Ready);
        }
    }

    fn check(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(model);
    }

    #[test]
    fn two_threads_that_sleep_on_one_bell_each_hear_their_own_news() {
        check(|| {
            let model = Model::new();
            let twin = model.clone();
            let other = thread::spawn(move || twin.hear(1));
            let twin = model.clone();
            let peer = thread::spawn(move || {
                twin.tell(0);
                twin.tell(1);
            });
            model.hear(0);
            other.join().unwrap();
            peer.join().unwrap();
        });
    }

    #[test]
    fn a_leader_that_leaves_hands_the_bell_on() {
        check(|| {
            let model = Model::new();
            let twin = model.clone();
            let other = thread::spawn(move || twin.hear(1));
            model.tell(0);
            model.hear(0);
            // The other may have followed the leader that has just left.
            model.tell(1);
            other.join().unwrap();
        });
    }
}
