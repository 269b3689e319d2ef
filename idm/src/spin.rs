//! How long to look before sleeping: longer while looking pays off, shorter while it does not.

use std::time::{Duration, Instant};

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// An adaptive limit on polling. Shared by the threads of a channel; its races cost accuracy only.
#[derive(Debug)]
pub(crate) struct Spin {
    budget_ns: AtomicU32,
    max_ns: u32,
}

/// Below this a look is over before the peer could have answered.
const MIN_NS: u32 = 1_000;
/// Looks between two readings of the clock.
const LOOKS: u32 = 32;

impl Spin {
    /// Polls at most `max` before a sleep, and not at all where this process has one processor only: the peer could not run.
    pub(crate) fn new(max: Duration) -> Self {
        let alone = std::thread::available_parallelism().is_ok_and(|n| n.get() == 1);
        let max_ns = if alone { 0 } else { u32::try_from(max.as_nanos()).unwrap_or(u32::MAX) };
        Self { budget_ns: AtomicU32::new(max_ns), max_ns }
    }

    /// Looks until `ready` says so (`None`) or the budget is used up: then the time at which it began. The caller goes to sleep, and
    /// hands that time to [`Spin::slept`] when it is awake again.
    pub(crate) fn until(&self, mut ready: impl FnMut() -> bool) -> Option<Instant> {
        let start = Instant::now();
        if self.max_ns == 0 {
            return (!ready()).then_some(start);
        }
        let budget = self.budget_ns.load(Relaxed);
        loop {
            for _ in 0..LOOKS {
                if ready() {
                    self.grow(budget);
                    return None;
                }
                std::hint::spin_loop();
            }
            if start.elapsed().as_nanos() >= u128::from(budget) {
                return Some(start);
            }
        }
    }

    /// After a sleep of a wait that began at `start`: if looking on would have been enough, the next wait looks longer. (A half more than the
    /// longest look counts: the wait had this thread's own wake-up in it.) Two sides that sleep after each call find back to polling in this
    /// way, however short their budgets have become.
    pub(crate) fn slept(&self, start: Instant) {
        let budget = self.budget_ns.load(Relaxed);
        if start.elapsed().as_nanos() <= u128::from(self.max_ns) * 3 / 2 {
            self.grow(budget);
        } else if budget > MIN_NS {
            self.budget_ns.store((budget / 2).max(MIN_NS), Relaxed);
        }
    }

    #[inline]
    fn grow(&self, budget: u32) {
        if budget < self.max_ns {
            self.budget_ns.store(budget.saturating_mul(2).min(self.max_ns), Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn spin(budget_ns: u32, max_ns: u32) -> Spin {
        Spin { budget_ns: AtomicU32::new(budget_ns), max_ns }
    }

    /// A wait that ended long after polling would have.
    fn long_sleep(spin: &Spin) {
        let start = spin.until(|| false).expect("nothing came");
        std::thread::sleep(Duration::from_millis(1));
        spin.slept(start);
    }

    #[test]
    fn the_budget_shrinks_with_long_sleeps_and_grows_when_something_comes() {
        let spin = spin(8_000, 16_000);
        long_sleep(&spin);
        assert_eq!(spin.budget_ns.load(Relaxed), 4_000);
        for _ in 0..9 {
            long_sleep(&spin);
        }
        assert_eq!(spin.budget_ns.load(Relaxed), MIN_NS);
        for _ in 0..9 {
            assert!(spin.until(|| true).is_none());
        }
        assert_eq!(spin.budget_ns.load(Relaxed), 16_000);
    }

    #[test]
    fn a_sleep_that_looking_would_have_spared_makes_the_next_look_longer() {
        let spin = spin(MIN_NS, u32::MAX);
        let start = spin.until(|| false).expect("nothing came");
        spin.slept(start);
        assert_eq!(spin.budget_ns.load(Relaxed), 2 * MIN_NS);
    }

    #[test]
    fn one_processor_never_polls() {
        let spin = spin(0, 0);
        let mut looks = 0;
        let start = spin.until(|| {
            looks += 1;
            false
        });
        spin.slept(start.expect("nothing came"));
        assert_eq!((looks, spin.budget_ns.load(Relaxed)), (1, 0));
    }
}
