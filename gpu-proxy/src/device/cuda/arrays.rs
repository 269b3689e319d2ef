//! Arrays, textures and surfaces of NVIDIA's driver.

use std::collections::HashMap;
use std::ptr;

use vgpu_api::descriptors::{Array3dDesc, Described, ResourceDesc, TextureDesc, ViewDesc};
use vgpu_api::{ArrayShape, CuError, CuResult, Extent, LinearPlace, Object};

use super::table::{Copy3d, CopySide, NULL, Ptr, Requirements, Table};
use super::{Cuda, Names, size};
use crate::device::{Arrays as DeviceArrays, Place, Raw, Side, TexelSource, TextureSource};

/// `CUDA_ARRAY3D_DEFERRED_MAPPING`: no memory yet.
const DEFERRED: u32 = 0x80;
/// `CUmemorytype`.
const HOST: u32 = 1;
const ARRAY: u32 = 3;

/// The driver's arrays by our names.
#[derive(Debug, Default)]
pub(super) struct Arrays {
    arrays: Names,
    mipmaps: Names,
    /// The names that a mipmapped array's levels got, by its own.
    levels: HashMap<Raw, Vec<Raw>>,
}

impl Arrays {
    /// The driver's pointer to an array or a level.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn array(&self, array: Raw) -> CuResult<Ptr> {
        self.arrays.get(array)
    }

    /// The driver's pointer to a mipmapped array.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn mipmap(&self, mipmap: Raw) -> CuResult<Ptr> {
        self.mipmaps.get(mipmap)
    }
}

/// What the driver says that an array without memory will need. Nothing of it stays.
fn asked(table: &Table, device: i32, shape: &ArrayShape, levels: u32) -> CuResult<u64> {
    let descriptor = Array3dDesc::from(ArrayShape { flags: shape.flags | DEFERRED, ..*shape });
    let (mut array, mut needs) = (NULL, Requirements::default());
    let found = if levels == 1 {
        // SAFETY: the driver reads the descriptor and writes a pointer, both ours.
        unsafe { table.cuArray3DCreate_v2(&raw mut array, &raw const descriptor) }?;
        // SAFETY: the array was just made; the driver writes a structure of ours.
        let found = unsafe { table.cuArrayGetMemoryRequirements(&raw mut needs, array, device) };
        // SAFETY: as above; it is named no more.
        unsafe { table.cuArrayDestroy(array) }?;
        found
    } else {
        // SAFETY: as for an array without levels.
        unsafe { table.cuMipmappedArrayCreate(&raw mut array, &raw const descriptor, levels) }?;
        // SAFETY: as above.
        let found = unsafe { table.cuMipmappedArrayGetMemoryRequirements(&raw mut needs, array, device) };
        // SAFETY: as above.
        unsafe { table.cuMipmappedArrayDestroy(array) }?;
        found
    };
    found.map(|()| needs.bytes as u64)
}

/// What is counted for an array when the driver says nothing: block-linear, in blocks of 64 bytes by 8 rows, up to 16 of them along the
/// rows and 32 along the slices, the whole in pages of 64 KiB.
fn bound(shape: &ArrayShape, levels: u32) -> Option<u64> {
    let element = shape.element().ok()?.bytes();
    let level = |level| {
        let level = shape.level(level);
        let [width, height, depth] = level.extent();
        let row = width.checked_mul(element)?.checked_next_multiple_of(64)?;
        let group = height.div_ceil(8).checked_next_power_of_two()?.min(16) * 8;
        let rows = height.checked_next_multiple_of(group)?;
        let slices = if shape.is_layered() {
            depth
        } else {
            depth.checked_next_multiple_of(depth.checked_next_power_of_two()?.min(32))?
        };
        row.checked_mul(rows)?.checked_mul(slices)
    };
    let all = (0..levels).try_fold(0_u64, |sum, number| sum.checked_add(level(number)?))?;
    all.checked_next_multiple_of(64 << 10)
}

/// Rows of device memory, or of pinned pages.
fn linear(place: &LinearPlace) -> CuResult<CopySide> {
    let (pitch, height) = (size(place.pitch)?, size(place.height)?);
    Ok(CopySide { pitch, height, ..CopySide::at(place.at.0) })
}

/// Rows without gaps.
pub(super) fn host(bytes: *mut u8, extent: Extent) -> CuResult<CopySide> {
    let (pitch, height) = (size(extent.width_bytes)?, size(extent.height)?);
    Ok(CopySide { host: bytes.cast(), pitch, height, ..CopySide::of(HOST) })
}

