//! Start, version, errors, and calls that need no answer.

use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;

use vgpu_api::result::describe;
use vgpu_api::{CuError, CuResult};

use crate::abi::{In, Out, Raw, export};
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

/// Flags that have to be 0.
fn no_flags(flags: u32) -> CuResult<()> {
    if flags == 0 { Ok(()) } else { Err(CuError::INVALID_VALUE) }
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

    /// The driver's log lines stay on the worker's side.
    fn cuLogsRegisterCallback(_callback: In<u8>, _user: In<u8>, handle: Out<u64>) {
        handle.set_if_wanted(1);
        Ok(())
    }

    fn cuLogsUnregisterCallback(_handle: Raw) {
        Ok(())
    }

    /// There are no lines here: the newest is the first.
    fn cuLogsCurrent(iterator: Out<u32>, flags: u32) {
        no_flags(flags)?;
        iterator.set(0)
    }

    fn cuLogsDumpToFile(_iterator: In<u32>, path: In<c_char>, flags: u32) {
        let path = std::ffi::OsStr::from_bytes(path.text()?.to_bytes());
        no_flags(flags)?;
        std::fs::File::create(path).map(drop).map_err(|_| CuError::INVALID_VALUE)
    }

    fn cuLogsDumpToMemory(_iterator: In<u32>, buffer: Out<u8>, bytes: Out<usize>, flags: u32) {
        let (buffer, bytes) = (buffer.wanted()?, bytes.wanted()?);
        no_flags(flags)?;
        let room = bytes.replace(0)?;
        if room == 0 { Err(CuError::INVALID_VALUE) } else { buffer.set(0) }
    }
}
