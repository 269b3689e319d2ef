//! How programs launched before CUDA 4: shape, shared memory and parameters are set one by one and stay with the function. The same
//! function set from two threads at once is the program's mistake, and harmless.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use vgpu_api::launch::PARAM_BYTES_MAX;
use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult};

use super::function::shared_limit;
use super::launch::{launch, plain};
use crate::abi::{In, Raw, Span, export};
use crate::core::contexts::enter;
use crate::core::process::process;
use crate::core::slab::lock;

#[derive(Debug, Default, Clone)]
struct Set {
    block: [u32; 3],
    shared_bytes: u32,
    params: Vec<u8>,
}

/// By the function's handle.
static SETS: LazyLock<Mutex<HashMap<u64, Set>>> = LazyLock::new(Mutex::default);

/// Changes what is set of a function that is there.
fn change(function: Raw, how: impl FnOnce(&mut Set) -> CuResult<()>) -> CuResult<()> {
    process()?.images.with_function(function.0, |_, _, _| Ok(()))?;
    how(lock(&SETS).entry(function.0).or_default())
}

/// Puts a parameter's bytes where the program says.
fn put(function: Raw, offset: i32, bytes: &[u8]) -> CuResult<()> {
    let start = usize::try_from(offset).map_err(|_| CuError::INVALID_VALUE)?;
    let end = start.checked_add(bytes.len()).filter(|end| *end <= PARAM_BYTES_MAX);
    let end = end.ok_or(CuError::INVALID_VALUE)?;
    change(function, |set| {
        if set.params.len() < end {
            set.params.resize(end, 0);
        }
        set.params[start..end].copy_from_slice(bytes);
        Ok(())
    })
}

fn grid(function: Raw, width: i32, height: i32, stream: Raw) -> CuResult<()> {
    let size = |size: i32| u32::try_from(size).map_err(|_| CuError::INVALID_VALUE);
    let grid = [size(width)?, size(height)?, 1];
    change(function, |_| Ok(()))?;
    let set = lock(&SETS).get(&function.0).cloned().unwrap_or_default();
    let bytes = set.params.len();
    // `extra`: buffer, size, end.
    let extra = [1, set.params.as_ptr().expose_provenance(), 2, (&raw const bytes).expose_provenance(), 0];
    let extra = extra.map(|word| word as u64);
    // SAFETY: the list and what it points to live until the call returns.
    let extra = unsafe { In::from_raw(extra.as_ptr()) };
    // SAFETY: null is always allowed.
    let none = unsafe { In::from_raw(std::ptr::null()) };
    launch(plain(grid, set.block, set.shared_bytes, stream), function, none, extra, Mode::Legacy, None)
}

export! {
    fn cuFuncSetBlockShape(function: Raw, x: i32, y: i32, z: i32) {
        let size = |size: i32| u32::try_from(size).map_err(|_| CuError::INVALID_VALUE);
        let block = [size(x)?, size(y)?, size(z)?];
        let entered = enter()?;
        let limits = entered.process.launch_limits.get(entered.device as usize).ok_or(CuError::INVALID_CONTEXT)?;
        if !limits.allow_block(block) {
            return Err(CuError::INVALID_VALUE);
        }
        change(function, |set| {
            set.block = block;
            Ok(())
        })
    }

    fn cuFuncSetSharedSize(function: Raw, bytes: u32) {
        let entered = enter()?;
        if i32::try_from(bytes).map_err(|_| CuError::INVALID_VALUE)? > shared_limit(entered)? {
            return Err(CuError::INVALID_VALUE);
        }
        change(function, |set| {
            set.shared_bytes = bytes;
            Ok(())
        })
    }

    fn cuParamSetSize(function: Raw, bytes: u32) {
        let bytes = bytes as usize;
        if bytes > PARAM_BYTES_MAX {
            return Err(CuError::INVALID_VALUE);
        }
        change(function, |set| {
            set.params.resize(bytes, 0);
            Ok(())
        })
    }

    fn cuParamSeti(function: Raw, offset: i32, value: u32) {
        put(function, offset, &value.to_le_bytes())
    }

    fn cuParamSetf(function: Raw, offset: i32, value: f32) {
        put(function, offset, &value.to_le_bytes())
    }

    fn cuParamSetv(function: Raw, offset: i32, value: Span, bytes: u32) {
        let bytes = bytes as usize;
        if bytes > PARAM_BYTES_MAX {
            return Err(CuError::INVALID_VALUE);
        }
        put(function, offset, value.read(bytes)?)
    }

    /// Old compilers had a kernel say by it which references it reads. What it names needs nothing of that.
    /// The unit says nothing, as to NVIDIA's driver.
    fn cuParamSetTexRef(function: Raw, _unit: i32, texref: Raw) {
        let (_, known) = process()?.references.texture(texref.0)?;
        if known.image.is_none() {
            return Err(CuError::INVALID_VALUE);
        }
        change(function, |_| Ok(()))
    }

    fn cuLaunch(function: Raw) {
        grid(function, 1, 1, Raw(0))
    }

    fn cuLaunchGrid(function: Raw, width: i32, height: i32) {
        grid(function, width, height, Raw(0))
    }

    fn cuLaunchGridAsync(function: Raw, width: i32, height: i32, stream: Raw) {
        grid(function, width, height, stream)
    }
}
