//! Arrays, mipmapped arrays, texture and surface objects: memory under the quota, copies inside an array's own shape.

/// Texture and surface references.
mod references;

use std::collections::HashSet;

use vgpu_api::array::{Element, flag};
use vgpu_api::texture::Resource;
use vgpu_api::{
    ArrayHandle, ArrayPlace, ArrayShape, BoxSide, Call, ContextId, CuError, CuResult, Extent, MipmapHandle,
    Object, Staged, Stream, Texture,
};

use super::Session;
use crate::device::{Raw, Side, TexelSource, TextureSource};
use crate::worker::slab::Slab;
use crate::worker::staging::CHUNK_BYTES;
use references::{Bound, Kept, References};

/// Texture and surface objects that one process may have at once, of each. A device keeps some bytes for each of them that no grant
/// counts.
pub(super) const OBJECTS_MAX: usize = 1 << 16;

/// What a process has of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    arrays: Slab<Array>,
    mipmaps: Slab<Mipmap>,
    /// The numbers are the device's; two contexts may have the same one.
    textures: HashSet<(ContextId, Object)>,
    surfaces: HashSet<(ContextId, Object)>,
    references: References,
}

#[derive(Clone, Copy, Debug)]
struct Array {
    raw: Raw,
    context: ContextId,
    shape: ArrayShape,
    /// 0 of a level: its whole counts.
    charged_bytes: u64,
    level_of: Option<MipmapHandle>,
}

#[derive(Clone, Copy, Debug)]
struct Mipmap {
    raw: Raw,
    context: ContextId,
    shape: ArrayShape,
    levels: u32,
    charged_bytes: u64,
}

impl Session {
    pub(super) fn array_create(
        &mut self,
        call: Call,
        handle: ArrayHandle,
        shape: ArrayShape,
    ) -> CuResult<()> {
        let context = self.context(call.context)?;
        self.table.arrays.check_free(handle)?;
        let charged_bytes = self.charge_array(call.context, context, &shape, 1)?;
        let raw = match self.device.array_create(context, &shape) {
            Ok(raw) => raw,
            Err(error) => return self.not_made(call.context, charged_bytes, error),
        };
        let array = Array { raw, context: call.context, shape, charged_bytes, level_of: None };
        self.table.arrays.insert(handle, array)
    }

    pub(super) fn array_destroy(&mut self, handle: ArrayHandle) -> CuResult<()> {
        let Array { raw, context, charged_bytes, level_of, .. } = *self.table.arrays.get(handle)?;
        if level_of.is_some() {
            return Err(CuError::INVALID_HANDLE);
        }
        self.end_when_let_go(Kept { what: Bound::Array(raw), context, charged_bytes })?;
        self.table.arrays.remove(handle)?;
        self.graphs.something_ended();
        Ok(())
    }

    pub(super) fn mipmap_create(
        &mut self,
        call: Call,
        handle: MipmapHandle,
        shape: ArrayShape,
        levels: u32,
    ) -> CuResult<()> {
        let context = self.context(call.context)?;
        self.table.mipmaps.check_free(handle)?;
        let charged_bytes = self.charge_array(call.context, context, &shape, levels)?;
        let raw = match self.device.mipmap_create(context, &shape, levels) {
            Ok(raw) => raw,
            Err(error) => return self.not_made(call.context, charged_bytes, error),
        };
        let mipmap = Mipmap { raw, context: call.context, shape, levels, charged_bytes };
        self.table.mipmaps.insert(handle, mipmap)
    }

    pub(super) fn mipmap_level(&mut self, handle: ArrayHandle, of: MipmapHandle, level: u32) -> CuResult<()> {
        let mipmap = *self.table.mipmaps.get(of)?;
        let context = self.context(mipmap.context)?;
        self.table.arrays.check_free(handle)?;
        if level >= mipmap.levels {
            return Err(CuError::INVALID_VALUE);
        }
        let result = self.device.mipmap_level(context, mipmap.raw, level);
        let raw = self.settle(mipmap.context, result)?;
        let Mipmap { context, shape, .. } = mipmap;
        let array = Array { raw, context, shape: shape.level(level), charged_bytes: 0, level_of: Some(of) };
        self.table.arrays.insert(handle, array)
    }

    pub(super) fn mipmap_destroy(&mut self, handle: MipmapHandle) -> CuResult<()> {
        let Mipmap { raw, context, charged_bytes, .. } = *self.table.mipmaps.get(handle)?;
        self.end_when_let_go(Kept { what: Bound::Mipmap(raw), context, charged_bytes })?;
        self.table.mipmaps.remove(handle)?;
        self.table.arrays.remove_where(|array| array.level_of == Some(handle));
        self.graphs.something_ended();
        Ok(())
    }

