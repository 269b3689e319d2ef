//! Linkers of the software GPU: PTX goes through.

use vgpu_api::{CuResult, JitOption, LinkTold};
use vgpu_soft as gpu;

use super::{Soft, error};
use crate::device::{Linkers, Raw};

impl Linkers for Soft {
    fn link_create(
        &mut self,
        _context: Raw,
        _options: &[JitOption],
        _log_bytes: [usize; 2],
    ) -> CuResult<Raw> {
        let name = self.name();
        Ok(self.linkers.create(name))
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
        self.linkers.add(linker, input, bytes, |text| {
            let module = gpu::Module::load(text);
            module.map(drop).map_err(|refused| (error(refused.cu_result()), refused.to_string()))
        })
    }

    fn link_complete(&mut self, _context: Raw, linker: Raw) -> CuResult<Vec<u8>> {
        self.linkers.complete(linker)
    }

    fn link_log(&mut self, linker: Raw, errors: bool) -> CuResult<Vec<u8>> {
        self.linkers.log(linker, errors)
    }

    fn link_told(&mut self, _linker: Raw) -> CuResult<LinkTold> {
        Ok(LinkTold::default())
    }

    fn link_destroy(&mut self, linker: Raw) -> CuResult<()> {
        self.linkers.destroy(linker)
    }
}
