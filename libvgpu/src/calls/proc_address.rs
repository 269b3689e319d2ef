//! `cuGetProcAddress`, both ABIs: of CUDA 11, without a status, and of CUDA 12. Asked some four hundred times by each copy of cudart.

use std::ffi::{CStr, c_char};

use vgpu_api::symbols::{Choice, Mode, choose};
use vgpu_api::{CuError, CuResult};

use super::generated::BASES;
use crate::abi::{In, Out, export};
use vgpu_api::CUDA_VERSION;

/// One form of a call.
#[derive(Debug)]
pub struct Form {
    pub version: u32,
    pub mode: Mode,
    pub address: *const (),
}

/// All forms of a call.
#[derive(Debug)]
pub struct Base {
    pub name: &'static str,
    pub forms: &'static [Form],
}

// SAFETY: the addresses are those of functions of this library, which never move.
unsafe impl Sync for Form {}

const FOUND: u32 = 0;
const NOT_FOUND: u32 = 1;
const VERSION_NOT_SUFFICIENT: u32 = 2;
/// `CU_GET_PROC_ADDRESS_LEGACY_STREAM`, `…_PER_THREAD_DEFAULT_STREAM`.
const FLAG_LEGACY: u64 = 1;
const FLAG_PER_THREAD: u64 = 2;

/// The address for a name, and the query's status.
fn find(name: &CStr, version: i32, mode: Mode) -> CuResult<(*const (), u32)> {
    let version = u32::try_from(version).map_err(|_| CuError::INVALID_VALUE)?;
    let name = name.to_str().ok().filter(|name| !name.is_empty()).ok_or(CuError::INVALID_VALUE)?;
    if version > CUDA_VERSION {
        return Err(CuError::INVALID_VALUE);
    }
    let forms =
        BASES.binary_search_by_key(&name, |base| base.name).map_or(&[][..], |place| BASES[place].forms);
    Ok(match choose(forms, version, mode, |form| (form.version, form.mode)) {
        Choice::Found(form) => (form.address, FOUND),
        Choice::TooOld => (std::ptr::null(), VERSION_NOT_SUFFICIENT),
        Choice::Unknown => (std::ptr::null(), NOT_FOUND),
    })
}

fn answer(
    symbol: In<c_char>,
    pfn: Out<*const ()>,
    version: i32,
    flags: u64,
    mode: Mode,
    status: Option<Out<u32>>,
) -> CuResult<()> {
    let mode = match flags {
        0 => mode,
        FLAG_LEGACY => Mode::Legacy,
        _ if flags & !(FLAG_LEGACY | FLAG_PER_THREAD) == 0 => Mode::PerThread,
        _ => return Err(CuError::INVALID_VALUE),
    };
    // Who doesn't look at the code finds nothing, rather than what was there before.
    pfn.set(std::ptr::null())?;
    let (address, found) = find(symbol.text()?, version, mode)?;
    pfn.set(address)?;
    match status {
        Some(status) => {
            status.set_if_wanted(found);
            Ok(())
        }
        // The older form has no other way to say it.
        None if found != FOUND => Err(CuError::NOT_FOUND),
        None => Ok(()),
    }
}

export! {
    fn cuGetProcAddress(symbol: In<c_char>, pfn: Out<*const ()>, version: i32, flags: u64) {
        answer(symbol, pfn, version, flags, Mode::Legacy, None)
    }

    fn cuGetProcAddress_v2 | cuGetProcAddress_v2_ptsz(
        mode, symbol: In<c_char>, pfn: Out<*const ()>, version: i32, flags: u64, status: Out<u32>,
    ) {
        answer(symbol, pfn, version, flags, mode, Some(status))
    }
}
