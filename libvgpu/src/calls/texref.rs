//! Texture and surface references: what the host binds for names in a module's code (`module_references.rs`), deprecated since CUDA 10. What is set
//! travels, each call for itself; what is asked is answered here. What CUDA does not know, and NVIDIA's driver takes, is kept and told, and does
//! not travel: the worker binds the reference to nothing as long as one such setting lasts.

use vgpu_api::array::flag;
use vgpu_api::descriptors::ArrayDesc;
use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::texref::OVERRIDE_FORMAT;
use vgpu_api::texture::{LinearTexels, PitchedTexels, Resource, mode};
use vgpu_api::{
    CuError, CuResult, DevicePtr, DeviceSnapshot, SamplerField, SamplerSetting, TexRefHandle, ask,
};

use super::texture::aligned;
use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::{Entered, enter, enter_to_end};
use crate::core::references::{Bound, TexRef};

fn create(out: Out<u64>) -> CuResult<()> {
    let entered = enter()?;
    out.wanted()?;
    let Entered { process, context, .. } = entered;
    let texref: TexRefHandle = process.references.textures.insert(TexRef::new(context, None));
    match ask::cuTexRefCreate(&process.channel, context, NewHandle(texref)) {
        Ok(()) => out.set(texref.raw()),
        Err(error) => process.references.textures.end(texref, |_| Err(error))?,
    }
}

fn destroy(raw: Raw) -> CuResult<()> {
    let entered = enter_to_end()?;
    let (texref, known) = entered.process.references.texture(raw.0)?;
    if known.image.is_some() {
        // It is the module's.
        return Err(CuError::INVALID_HANDLE);
    }
    let channel = &entered.process.channel;
    entered
        .process
        .references
        .textures
        .end(texref, |known| ask::cuTexRefDestroy(channel, known.context, GoneHandle(texref)))??;
    entered.told()
}

/// A byte, in which nothing but a place and a length is checked: linear memory is read by the reference's own format, which may follow.
const BYTE: (u32, u32) = (0x01, 1);

/// Sets what `how` has told the worker, and keeps it.
fn change(raw: Raw, how: impl FnOnce(Entered, TexRefHandle, &mut TexRef) -> CuResult<()>) -> CuResult<()> {
    let entered = enter()?;
    entered.process.references.change(raw.0, |texref, known| {
        how(entered, texref, known)?;
        follow(entered, texref, known)
    })
}

/// Has the worker bind what kernels may read by the reference now, or nothing.
fn follow(entered: Entered, texref: TexRefHandle, known: &mut TexRef) -> CuResult<()> {
    let (channel, context) = (&entered.process.channel, known.context);
    match known.readable() {
        None if known.is_read => {
            ask::vgpuTexRefUnbind(channel, context, texref)?;
            known.is_read = false;
            Ok(())
        }
        Some((resource, format)) if !known.is_read => {
            match ask::vgpuTexRefBind(channel, context, texref, resource, true) {
                Ok(_) => {
                    known.is_read = true;
                    format.map_or(Ok(()), |given| keep_format(entered, texref, known, given))
                }
                // It has ended meanwhile: by such a reference nothing is read.
                Err(CuError::INVALID_HANDLE | CuError::INVALID_VALUE) => Ok(()),
                Err(error) => Err(error),
            }
        }
        _ => Ok(()),
    }
}

/// The reference's own format, where what was bound has `given` it another one.
fn keep_format(entered: Entered, texref: TexRefHandle, known: &TexRef, given: (u32, u32)) -> CuResult<()> {
    if given == known.format || !known.has_format() {
        return Ok(());
    }
    let (format, channels) = known.format;
    ask::cuTexRefSetFormat(&entered.process.channel, known.context, texref, format, channels)
}

/// Binds what has a format of its own, which becomes the reference's if that `is_taken`.
fn bind(
    entered: Entered,
    texref: TexRefHandle,
    known: &mut TexRef,
    (bound, resource): (Bound, Resource),
    (format, is_taken): ((u32, u32), bool),
) -> CuResult<()> {
    resource.check()?;
    ask::vgpuTexRefBind(&entered.process.channel, known.context, texref, resource, false)?;
    (known.bound, known.resource, known.is_read) = (bound, Some((resource, Some(format))), true);
    if is_taken {
        known.format = format;
    }
    keep_format(entered, texref, known, format)
}

fn bind_array(raw: Raw, array: Raw, flags: u32) -> CuResult<()> {
    change(raw, |entered, texref, known| {
        let (handle, info) = entered.process.arrays.named(array.0)?;
        if flags & !OVERRIDE_FORMAT != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let format = (info.shape.format, info.shape.channels);
        let bound = (Bound::Array(array.0), Resource::Array(handle));
        bind(entered, texref, known, bound, (format, flags == OVERRIDE_FORMAT))
    })
}

