//! Values of conditional nodes of graphs: kernels set them by number, who runs the graph reads them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The values that there are, by number.
#[derive(Debug, Default)]
pub struct Conditions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    last: u64,
    values: HashMap<u64, Weak<AtomicU32>>,
}

impl Conditions {
    /// A value of its own, and its number, which is never 0 and never given twice. It ends with the last who has it.
    pub fn create(&self, value: u32) -> (u64, Arc<AtomicU32>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.last += 1;
        if known.last.is_multiple_of(256) {
            known.values.retain(|_, value| value.strong_count() > 0);
        }
        let (number, value) = (known.last, Arc::new(AtomicU32::new(value)));
        known.values.insert(number, Arc::downgrade(&value));
        (number, value)
    }

    /// Sets what a kernel names. A number of nothing is nobody's: CUDA says nothing of it.
    pub(crate) fn set(&self, number: u64, value: u32) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.values.get(&number).and_then(Weak::upgrade) {
            place.store(value, Ordering::Relaxed);
        }
    }
}
