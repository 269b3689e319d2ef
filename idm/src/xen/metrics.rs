//! What this process asked of Xen, counted: event sends and round trips are what an inter-domain call costs, so tests assert them. Hypercalls
//! are the kernel's: what is counted is what it was asked for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only says how often: no ordering is derived from it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(super) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of this process.
#[derive(Debug)]
pub struct Counters {
    /// Ioctls of Xen's devices that the kernel has done, event sends among them.
    pub requests: Counter,
    /// Event sends: NOTIFY ioctls of `/dev/xen/evtchn`, for each of which the kernel does one hypercall, `EVTCHNOP_send`. Source: Linux,
    /// `drivers/xen/evtchn.c`.
    pub events_sent: Counter,
    /// Event channels read: wake-ups taken.
    pub events_taken: Counter,
    /// Ports unmasked (the end of an interrupt, one system call each).
    pub unmasks: Counter,
    /// Mappings made, each of all pages of a channel.
    pub maps: Counter,
    /// Pages of other domains mapped now.
    pub pages_mapped: Counter,
    /// Own pages granted now.
    pub pages_granted: Counter,
    /// Requests to xenstored, each one round trip.
    pub xenstore_requests: Counter,
    /// Transactions that xenstored had us do again.
    pub xenstore_conflicts: Counter,
    /// Calls of a teardown that the kernel refused; closing the descriptor did the same work then.
    pub teardown_failures: Counter,
}

/// The counters of this process.
pub static COUNTERS: Counters = Counters {
    requests: Counter::new(),
    events_sent: Counter::new(),
    events_taken: Counter::new(),
    unmasks: Counter::new(),
    maps: Counter::new(),
    pages_mapped: Counter::new(),
    pages_granted: Counter::new(),
    xenstore_requests: Counter::new(),
    xenstore_conflicts: Counter::new(),
    teardown_failures: Counter::new(),
};

/// What a process that serves one channel has asked of Xen for it: four of its counters, in four words for a page that it shares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelCost {
    /// [`Counters::events_sent`].
    pub events_sent: u64,
    /// [`Counters::events_taken`].
    pub events_taken: u64,
    /// [`Counters::maps`].
    pub maps: u64,
    /// [`Counters::pages_mapped`].
    pub pages_mapped: u64,
}

impl ChannelCost {
    /// This process's, now. All zeros where no page of another domain was mapped.
    pub fn now() -> Self {
        Self {
            events_sent: COUNTERS.events_sent.get(),
            events_taken: COUNTERS.events_taken.get(),
            maps: COUNTERS.maps.get(),
            pages_mapped: COUNTERS.pages_mapped.get(),
        }
    }

    /// In the order of the fields.
    pub fn to_words(self) -> [u64; 4] {
        [self.events_sent, self.events_taken, self.maps, self.pages_mapped]
    }

    /// The reverse of [`ChannelCost::to_words`]. Any values: they are only shown.
    pub fn from_words([events_sent, events_taken, maps, pages_mapped]: [u64; 4]) -> Self {
        Self { events_sent, events_taken, maps, pages_mapped }
    }
}

impl fmt::Display for ChannelCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events_sent, events_taken, maps, pages_mapped } = self;
        write!(
            f,
            "{events_sent} events sent, {events_taken} taken, {pages_mapped} pages mapped in {maps} pieces"
        )
    }
}
