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

    /// Looks until `ready` says so (true) or the budget is used up (false).
    pub(crate) fn until(&self, mut ready: impl FnMut() -> bool) -> bool {
        if self.max_ns == 0 {
            return ready();
        }
        let budget = self.budget_ns.load(Relaxed);
        let start = Instant::now();
        let mut found = false;
        while !found {
            for _ in 0..LOOKS {
                if ready() {
                    found = true;
                    break;
                }
                std::hint::spin_loop();
            }
            if !found && start.elapsed().as_nanos() >= u128::from(budget) {
                break;
            }
        }
        let next = if found { budget.saturating_mul(2).min(self.max_ns) } else { (budget / 2).max(MIN_NS) };
        if next != budget {
            self.budget_ns.store(next, Relaxed);
        }
        found
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_budget_shrinks_when_nothing_comes_and_grows_when_something_does() {
        let spin = Spin { budget_ns: AtomicU32::new(8_000), max_ns: 16_000 };
        assert!(!spin.until(|| false));
        assert_eq!(spin.budget_ns.load(Relaxed), 4_000);
        for _ in 0..9 {
            assert!(!spin.until(|| false));
        }
        assert_eq!(spin.budget_ns.load(Relaxed), MIN_NS);
        for _ in 0..9 {
            assert!(spin.until(|| true));
        }
        assert_eq!(spin.budget_ns.load(Relaxed), 16_000);
    }
}
