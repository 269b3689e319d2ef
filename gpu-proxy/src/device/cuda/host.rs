//! Functions that the driver calls in a stream's order, from a thread of its own.

use std::ffi::c_int;

use super::table::Ptr;
use crate::device::HostFunction;

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
