//! Arrays that hold nothing: copies succeed, reads give zeros.

use vgpu_api::{ArrayShape, CuError, CuResult, Extent, Object};

use super::Null;
use crate::device::{Arrays, Place, Raw, Side, TextureSource, soft};

impl Arrays for Null {
    fn array_bytes(&mut self, _context: Raw, shape: &ArrayShape, levels: u32) -> CuResult<u64> {
        shape.bytes_of_levels(levels).ok_or(CuError::INVALID_VALUE)
    }

    fn array_create(&mut self, _context: Raw, _shape: &ArrayShape) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn array_destroy(&mut self, _context: Raw, _array: Raw) -> CuResult<()> {
        Ok(())
    }

    fn mipmap_create(&mut self, _context: Raw, _shape: &ArrayShape, _levels: u32) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn mipmap_level(&mut self, _context: Raw, _mipmap: Raw, _level: u32) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn mipmap_destroy(&mut self, _context: Raw, _mipmap: Raw) -> CuResult<()> {
        Ok(())
    }

    fn array_write(
        &mut self,
        place: Place,
        _to: (Raw, [u64; 3]),
        _size: Extent,
        _bytes: &[u8],
    ) -> CuResult<()> {
        self.queue(place);
        Ok(())
    }

    fn array_read(
        &mut self,
        place: Place,
        _from: (Raw, [u64; 3]),
        _size: Extent,
        bytes: &mut [u8],
    ) -> CuResult<()> {
        bytes.fill(0);
        self.queue(place);
        self.wait(|stalls| stalls.query(place))
    }

    fn copy_box(&mut self, _place: Place, _to: Side, _from: Side, _size: Extent) -> CuResult<()> {
        Ok(())
    }

    fn texture_create(&mut self, _context: Raw, _texture: &TextureSource) -> CuResult<Object> {
        Ok(Object(self.name().0))
    }

    fn texture_destroy(&mut self, _context: Raw, _texture: Object) -> CuResult<()> {
        Ok(())
    }

    fn surface_create(&mut self, _context: Raw, _array: Raw) -> CuResult<Object> {
        Ok(Object(self.name().0))
    }

    fn surface_destroy(&mut self, _context: Raw, _surface: Object) -> CuResult<()> {
        Ok(())
    }

    fn linear_texture_max(&mut self, _format: u32, _channels: u32) -> CuResult<u64> {
        Ok(soft::LINEAR_TEXELS_MAX)
    }
}
