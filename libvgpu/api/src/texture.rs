//! Texture and surface objects as they travel. Numbers: cuda.h of CUDA 13.0, `cuTexObjectCreate`.
//!
//! An object's number ([`Object`]) is the device's own: kernels get it among their parameters, where nobody can tell it from any
//! other number, so it cannot be translated. It means something in its context only.

use crate::array::Element;
use crate::handle::{ArrayHandle, MipmapHandle};
use crate::memory::DevicePtr;
use crate::result::{CuError, CuResult};
use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

/// `CUtexObject` or `CUsurfObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Object(pub u64);

impl Wire<'_> for Object {
    fn size(&self) -> usize {
        8
    }
    fn put(&self, writer: &mut Writer<'_>) {
        self.0.put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        u64::take(reader).map(Self)
    }
}

/// Of `CUaddress_mode` and `CUfilter_mode`, what is named.
pub mod mode {
    /// The next texel that there is.
    pub const CLAMP: u32 = 1;
    /// The last address mode.
    pub const BORDER: u32 = 3;
    /// The last filter.
    pub const LINEAR: u32 = 1;
}

/// Bits of [`Sampler::flags`]: `CU_TRSF_…`.
pub mod flag {
    /// Integers stay integers.
    pub const READ_AS_INTEGER: u32 = 0x01;
    /// Coordinates from 0 to 1.
    pub const NORMALIZED: u32 = 0x02;
    /// Values are sRGB.
    pub const SRGB: u32 = 0x10;
    /// Filtering crosses the edges of a cube.
    pub const SEAMLESS_CUBEMAP: u32 = 0x40;
    /// All: beside those above, 0x20, no optimization of trilinear filtering.
    pub const KNOWN: u32 = 0x73;
}

wire_struct! {
    /// A row of elements in device memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LinearTexels {
        /// The first.
        pub at: DevicePtr,
        /// `CUarray_format`.
        pub format: u32,
        /// Channels of an element.
        pub channels: u32,
        /// All bytes.
        pub bytes: u64,
    }
}

wire_struct! {
    /// Rows of elements in device memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PitchedTexels {
        /// The first.
        pub at: DevicePtr,
        /// `CUarray_format`.
        pub format: u32,
        /// Channels of an element.
        pub channels: u32,
        /// Elements of a row.
        pub width: u64,
        /// Rows.
        pub height: u64,
        /// Bytes from a row to the next.
        pub pitch: u64,
    }
}

impl PitchedTexels {
    /// Bytes from the first to the last. `None`: rows overlap, there are none, or the sum is past any memory.
    #[must_use]
    pub fn span(&self) -> Option<u64> {
        let row = Element::of(self.format, self.channels).ok()?.bytes().checked_mul(self.width)?;
        let last = self.pitch.checked_mul(self.height.checked_sub(1)?)?;
        (row > 0 && row <= self.pitch).then_some(row)?.checked_add(last)
    }
}

/// What a texture reads. The number of its place is `CUresourcetype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An array.
    Array(ArrayHandle),
    /// An array with levels.
    Mipmap(MipmapHandle),
    /// A row of device memory.
    Linear(LinearTexels),
    /// Rows of device memory.
    Pitched(PitchedTexels),
}

impl Resource {
    /// Part of the wire hash.
    pub const DECLARATION: &'static str =
        "Resource{0:CUarray,1:CUmipmappedArray,2:LinearTexels,3:PitchedTexels}";

    /// That formats and sizes can be: what is asked of memory. Handles and addresses are for who knows them.
    /// # Errors
    /// 1; 801 for formats that are not offered.
    pub fn check(&self) -> CuResult<()> {
        match self {
            Self::Array(_) | Self::Mipmap(_) => Ok(()),
            Self::Linear(texels) => {
                let element = Element::of(texels.format, texels.channels)?;
                if texels.bytes >= element.bytes() { Ok(()) } else { Err(CuError::INVALID_VALUE) }
            }
            Self::Pitched(texels) => {
                Element::of(texels.format, texels.channels)?;
                texels.span().map(drop).ok_or(CuError::INVALID_VALUE)
            }
        }
    }
}

