//! Whose turn it is on the device: one page a worker, between it and the supervisor. A worker asks it before it queues work
//! ([`Turn::begin`]), and says in it what it has used.
//!
//! ```text
//! 0 until (supervisor) | 64 used | 72 since | 80 works | 88 sleepers (all of them: worker) | 4088 bell, u32 (supervisor)
//! 96 what Xen was asked for, four words (worker, before it sleeps)
//! until: how much may have been used; MAX: as much as it likes (FREE); MAX - 1: the same, but tell the supervisor first (WATCHED)
//! used:  counted by the device (`soft`: instructions), or time with work on it (`cuda`: ns); since: that time is running since then, 0: not
//! works: 0 it has nothing to do, 1 it has work; sleepers: its threads that sleep until `until` is raised
//! ```
//! A worker turns WATCHED to FREE by itself and rings for the supervisor: who begins is not held up. Uncontended it is one load.
//! A worker that was taken over can write all of its page. It says nothing there of others, and whoever rules a worker need not ask before
//! it reaches the driver; what the supervisor believes of it has bounds (`supervisor/sharing/policy.rs`).

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use idm::xen::metrics::ChannelCost;
use rustix::time::{ClockId, clock_gettime};

use crate::shared_page::SharedPage;

const UNTIL: usize = 0;
const USED: usize = 8;
const SINCE: usize = 9;
const WORKING: usize = 10;
const SLEEPERS: usize = 11;
const COST: usize = 12;

const FREE: u64 = u64::MAX;
const WATCHED: u64 = u64::MAX - 1;

/// What a worker may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All it likes: nobody else has work.
    Free,
    /// The same; it tells the supervisor when it begins.
    Watched,
    /// It may have used so much.
    Until(u64),
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which supervisor and workers have in common.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// The page, as the supervisor sees it.
#[derive(Clone, Debug)]
pub struct Ruled {
    page: Arc<SharedPage>,
}

/// What a worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// What it has used.
    pub used: u64,
    /// Whether it has work, or began some since it was told to say so.
    pub has_work: bool,
}

impl Ruled {
    /// Over a fresh page of zeros: it may do all it likes.
    #[must_use]
    pub fn new(page: Arc<SharedPage>) -> Self {
        page.store(UNTIL, FREE);
        Self { page }
    }

    /// What the worker says at `now_ns`.
    #[must_use]
    pub fn said(&self, was_watched: bool, now_ns: u64) -> Said {
        let since = self.page.load(SINCE);
        let running = if since == 0 { 0 } else { now_ns.saturating_sub(since) };
        let began = was_watched && self.page.load(UNTIL) != WATCHED;
        let has_work = began || self.page.load(WORKING) != 0;
        Said { used: self.page.load(USED).saturating_add(running), has_work }
    }

    /// Tells it. Whether it has work all the same if it was told to say when it begins: it may have begun meanwhile.
    pub fn tell(&self, order: Order) -> bool {
        self.page.store(
            UNTIL,
            match order {
                Order::Free => FREE,
                Order::Watched => WATCHED,
                Order::Until(used) => used.min(WATCHED - 1),
            },
        );
        if self.page.load(SLEEPERS) != 0 {
            self.page.ring();
        }
        order == Order::Watched && self.page.load(WORKING) != 0
    }
}

/// What the worker of this page has said that it asked of Xen; `None`: nothing, as over `local`.
#[must_use]
pub fn cost_said(page: &SharedPage) -> Option<ChannelCost> {
    let cost = ChannelCost::from_words(array::from_fn(|word| page.load(COST + word)));
    (cost != ChannelCost::default()).then_some(cost)
}

/// The page, as its worker sees it.
#[derive(Debug)]
pub struct Turn {
    page: SharedPage,
    /// Ours, as is `works`: nobody makes us count wrong.
    used: AtomicU64,
    works: AtomicBool,
}

impl Turn {
    /// Over the page that the supervisor made.
    #[must_use]
    pub fn new(page: SharedPage) -> Self {
        // The clock's first reader asks the kernel where the vDSO is (`PR_GET_AUXV`), which nobody may behind the door.
        let _ = now_ns();
        Self { page, used: AtomicU64::new(0), works: AtomicBool::new(false) }
    }

    /// Before work is queued. Whether it may be, whatever else there is: nobody waits for the device. `tell` rings for the supervisor.
    pub fn begin(&self, tell: impl FnOnce()) -> bool {
        if !self.works.load(Ordering::Relaxed) {
            self.works.store(true, Ordering::Relaxed);
            // Before `until` is read: either we see that we are watched, or the supervisor sees that we work.
            self.page.store(WORKING, 1);
        }
        match self.page.load(UNTIL) {
            FREE => true,
            WATCHED => {
                if self.page.replace(UNTIL, WATCHED, FREE) {
                    tell();
                }
                true
            }
            _ => false,
        }
    }

    /// There is nothing more to do.
    pub fn rest(&self) {
        if self.works.load(Ordering::Relaxed) {
            self.works.store(false, Ordering::Relaxed);
            self.page.store(WORKING, 0);
        }
    }

    /// Says what Xen was asked for, for the supervisor's log: the worker may be killed in its sleep.
    pub fn say_cost(&self, cost: ChannelCost) {
        for (word, value) in cost.to_words().into_iter().enumerate() {
            self.page.store(COST + word, value);
        }
    }

    /// Whether nobody waits for the device.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.page.load(UNTIL) >= WATCHED
    }

    /// Whether one that has used so much must wait.
    #[must_use]
    pub fn is_over(&self, used: u64) -> bool {
        used >= self.page.load(UNTIL)
    }

    /// Counts what a device that counts has done, and returns when it may go on. From any thread of the device.
    pub fn count(&self, done: u64) {
        let used = self.used.fetch_add(done, Ordering::Relaxed).saturating_add(done);
        self.page.store(USED, used);
        self.wait_while_over();
    }

    /// Returns when what a device that counts has done is not too much.
    pub fn wait_while_over(&self) {
        while self.sleep_if_over(self.used.load(Ordering::Relaxed), None) {}
    }

    /// Says what was used of a device that does not count, and since when it is being used.
    pub fn say(&self, used: u64, since: Option<u64>) {
        self.page.store(USED, used);
        self.page.store(SINCE, since.unwrap_or(0));
    }

    /// Sleeps, if one that has used so much must wait, until that may have changed; for `limit` at most. Whether it had to.
    pub fn sleep_if_over(&self, used: u64, limit: Option<Duration>) -> bool {
        if !self.is_over(used) {
            return false;
        }
        self.page.add(SLEEPERS, 1);
        let rings = self.page.rings();
        // Again, now that the supervisor knows that it has to ring.
        if self.is_over(used) {
            self.page.sleep(rings, limit);
        }
        self.page.add(SLEEPERS, u64::MAX);
        true
    }
}

#[cfg(test)]
mod tests;
