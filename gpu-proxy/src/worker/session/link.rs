//! The linker.

use vgpu_api::link::{INPUTS, LOG_BYTES_MAX, OPTIONS_MAX, option};
use vgpu_api::{Call, ContextId, CuError, CuResult, JitOption, LinkTold, LinkerHandle, Staged};

use super::Session;
use crate::device::Raw;
use crate::worker::slab::Slab;
use crate::worker::staging;

/// Linkers at once, and bytes of the worker's memory in all of them: logs, inputs, images.
const LINKERS_MAX: usize = 256;
const BYTES_MAX: u64 = 1 << 30;

/// What a program's runtime puts around a fat binary begins so, and says at which address that lies: for a driver here, an address of
/// this worker's own.
const WRAPPER: [u8; 4] = 0x4662_43b1_u32.to_le_bytes();

#[derive(Debug, Default)]
pub(super) struct Linkers {
    slab: Slab<Linker>,
    count: usize,
    bytes: u64,
}

impl Linkers {
    fn reserve(&mut self, bytes: u64) -> CuResult<()> {
        let wanted = self.bytes.checked_add(bytes).filter(|wanted| *wanted <= BYTES_MAX);
        self.bytes = wanted.ok_or(CuError::OUT_OF_MEMORY)?;
        Ok(())
    }

    fn ended(&mut self, linker: &Linker) {
        self.count -= 1;
        self.bytes -= linker.bytes + linker.image_bytes();
    }
}

#[derive(Debug)]
struct Linker {
    raw: Raw,
    context: ContextId,
    /// Of logs and inputs.
    bytes: u64,
    /// Once it was completed.
    image: Vec<u8>,
}

impl Linker {
    /// The device keeps it too.
    fn image_bytes(&self) -> u64 {
        2 * self.image.len() as u64
    }
}

impl Session {
    pub(super) fn link_create(
        &mut self,
        call: Call,
        handle: LinkerHandle,
        options: &[JitOption],
        log_bytes: [u32; 2],
    ) -> CuResult<()> {
        let context = self.context(call.context)?;
        check_options(options)?;
        if log_bytes.iter().any(|bytes| *bytes > LOG_BYTES_MAX) {
            return Err(CuError::INVALID_VALUE);
        }
        self.linkers.slab.check_free(handle)?;
        if self.linkers.count >= LINKERS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let bytes = log_bytes.iter().map(|bytes| u64::from(*bytes)).sum();
        self.linkers.reserve(bytes)?;
        let created = self.device.link_create(context, options, log_bytes.map(|bytes| bytes as usize));
        let created = created.inspect_err(|_| self.linkers.bytes -= bytes);
        let raw = self.settle(call.context, created)?;
        self.linkers.count += 1;
        self.linkers.slab.insert(handle, Linker { raw, context: call.context, bytes, image: Vec::new() })
    }

    /// The linker's context, whole and current, and its name.
    fn linker(&self, handle: LinkerHandle) -> CuResult<(ContextId, Raw, Raw)> {
        let linker = self.linkers.slab.get(handle)?;
        Ok((linker.context, self.context(linker.context)?, linker.raw))
    }

    pub(super) fn link_add(
        &mut self,
        handle: LinkerHandle,
        input: u32,
        upload: u32,
        name: &str,
        options: &[JitOption],
    ) -> CuResult<()> {
        // Whatever becomes of the call, the bytes are let go of.
        let bytes = self.take_upload(upload);
        let (id, context, raw) = self.linker(handle)?;
        check_options(options)?;
        if input >= INPUTS {
            return Err(CuError::INVALID_VALUE);
        }
        let bytes = bytes?;
        if bytes.starts_with(&WRAPPER) {
            return Err(CuError::INVALID_IMAGE);
        }
        let input_bytes = bytes.len() as u64 + name.len() as u64;
        self.linkers.reserve(input_bytes)?;
        let result = self.device.link_add(context, raw, input, &bytes, name, options);
        match result {
            Ok(()) => self.linkers.slab.get_mut(handle)?.bytes += input_bytes,
            Err(_) => self.linkers.bytes -= input_bytes,
        }
        self.settle(id, result)
    }

    pub(super) fn link_complete(&mut self, handle: LinkerHandle) -> CuResult<u64> {
        let (id, context, raw) = self.linker(handle)?;
        let result = self.device.link_complete(context, raw);
        let image = self.settle(id, result)?;
        let bytes = image.len() as u64;
        let linker = self.linkers.slab.get_mut(handle)?;
        let before = linker.image_bytes();
        linker.image = Vec::new();
        self.linkers.bytes -= before;
        // How large it is, nobody knows before. What the device keeps of one that is too large goes with the linker.
        self.linkers.reserve(bytes.saturating_mul(2))?;
        self.linkers.slab.get_mut(handle)?.image = image;
        Ok(bytes)
    }

    pub(super) fn link_image(&mut self, handle: LinkerHandle, offset: u64, out: Staged) -> CuResult<()> {
        let image = &self.linkers.slab.get(handle)?.image;
        let rest = usize::try_from(offset).ok().and_then(|offset| image.get(offset..));
        staging::put(&*self.staging, out, rest.ok_or(CuError::INVALID_VALUE)?)
    }

    pub(super) fn link_log(&mut self, handle: LinkerHandle, errors: bool, out: Staged) -> CuResult<u64> {
        let raw = self.linkers.slab.get(handle)?.raw;
        let log = self.device.link_log(raw, errors)?;
        staging::put(&*self.staging, out, &log)?;
        Ok(out.len.min(log.len() as u64))
    }

    pub(super) fn link_told(&mut self, handle: LinkerHandle) -> CuResult<LinkTold> {
        self.device.link_told(self.linkers.slab.get(handle)?.raw)
    }

    pub(super) fn link_destroy(&mut self, handle: LinkerHandle) -> CuResult<()> {
        let linker = self.linkers.slab.remove(handle)?;
        self.linkers.ended(&linker);
        self.device.link_destroy(linker.raw)
    }

    /// A context ends, and its linkers with it.
    pub(super) fn end_linkers(&mut self, context: ContextId) {
        for linker in self.linkers.slab.remove_where(|linker| linker.context == context) {
            self.linkers.ended(&linker);
            let _ = self.device.link_destroy(linker.raw);
        }
    }
}

/// Only numbers: of a place the driver would take the address.
fn check_options(options: &[JitOption]) -> CuResult<()> {
    let good = options.len() <= OPTIONS_MAX && options.iter().all(|each| option::travels(each.option));
    if good { Ok(()) } else { Err(CuError::INVALID_VALUE) }
}
