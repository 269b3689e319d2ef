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
#[derive(Debug)]
pub(crate) struct Caller {
    rung: AtomicU32,
}

impl Default for Caller {
    fn default() -> Self {
        Self { rung: AtomicU32::new(0) }
    }
}

impl Caller {
    /// Called after the news is published: whether the peer sleeps and has not been rung for. Of several threads one is told to ring.
    #[inline]
    pub(crate) fn must_ring(&self, word: &AtomicU32) -> bool {
        fence(SeqCst);
        let sleep = word.load(Relaxed);
        sleep != 0 && self.rung.load(Relaxed) != sleep && self.rung.swap(sleep, Relaxed) != sleep
    }
}
