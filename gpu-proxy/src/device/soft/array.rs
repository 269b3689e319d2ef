//! Arrays of the software GPU: rows without gaps in its checked memory.

use std::collections::HashMap;

use vgpu_api::array::{Channel, Element};
use vgpu_api::texture::{self, Sampler, View};
use vgpu_api::{ArrayShape, CuError, CuResult, Extent, Object};
use vgpu_soft as gpu;

use super::{LINEAR_TEXELS_MAX, Soft, error};
use crate::device::{Arrays, Place, Raw, Side, TexelSource, TextureSource};

/// What a process has of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Levels of mipmapped arrays too.
    arrays: HashMap<Raw, Array>,
    mipmaps: HashMap<Raw, Mipmap>,
}

#[derive(Clone, Copy, Debug)]
struct Array {
    address: u64,
    shape: ArrayShape,
}

#[derive(Debug)]
struct Mipmap {
    levels: Vec<Array>,
    /// The names that levels got.
    names: Vec<Raw>,
}

impl Array {
    fn row_bytes(&self) -> CuResult<u64> {
        Ok(self.shape.element()?.bytes() * self.shape.width)
    }

    fn rows(&self, [x, y, z]: [u64; 3]) -> CuResult<Rows> {
        let pitch = self.row_bytes()?;
        let slice = pitch * self.shape.extent()[1];
        Ok(Rows { start: self.address + z * slice + y * pitch + x, pitch, slice })
    }

    fn level(&self) -> CuResult<gpu::Level> {
        let Rows { start, pitch, slice } = self.rows([0; 3])?;
        let side = |size: u64| u32::try_from(size).map_err(|_| CuError::INVALID_VALUE);
        let [width, height, depth] = self.shape.extent();
        let extent = [side(width)?, side(height)?, side(depth)?];
        Ok(gpu::Level { address: start, extent, pitch, slice })
    }
}

/// Where rows lie. All sums are of numbers that lie inside one allocation: the session has checked them.
#[derive(Clone, Copy, Debug)]
struct Rows {
    start: u64,
    pitch: u64,
    slice: u64,
}

impl Rows {
    fn each(self, size: Extent) -> impl Iterator<Item = u64> {
        let row = move |z: u64, y: u64| self.start + z * self.slice + y * self.pitch;
        (0..size.depth).flat_map(move |z| (0..size.height).map(move |y| row(z, y)))
    }
}

/// Bytes of all levels: each starts where an allocation could.
fn level_starts(shape: &ArrayShape, levels: u32) -> CuResult<(Vec<u64>, u64)> {
    let (mut starts, mut end) = (Vec::new(), 0_u64);
    for level in 0..levels {
        starts.push(end);
        let bytes = shape.level(level).bytes().ok_or(CuError::INVALID_VALUE)?;
        let bytes = bytes.checked_next_multiple_of(gpu::ALIGN).ok_or(CuError::INVALID_VALUE)?;
        end = end.checked_add(bytes).ok_or(CuError::INVALID_VALUE)?;
    }
    Ok((starts, end))
}

fn texel(element: Element) -> gpu::Texel {
    let kind = match element.channel {
        Channel::Unsigned => gpu::ChannelKind::Unsigned,
        Channel::Signed => gpu::ChannelKind::Signed,
        Channel::Float => gpu::ChannelKind::Float,
        Channel::UnsignedFraction => gpu::ChannelKind::UnsignedFraction,
        Channel::SignedFraction => gpu::ChannelKind::SignedFraction,
    };
    // 1, 2 or 4.
    let channel_bytes = u32::try_from(element.channel_bytes).unwrap_or(4);
    gpu::Texel { kind, channel_bytes, channels: element.channels }
}

fn sampler(given: &Sampler) -> CuResult<gpu::Sampler> {
    // sRGB: not offered here.
    if given.flags & texture::flag::SRGB != 0 {
        return Err(CuError::NOT_SUPPORTED);
    }
    let mode = |number: u32| match number {
        0 => gpu::AddressMode::Wrap,
        1 => gpu::AddressMode::Clamp,
        2 => gpu::AddressMode::Mirror,
        _ => gpu::AddressMode::Border,
    };
    Ok(gpu::Sampler {
        address: given.address.map(mode),
        linear: given.filter == 1,
        mip_linear: given.mip_filter == 1,
        as_integer: given.flags & texture::flag::READ_AS_INTEGER != 0,
        normalized: given.flags & texture::flag::NORMALIZED != 0,
        border: given.border.map(f32::from_bits),
        bias: given.mip_bias,
        level_min: given.level_min,
        level_max: given.level_max,
    })
}

