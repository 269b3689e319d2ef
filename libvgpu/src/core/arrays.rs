//! Arrays, mipmapped arrays, texture and surface objects as the guest knows them.

use std::collections::HashMap;
use std::sync::Mutex;

use vgpu_api::descriptors::{ResourceDesc, TextureDesc, ViewDesc};
use vgpu_api::{ArrayHandle, ArrayShape, ContextId, CuError, CuResult, MipmapHandle, Object};

use super::slab::{Slab, lock};

/// What the guest keeps of an array.
#[derive(Debug, Clone, Copy)]
pub struct ArrayInfo {
    pub context: ContextId,
    pub shape: ArrayShape,
    /// It is a level of this one, and ends with it.
    pub level_of: Option<MipmapHandle>,
}

/// What the guest keeps of a mipmapped array.
#[derive(Debug, Clone)]
pub struct MipmapInfo {
    pub context: ContextId,
    pub shape: ArrayShape,
    /// The names of its levels, as far as they were asked for.
    pub levels: Vec<Option<ArrayHandle>>,
}

/// All arrays of the process.
#[derive(Debug)]
pub struct Arrays {
    pub arrays: Slab<ArrayInfo>,
    pub mipmaps: Slab<MipmapInfo>,
    /// Held while a level gets its name or a mipmapped array ends.
    pub naming: Mutex<()>,
}

impl Arrays {
    pub const fn new() -> Self {
        Self { arrays: Slab::new(), mipmaps: Slab::new(), naming: Mutex::new(()) }
    }

    /// A program's array.
    /// # Errors
    /// 400.
    pub fn named(&self, raw: u64) -> CuResult<(ArrayHandle, ArrayInfo)> {
        let array = ArrayHandle::check(raw)?;
        Ok((array, self.arrays.get(array)?))
    }

    /// An array that a copy or an object names.
    /// # Errors
    /// 1 for NULL, 400 for what is none.
    pub fn used(&self, raw: u64) -> CuResult<ArrayHandle> {
        if raw == 0 {
            return Err(CuError::INVALID_VALUE);
        }
        self.named(raw).map(|(array, _)| array)
    }

    /// A program's mipmapped array.
    /// # Errors
    /// 400.
    pub fn mipmap(&self, raw: u64) -> CuResult<(MipmapHandle, MipmapInfo)> {
        let mipmap = MipmapHandle::check(raw)?;
        Ok((mipmap, self.mipmaps.get(mipmap)?))
    }

    /// A context ended.
    pub fn forget(&self, context: ContextId) {
        self.arrays.retain(|array| array.context != context);
        self.mipmaps.retain(|mipmap| mipmap.context != context);
    }
}

/// A texture object, as the program described it.
#[derive(Clone, Copy, Debug)]
pub struct TextureInfo {
    pub resource: ResourceDesc,
    pub texture: TextureDesc,
    pub view: Option<ViewDesc>,
}

/// Texture and surface objects. Their numbers are the device's: two contexts may have the same one.
#[derive(Debug, Default)]
pub struct Objects {
    textures: Mutex<HashMap<(ContextId, Object), TextureInfo>>,
    surfaces: Mutex<HashMap<(ContextId, Object), ResourceDesc>>,
}

impl Objects {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add_texture(&self, context: ContextId, texture: Object, info: TextureInfo) {
        lock(&self.textures).insert((context, texture), info);
    }

    pub fn add_surface(&self, context: ContextId, surface: Object, resource: ResourceDesc) {
        lock(&self.surfaces).insert((context, surface), resource);
    }

    /// # Errors
    /// 1: the context has no such texture.
    pub fn texture(&self, context: ContextId, texture: Object) -> CuResult<TextureInfo> {
        lock(&self.textures).get(&(context, texture)).copied().ok_or(CuError::INVALID_VALUE)
    }

    /// # Errors
    /// 1: the context has no such surface.
    pub fn surface(&self, context: ContextId, surface: Object) -> CuResult<ResourceDesc> {
        lock(&self.surfaces).get(&(context, surface)).copied().ok_or(CuError::INVALID_VALUE)
    }

    /// # Errors
    /// 1: the context has no such texture.
    pub fn end_texture(&self, context: ContextId, texture: Object) -> bool {
        lock(&self.textures).remove(&(context, texture)).is_some()
    }

    /// # Errors
    /// 1: the context has no such surface.
    pub fn end_surface(&self, context: ContextId, surface: Object) -> bool {
        lock(&self.surfaces).remove(&(context, surface)).is_some()
    }

    /// A context ended.
    pub fn forget(&self, context: ContextId) {
        lock(&self.textures).retain(|(owner, _), _| *owner != context);
        lock(&self.surfaces).retain(|(owner, _), _| *owner != context);
    }
}