pub(super) fn copy(to: CopySide, from: CopySide, extent: Extent) -> CuResult<Copy3d> {
    let Extent { width_bytes, height, depth } = extent;
    Ok(Copy3d { from, to, width_bytes: size(width_bytes)?, height: size(height)?, depth: size(depth)? })
}

impl Cuda {
    fn array_side(&self, (array, [x, y, z]): (Raw, [u64; 3])) -> CuResult<CopySide> {
        let array = self.arrays.arrays.get(array)?;
        Ok(CopySide { x_bytes: size(x)?, y: size(y)?, z: size(z)?, array, ..CopySide::of(ARRAY) })
    }

    pub(super) fn box_side(&self, side: Side) -> CuResult<CopySide> {
        match side {
            Side::Linear(place) => linear(&place),
            Side::Array(array, corner) => self.array_side((array, corner)),
        }
    }

    fn resource(&self, texels: &TexelSource) -> CuResult<ResourceDesc> {
        let handle = |pointer: Ptr| pointer.expose_provenance() as u64;
        let described = match texels {
            TexelSource::Array(array) => Described::Array(handle(self.arrays.array(*array)?)),
            TexelSource::Mipmap(mipmap) => Described::Mipmap(handle(self.arrays.mipmap(*mipmap)?)),
            TexelSource::Linear(texels) => Described::Linear(*texels),
            TexelSource::Pitched(texels) => Described::Pitched(*texels),
        };
        Ok(described.into())
    }
}

impl DeviceArrays for Cuda {
    fn array_bytes(&mut self, context: Raw, shape: &ArrayShape, levels: u32) -> CuResult<u64> {
        self.enter(context)?;
        match asked(&self.table, self.device_of(context)?, shape, levels) {
            Ok(bytes) => Ok(bytes),
            // A device, or a format, that knows no mapping later.
            Err(error) if !error.is_sticky() => bound(shape, levels).ok_or(CuError::INVALID_VALUE),
            Err(error) => Err(error),
        }
    }

    fn array_create(&mut self, context: Raw, shape: &ArrayShape) -> CuResult<Raw> {
        self.enter(context)?;
        let (descriptor, mut array) = (Array3dDesc::from(*shape), NULL);
        // SAFETY: the driver reads the descriptor and writes a pointer, both ours.
        unsafe { self.table.cuArray3DCreate_v2(&raw mut array, &raw const descriptor) }?;
        Ok(self.arrays.arrays.add(array))
    }

    fn array_destroy(&mut self, context: Raw, array: Raw) -> CuResult<()> {
        self.enter(context)?;
        let pointer = self.arrays.arrays.get(array)?;
        // SAFETY: a live array of ours; it is named no more if this succeeds.
        unsafe { self.table.cuArrayDestroy(pointer) }?;
        self.arrays.arrays.remove(array).map(drop)
    }

    fn mipmap_create(&mut self, context: Raw, shape: &ArrayShape, levels: u32) -> CuResult<Raw> {
        self.enter(context)?;
        let (descriptor, mut mipmap) = (Array3dDesc::from(*shape), NULL);
        // SAFETY: as for an array.
        unsafe { self.table.cuMipmappedArrayCreate(&raw mut mipmap, &raw const descriptor, levels) }?;
        Ok(self.arrays.mipmaps.add(mipmap))
    }

    fn mipmap_level(&mut self, context: Raw, mipmap: Raw, level: u32) -> CuResult<Raw> {
        self.enter(context)?;
        let (pointer, mut array) = (self.arrays.mipmaps.get(mipmap)?, NULL);
        // SAFETY: a live mipmapped array of ours; the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuMipmappedArrayGetLevel(&raw mut array, pointer, level) }?;
        let name = self.arrays.arrays.add(array);
        self.arrays.levels.entry(mipmap).or_default().push(name);
        Ok(name)
    }

    fn mipmap_destroy(&mut self, context: Raw, mipmap: Raw) -> CuResult<()> {
        self.enter(context)?;
        let pointer = self.arrays.mipmaps.get(mipmap)?;
        // SAFETY: a live mipmapped array of ours; neither it nor its levels are named any more if this succeeds.
        unsafe { self.table.cuMipmappedArrayDestroy(pointer) }?;
        for level in self.arrays.levels.remove(&mipmap).unwrap_or_default() {
            self.arrays.arrays.remove(level)?;
        }
        self.arrays.mipmaps.remove(mipmap).map(drop)
    }

    fn array_write(
        &mut self,
        place: Place,
        to: (Raw, [u64; 3]),
        extent: Extent,
        bytes: &[u8],
    ) -> CuResult<()> {
        let stream = self.stream(place)?;
        let copy = copy(self.array_side(to)?, host(bytes.as_ptr().cast_mut(), extent)?, extent)?;
        // SAFETY: the box lies inside the array, and `bytes` is as long as it is (the session checked both); the driver does not write
        // to a source. Pageable memory has been taken over when this returns (CUDA, "API synchronization behavior").
        unsafe { self.table.cuMemcpy3DAsync_v2(&raw const copy, stream) }
    }

