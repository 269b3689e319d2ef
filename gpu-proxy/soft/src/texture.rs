//! Textures and surfaces, of objects and of references: which texels a coordinate means, and how they become a value.
//!
//! Source: CUDA programming guide, "Texture Fetching"; PTX ISA, 9.7.10. Filtering weighs in 256ths, as a GPU does.
//! The rule: memory is reached by the caller's own checked access only; a texture holds no more than addresses.
//! Not here: instructions (`code/select_texture.rs`, `exec/texture.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Fault;
use crate::code::half;

/// How the numbers of a channel are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// As they are.
    Unsigned,
    /// As they are.
    Signed,
    /// Binary16 or binary32.
    Float,
    /// As a fraction of the largest.
    UnsignedFraction,
    /// As a fraction of the largest.
    SignedFraction,
}

/// An element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Texel {
    /// What a channel holds.
    pub kind: ChannelKind,
    /// Bytes of a channel: 1, 2 or 4.
    pub channel_bytes: u32,
    /// 1, 2 or 4.
    pub channels: u32,
}

impl Texel {
    fn bytes(self) -> u64 {
        u64::from(self.channel_bytes) * u64::from(self.channels)
    }
}

/// Rows of elements in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// The first element.
    pub address: u64,
    /// Elements of a row, rows, slices or layers: none is 0.
    pub extent: [u32; 3],
    /// Bytes from a row to the next.
    pub pitch: u64,
    /// Bytes from a slice to the next.
    pub slice: u64,
}

impl Level {
    fn at(&self, x_bytes: u64, y: u32, z: u32) -> u64 {
        let rows = self.pitch.wrapping_mul(u64::from(y)).wrapping_add(self.slice.wrapping_mul(u64::from(z)));
        self.address.wrapping_add(rows).wrapping_add(x_bytes)
    }
}

/// What a coordinate outside means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressMode {
    /// The texture again.
    #[default]
    Wrap,
    /// The nearest element.
    Clamp,
    /// The texture again, each second time backwards.
    Mirror,
    /// The border's value.
    Border,
}

/// How a texture reads; by default as a description of zeros says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sampler {
    /// By dimension.
    pub address: [AddressMode; 3],
    /// Between the nearest elements, not the nearest alone.
    pub linear: bool,
    /// The same between levels.
    pub mip_linear: bool,
    /// Integers stay integers.
    pub as_integer: bool,
    /// Coordinates from 0 to 1.
    pub normalized: bool,
    /// What lies outside.
    pub border: [f32; 4],
    /// Added to the level.
    pub bias: f32,
    /// Lowest level.
    pub level_min: f32,
    /// Highest level.
    pub level_max: f32,
}

/// A texture object.
#[derive(Debug, Clone)]
pub struct Texture {
    /// The first is the largest. There is one.
    pub levels: Vec<Level>,
    /// What it is made of.
    pub texel: Texel,
    /// How it reads.
    pub sampler: Sampler,
    /// Outside is 0 whatever the sampler says: a row of device memory.
    pub zero_outside: bool,
}

/// A surface object.
#[derive(Debug, Clone)]
pub struct Surface {
    /// Its rows.
    pub level: Level,
    /// What it is made of.
    pub texel: Texel,
}

/// All objects of a device. A launch keeps those that lived when it started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects {
    pub textures: BTreeMap<u64, Arc<Texture>>,
    pub surfaces: BTreeMap<u64, Arc<Surface>>,
    /// The number that was given out last; none is given twice, references of modules included.
    pub last: u64,
}

/// What a coordinate's numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// 1 to 3.
    pub dimensions: usize,
    /// A layer comes first.
    pub layered: bool,
}

impl Shape {
    /// How many numbers a coordinate has.
    pub fn numbers(self) -> usize {
        self.dimensions + usize::from(self.layered)
    }
}

/// A coordinate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Coordinate {
    /// As the sampler reads them.
    Floats([f32; 3]),
    /// Elements.
    Elements([i64; 3]),
}

/// Four channels of the result: bits of a binary32, or an integer.
pub(crate) type Value = [u32; 4];

/// Reads `width` bytes at an address.
pub(crate) type Fetch<'f> = dyn FnMut(u64, u32) -> Result<u64, Fault> + 'f;

impl Texture {
    /// Whether the result is binary32.
    fn is_float(&self) -> bool {
        match self.texel.kind {
            ChannelKind::Float | ChannelKind::UnsignedFraction | ChannelKind::SignedFraction => true,
            // Integers of 32 bits are never made fractions.
            ChannelKind::Unsigned | ChannelKind::Signed => {
                !self.sampler.as_integer && self.texel.channel_bytes < 4
            }
        }
    }

