//! Texture and surface references of the software GPU: each is an object whose number the module's code has, made anew whenever something
//! is set.

use std::collections::HashMap;

use vgpu_api::texref::{UNSET, UNSET_FORMAT};
use vgpu_api::texture::{LinearTexels, Sampler};
use vgpu_api::{CuError, CuResult, SamplerSetting};

use super::Soft;
use crate::device::{Raw, References, TexelSource, TextureSource};

/// What a process has of them.
#[derive(Debug, Default)]
pub(super) struct Table {
    textures: HashMap<Raw, Reference>,
    /// Numbers of surfaces.
    surfaces: HashMap<Raw, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Reference {
    /// By which a module's code knows it.
    number: Option<u64>,
    texels: Option<TexelSource>,
    format: (u32, u32),
    sampler: Sampler,
}

/// Of linear memory the hardware's texture starts at the last multiple of this; the program adds the rest to its coordinates.
const ALIGNMENT: u64 = 512;

impl Reference {
    fn new(number: Option<u64>) -> Self {
        Self { number, texels: None, format: UNSET_FORMAT, sampler: UNSET }
    }

    fn source(&self) -> CuResult<Option<TextureSource>> {
        let texels = match self.texels {
            None => return Ok(None),
            Some(TexelSource::Linear(LinearTexels { mut at, bytes, .. })) => {
                let (format, channels) = self.format;
                let before = at.0 % ALIGNMENT;
                at.0 -= before;
                let bytes = bytes.checked_add(before).ok_or(CuError::INVALID_VALUE)?;
                TexelSource::Linear(LinearTexels { at, format, channels, bytes })
            }
            Some(texels) => texels,
        };
        Ok(Some(TextureSource { texels, sampler: self.sampler, view: None }))
    }
}

impl Soft {
    /// The number of a module's reference.
    fn reference(&self, image: Raw, symbol: &str, is_surface: bool) -> CuResult<u64> {
        let loaded = self.images.get(&image).ok_or(CuError::INVALID_HANDLE)?;
        let named = loaded.module.references().iter();
        let place = named.clone().position(|known| known.is_surface == is_surface && known.name == symbol);
        let instance = loaded.instances.values().next().ok_or(CuError::INVALID_HANDLE)?;
        let number = place.and_then(|place| instance.references().get(place));
        number.copied().ok_or(CuError::NOT_FOUND)
    }

    /// Sets what `change` sets, if a texture can be made of it.
    fn change(&mut self, texref: Raw, change: impl FnOnce(&mut Reference) -> CuResult<()>) -> CuResult<()> {
        let mut changed = *self.references.textures.get(&texref).ok_or(CuError::INVALID_HANDLE)?;
        change(&mut changed)?;
        let texture = changed.source()?.map(|source| self.texture(&source)).transpose()?;
        if let Some(number) = changed.number {
            self.gpu.texture_bind(number, texture);
        }
        self.references.textures.insert(texref, changed);
        Ok(())
    }
}

impl References for Soft {
    fn texref_of(&mut self, _context: Raw, image: Raw, symbol: &str) -> CuResult<Raw> {
        let number = self.reference(image, symbol, false)?;
        let name = self.name();
        self.references.textures.insert(name, Reference::new(Some(number)));
        Ok(name)
    }

    fn texref_create(&mut self, _context: Raw) -> CuResult<Raw> {
        let name = self.name();
        self.references.textures.insert(name, Reference::new(None));
        Ok(name)
    }

    fn texref_destroy(&mut self, _context: Raw, texref: Raw) -> CuResult<()> {
        let ended = self.references.textures.remove(&texref).ok_or(CuError::INVALID_HANDLE)?;
        ended.number.into_iter().for_each(|number| self.gpu.texture_bind(number, None));
        Ok(())
    }

    fn texref_bind(&mut self, _: Raw, texref: Raw, texels: &TexelSource, told: bool) -> CuResult<u64> {
        let before = match texels {
            TexelSource::Linear(row) => row.at.0 % ALIGNMENT,
            _ => 0,
        };
        if before != 0 && !told {
            return Err(CuError::INVALID_VALUE);
        }
        self.change(texref, |reference| {
            reference.texels = Some(*texels);
            Ok(())
        })?;
        Ok(before)
    }

    fn texref_let_go(&mut self, _context: Raw, texref: Raw) -> CuResult<()> {
        self.change(texref, |reference| {
            reference.texels = None;
            Ok(())
        })
    }

    fn texref_format(&mut self, _context: Raw, texref: Raw, format: u32, channels: u32) -> CuResult<()> {
        self.change(texref, |reference| {
            reference.format = (format, channels);
            Ok(())
        })
    }

    fn texref_set(&mut self, _context: Raw, texref: Raw, setting: &SamplerSetting) -> CuResult<()> {
        self.change(texref, |reference| {
            reference.sampler = setting.of(reference.sampler)?;
            Ok(())
        })
    }

    fn surfref_of(&mut self, _context: Raw, image: Raw, symbol: &str) -> CuResult<Raw> {
        let number = self.reference(image, symbol, true)?;
        let name = self.name();
        self.references.surfaces.insert(name, number);
        Ok(name)
    }

    fn surfref_destroy(&mut self, surfref: Raw) {
        if let Some(number) = self.references.surfaces.remove(&surfref) {
            self.gpu.surface_bind(number, None);
        }
    }

    fn surfref_bind(&mut self, _context: Raw, surfref: Raw, array: Option<Raw>) -> CuResult<()> {
        let number = *self.references.surfaces.get(&surfref).ok_or(CuError::INVALID_HANDLE)?;
        let surface = array.map(|array| self.surface(array)).transpose()?;
        self.gpu.surface_bind(number, surface);
        Ok(())
    }
}
