//! How long to look before sleeping: longer while looking pays off, shorter while it does not.
//!
//! ```text
//! found by looking ───────────────▶ the longest budget
//! looked in vain, slept ──────────▶ half of it, and so on down to the shortest
//! at the shortest, slept a while that the longest would have spared ──▶ the longest once more, as a probe;
//!                                   after each probe in vain twice as many such sleeps pass before the next
//! ```
//! So two sides that sleep after each call find back to polling; and two that share a processor, where looking only keeps the peer from
//! answering, stop doing so. Who has looked for a while lets others run between looks: one that is alone there loses nothing.

use std::time::{Duration, Instant};

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// An adaptive limit on polling. Shared by the threads of a channel; its races cost accuracy only.
#[derive(Debug)]
pub(crate) struct Spin {
    budget_ns: AtomicU32,
    max_ns: u32,
    /// Probes in vain since looking last paid off.
    vain: AtomicU32,
    /// Short sleeps that pass before the next probe.
    skip: AtomicU32,
}

/// Below this a look is over before the peer could have answered.
const MIN_NS: u32 = 1_000;
/// Looks between two readings of the clock.
const LOOKS: u32 = 32;
/// For so long a look keeps its processor: a peer that is awake has answered by then.
const ALONE: Duration = Duration::from_micros(50);
/// A probe and the halvings after it look for twice the longest budget: 400 µs in a GPU channel. Each 2^8 short sleeps, that is about
/// 1.5 µs for each of them.
const VAIN_MAX: u32 = 8;

impl Spin {
    /// Polls at most `max` before a sleep, and not at all where this process has one processor only: the peer could not run.
    pub(crate) fn new(max: Duration) -> Self {
        let alone = std::thread::available_parallelism().is_ok_and(|n| n.get() == 1);
        let max_ns = if alone { 0 } else { u32::try_from(max.as_nanos()).unwrap_or(u32::MAX) };
        Self::with_budget(max_ns, max_ns)
    }

    fn with_budget(budget_ns: u32, max_ns: u32) -> Self {
        Self {
            budget_ns: AtomicU32::new(budget_ns),
            max_ns,
            vain: AtomicU32::new(0),
            skip: AtomicU32::new(0),
        }
    }

    /// Looks until `ready` says so (`None`) or the budget is used up: then the time at which it began. The caller goes to sleep, which
    /// looks once more, and hands that time to [`Spin::slept`] when it is awake again.
    pub(crate) fn until(&self, mut ready: impl FnMut() -> bool) -> Option<Instant> {
        let start = Instant::now();
        if self.max_ns == 0 {
            return (!ready()).then_some(start);
        }
        let budget = self.budget_ns.load(Relaxed);
        loop {
            for _ in 0..LOOKS {
                if ready() {
                    if budget != self.max_ns || self.vain.load(Relaxed) != 0 {
                        self.budget_ns.store(self.max_ns, Relaxed);
                        self.vain.store(0, Relaxed);
                    }
                    return None;
                }
                std::hint::spin_loop();
            }
            // Where others take the rest of the time, a sleep is better: its end comes before theirs.
            if (ALONE.as_nanos()..u128::from(budget)).contains(&start.elapsed().as_nanos()) {
                give_way();
            }
            if start.elapsed().as_nanos() >= u128::from(budget) {
                return Some(start);
            }
        }
    }

    /// After a sleep of a wait that began at `start`.
    pub(crate) fn slept(&self, start: Instant) {
        self.waited(|| start.elapsed());
    }

