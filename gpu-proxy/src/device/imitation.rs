//! What the devices that are no GPUs do alike: names, linkers that PTX goes through, green contexts whose multiprocessors are numbers.

use vgpu_api::{CuError, CuResult, JitOption, LinkTold, SmGroups, SmResource, SmSplit};

use super::green::Processors;
use super::pass_through::PassThrough;
use super::{GreenContexts, Linkers, Raw};

/// What such a device keeps for that.
#[derive(Debug, Default)]
pub(super) struct Common {
    names: u64,
    linkers: PassThrough,
    /// Of green contexts.
    processors: Processors,
}

impl Common {
    /// One that nothing of the device has had.
    pub(super) fn name(&mut self) -> Raw {
        self.names += 1;
        Raw(self.names << 16)
    }

    /// The multiprocessors of a green context; none of what is none.
    pub(super) fn multiprocessors(&self, green: Raw) -> &[u32] {
        self.processors.list(green)
    }
}

/// A device that is no GPU.
pub(super) trait Imitation {
    fn common(&mut self) -> &mut Common;
    /// Whether it can do something with PTX; else an error, and what a compiler would say.
    fn check_ptx(text: &[u8]) -> Result<(), (CuError, String)>;
    /// Whether it has such a device to make a green context of.
    fn has(&self, device: u32) -> bool;
    /// A green context was made.
    fn green_began(&mut self, device: u32, green: Raw);
    /// It is no more.
    fn green_ended(&mut self, green: Raw);
}

impl<D: Imitation> Linkers for D {
    fn link_create(
        &mut self,
        _context: Raw,
        _options: &[JitOption],
        _log_bytes: [usize; 2],
    ) -> CuResult<Raw> {
        let common = self.common();
        let name = common.name();
        Ok(common.linkers.create(name))
    }

    fn link_add(
        &mut self,
        _context: Raw,
        linker: Raw,
        input: u32,
        bytes: &[u8],
        _name: &str,
        _options: &[JitOption],
    ) -> CuResult<()> {
        self.common().linkers.add(linker, input, bytes, D::check_ptx)
    }

    fn link_complete(&mut self, _context: Raw, linker: Raw) -> CuResult<Vec<u8>> {
        self.common().linkers.complete(linker)
    }

    fn link_log(&mut self, linker: Raw, errors: bool) -> CuResult<Vec<u8>> {
        self.common().linkers.log(linker, errors)
    }

    fn link_told(&mut self, _linker: Raw) -> CuResult<LinkTold> {
        Ok(LinkTold::default())
    }

    fn link_destroy(&mut self, linker: Raw) -> CuResult<()> {
        self.common().linkers.destroy(linker)
    }
}

impl<D: Imitation> GreenContexts for D {
    fn sm_resource(&mut self, _device: u32, of: Option<Raw>) -> CuResult<SmResource> {
        self.common().processors.resource(of)
    }

    fn sm_split(&mut self, _device: u32, of: Option<Raw>, split: SmSplit) -> CuResult<SmGroups> {
        self.common().processors.split(of, split)
    }

    fn green_create(
        &mut self,
        device: u32,
        of: Option<Raw>,
        split: SmSplit,
        parts: &[u32],
    ) -> CuResult<(Raw, Raw)> {
        if !self.has(device) {
            return Err(CuError::INVALID_DEVICE);
        }
        let common = self.common();
        let (name, stream) = (common.name(), common.name());
        common.processors.give(name, of, split, parts)?;
        self.green_began(device, name);
        Ok((name, stream))
    }

    fn green_destroy(&mut self, green: Raw) -> CuResult<()> {
        self.common().processors.take_back(green)?;
        self.green_ended(green);
        Ok(())
    }
}