impl Wire<'_> for Resource {
    fn size(&self) -> usize {
        1 + match self {
            Self::Array(handle) => handle.size(),
            Self::Mipmap(handle) => handle.size(),
            Self::Linear(texels) => texels.size(),
            Self::Pitched(texels) => texels.size(),
        }
    }
    fn put(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Array(handle) => {
                0u8.put(writer);
                handle.put(writer);
            }
            Self::Mipmap(handle) => {
                1u8.put(writer);
                handle.put(writer);
            }
            Self::Linear(texels) => {
                2u8.put(writer);
                texels.put(writer);
            }
            Self::Pitched(texels) => {
                3u8.put(writer);
                texels.put(writer);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::take(reader)? {
            0 => Wire::take(reader).map(Self::Array),
            1 => Wire::take(reader).map(Self::Mipmap),
            2 => Wire::take(reader).map(Self::Linear),
            3 => Wire::take(reader).map(Self::Pitched),
            _ => Err(WireError::BadValue("CUresourcetype")),
        }
    }
}

wire_struct! {
    /// `CUDA_TEXTURE_DESC`: how a texture reads.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Sampler {
        /// `CUaddress_mode` of each dimension: wrap, clamp, mirror, border.
        pub address: [u32; 3],
        /// `CUfilter_mode`: point, linear.
        pub filter: u32,
        /// [`flag`]s.
        pub flags: u32,
        /// Ratio of anisotropic filtering; the device takes 1 to 16.
        pub anisotropy_max: u32,
        /// `CUfilter_mode` between levels.
        pub mip_filter: u32,
        /// Added to the level.
        pub mip_bias: f32,
        /// Lowest level.
        pub level_min: f32,
        /// Highest level.
        pub level_max: f32,
        /// What lies outside, for the border mode: the bits of four numbers.
        pub border: [u32; 4],
    }
}

impl Sampler {
    /// That the numbers are ones that CUDA knows.
    /// # Errors
    /// 1.
    pub fn check(&self) -> CuResult<()> {
        let right = self.address.iter().all(|mode| *mode <= mode::BORDER)
            && self.filter <= mode::LINEAR
            && self.mip_filter <= mode::LINEAR
            && self.flags & !flag::KNOWN == 0;
        if right { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }
}

wire_struct! {
    /// `CUDA_RESOURCE_VIEW_DESC`: a part of an array, read as another format.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct View {
        /// `CUresourceViewFormat`.
        pub format: u32,
        /// Elements of a row.
        pub width: u64,
        /// Rows.
        pub height: u64,
        /// Slices.
        pub depth: u64,
        /// The first and last of the array's levels.
        pub levels: [u32; 2],
        /// The first and last of its layers.
        pub layers: [u32; 2],
    }
}

/// `CUresourceViewFormat`: the last, block-compressed 7.
const VIEW_FORMAT_MAX: u32 = 0x22;

/// All of a texture object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Texture {
    /// What it reads.
    pub resource: Resource,
    /// How.
    pub sampler: Sampler,
    /// As what, if not as it is.
    pub view: Option<View>,
}

impl Texture {
    /// Part of the wire hash.
    pub const DECLARATION: &'static str = "Texture{resource:Resource,sampler:Sampler,view:0|1View}";

