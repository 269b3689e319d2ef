//! Arrays and mipmapped arrays. Their numbers are the guest's, their memory the worker's: making one waits for it, all that is asked
//! about one is answered here.

use vgpu_api::array::flag;
use vgpu_api::descriptors::{Array3dDesc, ArrayDesc};
use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::{ArrayHandle, ArrayShape, CuError, CuResult, MipmapHandle, ask};

use super::device::device;
use crate::abi::{In, Out, Raw, export};
use crate::core::arrays::{ArrayInfo, MipmapInfo};
use crate::core::contexts::{Entered, enter, enter_to_end};
use crate::core::slab::lock;

fn checked(entered: Entered, shape: ArrayShape, mipmapped: bool) -> CuResult<()> {
    let device = entered.process.devices.get(entered.device as usize).ok_or(CuError::INVALID_CONTEXT)?;
    shape.check()?;
    shape.fits(mipmapped, |number| device.attribute(number).unwrap_or(0))
}

fn create(out: Out<u64>, shape: impl FnOnce() -> CuResult<ArrayShape>) -> CuResult<()> {
    let entered = enter()?;
    out.wanted()?;
    let shape = shape()?;
    checked(entered, shape, false)?;
    entered.process.graphs.may_be_unsafe()?;
    let Entered { process, context, .. } = entered;
    let array = process.arrays.arrays.insert(ArrayInfo { context, shape, level_of: None });
    match ask::vgpuArrayCreate(&process.channel, context, NewHandle(array), shape) {
        Ok(()) => out.set(array.raw()),
        Err(error) => process.arrays.arrays.end(array, |_| Err(error))?,
    }
}

fn destroy(raw: Raw) -> CuResult<()> {
    let entered = enter_to_end()?;
    let (channel, arrays) = (&entered.process.channel, &entered.process.arrays);
    let (array, known) = arrays.named(raw.0)?;
    if known.level_of.is_some() {
        // As NVIDIA's driver 580: it ends with its whole.
        return entered.told();
    }
    entered.process.graphs.may_be_unsafe()?;
    arrays.arrays.end(array, |known| ask::cuArrayDestroy(channel, known.context, GoneHandle(array)))??;
    entered.told()
}

fn create_mipmap(out: Out<u64>, shape: In<Array3dDesc>, levels: u32) -> CuResult<()> {
    let entered = enter()?;
    out.wanted()?;
    let shape = ArrayShape::from(shape.get()?);
    checked(entered, shape, true)?;
    entered.process.graphs.may_be_unsafe()?;
    let levels = levels.clamp(1, shape.levels_max());
    let Entered { process, context, .. } = entered;
    let known = MipmapInfo { context, shape, levels: vec![None; levels as usize] };
    let mipmap: MipmapHandle = process.arrays.mipmaps.insert(known);
    match ask::vgpuMipmapCreate(&process.channel, context, NewHandle(mipmap), shape, levels) {
        Ok(()) => out.set(mipmap.raw()),
        Err(error) => process.arrays.mipmaps.end(mipmap, |_| Err(error))?,
    }
}

/// A level has one name, however often it is asked for.
fn level(out: Out<u64>, raw: Raw, level: u32) -> CuResult<()> {
    let entered = enter()?;
    out.wanted()?;
    let arrays = &entered.process.arrays;
    let _naming = lock(&arrays.naming);
    let (mipmap, mut known) = arrays.mipmap(raw.0)?;
    let MipmapInfo { context, shape, .. } = known;
    let place = known.levels.get_mut(level as usize).ok_or(CuError::INVALID_VALUE)?;
    if let Some(array) = place {
        return out.set(array.raw());
    }
    let info = ArrayInfo { context, shape: shape.level(level), level_of: Some(mipmap) };
    let array: ArrayHandle = arrays.arrays.insert(info);
    if let Err(error) =
        ask::vgpuMipmapLevel(&entered.process.channel, context, NewHandle(array), mipmap, level)
    {
        return arrays.arrays.end(array, |_| Err(error))?;
    }
    *place = Some(array);
    arrays.mipmaps.set(mipmap, known)?;
    out.set(array.raw())
}

