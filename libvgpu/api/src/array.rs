//! CUDA arrays: their shapes, what fits them, and the parts of copies with them. Numbers: cuda.h of CUDA 13.0.
//!
//! Both ends ask the same questions here: the guest, so that a program's mistake is told at once, and the worker, which believes
//! no guest. Not here: how a device lays an array out; textures (`texture.rs`).

use crate::handle::ArrayHandle;
use crate::memory::DevicePtr;
use crate::result::{CuError, CuResult};
use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

/// Bits of [`ArrayShape::flags`]: `CUDA_ARRAY3D_…`.
pub mod flag {
    /// Depth counts layers.
    pub const LAYERED: u32 = 0x01;
    /// Surfaces may be made of it.
    pub const SURFACE: u32 = 0x02;
    /// Six faces, or six times as many layers as cubes.
    pub const CUBEMAP: u32 = 0x04;
    /// Four texels may be gathered.
    pub const GATHER: u32 = 0x08;
    /// All that CUDA 13.0 knows: beside those above, what serves other APIs (depth textures, color attachments, video) and what
    /// is mapped later (sparse, deferred).
    pub const KNOWN: u32 = 0x1ff;
    /// What a device of vgpu has.
    pub const OFFERED: u32 = LAYERED | SURFACE | CUBEMAP | GATHER;
}

/// How the numbers of a channel are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// As they are.
    Unsigned,
    /// As they are.
    Signed,
    /// Binary16 or binary32.
    Float,
    /// Unsigned, as a fraction of the largest.
    UnsignedFraction,
    /// Signed, as a fraction of the largest.
    SignedFraction,
}

/// An array's element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// What a channel holds.
    pub channel: Channel,
    /// Bytes of a channel: 1, 2 or 4.
    pub channel_bytes: u64,
    /// 1, 2 or 4.
    pub channels: u32,
}

impl Element {
    /// The element of a `CUarray_format` with so many channels.
    /// # Errors
    /// 1 for an unknown format or a wrong number of channels; 801 for formats of blocks and of planes.
    pub const fn of(format: u32, channels: u32) -> CuResult<Self> {
        use Channel::{Float, Signed, SignedFraction, Unsigned, UnsignedFraction};
        // The last: how many channels the format itself says.
        let (channel, channel_bytes, own) = match format {
            0x01 => (Unsigned, 1, 0),
            0x02 => (Unsigned, 2, 0),
            0x03 => (Unsigned, 4, 0),
            0x08 => (Signed, 1, 0),
            0x09 => (Signed, 2, 0),
            0x0a => (Signed, 4, 0),
            0x10 => (Float, 2, 0),
            0x20 => (Float, 4, 0),
            0xc0..=0xc2 => (UnsignedFraction, 1, 1 << (format - 0xc0)),
            0xc3..=0xc5 => (UnsignedFraction, 2, 1 << (format - 0xc3)),
            0xc6..=0xc8 => (SignedFraction, 1, 1 << (format - 0xc6)),
            0xc9..=0xcb => (SignedFraction, 2, 1 << (format - 0xc9)),
            // Block-compressed, YUV, ten bits a channel.
            0x91..=0x9f | 0xa1..=0xa9 | 0xb0..=0xb5 | 0x50 => return Err(CuError::NOT_SUPPORTED),
            _ => return Err(CuError::INVALID_VALUE),
        };
        if !matches!(channels, 1 | 2 | 4) || (own != 0 && own != channels) {
            return Err(CuError::INVALID_VALUE);
        }
        Ok(Self { channel, channel_bytes, channels })
    }

    /// Bytes of the whole.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.channel_bytes * self.channels as u64
    }
}

wire_struct! {
    /// `CUDA_ARRAY3D_DESCRIPTOR`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ArrayShape {
        /// Elements of a row.
        pub width: u64,
        /// Rows; 0 for one dimension.
        pub height: u64,
        /// Slices or layers; 0 if there is neither.
        pub depth: u64,
        /// `CUarray_format`.
        pub format: u32,
        /// Channels of an element.
        pub channels: u32,
        /// [`flag`]s.
        pub flags: u32,
    }
}

impl ArrayShape {
    /// Whether a flag is set.
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether depth counts layers rather than slices.
    #[must_use]
    pub const fn is_layered(&self) -> bool {
        self.has(flag::LAYERED | flag::CUBEMAP)
    }

