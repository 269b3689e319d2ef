//! Texture and surface references as they travel: what a module's code names and the host binds. Numbers: cuda.h of CUDA 13.0,
//! `cuTexRefSet…`.
//!
//! The guest keeps what was set, and answers what is asked of it; each change travels alone, so that it is answered for itself. What a
//! reference is bound to is a [`crate::texture::Resource`].

use crate::result::{CuError, CuResult};
use crate::texture::Sampler;
use crate::wire::{Reader, Wire, WireError, Writer, wire_struct};

/// `CU_TRSA_OVERRIDE_FORMAT`: the one flag of the calls that bind an array. Without it NVIDIA's driver keeps the reference's own format.
pub const OVERRIDE_FORMAT: u32 = 1;

/// Of [`Sampler`], which one is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SamplerField {
    /// Two words: the dimension, its `CUaddress_mode`.
    Address = 0,
    /// `CUfilter_mode`.
    Filter = 1,
    /// `CUfilter_mode` between levels.
    MipFilter = 2,
    /// The bits of a number.
    MipBias = 3,
    /// The bits of two numbers, the lowest and the highest.
    Levels = 4,
    /// A ratio.
    Anisotropy = 5,
    /// The bits of four numbers.
    Border = 6,
    /// Those of [`crate::texture::flag`].
    Flags = 7,
}

impl SamplerField {
    /// Part of the wire hash.
    pub const DECLARATION: &'static str =
        "SamplerField{Address=0,Filter=1,MipFilter=2,MipBias=3,Levels=4,Anisotropy=5,Border=6,Flags=7}";
}

impl Wire<'_> for SamplerField {
    fn size(&self) -> usize {
        4
    }
    fn put(&self, writer: &mut Writer<'_>) {
        (*self as u32).put(writer);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match u32::take(reader)? {
            0 => Self::Address,
            1 => Self::Filter,
            2 => Self::MipFilter,
            3 => Self::MipBias,
            4 => Self::Levels,
            5 => Self::Anisotropy,
            6 => Self::Border,
            7 => Self::Flags,
            _ => return Err(WireError::BadValue("field of a sampler")),
        })
    }
}

wire_struct! {
    /// One field of a reference's [`Sampler`], and what it is from now on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SamplerSetting {
        /// Which.
        pub field: SamplerField,
        /// As many as the field has; the others say nothing.
        pub words: [u32; 4],
    }
}

impl SamplerSetting {
    /// The sampler with this field set, if only to a number that CUDA does not know: NVIDIA's driver takes those too. [`Sampler::check`] says
    /// whether a device may have it.
    /// # Errors
    /// 1 for a dimension that there is not.
    pub fn of(&self, mut sampler: Sampler) -> CuResult<Sampler> {
        let [first, second, ..] = self.words;
        match self.field {
            SamplerField::Address => {
                let mode = sampler.address.get_mut(first as usize).ok_or(CuError::INVALID_VALUE)?;
                *mode = second;
            }
            SamplerField::Filter => sampler.filter = first,
            SamplerField::MipFilter => sampler.mip_filter = first,
            SamplerField::MipBias => sampler.mip_bias = f32::from_bits(first),
            SamplerField::Levels => {
                (sampler.level_min, sampler.level_max) = (f32::from_bits(first), f32::from_bits(second));
            }
            SamplerField::Anisotropy => sampler.anisotropy_max = first,
            SamplerField::Border => sampler.border = self.words,
            SamplerField::Flags => sampler.flags = first,
        }
        Ok(sampler)
    }

    /// That a device may be told of it.
    /// # Errors
    /// 1 for what CUDA does not know.
    pub fn check(&self) -> CuResult<()> {
        self.of(UNSET)?.check()
    }
}

/// How a reference reads of which nothing was set: as NVIDIA's driver 580 tells it, it clamps.
pub const UNSET: Sampler = Sampler {
    address: [1; 3],
    filter: 0,
    flags: 0,
    anisotropy_max: 0,
    mip_filter: 0,
    mip_bias: 0.0,
    level_min: 0.0,
    level_max: 0.0,
    border: [0; 4],
};

/// The format, `CUarray_format` and channels, of a reference to device memory whose format was not set.
pub const UNSET_FORMAT: (u32, u32) = (0x20, 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{from_slice, to_vec};

    fn set(field: SamplerField, words: [u32; 4]) -> CuResult<Sampler> {
        SamplerSetting { field, words }.of(UNSET)
    }

    #[test]
    fn one_field_changes_and_no_other() {
        let [half, four] = [0.5_f32, 4.0].map(f32::to_bits);
        for (field, words, wanted) in [
            (SamplerField::Address, [1, 3, 9, 9], Sampler { address: [1, 3, 1], ..UNSET }),
            (SamplerField::Filter, [1, 9, 9, 9], Sampler { filter: 1, ..UNSET }),
            (SamplerField::MipFilter, [1, 9, 9, 9], Sampler { mip_filter: 1, ..UNSET }),
            (SamplerField::MipBias, [half, 9, 9, 9], Sampler { mip_bias: 0.5, ..UNSET }),
            (SamplerField::Levels, [half, four, 9, 9], Sampler { level_min: 0.5, level_max: 4.0, ..UNSET }),
            (SamplerField::Anisotropy, [16, 9, 9, 9], Sampler { anisotropy_max: 16, ..UNSET }),
            (SamplerField::Border, [1, 2, 3, 4], Sampler { border: [1, 2, 3, 4], ..UNSET }),
            (SamplerField::Flags, [3, 9, 9, 9], Sampler { flags: 3, ..UNSET }),
        ] {
            assert_eq!(set(field, words), Ok(wanted), "{field:?}");
            let setting = SamplerSetting { field, words };
            let bytes = to_vec(&setting);
            assert_eq!(from_slice::<SamplerSetting>(&bytes), Ok(setting));
            assert!((0..bytes.len()).all(|cut| from_slice::<SamplerSetting>(&bytes[..cut]).is_err()));
        }
    }

    #[test]
    fn what_cuda_does_not_know_is_kept_and_no_device_may_have_it() {
        let refused = Err(CuError::INVALID_VALUE);
        for (field, words, kept) in [
            (SamplerField::Address, [0, 4, 0, 0], Sampler { address: [4, 1, 1], ..UNSET }),
            (SamplerField::Filter, [2, 0, 0, 0], Sampler { filter: 2, ..UNSET }),
            (SamplerField::MipFilter, [2, 0, 0, 0], Sampler { mip_filter: 2, ..UNSET }),
            (SamplerField::Flags, [4, 0, 0, 0], Sampler { flags: 4, ..UNSET }),
        ] {
            assert_eq!(set(field, words), Ok(kept), "{field:?} {words:?}");
            assert_eq!(SamplerSetting { field, words }.check(), refused, "{field:?} {words:?}");
        }
        for dimension in [3, u32::MAX] {
            assert_eq!(set(SamplerField::Address, [dimension, 0, 0, 0]), Err(CuError::INVALID_VALUE));
        }
        assert_eq!(SamplerSetting { field: SamplerField::Flags, words: [3, 9, 9, 9] }.check(), Ok(()));
        assert!(from_slice::<SamplerSetting>(&[8; 20]).is_err());
    }
}
