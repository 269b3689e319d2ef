//! What a channel costs in Xen, on the guest's side: said on the console at its end, and looked at by a story.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use idm::xen::metrics::COUNTERS;

/// Of one channel.
#[derive(Debug)]
pub struct Cost {
    /// The doorbell's, counted by who passes them on.
    pub rings: Arc<Rings>,
    pages: usize,
    chunks: usize,
}

/// Rings passed on, each an event.
#[derive(Debug, Default)]
pub struct Rings {
    to_proxy: AtomicU64,
    to_process: AtomicU64,
}

impl Rings {
    /// One of the process's.
    pub fn sent(&self) {
        self.to_proxy.fetch_add(1, Relaxed);
    }

    /// One of the proxy's.
    pub fn taken(&self) {
        self.to_process.fetch_add(1, Relaxed);
    }
}

impl Cost {
    /// Of a channel for which so many pages were granted.
    pub fn of(pages: usize) -> Self {
        Self { rings: Arc::default(), pages, chunks: 0 }
    }

    /// A chunk of its arena was asked for.
    pub fn granted(&mut self, refs: Option<&[u32]>) {
        self.pages += refs.map_or(0, <[u32]>::len);
        self.chunks += usize::from(refs.is_some());
    }
}

/// With what this whole guest has asked for since it began: what a story takes differences of.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rings, pages, chunks } = self;
        let (sent, taken) = (rings.to_proxy.load(Relaxed), rings.to_process.load(Relaxed));
        write!(f, "{sent} events sent, {taken} taken, {pages} pages granted, {chunks} chunks of an arena; ")?;
        let all =
            [&COUNTERS.requests, &COUNTERS.events_sent, &COUNTERS.xenstore_requests, &COUNTERS.pages_granted];
        let [requests, events, xenstore, granted] = all.map(|counter| counter.get());
        write!(
            f,
            "the guest so far: {requests} requests, {events} of them events, {xenstore} to xenstore, {granted} pages granted now"
        )
    }
}
