//! Functions that the driver calls in a stream's order, from a thread of its own.

use std::collections::HashMap;
use std::ffi::c_int;
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use super::table::Ptr;
use crate::device::{GraphFunction, HostFunction};

/// So many numbers are given before it is looked which of them mean nothing any more.
const NUMBERS_MIN: usize = 1024;

/// Functions of graphs. The driver has their numbers in place of addresses, and may call one as long as a launch goes on, however often:
/// whether it is still there is found out by then.
static OF_GRAPHS: LazyLock<Mutex<Numbered>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Numbered {
    last: usize,
    known: HashMap<usize, Weak<dyn Fn() + Send + Sync>>,
    /// Of those, how many there were when it was looked last.
    alive: usize,
}

/// What the driver is given beside [`run_of_graph`].
pub fn give_of_graph(function: &GraphFunction) -> Ptr {
    let mut numbered = OF_GRAPHS.lock().unwrap_or_else(PoisonError::into_inner);
    if numbered.known.len() >= NUMBERS_MIN.max(2 * numbered.alive) {
        numbered.known.retain(|_, function| function.strong_count() > 0);
        numbered.alive = numbered.known.len();
    }
    numbered.last += 1;
    let number = numbered.last;
    numbered.known.insert(number, Arc::downgrade(function));
    ptr::without_provenance_mut(number)
}

/// `CUhostFn`.
///
/// # Safety
/// None is asked for: `data` is only a number.
pub unsafe extern "C" fn run_of_graph(data: Ptr) {
    let numbered = OF_GRAPHS.lock().unwrap_or_else(PoisonError::into_inner);
    let function = numbered.known.get(&data.addr()).and_then(Weak::upgrade);
    drop(numbered);
    if let Some(function) = function {
        function();
    }
}

/// What the driver is given beside [`run`] or [`run_told`]: for one call of it.
pub fn give(function: HostFunction) -> Ptr {
    // Twice boxed: the driver keeps one word.
    Box::into_raw(Box::new(function)).cast()
}

/// `CUhostFn`.
///
/// # Safety
/// `data` is from [`give`] and was not given before.
pub unsafe extern "C" fn run(data: Ptr) {
    // SAFETY: the caller's promise.
    let function = unsafe { take(data) };
    function(0);
}

/// `CUstreamCallback`.
///
/// # Safety
/// As [`run`].
pub unsafe extern "C" fn run_told(_stream: Ptr, status: c_int, data: Ptr) {
    // SAFETY: the caller's promise.
    let function = unsafe { take(data) };
    function(status.unsigned_abs());
}

/// A `CUhostFn` that does nothing: the driver starts the thread that calls it.
///
/// # Safety
/// None is asked for.
pub unsafe extern "C" fn nothing(_: Ptr) {}

unsafe fn take(data: Ptr) -> HostFunction {
    // SAFETY: made by `give`, and the caller promises that this is its only use.
    *unsafe { Box::from_raw(data.cast::<HostFunction>()) }
}