    fn array_read(
        &mut self,
        place: Place,
        from: (Raw, [u64; 3]),
        extent: Extent,
        bytes: &mut [u8],
    ) -> CuResult<()> {
        let stream = self.stream(place)?;
        let copy = copy(host(bytes.as_mut_ptr(), extent)?, self.array_side(from)?, extent)?;
        // SAFETY: as for a write, the other way; it is waited for below.
        unsafe { self.table.cuMemcpy3DAsync_v2(&raw const copy, stream) }?;
        // SAFETY: a live stream of ours, or the default one.
        let waited = unsafe { self.table.cuStreamSynchronize(stream) };
        self.look_for_output(waited)
    }

    fn copy_box(&mut self, place: Place, to: Side, from: Side, extent: Extent) -> CuResult<()> {
        let stream = self.stream(place)?;
        let mut copy = copy(self.box_side(to)?, self.box_side(from)?, extent)?;
        if self.elsewhere(place, &[copy.to.device, copy.from.device])?.is_some() {
            copy.to.context = self.context_with(place, copy.to.device)?;
            copy.from.context = self.context_with(place, copy.from.device)?;
            // SAFETY: both boxes lie inside an array or a range of the process (the session checked them), the contexts are live ones of
            // ours.
            return unsafe { self.table.cuMemcpy3DPeerAsync(&raw const copy, stream) };
        }
        // SAFETY: both boxes lie inside an array or a range of the process (the session checked them).
        unsafe { self.table.cuMemcpy3DAsync_v2(&raw const copy, stream) }
    }

    fn texture_create(&mut self, context: Raw, texture: &TextureSource) -> CuResult<Object> {
        self.enter(context)?;
        let (resource, sampler) = (self.resource(&texture.texels)?, TextureDesc::from(texture.sampler));
        let view = texture.view.map(ViewDesc::from);
        let (mut object, view) = (0, view.as_ref().map_or(ptr::null(), ptr::from_ref));
        // SAFETY: the driver reads three structures of ours (the last may be null) and writes a number; arrays are live ones of ours,
        // addresses were checked.
        unsafe {
            self.table.cuTexObjectCreate(&raw mut object, &raw const resource, &raw const sampler, view)
        }?;
        Ok(Object(object))
    }

    fn texture_destroy(&mut self, context: Raw, texture: Object) -> CuResult<()> {
        self.enter(context)?;
        // SAFETY: a live texture object of this context (the session keeps count).
        unsafe { self.table.cuTexObjectDestroy(texture.0) }
    }

    fn surface_create(&mut self, context: Raw, array: Raw) -> CuResult<Object> {
        self.enter(context)?;
        let (resource, mut object) = (self.resource(&TexelSource::Array(array))?, 0);
        // SAFETY: the driver reads a structure of ours and writes a number; the array is a live one of ours.
        unsafe { self.table.cuSurfObjectCreate(&raw mut object, &raw const resource) }?;
        Ok(Object(object))
    }

    fn surface_destroy(&mut self, context: Raw, surface: Object) -> CuResult<()> {
        self.enter(context)?;
        // SAFETY: a live surface object of this context (the session keeps count).
        unsafe { self.table.cuSurfObjectDestroy(surface.0) }
    }

    fn linear_texture_max(&mut self, format: u32, channels: u32) -> CuResult<u64> {
        let mut most = 0;
        // SAFETY: the driver writes one number to a variable of ours.
        unsafe {
            self.table.cuDeviceGetTexture1DLinearMaxWidth(&raw mut most, format, channels, self.first())
        }?;
        Ok(most as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_never_below_the_elements_and_has_an_end() {
        let shape = ArrayShape { width: 100, height: 30, depth: 5, format: 0x20, channels: 4, flags: 0 };
        let one = bound(&shape, 1).unwrap();
        // 1600 bytes a row, 30 rows in groups of 32, 5 slices in groups of 8.
        assert_eq!(one, (1600_u64 * 32 * 8).next_multiple_of(64 << 10));
        assert!(bound(&shape, 7).unwrap() >= shape.bytes_of_levels(7).unwrap());
        // 16 MiB, and a quarter of that.
        let square = ArrayShape { width: 1024, height: 1024, depth: 0, ..shape };
        assert_eq!(bound(&square, 2), Some(20 << 20));
        assert_eq!(bound(&ArrayShape { width: u64::MAX / 8, ..shape }, 1), None);
    }
}
