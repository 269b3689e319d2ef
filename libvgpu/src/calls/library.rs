//! Libraries: what cudart 12 and later load in place of modules. A library's module has the same number as another kind.

use std::ffi::c_char;
use std::sync::Arc;

use vgpu_api::handle::kind;
use vgpu_api::{ContextId, CuError, CuResult, DevicePtr, ImageKind};

use super::module::{JitLogs, give_functions, give_global, image_of_file, read_file};
use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::{Entered, enter_to_end};
use crate::core::image_size;
use crate::core::images::Image;
use crate::core::process::process;

/// A library belongs to the process: it can be loaded without a living context.
fn enter_anywhere() -> CuResult<Entered> {
    let process = process()?;
    process.channel.take_error()?;
    let nowhere = Entered { process, context: ContextId::NONE, green: ContextId::NONE, device: 0 };
    Ok(enter_to_end().unwrap_or(nowhere))
}

/// The linker's and loader's other options change nothing that a program could see in its results; they stay here.
fn load(out: Out<u64>, bytes: &[u8], (count, options, values): (u32, In<u32>, In<u64>)) -> CuResult<()> {
    out.wanted()?;
    let entered = enter_anywhere()?;
    let logs = JitLogs::of(count, options, values)?;
    let image = entered
        .process
        .images
        .load(entered, ImageKind::Library, bytes)
        .inspect_err(|_| logs.give(entered))?;
    out.set(image.handle.as_kind::<kind::Library>().raw())
}

/// `CUlibraryOption`: 0, host functions; 1, the image stays where it is. Neither changes anything here.
fn check_options(options: In<u32>, count: u32) -> CuResult<()> {
    for i in 0..count as usize {
        if options.at(i)? > 1 {
            return Err(CuError::INVALID_VALUE);
        }
    }
    Ok(())
}

fn library(raw: Raw) -> CuResult<Arc<Image>> {
    process()?.images.get::<kind::Library>(raw.0)
}

export! {
    fn cuLibraryLoadData(
        out: Out<u64>, code: In<u8>, jit: In<u32>, jit_values: In<u64>, jit_count: u32, options: In<u32>,
        _values: In<u64>, count: u32,
    ) {
        check_options(options, count)?;
        load(out, image_size::bytes(code)?, (jit_count, jit, jit_values))
    }

    fn cuLibraryLoadFromFile(
        out: Out<u64>, path: In<c_char>, jit: In<u32>, jit_values: In<u64>, jit_count: u32, options: In<u32>,
        _values: In<u64>, count: u32,
    ) {
        check_options(options, count)?;
        load(out, image_of_file(&read_file(path.text()?)?), (jit_count, jit, jit_values))
    }

    /// cudart calls this at exit, when the context may be gone already.
    fn cuLibraryUnload(raw: Raw) {
        let library = library(raw)?;
        let process = process()?;
        process.images.unload(process, &library)
    }

    fn cuLibraryGetKernel(out: Out<u64>, raw: Raw, name: In<c_char>) {
        out.wanted()?.set(library(raw)?.function_named(name.text()?)?.raw())
    }

    fn cuLibraryGetModule(out: Out<u64>, raw: Raw) {
        let library = library(raw)?;
        out.set(library.handle.as_kind::<kind::Module>().raw())
    }

    fn cuLibraryGetGlobal(address: Out<DevicePtr>, bytes: Out<usize>, raw: Raw, name: In<c_char>) {
        give_global(&*library(raw)?, name.text()?, address, bytes)
    }

    fn cuLibraryGetManaged(address: Out<DevicePtr>, bytes: Out<usize>, raw: Raw, name: In<c_char>) {
        let library = library(raw)?;
        let name = name.text()?;
        if !library.is_managed(name) {
            return Err(CuError::NOT_FOUND);
        }
        give_global(&library, name, address, bytes)
    }

    fn cuLibraryGetKernelCount(out: Out<u32>, raw: Raw) {
        out.set(u32::try_from(library(raw)?.functions.len()).unwrap_or(u32::MAX))
    }

    fn cuLibraryEnumerateKernels(out: Out<u64>, room: u32, raw: Raw) {
        give_functions(&*library(raw)?, out, room)
    }

    /// No device that we serve shares functions' addresses with the host.
    fn cuLibraryGetUnifiedFunction(_function: Out<u64>, raw: Raw, _name: In<c_char>) {
        library(raw)?;
        Err(CuError::INVALID_VALUE)
    }
}
