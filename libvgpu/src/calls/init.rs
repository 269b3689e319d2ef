//! Start, version, errors, and calls that need no answer.

use std::ffi::c_char;

use vgpu_api::result::describe;
use vgpu_api::{CuError, CuResult};

use crate::abi::{Out, export};
use crate::core::process;

/// A text of ours with its NUL.
fn give_text(out: Out<*const c_char>, text: Option<&'static str>) -> CuResult<()> {
    match text {
        Some(text) => out.set(text.as_ptr().cast()),
        None => {
            out.set(std::ptr::null())?;
            Err(CuError::INVALID_VALUE)
        }
    }
}

export! {
    /// Connects to the worker: the only call that does.
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        process::start()
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.set(process::driver_version().cast_signed())
    }

    fn cuGetErrorName(error: u32, text: Out<*const c_char>) {
        give_text(text, describe(error).map(|row| row.0))
    }

    fn cuGetErrorString(error: u32, text: Out<*const c_char>) {
        give_text(text, describe(error).map(|row| row.1))
    }

    /// There is no profiler to start: programs call this around what they would like to see.
    fn cuProfilerStart() {
        process::process().map(|_| ())
    }

    fn cuProfilerStop() {
        process::process().map(|_| ())
    }
}
