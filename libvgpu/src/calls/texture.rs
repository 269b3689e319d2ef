//! Texture and surface objects. Their numbers are the device's own, since kernels get them as parameters; what a program described is
//! kept here and told from here.

use vgpu_api::array::flag;
use vgpu_api::descriptors::{Described, ResourceDesc, TextureDesc, ViewDesc};
use vgpu_api::texture::{Resource, View};
use vgpu_api::{ArrayHandle, ContextId, CuError, CuResult, DeviceSnapshot, Object, Texture, ask};

use super::device::device;
use crate::abi::{In, Out, export};
use crate::core::arrays::TextureInfo;
use crate::core::contexts::{Entered, enter, enter_to_end};
use crate::core::process::process;

/// Attributes of a device: alignment of what a texture reads of device memory, of its rows; the most elements of a row, rows, bytes
/// from a row to the next.
const ALIGNMENT: u32 = 14;
const PITCH_ALIGNMENT: u32 = 51;
const WIDTH_MAX: u32 = 70;
const HEIGHT_MAX: u32 = 71;
const PITCH_MAX: u32 = 72;

/// What a descriptor names. The worker checks handles and addresses again.
fn resource(entered: Entered, desc: &ResourceDesc) -> CuResult<Resource> {
    let arrays = &entered.process.arrays;
    Ok(match desc.described()? {
        Described::Array(array) => Resource::Array(arrays.used(array)?),
        Described::Mipmap(0) => return Err(CuError::INVALID_VALUE),
        Described::Mipmap(mipmap) => Resource::Mipmap(arrays.mipmap(mipmap)?.0),
        Described::Linear(texels) => Resource::Linear(texels),
        Described::Pitched(texels) => Resource::Pitched(texels),
    })
}

/// Device memory that a texture reads starts and goes on where the device can.
pub(super) fn aligned(device: &DeviceSnapshot, resource: &Resource) -> CuResult<()> {
    let attribute =
        |number| device.attribute(number).and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
    let right = match resource {
        Resource::Array(_) | Resource::Mipmap(_) => true,
        Resource::Linear(texels) => texels.at.0.is_multiple_of(attribute(ALIGNMENT).max(1)),
        Resource::Pitched(texels) => {
            texels.at.0.is_multiple_of(attribute(ALIGNMENT).max(1))
                && texels.pitch.is_multiple_of(attribute(PITCH_ALIGNMENT).max(1))
                && texels.width <= attribute(WIDTH_MAX)
                && texels.height <= attribute(HEIGHT_MAX)
                && texels.pitch <= attribute(PITCH_MAX)
        }
    };
    if right { Ok(()) } else { Err(CuError::INVALID_VALUE) }
}

fn create(
    out: Out<u64>,
    resource_desc: In<ResourceDesc>,
    texture_desc: In<TextureDesc>,
    view: In<ViewDesc>,
) -> CuResult<()> {
    let entered = enter()?;
    out.wanted()?;
    let view = if view.is_null() { None } else { Some(view.get()?) };
    let info = TextureInfo { resource: resource_desc.get()?, texture: texture_desc.get()?, view };
    let texture = Texture {
        resource: resource(entered, &info.resource)?,
        sampler: info.texture.into(),
        view: view.map(View::from),
    };
    texture.check()?;
    let Entered { process, context, device, .. } = entered;
    let device = process.devices.get(device as usize).ok_or(CuError::INVALID_CONTEXT)?;
    aligned(device, &texture.resource)?;
    let object = ask::vgpuTextureCreate(&process.channel, context, texture)?;
    process.objects.add_texture(context, object, info);
    out.set(object.0)
}

fn create_surface(out: Out<u64>, desc: In<ResourceDesc>) -> CuResult<()> {
    let entered = enter()?;
    out.wanted()?;
    let desc = desc.get()?;
    let Resource::Array(array) = resource(entered, &desc)? else { return Err(CuError::INVALID_VALUE) };
    let Entered { process, context, .. } = entered;
    if !is_for_surfaces(entered, array)? {
        return Err(CuError::INVALID_VALUE);
    }
    let object = ask::vgpuSurfaceCreate(&process.channel, context, array)?;
    process.objects.add_surface(context, object, desc);
    out.set(object.0)
}

fn is_for_surfaces(entered: Entered, array: ArrayHandle) -> CuResult<bool> {
    Ok(entered.process.arrays.arrays.get(array)?.shape.has(flag::SURFACE))
}

/// Takes the number out of the table before the worker is told: a number that is given out anew is then a new object.
fn destroy(
    end: impl FnOnce(Entered) -> bool,
    tell: impl FnOnce(Entered, ContextId) -> CuResult<()>,
) -> CuResult<()> {
    let entered = enter_to_end()?;
    // As NVIDIA's driver 580: to end what is none is no error.
    if end(entered) {
        tell(entered, entered.context)?;
    }
    entered.told()
}

fn described(texture: u64) -> CuResult<TextureInfo> {
    let Entered { process, context, .. } = enter()?;
    process.objects.texture(context, Object(texture))
}

export! {
    fn cuTexObjectCreate(out: Out<u64>, resource: In<ResourceDesc>, texture: In<TextureDesc>, view: In<ViewDesc>) {
        create(out, resource, texture, view)
    }

    fn cuTexObjectDestroy(texture: u64) {
        destroy(
            |entered| entered.process.objects.end_texture(entered.context, Object(texture)),
            |entered, context| ask::cuTexObjectDestroy(&entered.process.channel, context, Object(texture)),
        )
    }

    fn cuTexObjectGetResourceDesc(out: Out<ResourceDesc>, texture: u64) {
        out.set(described(texture)?.resource)
    }

    fn cuTexObjectGetTextureDesc(out: Out<TextureDesc>, texture: u64) {
        out.set(described(texture)?.texture)
    }

    fn cuTexObjectGetResourceViewDesc(out: Out<ViewDesc>, texture: u64) {
        out.set(described(texture)?.view.ok_or(CuError::INVALID_VALUE)?)
    }

    fn cuSurfObjectCreate(out: Out<u64>, resource: In<ResourceDesc>) {
        create_surface(out, resource)
    }

    fn cuSurfObjectDestroy(surface: u64) {
        destroy(
            |entered| entered.process.objects.end_surface(entered.context, Object(surface)),
            |entered, context| ask::cuSurfObjectDestroy(&entered.process.channel, context, Object(surface)),
        )
    }

    fn cuSurfObjectGetResourceDesc(out: Out<ResourceDesc>, surface: u64) {
        let Entered { process, context, .. } = enter()?;
        out.set(process.objects.surface(context, Object(surface))?)
    }

    fn cuDeviceGetTexture1DLinearMaxWidth(out: Out<usize>, format: u32, channels: u32, dev: i32) {
        out.wanted()?;
        let (ordinal, _) = device(process()?, dev)?;
        vgpu_api::array::Element::of(format, channels)?;
        let entered = enter()?;
        let number = entered.process.contexts.number(ordinal)?;
        let most = ask::cuDeviceGetTexture1DLinearMaxWidth(
            &entered.process.channel, entered.context, number, format, channels)?;
        out.set(usize::try_from(most).unwrap_or(usize::MAX))
    }
}
