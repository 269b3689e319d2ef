//! The linker: it runs in the worker. Files are read here.

use std::ffi::{CStr, c_char};
use std::sync::Arc;

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::link::{INPUTS, LOG_BYTES_MAX};
use vgpu_api::{CuError, CuResult, LinkerHandle, ask};

use super::module::read_file;
use crate::abi::{In, Out, Raw, Span, export};
use crate::core::contexts::{Entered, enter, enter_to_end};
use crate::core::linkers::{Linker, Options};

/// Length of an input's name that travels.
const NAME_BYTES_MAX: usize = 1024;

fn create(count: u32, options: In<u32>, values: In<u64>, out: Out<u64>) -> CuResult<()> {
    let entered = enter()?;
    out.wanted()?;
    let Options { travel, places } = Options::of(count, options, values)?;
    let Entered { process, context, .. } = entered;
    // The place is taken first, with a linker that nobody can name yet.
    let handle: LinkerHandle =
        process.linkers.insert(Arc::new(Linker::new(LinkerHandle::new(0, 0), context, places)));
    process.linkers.set(handle, Arc::new(Linker::new(handle, context, places)))?;
    let [info, error] = [places.info, places.error].map(|log| log.bytes.min(LOG_BYTES_MAX));
    match ask::cuLinkCreate_v2(&process.channel, context, NewHandle(handle), travel, info, error) {
        Ok(()) => out.set(handle.raw()),
        Err(error) => process.linkers.end(handle, |_| Err(error))?,
    }
}

fn linker(raw: Raw) -> CuResult<(Entered, Arc<Linker>)> {
    let entered = enter()?;
    Ok((entered, entered.process.linkers.get(LinkerHandle::check(raw.0)?)?))
}

fn add(raw: Raw, input: u32, bytes: &[u8], name: &CStr, options: Options) -> CuResult<()> {
    let (entered, linker) = linker(raw)?;
    if input >= INPUTS || bytes.is_empty() {
        return Err(CuError::INVALID_VALUE);
    }
    let name: String = name.to_string_lossy().chars().take(NAME_BYTES_MAX / 4).collect();
    let channel = &entered.process.channel;
    let upload = entered.process.images.upload(entered, bytes)?;
    let added =
        ask::cuLinkAddData_v2(channel, linker.context, linker.handle, input, upload, name, options.travel);
    linker.tell(entered);
    added
}

fn add_data(
    raw: Raw,
    input: u32,
    (data, bytes): (Span, usize),
    name: In<c_char>,
    options: CuResult<Options>,
) -> CuResult<()> {
    linker(raw)?;
    let name = if name.is_null() { c"" } else { name.text()? };
    add(raw, input, data.read(bytes)?, name, options?)
}

fn add_file(raw: Raw, input: u32, path: In<c_char>, options: CuResult<Options>) -> CuResult<()> {
    linker(raw)?;
    let path = path.text()?;
    add(raw, input, &read_file(path)?, path, options?)
}

export! {
    fn cuLinkCreate(count: u32, options: In<u32>, values: In<u64>, out: Out<u64>) {
        create(count, options, values, out)
    }

    fn cuLinkCreate_v2(count: u32, options: In<u32>, values: In<u64>, out: Out<u64>) {
        create(count, options, values, out)
    }

    fn cuLinkAddData(
        raw: Raw, input: u32, data: Span, bytes: usize, name: In<c_char>, count: u32, options: In<u32>, values: In<u64>,
    ) {
        add_data(raw, input, (data, bytes), name, Options::of(count, options, values))
    }

    fn cuLinkAddData_v2(
        raw: Raw, input: u32, data: Span, bytes: usize, name: In<c_char>, count: u32, options: In<u32>, values: In<u64>,
    ) {
        add_data(raw, input, (data, bytes), name, Options::of(count, options, values))
    }

    fn cuLinkAddFile(raw: Raw, input: u32, path: In<c_char>, count: u32, options: In<u32>, values: In<u64>) {
        add_file(raw, input, path, Options::of(count, options, values))
    }

    fn cuLinkAddFile_v2(raw: Raw, input: u32, path: In<c_char>, count: u32, options: In<u32>, values: In<u64>) {
        add_file(raw, input, path, Options::of(count, options, values))
    }

    fn cuLinkComplete(raw: Raw, image: Out<*const u8>, bytes: Out<usize>) {
        let (entered, linker) = linker(raw)?;
        image.wanted()?;
        linker.complete(entered, image, bytes)
    }

    fn cuLinkDestroy(raw: Raw) {
        let entered = enter_to_end()?;
        let handle = LinkerHandle::check(raw.0)?;
        let channel = &entered.process.channel;
        entered.process.linkers.end(handle, |linker| ask::cuLinkDestroy(channel, linker.context, GoneHandle(handle)))??;
        entered.told()
    }
}
