//! Log lines that a guest causes: what its workers write, and what is said here of them. All of a zone have one budget, or a journal
//! that drops what comes too fast would drop other zones' lines with them.

use std::fmt::Arguments;
use std::sync::Mutex;
use std::time::Duration;

use log::Level;
use tokio::time::Instant;
use vgpu_zone_api::shim::ZoneId;

use super::lock;

/// Lines of one zone in a second. journald's default limit is some 300 a second, of all zones together.
const LINES_PER_SECOND: usize = 50;
const SECOND: Duration = Duration::from_secs(1);
/// What says a line that no worker wrote.
const TARGET: &str = "gpu_proxy::supervisor";

/// The log of one zone.
#[derive(Debug)]
pub struct ZoneLog {
    zone: ZoneId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    budget: Budget,
    /// Lines since the last one that was in the budget.
    dropped: u64,
}

impl ZoneLog {
    /// With a whole second's lines.
    pub fn new(zone: ZoneId) -> Self {
        let budget = Budget::new(LINES_PER_SECOND, Instant::now());
        Self { zone, state: Mutex::new(State { budget, dropped: 0 }) }
    }

    /// Says it, unless the zone has had its lines of this second.
    pub fn info(&self, text: Arguments<'_>) {
        self.line(Level::Info, TARGET, text);
    }

    /// As [`ZoneLog::info`].
    pub fn warn(&self, text: Arguments<'_>) {
        self.line(Level::Warn, TARGET, text);
    }

    /// As [`ZoneLog::info`], in the name of `target`.
    pub fn line(&self, level: Level, target: &str, text: Arguments<'_>) {
        let zone = self.zone;
        if level > log::max_level() {
            return;
        }
        let Some(dropped) = self.take(Instant::now()) else { return };
        if dropped > 0 {
            log::warn!(target: TARGET, "zone {zone}: {dropped} lines dropped");
        }
        log::log!(target: target, level, "zone {zone}: {text}");
    }

    /// Takes one line. How many were dropped before it; `None`: this one is, too.
    fn take(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.state);
        if state.budget.take(now).is_some() {
            state.dropped += 1;
            return None;
        }
        Some(std::mem::take(&mut state.dropped))
    }
}

/// Lines that may still be taken in the second that began with the first of them.
#[derive(Debug)]
pub struct Budget {
    per_second: usize,
    start: Instant,
    left: usize,
}

impl Budget {
    /// A whole second's.
    pub fn new(per_second: usize, now: Instant) -> Self {
        Self { per_second, start: now, left: per_second }
    }

    /// Takes one line, or says when there is one to take again.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        if now.saturating_duration_since(self.start) >= SECOND {
            *self = Self::new(self.per_second, now);
        }
        if self.left == 0 {
            return Some(self.start + SECOND);
        }
        self.left -= 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::supervisor::worker_log::follow;

    #[test]
    fn a_zone_has_its_lines_of_each_second_and_is_told_of_the_others() {
        let log = ZoneLog::new(ZoneId(Uuid::from_u128(1)));
        let start = Instant::now();
        let said = (0..3 * LINES_PER_SECOND).filter(|_| log.take(start) == Some(0)).count();
        assert_eq!(said, LINES_PER_SECOND);
        assert_eq!(log.take(start + SECOND / 2), None);
        assert_eq!(log.take(start + 2 * SECOND), Some(2 * LINES_PER_SECOND as u64 + 1));
        assert_eq!(log.take(start + 2 * SECOND), Some(0));
    }

    #[tokio::test]
    async fn the_workers_of_a_zone_share_its_lines() {
        log::set_max_level(log::LevelFilter::Info);
        // One second, however long this test takes.
        let later = Instant::now() + 3600 * SECOND;
        let state = Mutex::new(State { budget: Budget::new(LINES_PER_SECOND, later), dropped: 0 });
        let log = ZoneLog { zone: ZoneId(Uuid::from_u128(1)), state };
        for worker in 1..=3 {
            let (read, write) = rustix::pipe::pipe().unwrap();
            rustix::io::write(&write, &[b'\n'; 20]).unwrap();
            drop(write);
            follow(worker, read, &log).await;
        }
        assert_eq!(log.take(later + 2 * SECOND), Some(10));
    }

    #[test]
    fn lines_that_come_slowly_leave_the_budget_whole() {
        let start = Instant::now();
        let mut budget = Budget::new(20, start);
        for tenths in 0..100 {
            let now = start + SECOND * tenths / 10;
            assert_eq!(budget.take(now), None, "after {tenths} tenths of a second");
        }
        let last = start + SECOND * 10;
        for _ in 0..20 {
            assert_eq!(budget.take(last), None);
        }
        assert_eq!(budget.take(last), Some(last + SECOND));
        assert_eq!(budget.take(last + SECOND), None);
    }
}
