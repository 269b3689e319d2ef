//! Texture and surface references as the guest knows them: what was set, which is all that can be asked about them.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Mutex;

use vgpu_api::array::Element;
use vgpu_api::handle::Kind;
use vgpu_api::texref::{UNSET, UNSET_FORMAT};
use vgpu_api::texture::{Resource, Sampler};
use vgpu_api::{ContextId, CuResult, DevicePtr, Handle, ImageHandle, SurfRefHandle, TexRefHandle};

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
    /// The same as the worker can bind it, and the format that it gives the reference thereby. `None`: nothing can be read of it.
    pub resource: Option<(Resource, Option<(u32, u32)>)>,
    /// That the worker has it bound.
    pub is_read: bool,
    /// `CUarray_format` and channels. NVIDIA's driver takes any format and most numbers, and tells them; kernels may not read by them.
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
        let (bound, format, sampler) = (Bound::Nothing, UNSET_FORMAT, UNSET);
        Self { context, image, bound, resource: None, is_read: false, format, sampler }
    }

    /// That the format is one that CUDA knows.
    pub fn has_format(&self) -> bool {
        Element::of(self.format.0, self.format.1).is_ok()
    }

    /// What kernels may read: nothing while any setting is one that CUDA does not know.
    pub fn readable(&self) -> Option<(Resource, Option<(u32, u32)>)> {
        self.resource.filter(|_| self.has_format() && self.sampler.check().is_ok())
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
    /// One change after the other: what is told is what the worker has.
    changes: Mutex<()>,
}

impl References {
    pub fn new() -> Self {
        Self {
            textures: Slab::new(),
            surfaces: Slab::new(),
            named: Mutex::default(),
            changes: Mutex::default(),
        }
    }

    /// A program's texture reference.
    /// # Errors
    /// 400 for what is none.
    pub fn texture(&self, raw: u64) -> CuResult<(TexRefHandle, TexRef)> {
        let handle = Handle::check(raw)?;
        Ok((handle, self.textures.get(handle)?))
    }

    /// Changes a texture reference as `how` tells the worker; what that refuses changes nothing.
    /// # Errors
    /// As [`References::texture`], and what `how` says.
    pub fn change(
        &self,
        raw: u64,
        how: impl FnOnce(TexRefHandle, &mut TexRef) -> CuResult<()>,
    ) -> CuResult<()> {
        let _alone = lock(&self.changes);
        let (texref, mut known) = self.texture(raw)?;
        how(texref, &mut known)?;
        self.textures.set(texref, known)
    }

    /// A program's surface reference.
    /// # Errors
    /// 400 for what is none.
    pub fn surface(&self, raw: u64) -> CuResult<(SurfRefHandle, SurfRef)> {
        let handle = Handle::check(raw)?;
        Ok((handle, self.surfaces.get(handle)?))
    }

    /// Binds a surface reference to an array as `how` tells the worker; what that refuses changes nothing.
    /// # Errors
    /// As [`References::surface`], and what `how` says.
    pub fn bind_surface(
        &self,
        raw: u64,
        array: u64,
        how: impl FnOnce(SurfRefHandle, ContextId) -> CuResult<()>,
    ) -> CuResult<()> {
        let _alone = lock(&self.changes);
        let (surfref, known) = self.surface(raw)?;
        how(surfref, known.context)?;
        self.surfaces.set(surfref, SurfRef { array: Some(array), ..known })
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
