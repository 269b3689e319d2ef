//! Modules: loaded by the worker, asked about here.

use std::ffi::{CStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use vgpu_api::handle::kind;
use vgpu_api::{CuError, CuResult, DevicePtr, ImageKind};

use super::module_references::names_reference;
use crate::abi::{In, Out, Raw, Span, export};
use crate::core::contexts::{Entered, enter, enter_to_end};
use crate::core::image_size;
use crate::core::images::{Image, refusal};
use crate::core::process::process;

/// A file's bytes; PTX text may end in a NUL there, which doesn't travel.
pub fn read_file(path: &CStr) -> CuResult<Vec<u8>> {
    if path.is_empty() {
        return Err(CuError::INVALID_VALUE);
    }
    std::fs::read(std::ffi::OsStr::from_bytes(path.to_bytes())).map_err(|_| CuError::FILE_NOT_FOUND)
}

/// The image in a file's bytes: a raw fatbin or ELF as it is, text up to its NUL.
pub fn image_of_file(bytes: &[u8]) -> &[u8] {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) if !bytes.starts_with(b"\x7fELF") && !bytes.starts_with(&0xba55_ed50u32.to_le_bytes()) => {
            &bytes[..end]
        }
        _ => bytes,
    }
}

fn load(out: Out<u64>, entered: Entered, bytes: &[u8]) -> CuResult<()> {
    out.wanted()?;
    let image = entered.process.images.load(entered, ImageKind::Module, bytes)?;
    out.set(image.handle.as_kind::<kind::Module>().raw())
}

pub(super) fn module(raw: Raw) -> CuResult<Arc<Image>> {
    process()?.images.get::<kind::Module>(raw.0)
}

/// Gives a global's address and length; one of the places may be NULL.
pub fn give_global(image: &Image, name: &CStr, address: Out<DevicePtr>, bytes: Out<usize>) -> CuResult<()> {
    if address.address() == 0 && bytes.address() == 0 {
        return Err(CuError::INVALID_VALUE);
    }
    if image.function_named(name).is_ok() {
        return Err(CuError::INVALID_VALUE);
    }
    let (place, length) = image.global(process()?, name)?;
    address.set_if_wanted(DevicePtr(place));
    bytes.set_if_wanted(usize::try_from(length).unwrap_or(usize::MAX));
    Ok(())
}

/// Gives the handles of the first `room` functions.
pub fn give_functions(image: &Image, out: Out<u64>, room: u32) -> CuResult<()> {
    let count = image.functions.len().min(room as usize);
    let handles = (0..count).map(|ordinal| image.function_at(ordinal)).collect::<CuResult<Vec<_>>>()?;
    out.set_all(handles.into_iter().map(vgpu_api::Handle::raw))
}

/// Where the program wants what the compiler has to say. Numbers: `CUjit_option`.
pub struct JitLogs {
    error_log: Option<(Span, usize)>,
}

impl JitLogs {
    /// Finds the places among the options. Both texts are empty until [`JitLogs::give`].
    pub fn of(count: u32, options: In<u32>, values: In<u64>) -> CuResult<Self> {
        const INFO_LOG: u32 = 3;
        const INFO_LOG_BYTES: u32 = 4;
        const ERROR_LOG: u32 = 5;
        const ERROR_LOG_BYTES: u32 = 6;
        /// `CU_JIT_NUM_OPTIONS` of CUDA 13.0.
        const OPTIONS: u32 = 37;
        let (mut info, mut error) = ((0, 0), (0, 0));
        for i in 0..count as usize {
            let value = values.at(i)?;
            match options.at(i)? {
                INFO_LOG => info.0 = value,
                // The option's value is the number itself, in a pointer's place.
                INFO_LOG_BYTES => info.1 = value & 0xffff_ffff,
                ERROR_LOG => error.0 = value,
                ERROR_LOG_BYTES => error.1 = value & 0xffff_ffff,
                OPTIONS.. => return Err(CuError::INVALID_VALUE),
                _ => {}
            }
        }
        for (place, bytes) in [info, error] {
            if place != 0 && bytes != 0 {
                Span::at_address(place).write(1)?.fill(0);
            }
        }
        let room = usize::try_from(error.1).unwrap_or(0);
        Ok(Self { error_log: (error.0 != 0 && room != 0).then(|| (Span::at_address(error.0), room)) })
    }

    /// Writes the compiler's text of the load that failed. The load's error matters more than what goes wrong here.
    pub fn give(&self, entered: Entered) {
        if let Some((place, room)) = self.error_log {
            let _ = give_text(entered, place, room);
        }
    }
}

fn give_text(entered: Entered, place: Span, room: usize) -> CuResult<()> {
    let text = refusal(entered)?;
    let kept = text.len().min(room - 1);
    let place = place.write(kept + 1)?;
    place[..kept].copy_from_slice(&text[..kept]);
    place[kept] = 0;
    Ok(())
}

export! {
    fn cuModuleLoad(out: Out<u64>, path: In<c_char>) {
        let entered = enter()?;
        load(out, entered, image_of_file(&read_file(path.text()?)?))
    }

    fn cuModuleLoadData(out: Out<u64>, image: In<u8>) {
        load(out, enter()?, image_size::bytes(image)?)
    }

    fn cuModuleLoadFatBinary(out: Out<u64>, image: In<u8>) {
        load(out, enter()?, image_size::bytes(image)?)
    }

    fn cuModuleLoadDataEx(out: Out<u64>, image: In<u8>, count: u32, options: In<u32>, values: In<u64>) {
        let entered = enter()?;
        let logs = JitLogs::of(count, options, values)?;
        load(out, entered, image_size::bytes(image)?).inspect_err(|_| logs.give(entered))
    }

    fn cuModuleUnload(raw: Raw) {
        let entered = enter_to_end()?;
        let module = module(raw)?;
        if module.kind == ImageKind::Library {
            return Err(CuError::NOT_PERMITTED);
        }
        entered.process.images.unload(entered.process, &module)?;
        entered.told()
    }

    fn cuModuleGetFunction(out: Out<u64>, raw: Raw, name: In<c_char>) {
        let (out, module, name) = (out.wanted()?, module(raw)?, name.text()?);
        if name.is_empty() {
            return Err(CuError::INVALID_VALUE);
        }
        out.set(module.function_named(name)?.raw())
    }

    fn cuModuleGetGlobal_v2(address: Out<DevicePtr>, bytes: Out<usize>, raw: Raw, name: In<c_char>) {
        let (module, name) = (module(raw)?, name.text()?);
        give_global(&module, name, address, bytes).map_err(|error| match error {
            // A texture or a surface has a name and no address.
            CuError::NOT_FOUND if names_reference(&module, name) => CuError::INVALID_VALUE,
            error => error,
        })
    }

    fn cuModuleGetFunctionCount(out: Out<u32>, raw: Raw) {
        out.set(u32::try_from(module(raw)?.functions.len()).unwrap_or(u32::MAX))
    }

    fn cuModuleEnumerateFunctions(out: Out<u64>, room: u32, raw: Raw) {
        give_functions(&*module(raw)?, out, room)
    }

    /// 2, lazy: the default since CUDA 12.2. cudart then loads each translation unit at its first kernel.
    fn cuModuleGetLoadingMode(out: Out<u32>) {
        let eager = std::env::var("CUDA_MODULE_LOADING").is_ok_and(|mode| mode == "EAGER");
        out.set(if eager { 1 } else { 2 })
    }
}