fn bind_mipmap(raw: Raw, mipmap: Raw, flags: u32) -> CuResult<()> {
    change(raw, |entered, texref, known| {
        let (handle, of) = entered.process.arrays.mipmap(mipmap.0)?;
        if flags & !OVERRIDE_FORMAT != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let format = (of.shape.format, of.shape.channels);
        let bound = (Bound::Mipmap(mipmap.0), Resource::Mipmap(handle));
        bind(entered, texref, known, bound, (format, flags == OVERRIDE_FORMAT))
    })
}

/// Linear memory need not start where a texture can: then it reads from before, and the program is told by how much. Of no bytes nothing is
/// read; where they are is checked as if there were one.
fn bind_memory(offset: Out<usize>, raw: Raw, at: DevicePtr, bytes: usize) -> CuResult<()> {
    change(raw, |entered, texref, known| {
        if at == DevicePtr(0) {
            // Nothing there: the reference lets go of what it had.
            ask::vgpuTexRefUnbind(&entered.process.channel, known.context, texref)?;
            (known.bound, known.resource, known.is_read) = (Bound::Memory(at), None, false);
            offset.set_if_wanted(0);
            return Ok(());
        }
        let (format, channels) = BYTE;
        let row = Resource::Linear(LinearTexels { at, format, channels, bytes: (bytes as u64).max(1) });
        let (channel, told) = (&entered.process.channel, offset.address() != 0);
        let before = ask::vgpuTexRefBind(channel, known.context, texref, row, told)?;
        (known.resource, known.is_read) = ((bytes > 0).then_some((row, None)), true);
        // Told is where the texture starts.
        known.bound = Bound::Memory(DevicePtr(at.0.saturating_sub(before)));
        offset.set_if_wanted(usize::try_from(before).unwrap_or(usize::MAX));
        Ok(())
    })
}

fn bind_rows(raw: Raw, shape: In<ArrayDesc>, at: DevicePtr, pitch: usize) -> CuResult<()> {
    change(raw, |entered, texref, known| {
        let ArrayDesc { width, height, format, channels } = shape.get()?;
        let rows = PitchedTexels { at, format, channels, width, height, pitch: pitch as u64 };
        let rows = Resource::Pitched(rows);
        aligned(device_of(entered)?, &rows)?;
        bind(entered, texref, known, (Bound::Memory(at), rows), ((format, channels), true))
    })
}

fn device_of(entered: Entered) -> CuResult<&'static DeviceSnapshot> {
    entered.process.devices.get(entered.device as usize).ok_or(CuError::INVALID_CONTEXT)
}

fn set(raw: Raw, field: SamplerField, words: [u32; 4]) -> CuResult<()> {
    change(raw, |entered, texref, known| {
        let setting = SamplerSetting { field, words };
        known.sampler = setting.of(known.sampler)?;
        if setting.check().is_err() {
            return Ok(());
        }
        ask::vgpuTexRefSet(&entered.process.channel, known.context, texref, setting)
    })
}

fn bind_surface(raw: Raw, array: Raw, flags: u32) -> CuResult<()> {
    let Entered { process, .. } = enter()?;
    process.references.bind_surface(raw.0, array.0, |surfref, context| {
        let (handle, info) = process.arrays.named(array.0)?;
        if flags != 0 || !info.shape.has(flag::SURFACE) {
            return Err(CuError::INVALID_VALUE);
        }
        ask::cuSurfRefSetArray(&process.channel, context, surfref, handle)
    })
}

/// What was set.
fn known(raw: Raw) -> CuResult<TexRef> {
    enter()?.process.references.texture(raw.0).map(|(_, known)| known)
}