    /// That sizes, format and flags fit each other. What a device's limits are: [`ArrayShape::fits`].
    /// # Errors
    /// 1; 801 for what is not offered.
    pub fn check(&self) -> CuResult<()> {
        let Self { width, height, depth, flags, .. } = *self;
        if flags & !flag::KNOWN != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        self.element()?;
        if flags & !flag::OFFERED != 0 {
            return Err(CuError::NOT_SUPPORTED);
        }
        let cubes = if self.has(flag::LAYERED) { depth > 0 && depth.is_multiple_of(6) } else { depth == 6 };
        let right = width > 0
            && (!self.has(flag::LAYERED) || depth > 0)
            && (self.is_layered() || depth == 0 || height > 0)
            && (!self.has(flag::CUBEMAP) || (width == height && cubes))
            && (!self.has(flag::GATHER) || (height > 0 && depth == 0));
        if right && self.bytes().is_some() { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }

    /// That the sizes are within a device's, whose attributes `attribute` gives. `mipmapped`: it is to have levels.
    /// # Errors
    /// 1.
    pub fn fits(&self, mipmapped: bool, attribute: impl Fn(u32) -> i32) -> CuResult<()> {
        let limit = |number: u32| match number {
            0 => u64::MAX,
            number => u64::try_from(attribute(number)).unwrap_or(0),
        };
        let sizes = [self.width, self.height, self.depth];
        let within =
            |limits: [u32; 3]| sizes.into_iter().zip(limits).all(|(size, number)| size <= limit(number));
        // Numbers of `CUdevice_attribute`: of textures, and of surfaces. 0: that side is fixed by `check`.
        let (textures, surfaces): (&[[u32; 3]], [u32; 3]) =
            match (self.has(flag::CUBEMAP), self.has(flag::LAYERED), self.height, self.depth) {
                (true, false, ..) => (&[[52, 52, 0]], [66, 66, 0]),
                (true, true, ..) => (&[[53, 53, 54]], [67, 67, 68]),
                (false, true, 0, _) => (&[[42, 0, 43]], [61, 0, 62]),
                (false, true, ..) => (&[[27, 28, 29]], [63, 64, 65]),
                (false, false, 0, _) if mipmapped => (&[[77, 0, 0]], [55, 0, 0]),
                (false, false, 0, _) => (&[[21, 0, 0]], [55, 0, 0]),
                (false, false, _, 0) if self.has(flag::GATHER) => (&[[45, 46, 0]], [56, 57, 0]),
                (false, false, _, 0) if mipmapped => (&[[73, 74, 0]], [56, 57, 0]),
                (false, false, _, 0) => (&[[22, 23, 0]], [56, 57, 0]),
                _ => (&[[24, 25, 26], [47, 48, 49]], [58, 59, 60]),
            };
        let right =
            textures.iter().any(|limits| within(*limits)) && (!self.has(flag::SURFACE) || within(surfaces));
        if right { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }

    /// Its element.
    /// # Errors
    /// As [`Element::of`].
    pub const fn element(&self) -> CuResult<Element> {
        Element::of(self.format, self.channels)
    }

    /// Elements of a row, rows, slices or layers: none is 0.
    #[must_use]
    pub fn extent(&self) -> [u64; 3] {
        [self.width, self.height, self.depth].map(|size| size.max(1))
    }

    /// Bytes of all elements without gaps, `None` past any memory.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let element = self.element().ok()?.bytes();
        self.extent().into_iter().try_fold(element, u64::checked_mul)
    }

    /// Levels that it can have: until each side is 1.
    #[must_use]
    pub fn levels_max(&self) -> u32 {
        let depth = if self.is_layered() { 1 } else { self.depth };
        self.width.max(self.height).max(depth).checked_ilog2().unwrap_or(0) + 1
    }

    /// The shape of level `level`, which is below [`ArrayShape::levels_max`].
    #[must_use]
    pub fn level(&self, level: u32) -> Self {
        let half = |size: u64| if size == 0 { 0 } else { size.checked_shr(level).unwrap_or(0).max(1) };
        let depth = if self.is_layered() { self.depth } else { half(self.depth) };
        Self { width: half(self.width), height: half(self.height), depth, ..*self }
    }

    /// Bytes of the first `levels` levels without gaps, `None` past any memory.
    #[must_use]
    pub fn bytes_of_levels(&self, levels: u32) -> Option<u64> {
        (0..levels).try_fold(0_u64, |sum, level| sum.checked_add(self.level(level).bytes()?))
    }

    /// That a box starting at (`x_bytes`, `y`, `z`) lies inside, and starts and ends between elements.
    /// # Errors
    /// 1.
    pub fn check_box(&self, [x_bytes, y, z]: [u64; 3], size: Extent) -> CuResult<()> {
        let element = self.element()?.bytes();
        let [width, height, depth] = self.extent();
        let inside =
            |start: u64, count: u64, limit: u64| start.checked_add(count).is_some_and(|end| end <= limit);
        let row_bytes = width.checked_mul(element).ok_or(CuError::INVALID_VALUE)?;
        let right = x_bytes.is_multiple_of(element)
            && size.width_bytes.is_multiple_of(element)
            && inside(x_bytes, size.width_bytes, row_bytes)
            && inside(y, size.height, height)
            && inside(z, size.depth, depth);
        if right { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }
}

wire_struct! {
    /// The size of what is copied.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Extent {
        /// Bytes of a row.
        pub width_bytes: u64,
        /// Rows.
        pub height: u64,
        /// Slices or layers.
        pub depth: u64,
    }
}

impl Extent {
    /// All its bytes, `None` past any memory.
    #[must_use]
    pub fn bytes(self) -> Option<u64> {
        self.width_bytes.checked_mul(self.height)?.checked_mul(self.depth)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.width_bytes == 0 || self.height == 0 || self.depth == 0
    }