    /// After a wait with a sleep, of this length.
    fn waited(&self, length: impl FnOnce() -> Duration) {
        let budget = self.budget_ns.load(Relaxed);
        if budget > MIN_NS {
            let less = (budget / 2).max(MIN_NS);
            self.budget_ns.store(less, Relaxed);
            if less == MIN_NS {
                let vain = (self.vain.load(Relaxed) + 1).min(VAIN_MAX);
                self.vain.store(vain, Relaxed);
                self.skip.store(1 << vain, Relaxed);
            }
            return;
        }
        // A half more than the longest look: the wait had this thread's own wake-up in it.
        if length().as_nanos() > u128::from(self.max_ns) * 3 / 2 {
            return;
        }
        match self.skip.load(Relaxed) {
            0 => self.budget_ns.store(self.max_ns, Relaxed),
            left => self.skip.store(left - 1, Relaxed),
        }
    }
}

/// Lets others have the processor.
fn give_way() {
    #[cfg(all(test, not(loom)))]
    tests::GAVE_WAY.set(tests::GAVE_WAY.get() + 1);
    std::thread::yield_now();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How often this thread's looks let others run.
        pub(super) static GAVE_WAY: Cell<u32> = const { Cell::new(0) };
    }

    const MAX_NS: u32 = 16_000;

    fn budget(spin: &Spin) -> u32 {
        spin.budget_ns.load(Relaxed)
    }

    /// A wait in vain whose sleep ended at once.
    fn short_sleep(spin: &Spin) {
        spin.until(|| false);
        spin.waited(|| Duration::ZERO);
    }

    /// A wait that ended long after any look would have.
    fn long_sleep(spin: &Spin) {
        let start = spin.until(|| false).expect("nothing came");
        std::thread::sleep(Duration::from_millis(1));
        spin.slept(start);
    }

    /// Short sleeps until the next probe.
    fn until_the_probe(spin: &Spin) -> u32 {
        (1..1000)
            .find(|_| {
                short_sleep(spin);
                budget(spin) == MAX_NS
            })
            .expect("a probe")
    }

    #[test]
    fn the_budget_shrinks_while_nothing_comes_and_is_whole_when_something_does() {
        let spin = Spin::with_budget(MAX_NS, MAX_NS);
        long_sleep(&spin);
        assert_eq!(budget(&spin), MAX_NS / 2);
        for _ in 0..9 {
            long_sleep(&spin);
        }
        assert_eq!(budget(&spin), MIN_NS);
        assert!(spin.until(|| true).is_none());
        assert_eq!(budget(&spin), MAX_NS);
    }

    #[test]
    fn short_sleeps_lead_to_a_probe_and_each_one_in_vain_to_fewer_of_them() {
        let spin = Spin::with_budget(MIN_NS, MAX_NS);
        assert_eq!(until_the_probe(&spin), 1);
        // Four halvings, then 2 to the power of the probes in vain, then the probe itself; not without end.
        for vain in [1, 2, 3, 4, 5, 6, 7, 8, 8] {
            assert_eq!(until_the_probe(&spin), 4 + (1 << vain) + 1);
        }
        assert!(spin.until(|| true).is_none());
        while budget(&spin) > MIN_NS {
            short_sleep(&spin);
        }
        assert_eq!(until_the_probe(&spin), 3, "what paid off is probed as seldom as what did not");
    }

    #[test]
    fn a_long_look_lets_others_run_and_finds_what_comes_meanwhile() {
        let spin = Spin::with_budget(u32::MAX, u32::MAX);
        let before = GAVE_WAY.get();
        assert!(
            spin.until(|| GAVE_WAY.get() == before + 3).is_none(),
            "nothing comes while it keeps the processor"
        );
    }

    #[test]
    fn a_short_look_keeps_its_processor() {
        let spin = Spin::with_budget(MAX_NS, MAX_NS);
        let before = GAVE_WAY.get();
        assert!(spin.until(|| false).is_some());
        assert_eq!(GAVE_WAY.get(), before);
    }

    #[test]
    fn one_processor_never_polls() {
        let spin = Spin::with_budget(0, 0);
        let mut looks = 0;
        let start = spin.until(|| {
            looks += 1;
            false
        });
        spin.slept(start.expect("nothing came"));
        assert_eq!((looks, budget(&spin)), (1, 0));
    }
}