export! {
    fn cuTexRefCreate(out: Out<u64>) {
        create(out)
    }

    fn cuTexRefDestroy(texref: Raw) {
        destroy(texref)
    }

    fn cuTexRefSetArray(texref: Raw, array: Raw, flags: u32) {
        bind_array(texref, array, flags)
    }

    fn cuTexRefSetMipmappedArray(texref: Raw, mipmap: Raw, flags: u32) {
        bind_mipmap(texref, mipmap, flags)
    }

    fn cuTexRefSetAddress_v2(offset: Out<usize>, texref: Raw, at: DevicePtr, bytes: usize) {
        bind_memory(offset, texref, at, bytes)
    }

    fn cuTexRefSetAddress2D_v2(texref: Raw, shape: In<ArrayDesc>, at: DevicePtr, pitch: usize) {
        bind_rows(texref, shape, at, pitch)
    }

    fn cuTexRefSetAddress2D_v3(texref: Raw, shape: In<ArrayDesc>, at: DevicePtr, pitch: usize) {
        bind_rows(texref, shape, at, pitch)
    }

    fn cuTexRefSetFormat(texref: Raw, format: u32, channels: i32) {
        let channels = u32::try_from(channels).map_err(|_| CuError::INVALID_VALUE)?;
        change(texref, |entered, texref, known| {
            if !matches!(channels, 1 | 2 | 4) {
                return Err(CuError::INVALID_VALUE);
            }
            known.format = (format, channels);
            if !known.has_format() {
                return Ok(());
            }
            ask::cuTexRefSetFormat(&entered.process.channel, known.context, texref, format, channels)
        })
    }

    fn cuTexRefSetAddressMode(texref: Raw, dimension: i32, mode: u32) {
        let dimension = u32::try_from(dimension).map_err(|_| CuError::INVALID_VALUE)?;
        // What CUDA does not know clamps, and is told so.
        let told = if mode > mode::BORDER { mode::CLAMP } else { mode };
        set(texref, SamplerField::Address, [dimension, told, 0, 0])
    }

    fn cuTexRefSetFilterMode(texref: Raw, mode: u32) {
        set(texref, SamplerField::Filter, [mode, 0, 0, 0])
    }

    fn cuTexRefSetMipmapFilterMode(texref: Raw, mode: u32) {
        if mode > mode::LINEAR {
            return Err(CuError::INVALID_VALUE);
        }
        set(texref, SamplerField::MipFilter, [mode, 0, 0, 0])
    }

    fn cuTexRefSetMipmapLevelBias(texref: Raw, bias: f32) {
        set(texref, SamplerField::MipBias, [bias.to_bits(), 0, 0, 0])
    }

    fn cuTexRefSetMipmapLevelClamp(texref: Raw, least: f32, most: f32) {
        set(texref, SamplerField::Levels, [least.to_bits(), most.to_bits(), 0, 0])
    }

    fn cuTexRefSetMaxAnisotropy(texref: Raw, ratio: u32) {
        set(texref, SamplerField::Anisotropy, [ratio, 0, 0, 0])
    }

    fn cuTexRefSetBorderColor(texref: Raw, colour: In<[u32; 4]>) {
        set(texref, SamplerField::Border, colour.get()?)
    }

    fn cuTexRefSetFlags(texref: Raw, flags: u32) {
        set(texref, SamplerField::Flags, [flags, 0, 0, 0])
    }

    fn cuTexRefGetAddress_v2(out: Out<DevicePtr>, texref: Raw) {
        let Bound::Memory(at) = known(texref)?.bound else { return Err(CuError::INVALID_VALUE) };
        out.set(at)
    }

    fn cuTexRefGetArray(out: Out<u64>, texref: Raw) {
        let Bound::Array(array) = known(texref)?.bound else { return Err(CuError::INVALID_VALUE) };
        out.set(array)
    }

    fn cuTexRefGetMipmappedArray(out: Out<u64>, texref: Raw) {
        let Bound::Mipmap(mipmap) = known(texref)?.bound else { return Err(CuError::INVALID_VALUE) };
        out.set(mipmap)
    }

    fn cuTexRefGetAddressMode(out: Out<u32>, texref: Raw, dimension: i32) {
        let dimension = usize::try_from(dimension).map_err(|_| CuError::INVALID_VALUE)?;
        out.set(*known(texref)?.sampler.address.get(dimension).ok_or(CuError::INVALID_VALUE)?)
    }

    fn cuTexRefGetFilterMode(out: Out<u32>, texref: Raw) {
        out.set(known(texref)?.sampler.filter)
    }

    fn cuTexRefGetFormat(format: Out<u32>, channels: Out<u32>, texref: Raw) {
        let known = known(texref)?.format;
        format.wanted()?;
        channels.set(known.1)?;
        format.set(known.0)
    }

    fn cuTexRefGetMipmapFilterMode(out: Out<u32>, texref: Raw) {
        out.set(known(texref)?.sampler.mip_filter)
    }

    fn cuTexRefGetMipmapLevelBias(out: Out<f32>, texref: Raw) {
        out.set(known(texref)?.sampler.mip_bias)
    }

    fn cuTexRefGetMipmapLevelClamp(least: Out<f32>, most: Out<f32>, texref: Raw) {
        let sampler = known(texref)?.sampler;
        least.wanted()?;
        most.set(sampler.level_max)?;
        least.set(sampler.level_min)
    }

    fn cuTexRefGetMaxAnisotropy(out: Out<u32>, texref: Raw) {
        out.set(known(texref)?.sampler.anisotropy_max)
    }

    fn cuTexRefGetBorderColor(out: Out<[u32; 4]>, texref: Raw) {
        out.set(known(texref)?.sampler.border)
    }

    fn cuTexRefGetFlags(out: Out<u32>, texref: Raw) {
        out.set(known(texref)?.sampler.flags)
    }

    fn cuSurfRefSetArray(surfref: Raw, array: Raw, flags: u32) {
        bind_surface(surfref, array, flags)
    }

    fn cuSurfRefGetArray(out: Out<u64>, surfref: Raw) {
        let (_, known) = enter()?.process.references.surface(surfref.0)?;
        out.set(known.array.ok_or(CuError::INVALID_VALUE)?)
    }
}
