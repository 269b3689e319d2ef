//! Spreads what a guest asks for over time: each worker born and each question answered costs this domain something.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Births of workers that a guest gets at once; after them one in [`BIRTH_EVERY`]. Each costs this domain some milliseconds and
/// lines in the log, so a guest that opens and closes channels without end is slowed down.
pub(super) const BIRTHS_AT_ONCE: u32 = 64;
pub(super) const BIRTH_EVERY: Duration = Duration::from_millis(20);
/// Answers that a guest gets at once; after them one in [`ANSWER_EVERY`]. Each costs some ten microseconds.
pub(super) const ANSWERS_AT_ONCE: u32 = 256;
pub(super) const ANSWER_EVERY: Duration = Duration::from_millis(5);

/// Chunks of arenas that a guest gets at once; after them one in [`CHUNK_EVERY`]. Each costs this domain a millisecond or two.
pub(super) const CHUNKS_AT_ONCE: u32 = 128;
pub(super) const CHUNK_EVERY: Duration = Duration::from_millis(10);

/// Questions about shared memory that a worker gets answered at once; after them one in [`EXCHANGE_EVERY`].
pub(super) const EXCHANGES_AT_ONCE: u32 = 4096;
pub(super) const EXCHANGE_EVERY: Duration = Duration::from_millis(1);
/// The same of all workers of a zone, those that were and those that come: each birth would else bring as many anew.
pub(super) const ZONE_EXCHANGES_AT_ONCE: u32 = 4 * EXCHANGES_AT_ONCE;
pub(super) const ZONE_EXCHANGE_EVERY: Duration = Duration::from_micros(250);

/// A number of turns at once, then one after the other. Those who wait stand in a row, each in a task of its own: what else the guest
/// says is heard meanwhile.
#[derive(Debug)]
pub struct Pace {
    every: Duration,
    at_once: u32,
    last: Mutex<Instant>,
}

impl Pace {
    /// For births of workers.
    #[must_use]
    pub fn of_births() -> Self {
        Self::new(BIRTH_EVERY, BIRTHS_AT_ONCE)
    }

    /// For answers to questions.
    #[must_use]
    pub fn of_answers() -> Self {
        Self::new(ANSWER_EVERY, ANSWERS_AT_ONCE)
    }

    /// For chunks of arenas.
    #[must_use]
    pub fn of_chunks() -> Self {
        Self::new(CHUNK_EVERY, CHUNKS_AT_ONCE)
    }

    /// For what a worker asks about memory that its zone shares.
    #[must_use]
    pub fn of_exchanges() -> Self {
        Self::new(EXCHANGE_EVERY, EXCHANGES_AT_ONCE)
    }

    /// For what all workers of a zone ask.
    #[must_use]
    pub fn of_zone_exchanges() -> Self {
        Self::new(ZONE_EXCHANGE_EVERY, ZONE_EXCHANGES_AT_ONCE)
    }

    fn new(every: Duration, at_once: u32) -> Self {
        let mut pace = Self { every, at_once, last: Mutex::new(Instant::now()) };
        pace.last = Mutex::new(pace.earliest());
        pace
    }

    fn earliest(&self) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.every * self.at_once).unwrap_or(now)
    }

    /// Returns when the next one may be. Who gives up takes no turn.
    pub async fn wait(&self) {
        let mut last = self.last.lock().await;
        let next = (*last).max(self.earliest()) + self.every;
        tokio::time::sleep_until(next).await;
        *last = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_beyond_the_first_ones_wait_their_turn() {
        let pace = Pace::new(Duration::from_millis(20), 8);
        let start = Instant::now();
        for _ in 0..8 {
            pace.wait().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "the first ones wait");
        for _ in 0..3 {
            pace.wait().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(60), "the later ones do not");
    }
}
