//! Park and wake: how a side sleeps without missing the peer's news, and the peer rings only for a sleeper.
//!
//! One shared word each way, written by the sleeper alone: 0 awake, else the number of its sleep, a new one each time.
//! ```text
//! sleeper: word = n;  SeqCst fence;  look again;  sleep        ringer: publish;  SeqCst fence;  read word;  ring if it is new
//! ```
//! Of the two fences one is first, so either the sleeper sees the news or the ringer sees the sleeper. The ringer keeps the last number
//! it rang for in private memory: one ring a sleep, and no shared word has two writers.

use crate::sync::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// The sleeper's private half: numbers its sleeps.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    number: u32,
}

impl Sleeper {
    /// Says in `word` that this side is about to sleep. The caller looks again after it, and sleeps only if there is still no news.
    pub(crate) fn announce(&mut self, word: &AtomicU32) {
        self.number = match self.number.wrapping_add(1) {
            0 => 1,
            n => n,
        };
        word.store(self.number, Relaxed);
        fence(SeqCst);
    }

    /// Says in `word` that this side is awake: rings are not needed.
    pub(crate) fn awake(&self, word: &AtomicU32) {
        word.store(0, Relaxed);
    }
}

/// The ringer's private half: the last sleep it rang for.
#[derive(Debug, Default)]
pub(crate) struct Caller {
    rung: AtomicU32,
}

impl Caller {
    /// Called after the news is published: whether the peer sleeps and has not been rung for. Of several threads one is told to ring.
    #[inline]
    pub(crate) fn must_ring(&self, word: &AtomicU32) -> bool {
        fence(SeqCst);
        let sleep = word.load(Relaxed);
        sleep != 0 && self.rung.load(Relaxed) != sleep && self.rung.swap(sleep, Relaxed) != sleep
    }

    /// The last sleep that was rung for.
    pub(crate) fn rung(&self) -> u32 {
        self.rung.load(Relaxed)
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[derive(Default)]
    struct Shared {
        parked: AtomicU32,
        news: [AtomicU32; 2],
        rings: AtomicU32,
        caller: Caller,
    }

    /// Publishes one piece of news, and rings if it must.
    fn tell(shared: &Shared, which: usize) {
        shared.news[which].store(1, Relaxed);
        if shared.caller.must_ring(&shared.parked) {
            shared.rings.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_sleeper_is_rung_or_sees_the_news_itself() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            let twin = shared.clone();
            let ringer = thread::spawn(move || tell(&twin, 0));
            let mut sleeper = Sleeper::default();
            sleeper.announce(&shared.parked);
            let saw = shared.news[0].load(Relaxed) == 1;
            ringer.join().unwrap();
            assert!(saw || shared.rings.load(SeqCst) == 1, "asleep, and nobody rang");
        });
    }

    #[test]
    fn two_ringers_wake_a_sleeper_once_and_leave_no_news_behind() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            let ringers: Vec<_> = (0..2)
                .map(|which| {
                    let twin = shared.clone();
                    thread::spawn(move || tell(&twin, which))
                })
                .collect();
            let mut sleeper = Sleeper::default();
            sleeper.announce(&shared.parked);
            let saw = shared.news.iter().all(|news| news.load(Relaxed) == 1);
            ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
            let rings = shared.rings.load(SeqCst);
            assert!(rings <= 1, "{rings} rings for one sleep");
            assert!(saw || rings == 1, "asleep, and nobody rang");
        });
    }

    #[test]
    fn the_next_sleep_is_rung_for_again() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            let mut sleeper = Sleeper::default();
            sleeper.announce(&shared.parked);
            tell(&shared, 0);
            let twin = shared.clone();
            let ringer = thread::spawn(move || tell(&twin, 1));
            sleeper.awake(&shared.parked);
            sleeper.announce(&shared.parked);
            let saw = shared.news[1].load(Relaxed) == 1;
            ringer.join().unwrap();
            assert!(saw || shared.rings.load(SeqCst) == 2, "the second sleep was missed");
        });
    }
}