fn destroy_mipmap(raw: Raw) -> CuResult<()> {
    let entered = enter_to_end()?;
    let (channel, arrays) = (&entered.process.channel, &entered.process.arrays);
    let (mipmap, _) = arrays.mipmap(raw.0)?;
    entered.process.graphs.may_be_unsafe()?;
    let naming = lock(&arrays.naming);
    arrays.mipmaps.end(mipmap, |known| {
        let told = ask::cuMipmappedArrayDestroy(channel, known.context, GoneHandle(mipmap));
        for array in known.levels.into_iter().flatten() {
            // The worker has ended it with the whole. A context that ended meanwhile took it along.
            let _ = arrays.arrays.end(array, |_| ());
        }
        told
    })??;
    drop(naming);
    entered.told()
}

/// Of arrays that are mapped later: there are none (`CU_DEVICE_ATTRIBUTE_SPARSE_…` and `…_DEFERRED_MAPPING_…` are 0).
fn not_mapped_later(flags: u32) -> CuResult<()> {
    debug_assert_eq!(flags & !flag::OFFERED, 0, "no other is made");
    Err(CuError::INVALID_VALUE)
}

export! {
    fn cuArrayCreate_v2(out: Out<u64>, shape: In<ArrayDesc>) {
        create(out, || shape.get().map(ArrayShape::from))
    }

    fn cuArray3DCreate_v2(out: Out<u64>, shape: In<Array3dDesc>) {
        create(out, || shape.get().map(ArrayShape::from))
    }

    /// The first two sides of an array of three.
    fn cuArrayGetDescriptor_v2(out: Out<ArrayDesc>, array: Raw) {
        let (_, known) = enter()?.process.arrays.named(array.0)?;
        out.set(known.shape.into())
    }

    fn cuArray3DGetDescriptor_v2(out: Out<Array3dDesc>, array: Raw) {
        let (_, known) = enter()?.process.arrays.named(array.0)?;
        out.set(known.shape.into())
    }

    fn cuArrayDestroy(array: Raw) {
        destroy(array)
    }

    /// No format of several planes is offered.
    fn cuArrayGetPlane(out: Out<u64>, array: Raw, _plane: u32) {
        let entered = enter()?;
        out.wanted()?;
        entered.process.arrays.named(array.0)?;
        Err(CuError::INVALID_VALUE)
    }

    fn cuArrayGetMemoryRequirements(out: Out<[u64; 4]>, array: Raw, dev: i32) {
        let entered = enter()?;
        out.wanted()?;
        device(entered.process, dev).map_err(|_| CuError::INVALID_VALUE)?;
        not_mapped_later(entered.process.arrays.named(array.0)?.1.shape.flags)
    }

    fn cuArrayGetSparseProperties(out: Out<[u64; 6]>, array: Raw) {
        let entered = enter()?;
        out.wanted()?;
        not_mapped_later(entered.process.arrays.named(array.0)?.1.shape.flags)
    }

    fn cuMipmappedArrayCreate(out: Out<u64>, shape: In<Array3dDesc>, levels: u32) {
        create_mipmap(out, shape, levels)
    }

    fn cuMipmappedArrayGetLevel(out: Out<u64>, mipmap: Raw, number: u32) {
        level(out, mipmap, number)
    }

    fn cuMipmappedArrayDestroy(mipmap: Raw) {
        destroy_mipmap(mipmap)
    }

    fn cuMipmappedArrayGetMemoryRequirements(out: Out<[u64; 4]>, mipmap: Raw, dev: i32) {
        let entered = enter()?;
        out.wanted()?;
        device(entered.process, dev)?;
        not_mapped_later(entered.process.arrays.mipmap(mipmap.0)?.1.shape.flags)
    }

    fn cuMipmappedArrayGetSparseProperties(out: Out<[u64; 6]>, mipmap: Raw) {
        let entered = enter()?;
        out.wanted()?;
        not_mapped_later(entered.process.arrays.mipmap(mipmap.0)?.1.shape.flags)
    }
}