    /// Counts what an array will take, before it is made; what was counted.
    fn charge_array(
        &mut self,
        id: ContextId,
        context: Raw,
        shape: &ArrayShape,
        levels: u32,
    ) -> CuResult<u64> {
        let device = self.device_of(id);
        shape.check()?;
        let packed_bytes = match levels {
            0 => None,
            levels if levels > shape.levels_max() => None,
            levels => shape.bytes_of_levels(levels),
        };
        let packed_bytes = packed_bytes.ok_or(CuError::INVALID_VALUE)?;
        // Before the device is asked about an array that cannot be.
        if packed_bytes > self.quotas.of(device)?.limit_bytes() {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let bytes = self.device.array_bytes(context, shape, levels)?;
        self.charge(device, bytes.max(packed_bytes))
    }

    fn not_made(&mut self, context: ContextId, charged_bytes: u64, error: CuError) -> CuResult<()> {
        self.quotas.release(self.device_of(context), charged_bytes);
        self.settle(context, Err(error))
    }

    /// The device's name of an array, and the context that it ends with.
    pub(super) fn named_array(&self, handle: ArrayHandle) -> CuResult<(Raw, ContextId)> {
        self.table.arrays.get(handle).map(|array| (array.raw, array.context))
    }

    /// The device's name of an array whose context is whole, for a box that lies inside.
    fn array_at(&self, place: &ArrayPlace, size: Extent) -> CuResult<(Raw, [u64; 3])> {
        let array = self.table.arrays.get(place.array)?;
        self.context(array.context)?;
        array.shape.check_box(place.corner(), size)?;
        Ok((array.raw, place.corner()))
    }

    /// One side of a copy with resolved names.
    pub(super) fn side(&self, side: &BoxSide, size: Extent, written: bool) -> CuResult<Side> {
        match side {
            BoxSide::Linear(rows) => {
                let bytes = rows.span(size).ok_or(CuError::INVALID_VALUE)?;
                if written {
                    self.ranges.check_write(rows.at, bytes)?;
                } else {
                    self.ranges.check(rows.at, bytes)?;
                }
                Ok(Side::Linear(*rows))
            }
            BoxSide::Array(place) => {
                let (raw, corner) = self.array_at(place, size)?;
                Ok(Side::Array(raw, corner))
            }
        }
    }

    pub(super) fn copy_box(
        &mut self,
        call: Call,
        to: &BoxSide,
        from: &BoxSide,
        size: Extent,
        stream: Stream,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        let (to, from) = (self.side(to, size, true)?, self.side(from, size, false)?);
        if size.is_empty() {
            return Ok(());
        }
        self.wait_for_turn(place);
        let result = self.device.copy_box(place, to, from, size);
        self.settle(context, result)
    }

    pub(super) fn array_write(
        &mut self,
        call: Call,
        to: &ArrayPlace,
        size: Extent,
        bytes: &[u8],
        stream: Stream,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        let to = self.array_at(to, size)?;
        if size.bytes() != Some(bytes.len() as u64) {
            return Err(CuError::INVALID_VALUE);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.wait_for_turn(place);
        let result = self.device.array_write(place, to, size, bytes);
        self.settle(context, result)
    }

    pub(super) fn array_write_staged(
        &mut self,
        call: Call,
        to: &ArrayPlace,
        size: Extent,
        from: Staged,
        stream: Stream,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        let to = self.array_at(to, size)?;
        let range = self.staged_box(from, size)?;
        if range.is_empty() {
            return Ok(());
        }
        self.must_be_next(stream, context, place)?;
        self.wait_for_turn(place);
        self.buffer.resize(CHUNK_BYTES, 0);
        let piece = &mut self.buffer[..range.len()];
        self.staging.read(range.start, piece);
        let result = self.device.array_write(place, to, size, piece);
        self.settle(context, result)
    }

    pub(super) fn array_read_staged(
        &mut self,
        call: Call,
        to: Staged,
        from: &ArrayPlace,
        size: Extent,
        stream: Stream,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        let from = self.array_at(from, size)?;
        let range = self.staged_box(to, size)?;
        if range.is_empty() {
            return Ok(());
        }
        self.must_be_next(stream, context, place)?;
        self.wait_for_turn(place);
        self.buffer.resize(CHUNK_BYTES, 0);
        let piece = &mut self.buffer[..range.len()];
        let result = self.device.array_read(place, from, size, piece);
        if result.is_ok() {
            self.staging.write(range.start, piece);
        }
        self.settle(context, result)
    }

    /// The part of staging that holds a box, which is one piece.
    fn staged_box(&self, staged: Staged, size: Extent) -> CuResult<std::ops::Range<usize>> {
        let range = staged.range(self.staging.len()).ok_or(CuError::INVALID_VALUE)?;
        let fits = size.bytes() == Some(staged.len) && range.len() <= CHUNK_BYTES;
        if fits { Ok(range) } else { Err(CuError::INVALID_VALUE) }
    }

    pub(super) fn texture_create(&mut self, call: Call, texture: &Texture) -> CuResult<Object> {
        let context = self.context(call.context)?;
        texture.check()?;
        let (texels, levels, layers) = self.texels(&texture.resource)?;
        let seen =
            texture.view.is_none_or(|view| view.levels[1] < levels && u64::from(view.layers[1]) < layers);
        if !seen {
            return Err(CuError::INVALID_VALUE);
        }
        if self.table.textures.len() >= OBJECTS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let source = TextureSource { texels, sampler: texture.sampler, view: texture.view };
        let result = self.device.texture_create(context, &source);
        let object = self.settle(call.context, result)?;
        self.table.textures.insert((call.context, object));
        Ok(object)
    }

    /// What a texture reads, how many levels it has and how many layers.
    fn texels(&self, resource: &Resource) -> CuResult<(TexelSource, u32, u64)> {
        let layers = |shape: &ArrayShape| if shape.is_layered() { shape.depth } else { 1 };
        Ok(match resource {
            Resource::Array(handle) => {
                let array = self.table.arrays.get(*handle)?;
                self.context(array.context)?;
                (TexelSource::Array(array.raw), 1, layers(&array.shape))
            }
            Resource::Mipmap(handle) => {
                let mipmap = self.table.mipmaps.get(*handle)?;
                self.context(mipmap.context)?;
                (TexelSource::Mipmap(mipmap.raw), mipmap.levels, layers(&mipmap.shape))
            }
            Resource::Linear(texels) => {
                self.ranges.check(texels.at, texels.bytes)?;
                (TexelSource::Linear(*texels), 1, 1)
            }
            Resource::Pitched(texels) => {
                self.ranges.check(texels.at, texels.span().ok_or(CuError::INVALID_VALUE)?)?;
                (TexelSource::Pitched(*texels), 1, 1)
            }
        })
    }

    pub(super) fn texture_destroy(&mut self, call: Call, texture: Object) -> CuResult<()> {
        let context = self.context(call.context)?;
        if !self.table.textures.remove(&(call.context, texture)) {
            return Err(CuError::INVALID_VALUE);
        }
        let result = self.device.texture_destroy(context, texture);
        self.settle(call.context, result)
    }

    pub(super) fn surface_create(&mut self, call: Call, handle: ArrayHandle) -> CuResult<Object> {
        let context = self.context(call.context)?;
        let array = *self.table.arrays.get(handle)?;
        self.context(array.context)?;
        if !array.shape.has(flag::SURFACE) {
            return Err(CuError::INVALID_VALUE);
        }
        if self.table.surfaces.len() >= OBJECTS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let result = self.device.surface_create(context, array.raw);
        let object = self.settle(call.context, result)?;
        self.table.surfaces.insert((call.context, object));
        Ok(object)
    }

    pub(super) fn surface_destroy(&mut self, call: Call, surface: Object) -> CuResult<()> {
        let context = self.context(call.context)?;
        if !self.table.surfaces.remove(&(call.context, surface)) {
            return Err(CuError::INVALID_VALUE);
        }
        let result = self.device.surface_destroy(context, surface);
        self.settle(call.context, result)
    }

    pub(super) fn linear_texture_max(
        &mut self,
        call: Call,
        device: u32,
        format: u32,
        channels: u32,
    ) -> CuResult<u64> {
        self.context(call.context)?;
        self.check_device(device)?;
        Element::of(format, channels)?;
        self.device.linear_texture_max(format, channels)
    }

    /// Ends what a context has of all this; the bytes of what the device did not free.
    pub(super) fn end_arrays_of(&mut self, id: ContextId, number: u32, context: Raw) -> u64 {
        let Self { table, device, quotas, .. } = self;
        for (_, object) in table.textures.extract_if(|(owner, _)| *owner == id) {
            let _ = device.texture_destroy(context, object);
        }
        for (_, object) in table.surfaces.extract_if(|(owner, _)| *owner == id) {
            let _ = device.surface_destroy(context, object);
        }
        let arrays = table.arrays.remove_where(|array| array.context == id).into_iter();
        let arrays = arrays.filter(|array| array.level_of.is_none());
        let mut ended: Vec<_> =
            arrays.map(|array| (device.array_destroy(context, array.raw), array.charged_bytes)).collect();
        for kept in table.references.kept.extract_if(.., |kept| kept.context == id) {
            ended.push((kept.what.end(&mut **device, context), kept.charged_bytes));
        }
        for mipmap in table.mipmaps.remove_where(|mipmap| mipmap.context == id) {
            ended.push((device.mipmap_destroy(context, mipmap.raw), mipmap.charged_bytes));
        }
        let mut kept_bytes = 0;
        for (freed, charged_bytes) in ended {
            if freed.is_ok() {
                quotas.release(number, charged_bytes);
            } else {
                kept_bytes += charged_bytes;
            }
        }
        kept_bytes
    }
}
