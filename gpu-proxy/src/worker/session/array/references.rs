//! Texture and surface references: what they are bound to is the process's own, and stays as long as the device may look at it.
//!
//! A device follows what a reference is bound to when kernels start. Linear memory is an address there, as any that a kernel has: freed, it
//! is a fault, or whatever of this process lies there by then; never another's, whose addresses no context of this process has. An array is
//! a thing of the driver's: before it ends, references let go of it, and where a device cannot let go, the array goes on, and counts, until
//! they are bound to something else or end.

use vgpu_api::array::{Element, flag};
use vgpu_api::texture::Resource;
use vgpu_api::{
    ArrayHandle, Call, ContextId, CuError, CuResult, ImageHandle, SamplerSetting, SurfRefHandle, TexRefHandle,
};

use super::OBJECTS_MAX;
use crate::device::{Device, Raw};
use crate::worker::session::Session;
use crate::worker::slab::Slab;

/// What a process has of them.
#[derive(Debug, Default)]
pub(super) struct References {
    textures: Slab<Reference>,
    surfaces: Slab<Reference>,
    /// Of both.
    count: usize,
    /// Arrays that the guest has ended.
    pub(super) kept: Vec<Kept>,
}

#[derive(Clone, Copy, Debug)]
struct Reference {
    raw: Raw,
    context: ContextId,
    /// The module that names it, and that it ends with.
    image: Option<ImageHandle>,
    bound: Option<Bound>,
}

/// What ends while references may be bound to it. A level is its whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Array(Raw),
    Mipmap(Raw),
}

/// What has ended for the guest and not for the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) what: Bound,
    pub(super) context: ContextId,
    pub(super) charged_bytes: u64,
}

impl Bound {
    pub(super) fn end(self, device: &mut dyn Device, context: Raw) -> CuResult<()> {
        match self {
            Self::Array(array) => device.array_destroy(context, array),
            Self::Mipmap(mipmap) => device.mipmap_destroy(context, mipmap),
        }
    }
}

impl Session {
    pub(in crate::worker::session) fn texref_of(
        &mut self,
        handle: TexRefHandle,
        image: ImageHandle,
        symbol: &str,
    ) -> CuResult<()> {
        self.table.references.textures.check_free(handle)?;
        let (raw, owner, context) = self.module_of_references(image)?;
        let result = self.device.texref_of(context, raw, symbol);
        let raw = self.settle(owner, result)?;
        let reference = Reference { raw, context: owner, image: Some(image), bound: None };
        self.table.references.count += 1;
        self.table.references.textures.insert(handle, reference)
    }

    pub(in crate::worker::session) fn surfref_of(
        &mut self,
        handle: SurfRefHandle,
        image: ImageHandle,
        symbol: &str,
    ) -> CuResult<()> {
        self.table.references.surfaces.check_free(handle)?;
        let (raw, owner, context) = self.module_of_references(image)?;
        let result = self.device.surfref_of(context, raw, symbol);
        let raw = self.settle(owner, result)?;
        let reference = Reference { raw, context: owner, image: Some(image), bound: None };
        self.table.references.count += 1;
        self.table.references.surfaces.insert(handle, reference)
    }

    /// A module, if there may be one more reference: the device's name, whose it is, and the device's name of that.
    fn module_of_references(&self, image: ImageHandle) -> CuResult<(Raw, ContextId, Raw)> {
        self.has_room_for_reference()?;
        let image = self.images.get(image)?;
        // Libraries have been there since CUDA 12, which has no references.
        let owner = image.context.ok_or(CuError::NOT_SUPPORTED)?;
        Ok((image.raw, owner, self.context(owner)?))
    }

    fn has_room_for_reference(&self) -> CuResult<()> {
        if self.table.references.count < OBJECTS_MAX { Ok(()) } else { Err(CuError::OUT_OF_MEMORY) }
    }

