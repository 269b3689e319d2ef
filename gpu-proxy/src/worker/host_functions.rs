//! Functions of the program that a stream calls. The device's thread that stands still for one posts its number in the guest's
//! mailbox and looks there until the guest has run it: the worker's loop, which may itself be waiting for that stream, has no part in it.
//!
//! A guest that never answers holds up its own streams and nothing else; its worker, and with it that thread, ends with its process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vgpu_api::host_function::{DONE, FUNCTION, MAILBOX_BYTES, POSTED, STATUS};
use vgpu_api::{CuError, CuResult, Staged};

use super::staging::Staging;
use crate::device::{GraphFunction, HostFunction};

/// Functions that may be queued at once.
const QUEUED_MAX: usize = 1 << 16;
/// How long the waiting thread only gives way to others: most functions are short.
const SPIN: Duration = Duration::from_micros(50);
/// Then it sleeps between two looks, twice as long each time, up to the second figure.
const SLEEPS: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(1));

/// All of one guest process. Dropped: nobody waits for the guest any more.
#[derive(Debug)]
pub struct HostFunctions {
    mailbox: Arc<Mailbox>,
}

struct Mailbox {
    staging: Arc<dyn Staging>,
    /// Where it begins in staging.
    at: usize,
    /// How many were posted. Held while the guest runs one: functions of several streams take turns.
    posted: Mutex<u64>,
    /// Of all contexts, and of failed ones, whose functions a device never calls.
    queued: AtomicUsize,
    ended: AtomicBool,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Counts the functions that are queued in one context.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    /// Whether there is one.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// A function of the guest's in a graph.
#[derive(Clone)]
pub struct GraphCall {
    function: GraphFunction,
    of: Count,
}

impl std::fmt::Debug for GraphCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphCall").field("of", &self.of).finish_non_exhaustive()
    }
}

impl GraphCall {
    /// What the device gets.
    #[must_use]
    pub fn function(&self) -> GraphFunction {
        Arc::clone(&self.function)
    }
}

/// Counts one function as long as it is queued.
struct Queued(Arc<Mailbox>, Count);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.forget(&self.1);
    }
}

impl HostFunctions {
    /// Over the guest's mailbox.
    ///
    /// # Errors
    /// 1 for one that is too short, not at a multiple of 8, or outside of staging.
    pub fn new(staging: Arc<dyn Staging>, mailbox: Staged) -> CuResult<Self> {
        let range = mailbox.range(staging.len()).ok_or(CuError::INVALID_VALUE)?;
        if range.len() < MAILBOX_BYTES || !range.start.is_multiple_of(8) {
            return Err(CuError::INVALID_VALUE);
        }
        let mailbox = Mailbox {
            staging,
            at: range.start,
            posted: Mutex::new(0),
            queued: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        };
        Ok(Self { mailbox: Arc::new(mailbox) })
    }

    /// Whether there is one that the guest has not run.
    #[must_use]
    pub fn is_any_queued(&self) -> bool {
        self.mailbox.queued.load(Ordering::Relaxed) > 0
    }

    /// What the device calls when the guest's function `number` is due, in a context that counts it by `of`.
    ///
    /// # Errors
    /// 2 when too many are queued.
    pub fn function(&self, number: u64, of: &Count) -> CuResult<HostFunction> {
        let queued = Queued(Arc::clone(&self.mailbox), of.clone());
        queued.1.0.fetch_add(1, Ordering::Relaxed);
        if self.mailbox.queued.fetch_add(1, Ordering::Relaxed) >= QUEUED_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        Ok(Box::new(move |status| queued.0.run(number, status)))
    }

    /// What the device calls each time that a graph comes to the guest's function `number`, in a context that counts it by `of`.
    #[must_use]
    pub fn of_graph(&self, number: u64, of: &Count) -> GraphCall {
        let (mailbox, counted) = (Arc::clone(&self.mailbox), of.clone());
        let function = Arc::new(move || {
            mailbox.run(number, 0);
            mailbox.forget(&counted);
        });
        GraphCall { function, of: of.clone() }
    }

    /// A graph is about to be launched that makes these calls.
    ///
    /// # Errors
    /// 2 when too many are queued.
    pub fn expect(&self, calls: &[GraphCall]) -> CuResult<()> {
        if calls.len() > QUEUED_MAX.saturating_sub(self.mailbox.queued.load(Ordering::Relaxed)) {
            return Err(CuError::OUT_OF_MEMORY);
        }
        for call in calls {
            self.mailbox.queued.fetch_add(1, Ordering::Relaxed);
            call.of.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The launch was refused.
    pub fn forget(&self, calls: &[GraphCall]) {
        calls.iter().for_each(|call| self.mailbox.forget(&call.of));
    }
}

impl Drop for HostFunctions {
    fn drop(&mut self) {
        self.mailbox.ended.store(true, Ordering::Relaxed);
    }
}

impl Mailbox {
    /// One is no longer queued. A driver that refused a graph's launch because of an older error may have queued it all the same, so
    /// that there may be none.
    fn forget(&self, of: &Count) {
        for count in [&self.queued, &*of.0] {
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| now.checked_sub(1));
        }
    }

    /// Returns when the guest has run the function.
    fn run(&self, number: u64, status: u32) {
        let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        *posted += 1;
        self.write(FUNCTION, number);
        self.write(STATUS, status.into());
        // Before `posted` is seen.
        fence(Ordering::Release);
        self.write(POSTED, *posted);
        self.staging.wake();
        let start = Instant::now();
        let mut sleep = SLEEPS.0;
        while self.read(DONE) != *posted && !self.ended.load(Ordering::Relaxed) {
            if start.elapsed() < SPIN {
                thread::yield_now();
            } else {
                thread::sleep(sleep);
                sleep = (2 * sleep).min(SLEEPS.1);
            }
        }
        // What the function wrote is seen by what the stream does next.
        fence(Ordering::Acquire);
    }

    fn read(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        self.staging.read(self.at + at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn write(&self, at: usize, value: u64) {
        self.staging.write(self.at + at, &value.to_le_bytes());
    }
}
