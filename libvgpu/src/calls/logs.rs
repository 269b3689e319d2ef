//! What failed, as lines (`core/logs.rs`). These answer before `cuInit`, too, but not in a child of fork.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

use vgpu_api::{CuError, CuResult};

use crate::abi::{In, Out, Raw, Span, export};
use crate::core::logs::{self, LogCallback};
use crate::core::process::forked;

/// Another thread of a parent may have had the lock, for ever here.
fn not_in_a_child() -> CuResult<()> {
    if forked() { Err(CuError::NOT_INITIALIZED) } else { Ok(()) }
}

/// Flags that have to be 0.
fn no_flags(flags: u32) -> CuResult<()> {
    if flags == 0 { Ok(()) } else { Err(CuError::INVALID_VALUE) }
}

/// Where an optional iterator stands.
fn place_of(iterator: Out<u32>) -> CuResult<Option<u32>> {
    if iterator.address() == 0 { Ok(None) } else { iterator.get().map(Some) }
}

export! {
    fn cuLogsRegisterCallback(callback: Option<LogCallback>, data: Span, handle: Out<u64>) {
        not_in_a_child()?;
        let callback = callback.ok_or(CuError::INVALID_VALUE)?;
        handle.set_if_wanted(logs::listen(callback, data.address()));
        Ok(())
    }

    fn cuLogsUnregisterCallback(handle: Raw) {
        not_in_a_child()?;
        logs::unlisten(handle.0)
    }

    fn cuLogsCurrent(iterator: Out<u32>, flags: u32) {
        not_in_a_child()?;
        no_flags(flags)?;
        iterator.set(logs::next())
    }

    fn cuLogsDumpToFile(iterator: Out<u32>, path: In<c_char>, flags: u32) {
        not_in_a_child()?;
        let path = OsStr::from_bytes(path.text()?.to_bytes());
        no_flags(flags)?;
        let (lines, next) = logs::lines(place_of(iterator)?, usize::MAX);
        std::fs::write(path, lines.unwrap_or_default()).map_err(|_| CuError::INVALID_VALUE)?;
        iterator.set_if_wanted(next);
        Ok(())
    }

    fn cuLogsDumpToMemory(iterator: Out<u32>, buffer: Out<u8>, bytes: Out<usize>, flags: u32) {
        not_in_a_child()?;
        let (buffer, bytes) = (buffer.wanted()?, bytes.wanted()?);
        no_flags(flags)?;
        let room = bytes.replace(0)?;
        let kept = room.checked_sub(1).ok_or(CuError::INVALID_VALUE)?;
        let (lines, next) = logs::lines(place_of(iterator)?, kept);
        let lines = lines.ok_or(CuError::INVALID_VALUE)?;
        buffer.set_text(lines.as_bytes(), room)?;
        iterator.set_if_wanted(next);
        bytes.set(lines.len())
    }
}
