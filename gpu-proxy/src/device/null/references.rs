//! References that read nothing: those that the software GPU finds in PTX, bound to whatever the session lets pass.

use vgpu_api::{CuError, CuResult, SamplerSetting};

use super::{Null, Step};
use crate::device::{Raw, References, TexelSource};

impl Null {
    fn reference(&mut self, image: Raw, symbol: &str, is_surface: bool) -> CuResult<Raw> {
        let known = self.references.get(&image).ok_or(CuError::INVALID_HANDLE)?;
        if !known.iter().any(|known| known.is_surface == is_surface && known.name == symbol) {
            return Err(CuError::NOT_FOUND);
        }
        Ok(self.name())
    }
}

impl References for Null {
    fn texref_of(&mut self, _context: Raw, image: Raw, symbol: &str) -> CuResult<Raw> {
        self.reference(image, symbol, false)
    }

    fn texref_create(&mut self, _context: Raw) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn texref_destroy(&mut self, _context: Raw, _texref: Raw) -> CuResult<()> {
        Ok(())
    }

    fn texref_bind(&mut self, _: Raw, _texref: Raw, _texels: &TexelSource, _told: bool) -> CuResult<u64> {
        Ok(0)
    }

    fn texref_let_go(&mut self, _context: Raw, _texref: Raw) -> CuResult<()> {
        self.refuse(Step::LetGo)
    }

    fn texref_format(&mut self, _context: Raw, _texref: Raw, _format: u32, _channels: u32) -> CuResult<()> {
        Ok(())
    }

    fn texref_set(&mut self, _context: Raw, _texref: Raw, _setting: &SamplerSetting) -> CuResult<()> {
        Ok(())
    }

    fn surfref_of(&mut self, _context: Raw, image: Raw, symbol: &str) -> CuResult<Raw> {
        self.reference(image, symbol, true)
    }

    fn surfref_destroy(&mut self, _surfref: Raw) {}

    fn surfref_bind(&mut self, _context: Raw, _surfref: Raw, array: Option<Raw>) -> CuResult<()> {
        if array.is_none() { self.refuse(Step::LetGo) } else { Ok(()) }
    }
}
