//! The atomics, cells and locks that the channels are made of: std's, or loom's, which tries the interleavings of a model.
//!
//! Only what takes part in a protocol with the peer or between threads comes from here.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};

/// Locks, and goes on with the data as it is if a thread died with the lock: our locked sections leave it consistent at each step.
/// (Under loom a lock is never poisoned: a panic ends the model.)
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