    pub(in crate::worker::session) fn texref_create(
        &mut self,
        call: Call,
        handle: TexRefHandle,
    ) -> CuResult<()> {
        let context = self.context(call.context)?;
        self.table.references.textures.check_free(handle)?;
        self.has_room_for_reference()?;
        let result = self.device.texref_create(context);
        let raw = self.settle(call.context, result)?;
        self.table.references.count += 1;
        let reference = Reference { raw, context: call.context, image: None, bound: None };
        self.table.references.textures.insert(handle, reference)
    }

    pub(in crate::worker::session) fn texref_destroy(&mut self, handle: TexRefHandle) -> CuResult<()> {
        let reference = *self.table.references.textures.get(handle)?;
        if reference.image.is_some() {
            return Err(CuError::INVALID_HANDLE);
        }
        let context = self.context(reference.context)?;
        let result = self.device.texref_destroy(context, reference.raw);
        self.settle(reference.context, result)?;
        self.table.references.textures.remove(handle)?;
        self.table.references.count -= 1;
        self.end_kept();
        Ok(())
    }

    pub(in crate::worker::session) fn texref_bind(
        &mut self,
        handle: TexRefHandle,
        resource: &Resource,
        told: bool,
    ) -> CuResult<u64> {
        let reference = *self.table.references.textures.get(handle)?;
        let context = self.context(reference.context)?;
        resource.check()?;
        let (texels, ..) = self.texels(resource)?;
        let bound = self.bound(reference.context, resource)?;
        let result = self.device.texref_bind(context, reference.raw, &texels, told);
        let before = self.settle(reference.context, result)?;
        self.is_bound(handle, bound)?;
        Ok(before)
    }

    pub(in crate::worker::session) fn texref_let_go(&mut self, handle: TexRefHandle) -> CuResult<()> {
        let reference = *self.table.references.textures.get(handle)?;
        let context = self.context(reference.context)?;
        let result = self.device.texref_let_go(context, reference.raw);
        self.settle(reference.context, result)?;
        self.is_bound(handle, None)
    }

    fn is_bound(&mut self, handle: TexRefHandle, bound: Option<Bound>) -> CuResult<()> {
        self.table.references.textures.get_mut(handle)?.bound = bound;
        self.end_kept();
        Ok(())
    }

    /// What a reference of this context is bound to, which must be the same context's: else it could end first.
    fn bound(&self, owner: ContextId, resource: &Resource) -> CuResult<Option<Bound>> {
        let (array, mipmap) = match resource {
            Resource::Linear(_) | Resource::Pitched(_) => return Ok(None),
            Resource::Mipmap(mipmap) => (None, Some(*mipmap)),
            Resource::Array(array) => {
                let array = self.table.arrays.get(*array)?;
                (Some(array), array.level_of)
            }
        };
        let (bound, context) = match (mipmap, array) {
            (Some(mipmap), _) => {
                let mipmap = self.table.mipmaps.get(mipmap)?;
                (Bound::Mipmap(mipmap.raw), mipmap.context)
            }
            (None, Some(array)) => (Bound::Array(array.raw), array.context),
            (None, None) => return Ok(None),
        };
        if context == owner { Ok(Some(bound)) } else { Err(CuError::INVALID_VALUE) }
    }

    pub(in crate::worker::session) fn texref_format(
        &mut self,
        handle: TexRefHandle,
        format: u32,
        channels: u32,
    ) -> CuResult<()> {
        let reference = *self.table.references.textures.get(handle)?;
        let context = self.context(reference.context)?;
        Element::of(format, channels)?;
        let result = self.device.texref_format(context, reference.raw, format, channels);
        self.settle(reference.context, result)
    }

    pub(in crate::worker::session) fn texref_set(
        &mut self,
        handle: TexRefHandle,
        setting: &SamplerSetting,
    ) -> CuResult<()> {
        let reference = *self.table.references.textures.get(handle)?;
        let context = self.context(reference.context)?;
        setting.check()?;
        let result = self.device.texref_set(context, reference.raw, setting);
        self.settle(reference.context, result)
    }