    /// The value at a coordinate, in a layer, of a level.
    pub(crate) fn sample(
        &self,
        dimensions: usize,
        at: Coordinate,
        layer: u32,
        level: f32,
        fetch: &mut Fetch<'_>,
    ) -> Result<Value, Fault> {
        let last = self.levels.len().saturating_sub(1);
        let Sampler { bias, level_min, level_max, mip_linear, .. } = self.sampler;
        // Not `clamp`: the program's limits may be in any order, or no numbers.
        let wanted = (level + bias).max(level_min).min(level_max).max(0.0).min(last as f32);
        if !(mip_linear && self.is_float()) {
            return self.of_level(whole((wanted + 0.5).floor(), last), dimensions, at, layer, fetch);
        }
        let low = whole(wanted.floor(), last);
        let first = self.of_level(low, dimensions, at, layer, fetch)?;
        let weight = fraction(wanted - wanted.floor());
        if weight == 0.0 {
            return Ok(first);
        }
        let second = self.of_level((low + 1).min(last), dimensions, at, layer, fetch)?;
        Ok(mix(first, second, weight))
    }

    fn of_level(
        &self,
        level: usize,
        dimensions: usize,
        at: Coordinate,
        layer: u32,
        fetch: &mut Fetch<'_>,
    ) -> Result<Value, Fault> {
        let Some(level) = self.levels.get(level) else { return Ok([0; 4]) };
        let floats = match at {
            Coordinate::Elements(at) => return self.texel(level, dimensions, at, false, layer, fetch),
            Coordinate::Floats(at) => self.in_elements(level, at),
        };
        let wraps = self.sampler.normalized;
        if !(self.sampler.linear && self.is_float()) {
            return self.texel(level, dimensions, floats.map(floor), wraps, layer, fetch);
        }
        let below = floats.map(|x| floor(x - 0.5));
        let mut weights = [0.0; 3];
        for (weight, x) in weights.iter_mut().zip(floats).take(dimensions) {
            *weight = fraction((x - 0.5) - (x - 0.5).floor());
        }
        self.corners(level, dimensions, below, weights, layer, fetch)
    }

    /// Between the two, four or eight elements around: along x first.
    fn corners(
        &self,
        level: &Level,
        dimensions: usize,
        below: [i64; 3],
        weights: [f32; 3],
        layer: u32,
        fetch: &mut Fetch<'_>,
    ) -> Result<Value, Fault> {
        let wraps = self.sampler.normalized;
        let mut sums: Vec<Value> = Vec::with_capacity(8);
        for corner in 0..1_usize << dimensions {
            let at: [i64; 3] =
                std::array::from_fn(|axis| below[axis].saturating_add(i64::from(corner >> axis & 1 == 1)));
            sums.push(self.texel(level, dimensions, at, wraps, layer, fetch)?);
        }
        for weight in weights.into_iter().take(dimensions) {
            sums = sums.chunks(2).map(|pair| mix(pair[0], pair[pair.len() - 1], weight)).collect();
        }
        Ok(sums.first().copied().unwrap_or([0; 4]))
    }

    /// `tld4`: one channel of the four elements around, from below left against the clock, as PTX orders them.
    pub(crate) fn gather(&self, channel: usize, at: [f32; 3], fetch: &mut Fetch<'_>) -> Result<Value, Fault> {
        let Some(level) = self.levels.first() else { return Ok([0; 4]) };
        let [x, y, _] = self.in_elements(level, at).map(|x| floor(x - 0.5));
        let mut value = [0; 4];
        for (out, (right, down)) in value.iter_mut().zip([(0, 1), (1, 1), (1, 0), (0, 0)]) {
            let at = [x.saturating_add(right), y.saturating_add(down), 0];
            *out = self.texel(level, 2, at, self.sampler.normalized, 0, fetch)?[channel & 3];
        }
        Ok(value)
    }

    fn in_elements(&self, level: &Level, at: [f32; 3]) -> [f32; 3] {
        std::array::from_fn(|axis| {
            if self.sampler.normalized { at[axis] * level.extent[axis] as f32 } else { at[axis] }
        })
    }

    /// The element at a place, which may be outside. `wraps`: wrapping and mirroring are allowed; else they clamp.
    fn texel(
        &self,
        level: &Level,
        dimensions: usize,
        at: [i64; 3],
        wraps: bool,
        layer: u32,
        fetch: &mut Fetch<'_>,
    ) -> Result<Value, Fault> {
        let mut place = [0, 0, 0];
        for axis in 0..dimensions {
            let mode = match self.sampler.address[axis] {
                _ if self.zero_outside => AddressMode::Border,
                AddressMode::Wrap | AddressMode::Mirror if !wraps => AddressMode::Clamp,
                mode => mode,
            };
            match inside(mode, at[axis], level.extent[axis]) {
                Some(index) => place[axis] = index,
                None if self.zero_outside => return Ok([0; 4]),
                None => return Ok(self.border()),
            }
        }
        // Of layers the third side counts, of what has fewer dimensions it is 1.
        if dimensions < 3 {
            place[2] = layer.min(level.extent[2].saturating_sub(1));
        }
        let [x, y, z] = place;
        let start = level.at(u64::from(x) * self.texel.bytes(), y, z);
        let mut value = [0; 4];
        for (channel, out) in value.iter_mut().enumerate().take(self.texel.channels as usize) {
            let bytes = self.texel.channel_bytes;
            let raw = fetch(start.wrapping_add(channel as u64 * u64::from(bytes)), bytes)?;
            *out = self.channel(raw);
        }
        Ok(value)
    }

