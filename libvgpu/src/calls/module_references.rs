//! Texture and surface references of modules, by the names that the code has for them.

use std::ffi::{CStr, c_char};

use vgpu_api::handle::{Kind, NewHandle};
use vgpu_api::{CuError, CuResult, Handle, ImageKind, SurfRefHandle, TexRefHandle, ask};

use crate::abi::{In, Out, Raw, export};
use crate::calls::module::module;
use crate::core::contexts::{Entered, enter};
use crate::core::images::Image;
use crate::core::references::{SurfRef, TexRef};

/// A module by which references can be named, and a name.
fn named<K: Kind>(
    out: Out<u64>,
    raw: Raw,
    name: In<c_char>,
    find: impl FnOnce(&Entered, &Image, String) -> CuResult<Handle<K>>,
) -> CuResult<()> {
    let entered = enter()?;
    let (out, module, name) = (out.wanted()?, module(raw)?, name.text()?);
    if name.is_empty() {
        return Err(CuError::INVALID_VALUE);
    }
    // A library has none: it is loaded by what came with CUDA 12.
    if module.kind == ImageKind::Library {
        return Err(CuError::NOT_SUPPORTED);
    }
    // The code's names are ASCII.
    let symbol = name.to_str().map_err(|_| CuError::NOT_FOUND)?.to_owned();
    let found = entered.process.references.named(module.handle, name, || find(&entered, &module, symbol))?;
    out.set(found)
}

/// That a module's code has a texture or a surface of this name, which is then found as if the program had asked for it.
pub fn names_reference(module: &Image, name: &CStr) -> bool {
    let (Ok(entered), Ok(symbol)) = (enter(), name.to_str()) else { return false };
    if module.kind == ImageKind::Library || symbol.is_empty() {
        return false;
    }
    let (entered, references) = (&entered, &entered.process.references);
    references.named(module.handle, name, || find_texture(entered, module, symbol.to_owned())).is_ok()
        || references.named(module.handle, name, || find_surface(entered, module, symbol.to_owned())).is_ok()
}

fn find_texture(entered: &Entered, module: &Image, symbol: String) -> CuResult<TexRefHandle> {
    let textures = &entered.process.references.textures;
    let texref = textures.insert(TexRef::new(module.context, Some(module.handle)));
    let (channel, new) = (&entered.process.channel, NewHandle(texref));
    match ask::cuModuleGetTexRef(channel, module.context, new, module.handle, symbol) {
        Ok(()) => Ok(texref),
        Err(error) => textures.end(texref, |_| Err(error))?,
    }
}

fn find_surface(entered: &Entered, module: &Image, symbol: String) -> CuResult<SurfRefHandle> {
    let surfaces = &entered.process.references.surfaces;
    let surfref = surfaces.insert(SurfRef { context: module.context, image: module.handle, array: None });
    let (channel, new) = (&entered.process.channel, NewHandle(surfref));
    match ask::cuModuleGetSurfRef(channel, module.context, new, module.handle, symbol) {
        Ok(()) => Ok(surfref),
        Err(error) => surfaces.end(surfref, |_| Err(error))?,
    }
}

export! {
    fn cuModuleGetTexRef(out: Out<u64>, raw: Raw, name: In<c_char>) {
        named(out, raw, name, find_texture)
    }

    fn cuModuleGetSurfRef(out: Out<u64>, raw: Raw, name: In<c_char>) {
        named(out, raw, name, find_surface)
    }
}