    pub(in crate::worker::session) fn surfref_bind(
        &mut self,
        handle: SurfRefHandle,
        array: ArrayHandle,
    ) -> CuResult<()> {
        let reference = *self.table.references.surfaces.get(handle)?;
        let context = self.context(reference.context)?;
        let bound = self.bound(reference.context, &Resource::Array(array))?;
        let array = self.table.arrays.get(array)?;
        if !array.shape.has(flag::SURFACE) {
            return Err(CuError::INVALID_VALUE);
        }
        let result = self.device.surfref_bind(context, reference.raw, Some(array.raw));
        self.settle(reference.context, result)?;
        self.table.references.surfaces.get_mut(handle)?.bound = bound;
        self.end_kept();
        Ok(())
    }

    /// Ends an array and what it counts, now or as soon as no reference is bound to it.
    pub(super) fn end_when_let_go(&mut self, ended: Kept) -> CuResult<()> {
        let context = self.context(ended.context)?;
        if !self.is_let_go(ended.what) {
            self.table.references.kept.push(ended);
            return Ok(());
        }
        let result = ended.what.end(&mut *self.device, context);
        self.settle(ended.context, result)?;
        self.quotas.release(self.device_of(ended.context), ended.charged_bytes);
        Ok(())
    }

    /// Before an array ends: whether no reference is bound to it any more.
    fn is_let_go(&mut self, what: Bound) -> bool {
        let Self { table, device, contexts, .. } = self;
        let whole = |id: ContextId| contexts.get(&id).filter(|context| context.sticky.is_none());
        let mut is_free = true;
        for reference in table.references.textures.iter_mut().filter(|one| one.bound == Some(what)) {
            let let_go = whole(reference.context)
                .is_some_and(|context| device.texref_let_go(context.raw, reference.raw).is_ok());
            reference.bound = reference.bound.filter(|_| !let_go);
            is_free &= let_go;
        }
        for reference in table.references.surfaces.iter_mut().filter(|one| one.bound == Some(what)) {
            let let_go = whole(reference.context)
                .is_some_and(|context| device.surfref_bind(context.raw, reference.raw, None).is_ok());
            reference.bound = reference.bound.filter(|_| !let_go);
            is_free &= let_go;
        }
        is_free
    }

    /// Ends the arrays that no reference is bound to any more.
    pub(in crate::worker::session) fn end_kept(&mut self) {
        let References { textures, surfaces, kept, .. } = &mut self.table.references;
        if kept.is_empty() {
            return;
        }
        let is_bound =
            |kept: &Kept| textures.iter().chain(surfaces.iter()).any(|one| one.bound == Some(kept.what));
        let free: Vec<Kept> = kept.extract_if(.., |kept| !is_bound(kept)).collect();
        for kept in free {
            let ended =
                self.context(kept.context).and_then(|context| kept.what.end(&mut *self.device, context));
            match self.settle(kept.context, ended) {
                Ok(()) => self.quotas.release(self.device_of(kept.context), kept.charged_bytes),
                // It ends with its context.
                Err(_) => self.table.references.kept.push(kept),
            }
        }
    }

    /// Ends the names of a module's references. What they were bound to may end after the module ([`Session::end_kept`]).
    pub(in crate::worker::session) fn end_references_in(&mut self, image: ImageHandle, owner: ContextId) {
        if let Some(context) = self.contexts.get(&owner) {
            self.end_references(context.raw, |reference| reference.image == Some(image));
        }
    }

    /// Ends the references of a context, before all else that it has.
    pub(in crate::worker::session) fn end_references_of(&mut self, id: ContextId, context: Raw) {
        self.end_references(context, |reference| reference.context == id);
    }

    fn end_references(&mut self, context: Raw, ends: impl Fn(&Reference) -> bool) {
        let textures = self.table.references.textures.remove_where(&ends);
        let surfaces = self.table.references.surfaces.remove_where(&ends);
        self.table.references.count -= textures.len() + surfaces.len();
        for reference in textures {
            // What a device refuses to end dies with the worker.
            let _ = self.device.texref_destroy(context, reference.raw);
        }
        surfaces.into_iter().for_each(|reference| self.device.surfref_destroy(reference.raw));
    }
}
