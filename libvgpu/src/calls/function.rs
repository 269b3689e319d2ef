//! Functions and kernels: one id space, so a `CUkernel` is its `CUfunction`.

use std::ffi::c_char;

use vgpu_api::handle::kind;
use vgpu_api::{CuError, CuResult, FunctionHandle, ImageKind, ask};

use super::device::device;
use crate::abi::{Out, Raw, export};
use crate::core::contexts::{Entered, enter};
use crate::core::functions::Function;
use crate::core::images::Image;
use crate::core::process::process;

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
pub const MAX_DYNAMIC_SHARED: u32 = 8;
/// `CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN`.
const DEVICE_SHARED_OPTIN: u32 = 97;
/// `CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES`: static shared memory.
const STATIC_SHARED: u32 = 1;

/// `CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT`: per cent, -1 for none; `…_CLUSTER_SCHEDULING_POLICY_PREFERENCE`.
const CARVEOUT: u32 = 9;
const SCHEDULING: u32 = 15;
/// The last `CUfunc_cache` and `CUsharedconfig`.
const CACHE_LAST: u32 = 3;
const BANKS_LAST: u32 = 2;

fn preference(raw: Raw, value: u32, last: u32) -> CuResult<()> {
    with(raw, |_, _, _| if value <= last { Ok(()) } else { Err(CuError::INVALID_VALUE) })
}

/// Runs `body` with a function of the program.
fn with<T>(raw: Raw, body: impl FnOnce(FunctionHandle, &Image, &Function) -> CuResult<T>) -> CuResult<T> {
    process()?.images.with_function(raw.0, body)
}

fn get_attribute(out: Out<i32>, number: u32, raw: Raw) -> CuResult<()> {
    let entered = enter()?;
    with(raw, |handle, _, function| out.set(function.attribute(entered, handle, number)?))
}

/// Checked here, so that the common mistakes stay synchronous.
fn set_attribute(raw: Raw, number: u32, value: i32) -> CuResult<()> {
    let entered = enter()?;
    if !matches!(number, 8 | 9 | 11..=15) {
        return Err(CuError::INVALID_VALUE);
    }
    let good = match number {
        CARVEOUT => (-1..=100).contains(&value),
        11..=13 => value >= 0,
        SCHEDULING => (0..=2).contains(&value),
        _ => true,
    };
    if !good {
        return Err(CuError::INVALID_VALUE);
    }
    with(raw, |handle, _, function| {
        if number == MAX_DYNAMIC_SHARED {
            let used = function.attribute(entered, handle, STATIC_SHARED)?;
            if value < 0 || value.saturating_add(used) > shared_limit(entered)? {
                return Err(CuError::INVALID_VALUE);
            }
        }
        function.set_attribute(number, value);
        ask::cuFuncSetAttribute(&entered.process.channel, entered.context, handle, number, value)
    })
}

/// Shared memory that a block of this device may opt in to.
pub fn shared_limit(entered: Entered) -> CuResult<i32> {
    let (_, device) = device(entered.process, entered.device.cast_signed())?;
    device.attribute(DEVICE_SHARED_OPTIN).ok_or(CuError::INVALID_VALUE)
}

fn param_info(raw: Raw, index: usize, offset: Out<usize>, bytes: Out<usize>) -> CuResult<()> {
    with(raw, |_, _, function| {
        let param = function.params.get(index).ok_or(CuError::INVALID_VALUE)?;
        offset.set(param.offset as usize)?;
        bytes.set_if_wanted(param.bytes as usize);
        Ok(())
    })
}

/// That a question names a function at all.
fn named(raw: Raw) -> CuResult<()> {
    if raw.0 == 0 { Err(CuError::INVALID_VALUE) } else { Ok(()) }
}

/// The text lives as long as the image, which this thread remembers.
fn name(out: Out<*const c_char>, raw: Raw) -> CuResult<()> {
    named(raw)?;
    with(raw, |_, _, function| out.set(function.name.as_ptr()))
}

export! {
    fn cuFuncGetAttribute(out: Out<i32>, number: u32, function: Raw) {
        get_attribute(out, number, function)
    }

    fn cuKernelGetAttribute(out: Out<i32>, number: u32, kernel: Raw, dev: i32) {
        device(process()?, dev)?;
        get_attribute(out, number, kernel)
    }

    fn cuFuncSetAttribute(function: Raw, number: u32, value: i32) {
        set_attribute(function, number, value)
    }

    fn cuKernelSetAttribute(number: u32, value: i32, kernel: Raw, dev: i32) {
        device(process()?, dev)?;
        set_attribute(kernel, number, value)
    }

    /// A preference without effect on devices that we serve.
    fn cuFuncSetCacheConfig(function: Raw, config: u32) {
        preference(function, config, CACHE_LAST)
    }

    fn cuFuncSetSharedMemConfig(function: Raw, config: u32) {
        preference(function, config, BANKS_LAST)
    }

    fn cuKernelSetCacheConfig(kernel: Raw, config: u32, dev: i32) {
        device(process()?, dev)?;
        preference(kernel, config, CACHE_LAST)
    }

    fn cuFuncGetModule(out: Out<u64>, function: Raw) {
        named(function)?;
        with(function, |_, image, _| out.set(image.handle.as_kind::<kind::Module>().raw()))
    }

    fn cuFuncGetName(out: Out<*const c_char>, function: Raw) {
        name(out, function)
    }

    fn cuKernelGetName(out: Out<*const c_char>, kernel: Raw) {
        name(out, kernel)
    }

    fn cuFuncGetParamInfo(function: Raw, index: usize, offset: Out<usize>, bytes: Out<usize>) {
        param_info(function, index, offset, bytes)
    }

    fn cuKernelGetParamInfo(kernel: Raw, index: usize, offset: Out<usize>, bytes: Out<usize>) {
        param_info(kernel, index, offset, bytes)
    }

    /// 1, loaded: whether the device has it yet is the worker's matter.
    fn cuFuncIsLoaded(out: Out<u32>, function: Raw) {
        with(function, |_, _, _| out.set(1))
    }

    fn cuFuncLoad(function: Raw) {
        with(function, |_, _, _| Ok(()))
    }

    fn cuKernelGetFunction(out: Out<u64>, kernel: Raw) {
        enter()?;
        with(kernel, |handle, _, _| out.set(handle.raw()))
    }

    fn cuKernelGetLibrary(out: Out<u64>, kernel: Raw) {
        with(kernel, |_, image, _| match image.kind {
            ImageKind::Library => out.set(image.handle.as_kind::<kind::Library>().raw()),
            ImageKind::Module => Err(CuError::INVALID_HANDLE),
        })
    }
}