/// The format of a `CUresourceViewFormat`, as `CUarray_format` and channels.
fn view_format(number: u32) -> CuResult<(u32, u32)> {
    const FORMATS: [u32; 8] = [0x01, 0x08, 0x02, 0x09, 0x03, 0x0a, 0x10, 0x20];
    let place = number.checked_sub(1).ok_or(CuError::INVALID_VALUE)?;
    // Behind them the block-compressed ones.
    let format = FORMATS.get(place as usize / 3).ok_or(CuError::NOT_SUPPORTED)?;
    Ok((*format, 1 << (place % 3)))
}

/// The levels and texel of an array, as a view shows them.
fn viewed(levels: &[Array], view: Option<&View>) -> CuResult<(Vec<gpu::Level>, gpu::Texel)> {
    let first = levels.first().ok_or(CuError::INVALID_VALUE)?;
    let mut element = first.shape.element()?;
    let Some(view) = view else {
        return Ok((levels.iter().map(Array::level).collect::<CuResult<_>>()?, texel(element)));
    };
    let ArrayShape { width, height, depth, .. } = first.shape;
    if [view.width, view.height, view.depth] != [width, height, depth] {
        return Err(CuError::INVALID_VALUE);
    }
    if view.format != 0 {
        let (format, channels) = view_format(view.format)?;
        let seen = Element::of(format, channels)?;
        if seen.bytes() != element.bytes() {
            return Err(CuError::INVALID_VALUE);
        }
        element = seen;
    }
    let shown =
        levels.get(view.levels[0] as usize..=view.levels[1] as usize).ok_or(CuError::INVALID_VALUE)?;
    let cut = |array: &Array| -> CuResult<gpu::Level> {
        let mut level = array.level()?;
        if array.shape.is_layered() {
            level.address += u64::from(view.layers[0]) * level.slice;
            level.extent[2] = view.layers[1] - view.layers[0] + 1;
        }
        Ok(level)
    };
    Ok((shown.iter().map(cut).collect::<CuResult<_>>()?, texel(element)))
}

impl Soft {
    fn array(&self, array: Raw) -> CuResult<&Array> {
        self.arrays.arrays.get(&array).ok_or(CuError::INVALID_HANDLE)
    }

    fn side(&self, side: Side) -> CuResult<Rows> {
        match side {
            Side::Linear(place) => {
                // One slice need not say its height.
                let slice = place.pitch.saturating_mul(place.height);
                Ok(Rows { start: place.at.0, pitch: place.pitch, slice })
            }
            Side::Array(array, corner) => self.array(array)?.rows(corner),
        }
    }

    pub(super) fn texture(&self, source: &TextureSource) -> CuResult<gpu::Texture> {
        let mut sampler = sampler(&source.sampler)?;
        let view = source.view.as_ref();
        let (levels, texel, zero_outside) = match &source.texels {
            TexelSource::Array(array) => {
                let (levels, texel) = viewed(&[*self.array(*array)?], view)?;
                (levels, texel, false)
            }
            TexelSource::Mipmap(mipmap) => {
                let mipmap = self.arrays.mipmaps.get(mipmap).ok_or(CuError::INVALID_HANDLE)?;
                let (levels, texel) = viewed(&mipmap.levels, view)?;
                (levels, texel, false)
            }
            TexelSource::Linear(texels) => {
                let element = Element::of(texels.format, texels.channels)?;
                let count = texels.bytes / element.bytes();
                if count > LINEAR_TEXELS_MAX {
                    return Err(CuError::INVALID_VALUE);
                }
                let width = u32::try_from(count).map_err(|_| CuError::INVALID_VALUE)?;
                let level = gpu::Level { address: texels.at.0, extent: [width, 1, 1], pitch: 0, slice: 0 };
                // Neither filter nor normalized coordinates: as `cuTexObjectCreate` says of linear memory.
                (sampler.linear, sampler.normalized) = (false, false);
                (vec![level], texel(element), true)
            }
            TexelSource::Pitched(texels) => {
                let element = Element::of(texels.format, texels.channels)?;
                let side = |size: u64| u32::try_from(size).map_err(|_| CuError::INVALID_VALUE);
                let extent = [side(texels.width)?, side(texels.height)?, 1];
                let level = gpu::Level { address: texels.at.0, extent, pitch: texels.pitch, slice: 0 };
                (vec![level], texel(element), false)
            }
        };
        Ok(gpu::Texture { levels, texel, sampler, zero_outside })
    }

    pub(super) fn surface(&self, array: Raw) -> CuResult<gpu::Surface> {
        let array = self.array(array)?;
        Ok(gpu::Surface { level: array.level()?, texel: texel(array.shape.element()?) })
    }
}

impl Arrays for Soft {
    fn array_bytes(&mut self, _context: Raw, shape: &ArrayShape, levels: u32) -> CuResult<u64> {
        level_starts(shape, levels).map(|(_, bytes)| bytes)
    }

