//! Texture and surface references of NVIDIA's driver. They are deprecated: a driver that lacks the calls gives 801.

use std::ffi::CString;
use std::ptr;

use vgpu_api::descriptors::ArrayDesc;
use vgpu_api::texref::OVERRIDE_FORMAT;
use vgpu_api::texture::PitchedTexels;
use vgpu_api::{CuError, CuResult, SamplerField, SamplerSetting};

use super::table::{NULL, Ptr};
use super::{Cuda, Names, number, size};
use crate::device::{Raw, References as DeviceReferences, TexelSource};

/// An address where no memory of a device lies, and how much a reference that reads nothing could read there.
const NOWHERE: u64 = 1 << 12;
const NOWHERE_BYTES: usize = 16;

/// The driver's references by our names.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Those of modules.
    textures: Names,
    /// Those that were created.
    created: Names,
    surfaces: Names,
}

/// A created one has an odd name.
fn texture_name(place: Raw, is_created: bool) -> Raw {
    Raw(place.0 << 1 | u64::from(is_created))
}

impl References {
    fn texture(&self, name: Raw) -> CuResult<Ptr> {
        let names = if name.0 & 1 == 1 { &self.created } else { &self.textures };
        names.get(Raw(name.0 >> 1))
    }
}

fn c_string(symbol: &str) -> CuResult<CString> {
    CString::new(symbol).map_err(|_| CuError::NOT_FOUND)
}

impl DeviceReferences for Cuda {
    fn texref_of(&mut self, context: Raw, image: Raw, symbol: &str) -> CuResult<Raw> {
        self.enter(context)?;
        let (module, symbol) = (self.images.module(image)?, c_string(symbol)?);
        let mut texref = NULL;
        // SAFETY: a live module of ours and a C string; the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuModuleGetTexRef(&raw mut texref, module, symbol.as_ptr()) }?;
        Ok(texture_name(self.references.textures.add(texref), false))
    }

    fn texref_create(&mut self, context: Raw) -> CuResult<Raw> {
        self.enter(context)?;
        let mut texref = NULL;
        // SAFETY: the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuTexRefCreate(&raw mut texref) }?;
        Ok(texture_name(self.references.created.add(texref), true))
    }

    fn texref_destroy(&mut self, context: Raw, texref: Raw) -> CuResult<()> {
        let place = Raw(texref.0 >> 1);
        if texref.0 & 1 == 0 {
            return self.references.textures.remove(place).map(drop);
        }
        let pointer = self.references.created.remove(place)?;
        self.enter(context)?;
        // SAFETY: a live reference of ours that `cuTexRefCreate` made; it is named no more.
        unsafe { self.table.cuTexRefDestroy(pointer) }
    }

    fn texref_bind(&mut self, context: Raw, texref: Raw, texels: &TexelSource, told: bool) -> CuResult<u64> {
        self.enter(context)?;
        let pointer = self.references.texture(texref)?;
        match texels {
            TexelSource::Array(array) => {
                let array = self.arrays.array(*array)?;
                // SAFETY: live handles of ours. Before the array ends the session has the reference let go of it.
                unsafe { self.table.cuTexRefSetArray(pointer, array, OVERRIDE_FORMAT) }?;
            }
            TexelSource::Mipmap(mipmap) => {
                let mipmap = self.arrays.mipmap(*mipmap)?;
                // SAFETY: as above.
                unsafe { self.table.cuTexRefSetMipmappedArray(pointer, mipmap, OVERRIDE_FORMAT) }?;
            }
            TexelSource::Linear(texels) => {
                let (at, bytes, mut before) = (texels.at.0, size(texels.bytes)?, 0);
                let place = if told { &raw mut before } else { ptr::null_mut() };
                // Memory that is freed later stays bound: what a kernel then reads is a fault, or whatever of this process lies there by
                // then. A context's addresses are this process's, so it is never another's.
                // SAFETY: a live reference of ours, and a range that the session has checked; the driver writes one number, if it has a
                // place, to a variable of ours.
                unsafe { self.table.cuTexRefSetAddress_v2(place, pointer, at, bytes) }?;
                return Ok(before as u64);
            }
            TexelSource::Pitched(texels) => {
                let PitchedTexels { width, height, format, channels, .. } = *texels;
                let (shape, pitch) = (ArrayDesc { width, height, format, channels }, size(texels.pitch)?);
                // SAFETY: as above; the driver reads a structure of ours.
                unsafe { self.table.cuTexRefSetAddress2D_v3(pointer, &raw const shape, texels.at.0, pitch) }?;
            }
        }
        Ok(0)
    }

