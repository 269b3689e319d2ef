//! Texture and surface references as the guest knows them: what was set, which is all that can be asked about them.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Mutex;

use vgpu_api::handle::Kind;
use vgpu_api::texref::{UNSET, UNSET_FORMAT};
use vgpu_api::texture::Sampler;
use vgpu_api::{ContextId, CuError, CuResult, DevicePtr, Handle, ImageHandle, SurfRefHandle, TexRefHandle};

use super::slab::{Slab, lock};

/// What a texture reference reads, as the program named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Nothing,
    Array(u64),
    Mipmap(u64),
    /// Device memory, in whichever shape.
    Memory(DevicePtr),
}

/// What the guest keeps of a texture reference.
#[derive(Clone, Copy, Debug)]
pub struct TexRef {
    pub context: ContextId,
    /// The module that it ends with.
    pub image: Option<ImageHandle>,
    pub bound: Bound,
    /// `CUarray_format` and channels.
    pub format: (u32, u32),
    pub sampler: Sampler,
}

/// The same of a surface reference.
#[derive(Clone, Copy, Debug)]
pub struct SurfRef {
    pub context: ContextId,
    pub image: ImageHandle,
    /// Its array, as the program named it.
    pub array: Option<u64>,
}

impl TexRef {
    pub fn new(context: ContextId, image: Option<ImageHandle>) -> Self {
        Self { context, image, bound: Bound::Nothing, format: UNSET_FORMAT, sampler: UNSET }
    }
}

/// The references of modules that were asked for: a name has one.
type Named = HashMap<(ImageHandle, u8, CString), u64>;

/// All references of the process.
#[derive(Debug)]
pub struct References {
    pub textures: Slab<TexRef>,
    pub surfaces: Slab<SurfRef>,
    named: Mutex<Named>,
}

impl References {
    pub fn new() -> Self {
        Self { textures: Slab::new(), surfaces: Slab::new(), named: Mutex::default() }
    }

    /// A program's texture reference.
    /// # Errors
    /// 1 for NULL, 400 for what is none.
    pub fn texture(&self, raw: u64) -> CuResult<(TexRefHandle, TexRef)> {
        let handle = handle(raw)?;
        Ok((handle, self.textures.get(handle)?))
    }

    /// A program's surface reference.
    /// # Errors
    /// 1 for NULL, 400 for what is none.
    pub fn surface(&self, raw: u64) -> CuResult<(SurfRefHandle, SurfRef)> {
        let handle = handle(raw)?;
        Ok((handle, self.surfaces.get(handle)?))
    }

    /// The reference of a module by its name, which `find` finds the first time.
    pub fn named<K: Kind>(
        &self,
        image: ImageHandle,
        name: &CStr,
        find: impl FnOnce() -> CuResult<Handle<K>>,
    ) -> CuResult<u64> {
        let mut named = lock(&self.named);
        let key = (image, K::NUMBER, name.to_owned());
        if let Some(known) = named.get(&key) {
            return Ok(*known);
        }
        let found = find()?.raw();
        named.insert(key, found);
        Ok(found)
    }

    /// A module ended.
    pub fn forget_image(&self, image: ImageHandle) {
        self.textures.retain(|one| one.image != Some(image));
        self.surfaces.retain(|one| one.image != image);
        lock(&self.named).retain(|(of, ..), _| *of != image);
    }

    /// A context ended, and its modules.
    pub fn forget(&self, context: ContextId) {
        self.textures.retain(|one| one.context != context);
        self.surfaces.retain(|one| one.context != context);
        lock(&self.named).retain(|(_, kind, _), raw| self.is_there(*kind, *raw));
    }

    fn is_there(&self, kind: u8, raw: u64) -> bool {
        if kind == vgpu_api::kind::TexRef::NUMBER {
            self.texture(raw).is_ok()
        } else {
            self.surface(raw).is_ok()
        }
    }
}

fn handle<K: Kind>(raw: u64) -> CuResult<Handle<K>> {
    if raw == 0 { Err(CuError::INVALID_VALUE) } else { Handle::check(raw) }
}
