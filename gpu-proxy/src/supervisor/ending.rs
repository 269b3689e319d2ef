//! The ends of workers, from the word on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a worker was told to end: it still has its memory and its place until it is reaped.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// It was told to.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