    /// How a reference is let go of is not documented, and a driver may want an address. Nobody reads by one where no memory is: that is a
    /// fault of the kernel, as reading by an address of its own would be.
    fn texref_let_go(&mut self, context: Raw, texref: Raw) -> CuResult<()> {
        self.enter(context)?;
        let (pointer, mut before) = (self.references.texture(texref)?, 0);
        // SAFETY: a live reference of ours; the driver writes one number, and follows no address.
        let let_go = unsafe { self.table.cuTexRefSetAddress_v2(&raw mut before, pointer, 0, 0) };
        let_go.or_else(|_| {
            // SAFETY: as above.
            unsafe { self.table.cuTexRefSetAddress_v2(&raw mut before, pointer, NOWHERE, NOWHERE_BYTES) }
        })
    }

    fn texref_format(&mut self, context: Raw, texref: Raw, format: u32, channels: u32) -> CuResult<()> {
        self.enter(context)?;
        let pointer = self.references.texture(texref)?;
        // SAFETY: a live reference of ours, and two numbers.
        unsafe { self.table.cuTexRefSetFormat(pointer, format, number(channels)?) }
    }

    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one of them runs")]
    fn texref_set(&mut self, context: Raw, texref: Raw, setting: &SamplerSetting) -> CuResult<()> {
        self.enter(context)?;
        let (pointer, table) = (self.references.texture(texref)?, &self.table);
        let [first, second, ..] = setting.words;
        let (low, high, mut border) =
            (f32::from_bits(first), f32::from_bits(second), setting.words.map(f32::from_bits));
        // SAFETY: a live reference of ours, and numbers; four of them are read from a variable of ours.
        unsafe {
            match setting.field {
                SamplerField::Address => table.cuTexRefSetAddressMode(pointer, number(first)?, second),
                SamplerField::Filter => table.cuTexRefSetFilterMode(pointer, first),
                SamplerField::MipFilter => table.cuTexRefSetMipmapFilterMode(pointer, first),
                SamplerField::MipBias => table.cuTexRefSetMipmapLevelBias(pointer, low),
                SamplerField::Levels => table.cuTexRefSetMipmapLevelClamp(pointer, low, high),
                SamplerField::Anisotropy => table.cuTexRefSetMaxAnisotropy(pointer, first),
                SamplerField::Border => table.cuTexRefSetBorderColor(pointer, border.as_mut_ptr()),
                SamplerField::Flags => table.cuTexRefSetFlags(pointer, first),
            }
        }
    }

    fn surfref_of(&mut self, context: Raw, image: Raw, symbol: &str) -> CuResult<Raw> {
        self.enter(context)?;
        let (module, symbol) = (self.images.module(image)?, c_string(symbol)?);
        let mut surfref = NULL;
        // SAFETY: a live module of ours and a C string; the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuModuleGetSurfRef(&raw mut surfref, module, symbol.as_ptr()) }?;
        Ok(self.references.surfaces.add(surfref))
    }

    fn surfref_destroy(&mut self, surfref: Raw) {
        let _ = self.references.surfaces.remove(surfref);
    }

    fn surfref_bind(&mut self, context: Raw, surfref: Raw, array: Option<Raw>) -> CuResult<()> {
        self.enter(context)?;
        let pointer = self.references.surfaces.get(surfref)?;
        // The driver has no call that lets go of an array, and what it does with none is not documented.
        let array = self.arrays.array(array.ok_or(CuError::NOT_SUPPORTED)?)?;
        // SAFETY: live handles of ours. The array does not end before the reference is bound anew or ends.
        unsafe { self.table.cuSurfRefSetArray(pointer, array, 0) }
    }
}