    /// That its parts can be and fit each other.
    /// # Errors
    /// 1; 801 for formats that are not offered.
    pub fn check(&self) -> CuResult<()> {
        self.resource.check()?;
        self.sampler.check()?;
        let (in_array, normalized) = match self.resource {
            Resource::Array(_) => (true, true),
            Resource::Mipmap(_) => (true, self.sampler.flags & flag::NORMALIZED != 0),
            Resource::Linear(_) | Resource::Pitched(_) => (false, true),
        };
        let seen = self.view.is_none_or(|view| {
            in_array
                && view.format <= VIEW_FORMAT_MAX
                && view.levels[0] <= view.levels[1]
                && view.layers[0] <= view.layers[1]
        });
        if normalized && seen { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }
}

impl<'a> Wire<'a> for Texture {
    fn size(&self) -> usize {
        self.resource.size() + self.sampler.size() + 1 + self.view.map_or(0, |view| view.size())
    }
    fn put(&self, writer: &mut Writer<'_>) {
        self.resource.put(writer);
        self.sampler.put(writer);
        self.view.is_some().put(writer);
        if let Some(view) = &self.view {
            view.put(writer);
        }
    }
    fn take(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let (resource, sampler) = (Resource::take(reader)?, Sampler::take(reader)?);
        let view = if bool::take(reader)? { Some(View::take(reader)?) } else { None };
        Ok(Self { resource, sampler, view })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{from_slice, to_vec};

    const SAMPLER: Sampler = Sampler {
        address: [0, 1, 2],
        filter: 1,
        flags: flag::NORMALIZED,
        anisotropy_max: 16,
        mip_filter: 0,
        mip_bias: 0.5,
        level_min: 0.0,
        level_max: 4.0,
        border: [1, 2, 3, 4],
    };
    const VIEW: View = View { format: 1, width: 2, height: 3, depth: 4, levels: [0, 1], layers: [2, 2] };

    fn resources() -> [Resource; 4] {
        let (format, channels, at) = (0x20, 1, DevicePtr(512));
        [
            Resource::Array(ArrayHandle::new(0, 1)),
            Resource::Mipmap(MipmapHandle::new(0, 1)),
            Resource::Linear(LinearTexels { at, format, channels, bytes: 64 }),
            Resource::Pitched(PitchedTexels { at, format, channels, width: 8, height: 2, pitch: 32 }),
        ]
    }

    #[test]
    fn comes_back_whole_and_every_cut_is_an_error() {
        for resource in resources() {
            for view in [None, Some(VIEW)] {
                let texture = Texture { resource, sampler: SAMPLER, view };
                let bytes = to_vec(&texture);
                assert_eq!(from_slice::<Texture>(&bytes), Ok(texture));
                assert!((0..bytes.len()).all(|cut| from_slice::<Texture>(&bytes[..cut]).is_err()));
            }
        }
    }

    #[test]
    fn what_cuda_does_not_know_is_refused() {
        let right = |texture: Texture| texture.check().is_ok();
        let [array, mipmap, linear, pitched] = resources();
        let of = |resource| Texture { resource, sampler: SAMPLER, view: None };
        assert!(resources().into_iter().all(|resource| right(of(resource))));
        for wrong in [
            Sampler { address: [0, 4, 0], ..SAMPLER },
            Sampler { filter: 2, ..SAMPLER },
            Sampler { mip_filter: 2, ..SAMPLER },
            Sampler { flags: 0x04, ..SAMPLER },
        ] {
            assert!(!right(Texture { sampler: wrong, ..of(array) }), "{wrong:?}");
        }
        let plain = Sampler { flags: 0, ..SAMPLER };
        assert!(
            right(Texture { sampler: plain, ..of(array) })
                && !right(Texture { sampler: plain, ..of(mipmap) })
        );
        let seen = |resource, view| Texture { view: Some(view), ..of(resource) };
        assert!(right(seen(array, VIEW)) && !right(seen(linear, VIEW)) && !right(seen(pitched, VIEW)));
        assert!(!right(seen(array, View { format: 0x23, ..VIEW })));
        assert!(!right(seen(array, View { levels: [2, 1], ..VIEW })));
    }

    #[test]
    fn rows_that_overlap_or_are_none_are_refused() {
        let Resource::Pitched(good) = resources()[3] else { unreachable!() };
        let Resource::Linear(row) = resources()[2] else { unreachable!() };
        assert_eq!(good.span(), Some(64));
        for wrong in [
            PitchedTexels { pitch: 31, ..good },
            PitchedTexels { width: 0, ..good },
            PitchedTexels { height: 0, ..good },
            PitchedTexels { width: u64::MAX, ..good },
            PitchedTexels { pitch: u64::MAX, height: 3, ..good },
        ] {
            assert_eq!(Resource::Pitched(wrong).check(), Err(CuError::INVALID_VALUE), "{wrong:?}");
        }
        assert!(Resource::Linear(LinearTexels { bytes: 3, ..row }).check().is_err());
        assert!(Resource::Linear(LinearTexels { channels: 3, ..row }).check().is_err());
    }
}