    /// The same box in pieces of at most `room` bytes each, whole slices or whole rows where they fit; a row is cut only between
    /// elements of `element` bytes. Each piece's start (bytes, rows, slices) and size.
    pub fn pieces(self, element: u64, room: u64) -> impl Iterator<Item = ([u64; 3], Self)> {
        let row = self.width_bytes;
        let slice = row.saturating_mul(self.height);
        let (wide, high, deep) = if slice <= room {
            (row, self.height, (room / slice.max(1)).clamp(1, self.depth.max(1)))
        } else if row <= room {
            (row, (room / row.max(1)).max(1), 1)
        } else {
            ((room / element.max(1)).max(1).saturating_mul(element.max(1)), 1, 1)
        };
        let size = if self.is_empty() { Self { width_bytes: 0, height: 0, depth: 0 } } else { self };
        steps(size.depth, deep).flat_map(move |(z, depth)| {
            steps(size.height, high).flat_map(move |(y, height)| {
                steps(size.width_bytes, wide)
                    .map(move |(x, width_bytes)| ([x, y, z], Self { width_bytes, height, depth }))
            })
        })
    }
}

/// `count` in steps: where each starts and how long it is.
fn steps(count: u64, step: u64) -> impl Iterator<Item = (u64, u64)> {
    let step = step.max(1);
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = step.min(count - at);
        let start = at;
        at += length;
        (length > 0).then_some((start, length))
    })
}

wire_struct! {
    /// A place in an array.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ArrayPlace {
        /// Which.
        pub array: ArrayHandle,
        /// Bytes from the start of a row.
        pub x_bytes: u64,
        /// The row.
        pub y: u64,
        /// The slice or layer.
        pub z: u64,
    }
}

impl ArrayPlace {
    /// Bytes, row, slice.
    #[must_use]
    pub const fn corner(&self) -> [u64; 3] {
        [self.x_bytes, self.y, self.z]
    }

    /// The place so many bytes, rows and slices further. Sums that are none are no place in any array.
    #[must_use]
    pub const fn further(self, [x, y, z]: [u64; 3]) -> Self {
        let Self { array, x_bytes, y: row, z: slice } = self;
        Self {
            array,
            x_bytes: x_bytes.saturating_add(x),
            y: row.saturating_add(y),
            z: slice.saturating_add(z),
        }
    }
}

wire_struct! {
    /// Rows of device memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LinearPlace {
        /// The first byte.
        pub at: DevicePtr,
        /// Bytes from a row to the next.
        pub pitch: u64,
        /// Rows from a slice to the next.
        pub height: u64,
    }
}

impl LinearPlace {
    /// Bytes from the first to the last of a box that starts here. `None`: rows or slices overlap, or the sum is past any memory.
    #[must_use]
    pub fn span(&self, size: Extent) -> Option<u64> {
        if size.is_empty() {
            return Some(0);
        }
        let apart = (size.height <= 1 && size.depth <= 1 || size.width_bytes <= self.pitch)
            && (size.depth <= 1 || size.height <= self.height);
        let rows = self.height.checked_mul(size.depth - 1)?.checked_add(size.height - 1)?;
        let last = if rows == 0 { 0 } else { self.pitch.checked_mul(rows)? };
        apart.then_some(last)?.checked_add(size.width_bytes)
    }
}

/// One side of a copy on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxSide {
    /// Device memory.
    Linear(LinearPlace),
    /// An array.
    Array(ArrayPlace),
}

impl BoxSide {
    /// Part of the wire hash.
    pub const DECLARATION: &'static str = "BoxSide{0:LinearPlace,1:ArrayPlace}";
}

impl Wire<'_> for BoxSide {
    fn size(&self) -> usize {
        1 + match self {
            Self::Linear(place) => place.size(),
            Self::Array(place) => place.size(),
        }
    }
    fn put(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Linear(place) => {
                0u8.put(writer);
                place.put(writer);
            }
            Self::Array(place) => {
                1u8.put(writer);
                place.put(writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(reader)? {
            0 => LinearPlace::take(reader).map(Self::Linear),
            1 => ArrayPlace::take(reader).map(Self::Array),
            _ => Err(WireError::BadValue("side of a copy")),
        }
    }
}

#[cfg(test)]
mod tests;