    fn border(&self) -> Value {
        let number = |value: f32| {
            if self.is_float() {
                value.to_bits()
            } else if self.texel.kind == ChannelKind::Signed {
                #[expect(clippy::cast_possible_truncation, reason = "the nearest integer is meant")]
                let integer = value as i32;
                integer.cast_unsigned()
            } else {
                #[expect(clippy::cast_possible_truncation, reason = "as above")]
                let integer = value as u32;
                integer
            }
        };
        self.sampler.border.map(number)
    }

    /// A channel's bits as the result has them.
    fn channel(&self, raw: u64) -> u32 {
        let bits = 8 * self.texel.channel_bytes;
        let low = (raw & 0xffff_ffff) as u32;
        let signed = (low << (32 - bits)).cast_signed() >> (32 - bits);
        let float = self.is_float();
        let unsigned_most = ((1_u64 << bits) - 1) as f32;
        let signed_most = ((1_u64 << (bits - 1)) - 1) as f32;
        match self.texel.kind {
            ChannelKind::Float if bits == 16 => half(raw).to_bits(),
            ChannelKind::Float => low,
            ChannelKind::Unsigned | ChannelKind::UnsignedFraction if float => {
                (low as f32 / unsigned_most).to_bits()
            }
            ChannelKind::Signed | ChannelKind::SignedFraction if float => {
                (signed as f32 / signed_most).max(-1.0).to_bits()
            }
            ChannelKind::Signed | ChannelKind::SignedFraction => signed.cast_unsigned(),
            ChannelKind::Unsigned | ChannelKind::UnsignedFraction => low,
        }
    }
}

/// What a surface access outside does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// Ends the kernel.
    Trap,
    /// The nearest place.
    Clamp,
    /// Reads 0, writes nothing.
    Zero,
}

impl Surface {
    /// The address of `bytes` bytes at a coordinate: bytes of a row, row, slice or layer. `None`: outside, and nothing is touched.
    pub(crate) fn place(
        &self,
        [x, y, z]: [i32; 3],
        bytes: u32,
        outside: Outside,
    ) -> Result<Option<u64>, Fault> {
        let [width, height, depth] = self.level.extent;
        let row_bytes = u64::from(width) * self.texel.bytes();
        let x_max = row_bytes.saturating_sub(u64::from(bytes));
        let fits = |at: i32, most: u64| u64::try_from(at).is_ok_and(|at| at <= most);
        let (y_max, z_max) = (u64::from(height.saturating_sub(1)), u64::from(depth.saturating_sub(1)));
        let inside = row_bytes >= u64::from(bytes) && fits(x, x_max) && fits(y, y_max) && fits(z, z_max);
        let nearest = |at: i32, most: u64| u64::try_from(at).unwrap_or(0).min(most);
        let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        match outside {
            _ if inside => {}
            Outside::Trap => return Err(Fault::Trap),
            Outside::Zero => return Ok(None),
            Outside::Clamp if row_bytes < u64::from(bytes) => return Ok(None),
            Outside::Clamp => {}
        }
        let (x, y, z) = (nearest(x, x_max), nearest(y, y_max), nearest(z, z_max));
        Ok(Some(self.level.at(x, part(y), part(z))))
    }
}

/// Where an index lies in `0..size`.
fn inside(mode: AddressMode, index: i64, size: u32) -> Option<u32> {
    let size = i64::from(size.max(1));
    let index = match mode {
        AddressMode::Border if !(0..size).contains(&index) => return None,
        AddressMode::Border => index,
        AddressMode::Clamp => index.clamp(0, size - 1),
        AddressMode::Wrap => index.rem_euclid(size),
        AddressMode::Mirror => {
            let twice = index.rem_euclid(2 * size);
            twice.min(2 * size - 1 - twice)
        }
    };
    u32::try_from(index).ok()
}

/// A coordinate's element; what is no number is 0, what is too large the largest.
fn floor(value: f32) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
    let whole = value.floor() as i64;
    whole
}

/// A level's number.
fn whole(level: f32, last: usize) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
    let level = level as usize;
    level.min(last)
}

/// A weight, as hardware has it: in 256ths.
fn fraction(weight: f32) -> f32 {
    (weight * 256.0).round() / 256.0
}

fn mix(first: Value, second: Value, weight: f32) -> Value {
    std::array::from_fn(|channel| {
        let (a, b) = (f32::from_bits(first[channel]), f32::from_bits(second[channel]));
        // Nothing of an element that has no weight, were it infinite.
        if weight == 0.0 { a.to_bits() } else { ((1.0 - weight) * a + weight * b).to_bits() }
    })
}

#[cfg(test)]
mod tests;