    fn array_create(&mut self, context: Raw, shape: &ArrayShape) -> CuResult<Raw> {
        shape.fits(false, gpu::attribute)?;
        let bytes = shape.bytes().ok_or(CuError::INVALID_VALUE)?;
        let device = self.context(context)?.device;
        let address =
            self.gpu.memory().alloc_on(device, bytes).map_err(|refused| error(refused.cu_result()))?;
        let name = self.name();
        self.arrays.arrays.insert(name, Array { address, shape: *shape });
        Ok(name)
    }

    fn array_destroy(&mut self, _context: Raw, array: Raw) -> CuResult<()> {
        let Array { address, .. } = self.arrays.arrays.remove(&array).ok_or(CuError::INVALID_HANDLE)?;
        self.gpu.memory().free(address).map_err(|refused| error(refused.cu_result()))
    }

    fn mipmap_create(&mut self, context: Raw, shape: &ArrayShape, levels: u32) -> CuResult<Raw> {
        shape.fits(true, gpu::attribute)?;
        let (starts, bytes) = level_starts(shape, levels)?;
        let device = self.context(context)?.device;
        let address =
            self.gpu.memory().alloc_on(device, bytes).map_err(|refused| error(refused.cu_result()))?;
        let level =
            |(start, level): (u64, u32)| Array { address: address + start, shape: shape.level(level) };
        let levels = starts.into_iter().zip(0..).map(level).collect();
        let name = self.name();
        self.arrays.mipmaps.insert(name, Mipmap { levels, names: Vec::new() });
        Ok(name)
    }

    fn mipmap_level(&mut self, _context: Raw, mipmap: Raw, level: u32) -> CuResult<Raw> {
        let name = self.name();
        let Table { arrays, mipmaps } = &mut self.arrays;
        let mipmap = mipmaps.get_mut(&mipmap).ok_or(CuError::INVALID_HANDLE)?;
        let array = mipmap.levels.get(level as usize).ok_or(CuError::INVALID_VALUE)?;
        arrays.insert(name, *array);
        mipmap.names.push(name);
        Ok(name)
    }

    fn mipmap_destroy(&mut self, _context: Raw, mipmap: Raw) -> CuResult<()> {
        let mipmap = self.arrays.mipmaps.remove(&mipmap).ok_or(CuError::INVALID_HANDLE)?;
        for name in mipmap.names {
            self.arrays.arrays.remove(&name);
        }
        let start = mipmap.levels.first().map_or(0, |level| level.address);
        self.gpu.memory().free(start).map_err(|refused| error(refused.cu_result()))
    }

    fn array_write(&mut self, _: Place, to: (Raw, [u64; 3]), size: Extent, bytes: &[u8]) -> CuResult<()> {
        let rows = self.array(to.0)?.rows(to.1)?;
        let row_bytes = usize::try_from(size.width_bytes).map_err(|_| CuError::INVALID_VALUE)?;
        rows.each(size).zip(bytes.chunks(row_bytes)).try_for_each(|(at, row)| {
            self.gpu.memory().write(at, row).map_err(|refused| error(refused.cu_result()))
        })
    }

    fn array_read(
        &mut self,
        _: Place,
        from: (Raw, [u64; 3]),
        size: Extent,
        bytes: &mut [u8],
    ) -> CuResult<()> {
        let rows = self.array(from.0)?.rows(from.1)?;
        let row_bytes = usize::try_from(size.width_bytes).map_err(|_| CuError::INVALID_VALUE)?;
        rows.each(size).zip(bytes.chunks_mut(row_bytes)).try_for_each(|(at, row)| {
            self.gpu.memory().read(at, row).map_err(|refused| error(refused.cu_result()))
        })
    }

    fn copy_box(&mut self, _place: Place, to: Side, from: Side, size: Extent) -> CuResult<()> {
        let (to, from) = (self.side(to)?, self.side(from)?);
        to.each(size).zip(from.each(size)).try_for_each(|(to, from)| {
            self.gpu.memory().copy(to, from, size.width_bytes).map_err(|refused| error(refused.cu_result()))
        })
    }

    fn texture_create(&mut self, _context: Raw, texture: &TextureSource) -> CuResult<Object> {
        let texture = self.texture(texture)?;
        Ok(Object(self.gpu.texture_create(texture)))
    }

    fn texture_destroy(&mut self, _context: Raw, texture: Object) -> CuResult<()> {
        if self.gpu.texture_destroy(texture.0) { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }

    fn surface_create(&mut self, _context: Raw, array: Raw) -> CuResult<Object> {
        let surface = self.surface(array)?;
        Ok(Object(self.gpu.surface_create(surface)))
    }

    fn surface_destroy(&mut self, _context: Raw, surface: Object) -> CuResult<()> {
        if self.gpu.surface_destroy(surface.0) { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }

    fn linear_texture_max(&mut self, _format: u32, _channels: u32) -> CuResult<u64> {
        Ok(LINEAR_TEXELS_MAX)
    }
}
