//! The gates of texture and surface references: whose they are, what they may be bound to, what becomes of it when it ends.

use vgpu_api::array::flag;
use vgpu_api::texture::{LinearTexels, PitchedTexels, Resource};
use vgpu_api::{
    ArrayHandle, ArrayShape, MipmapHandle, SamplerField, SamplerSetting, SurfRefHandle, TexRefHandle,
};

use super::super::array::OBJECTS_MAX;
use super::*;

const SECOND: ContextId = ContextId(100);
const MODULE: ImageHandle = ImageHandle::new(0, 0);
const TEXT: &[u8] = b".version 4.0\n.target sm_30\n.address_size 64\n.global .texref picture;\n.global .surfref canvas;\n\
    .visible .entry read(.param .u64 to) { .reg .b64 %rd<2>; .reg .b32 %r<2>; .reg .f32 %f<5>; ld.param.u64 %rd1, [to]; \
    mov.b32 %r1, 3; tex.1d.v4.f32.s32 {%f1, %f2, %f3, %f4}, [picture, {%r1}]; st.global.f32 [%rd1], %f1; ret; }\n\
    .visible .entry write() { .reg .b32 %r<3>; mov.b32 %r1, 12; mov.b32 %r2, 77; \
    sust.b.1d.b32.trap [canvas, {%r1}], {%r2}; ret; }\n";

const SHAPE: ArrayShape =
    ArrayShape { width: 64, height: 0, depth: 0, format: 0x20, channels: 1, flags: flag::SURFACE };
/// Of an array of that shape, and of one with all its levels.
const ARRAY_BYTES: u64 = 512;

fn texref(number: u64) -> TexRefHandle {
    TexRefHandle::new(0, number)
}

fn surfref(number: u64) -> SurfRefHandle {
    SurfRefHandle::new(0, number)
}

fn array(number: u64) -> ArrayHandle {
    ArrayHandle::new(0, number)
}

fn row(at: DevicePtr, bytes: u64) -> Resource {
    Resource::Linear(LinearTexels { at, format: 0x20, channels: 1, bytes })
}

impl World {
    fn load_text(&self, context: ContextId, image: ImageHandle, image_kind: ImageKind) {
        let out = Staged { offset: 0, len: 64 << 10 };
        ask::vgpuUpload(&self.guest, context, 1, TEXT.len() as u64, 0, TEXT).unwrap();
        ask::vgpuImageLoad(&self.guest, context, NewHandle(image), image_kind, 1, false, out).unwrap();
    }

    fn picture(&self, number: u64) -> CuResult<()> {
        ask::cuModuleGetTexRef(&self.guest, C, NewHandle(texref(number)), MODULE, "picture".into())
    }

    fn canvas(&self, number: u64) -> CuResult<()> {
        ask::cuModuleGetSurfRef(&self.guest, C, NewHandle(surfref(number)), MODULE, "canvas".into())
    }

    fn bind(&self, number: u64, resource: Resource) -> CuResult<()> {
        ask::vgpuTexRefBind(&self.guest, C, texref(number), resource, true).map(drop)
    }

    fn bind_surface(&self, number: u64, to: u64) -> CuResult<()> {
        ask::cuSurfRefSetArray(&self.guest, C, surfref(number), array(to))
    }

    fn array(&self, context: ContextId, number: u64) {
        ask::vgpuArrayCreate(&self.guest, context, NewHandle(array(number)), SHAPE).unwrap();
    }

    fn settled(&self, sent: CuResult<()>) -> CuResult<()> {
        sent.unwrap();
        self.guest.take_error().map_or(Ok(()), Err)
    }

    fn end_array(&self, number: u64) -> CuResult<()> {
        self.settled(ask::cuArrayDestroy(&self.guest, C, GoneHandle(array(number))))
    }

    fn run_kernel(&self, function: u16, params: &[u8]) -> CuResult<()> {
        let function = FunctionHandle::of_image(MODULE, function);
        let shape =
            LaunchShape { function, stream: Stream::Legacy, grid: [1; 3], block: [1; 3], shared_bytes: 0 };
        self.settled(ask::cuLaunchKernel(
            &self.guest,
            C,
            Launch { shape, attributes: LaunchAttributes::default(), params },
        ))
    }

    fn bytes_at(&self, at: DevicePtr, len: u64) -> Vec<u8> {
        let to = Staged { offset: 0, len };
        ask::vgpuMemcpyDtoHStaged(&self.guest, C, to, at, Stream::Legacy).unwrap();
        self.staging.bytes(usize::try_from(len).unwrap())
    }
}

/// A world with the module, its texture as reference 0 and its surface.
fn world_of_references(device: impl Device + 'static) -> World {
    let world = world_of(device, 1 << 20);
    world.load_text(C, MODULE, ImageKind::Module);
    world.picture(0).unwrap();
    world.canvas(0).unwrap();
    world
}

#[test]
fn a_reference_is_found_by_its_name_and_its_kind_in_a_module() {
    let world = world_of_references(Null::default());
    let named = |symbol: &str| {
        ask::cuModuleGetTexRef(&world.guest, C, NewHandle(texref(1)), MODULE, symbol.to_owned())
    };
    for symbol in ["canvas", "nobody", "", "picture\0", "read"] {
        assert_eq!(named(symbol), Err(CuError::NOT_FOUND), "{symbol:?}");
    }
    assert_eq!(world.picture(0), Err(CuError::INVALID_HANDLE), "a place in use");
    assert_eq!(world.picture(1 << 30), Err(CuError::INVALID_HANDLE), "an index far away");
    world.load_text(C, ImageHandle::new(0, 1), ImageKind::Library);
    let of = |image| ask::cuModuleGetTexRef(&world.guest, C, NewHandle(texref(1)), image, "picture".into());
    assert_eq!(of(ImageHandle::new(0, 1)), Err(CuError::NOT_SUPPORTED), "a library");
    assert_eq!(of(ImageHandle::new(1, 0)), Err(CuError::INVALID_HANDLE), "another generation");
    assert_eq!(of(ImageHandle::new(0, 2)), Err(CuError::INVALID_HANDLE));
}

#[test]
fn memory_that_is_not_the_processs_is_bound_to_nothing() {
    let world = world_of_references(Null::default());
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let after = |bytes| DevicePtr(at.0 + bytes);
    assert_eq!(world.bind(0, row(at, 4096)), Ok(()));
    assert_eq!(world.bind(0, row(after(96), 4000)), Ok(()));
    for (at, bytes) in [
        (at, 4097),
        (after(96), 4096),
        (after(4096), 4),
        (DevicePtr(at.0 - 4), 8),
        (DevicePtr(at.0 - 512), 4096),
        (at, 0),
        (at, 3),
        (at, u64::MAX),
        (DevicePtr(u64::MAX - 3), 8),
        (DevicePtr(0), 4096),
    ] {
        assert_eq!(world.bind(0, row(at, bytes)), Err(CuError::INVALID_VALUE), "{at:?} {bytes}");
    }
    let rows = |width, height, pitch| {
        world
            .bind(0, Resource::Pitched(PitchedTexels { at, format: 0x20, channels: 1, width, height, pitch }))
    };
    assert_eq!(rows(128, 8, 512), Ok(()));
    for (width, height, pitch) in [
        (128, 9, 512),
        (129, 8, 512),
        (0, 8, 512),
        (1, 0, 512),
        (u64::MAX, 1, u64::MAX),
        (1 << 62, 1 << 62, 1 << 62),
        (1, u64::MAX, 2),
    ] {
        assert_eq!(rows(width, height, pitch), Err(CuError::INVALID_VALUE), "{width} {height} {pitch}");
    }
    let wrong = Resource::Linear(LinearTexels { at, format: 0x20, channels: 3, bytes: 64 });
    assert_eq!(world.bind(0, wrong), Err(CuError::INVALID_VALUE));
    world.settled(ask::cuMemFree_v2(&world.guest, C, at)).unwrap();
    assert_eq!(world.bind(0, row(at, 4096)), Err(CuError::INVALID_VALUE), "freed");
}

#[test]
fn handles_of_nobody_and_settings_of_nobody_never_reach_the_device() {
    let world = world_of_references(Null::default());
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    world.array(C, 0);
    let (wrong, invalid) = (TexRefHandle::new(1, 0), Err(CuError::INVALID_HANDLE));
    assert_eq!(world.bind(1, row(at, 64)), invalid);
    assert_eq!(
        ask::vgpuTexRefBind(&world.guest, C, wrong, row(at, 64), true).map(drop),
        invalid,
        "another generation"
    );
    assert_eq!(ask::vgpuTexRefUnbind(&world.guest, C, wrong), invalid);
    assert_eq!(ask::cuTexRefSetFormat(&world.guest, C, wrong, 0x20, 1), invalid);
    for (reference, format, channels) in [(0, 0x77, 1), (0, 0x20, 3), (0, 0x20, 0)] {
        let set = ask::cuTexRefSetFormat(&world.guest, C, texref(reference), format, channels);
        assert_eq!(set, Err(CuError::INVALID_VALUE));
    }
    let set = |reference, field, words| {
        ask::vgpuTexRefSet(&world.guest, C, reference, SamplerSetting { field, words })
    };
    assert_eq!(set(wrong, SamplerField::Filter, [0; 4]), invalid);
    assert_eq!(set(texref(0), SamplerField::Address, [2, 3, 0, 0]), Ok(()));
    for (field, words) in [
        (SamplerField::Address, [3, 0, 0, 0]),
        (SamplerField::Address, [0, 4, 0, 0]),
        (SamplerField::Filter, [2, 0, 0, 0]),
        (SamplerField::MipFilter, [2, 0, 0, 0]),
        (SamplerField::Flags, [4, 0, 0, 0]),
    ] {
        // A driver would take most of them: a guest keeps them to itself.
        assert_eq!(set(texref(0), field, words), Err(CuError::INVALID_VALUE), "{field:?} {words:?}");
    }
    assert_eq!(world.bind(0, Resource::Array(array(1))), invalid);
    assert_eq!(world.bind(0, Resource::Array(ArrayHandle::new(1, 0))), invalid);
    assert_eq!(world.bind(0, Resource::Mipmap(MipmapHandle::new(0, 0))), invalid);
    assert_eq!(world.bind_surface(1, 0), invalid);
    assert_eq!(world.bind_surface(0, 1), invalid);
    let plain = ArrayShape { flags: 0, ..SHAPE };
    ask::vgpuArrayCreate(&world.guest, C, NewHandle(array(1)), plain).unwrap();
    assert_eq!(world.bind_surface(0, 1), Err(CuError::INVALID_VALUE), "it is for no surface");
    assert_eq!((world.bind_surface(0, 0), world.bind(0, Resource::Array(array(1)))), (Ok(()), Ok(())));
}

#[test]
fn an_array_of_another_context_could_end_before_the_reference_and_is_refused() {
    let world = world_of_references(Null::default());
    ask::cuCtxCreate_v2(&world.guest, C, SECOND, 0, 0).unwrap();
    world.array(SECOND, 0);
    assert_eq!(world.bind(0, Resource::Array(array(0))), Err(CuError::INVALID_VALUE));
    assert_eq!(world.bind_surface(0, 0), Err(CuError::INVALID_VALUE));
    let made = ask::cuTexRefCreate(&world.guest, SECOND, NewHandle(texref(1)));
    assert_eq!((made, world.bind(1, Resource::Array(array(0)))), (Ok(()), Ok(())));
    ask::cuCtxDestroy_v2(&world.guest, C, SECOND).unwrap();
    assert_eq!(world.bind(1, Resource::Array(array(0))), Err(CuError::INVALID_HANDLE));
    assert_eq!(
        ask::cuTexRefCreate(&world.guest, SECOND, NewHandle(texref(1))),
        Err(CuError::INVALID_CONTEXT)
    );
}

#[test]
fn references_end_with_their_module_and_only_created_ones_by_themselves() {
    let world = world_of_references(Null::default());
    let end = |number| world.settled(ask::cuTexRefDestroy(&world.guest, C, GoneHandle(texref(number))));
    ask::cuTexRefCreate(&world.guest, C, NewHandle(texref(1))).unwrap();
    assert_eq!(end(0), Err(CuError::INVALID_HANDLE), "it is the module's");
    assert_eq!((end(1), end(1)), (Ok(()), Err(CuError::INVALID_HANDLE)));
    world.array(C, 0);
    world.settled(ask::vgpuImageUnload(&world.guest, C, GoneHandle(MODULE))).unwrap();
    assert_eq!(world.bind(0, Resource::Array(array(0))), Err(CuError::INVALID_HANDLE));
    assert_eq!(world.bind_surface(0, 0), Err(CuError::INVALID_HANDLE));
    assert_eq!(world.picture(0), Err(CuError::INVALID_HANDLE), "no module");
    world.load_text(C, MODULE, ImageKind::Module);
    assert_eq!((world.picture(0), world.canvas(0)), (Ok(()), Ok(())), "their places are free");
}

#[test]
fn a_process_has_so_many_references_and_no_more() {
    let world = world_of_references(Null::default());
    let create = |number| ask::cuTexRefCreate(&world.guest, C, NewHandle(texref(number)));
    // Beside the texture and the surface of the module.
    (1..OBJECTS_MAX as u64 - 1).for_each(|number| create(number).unwrap());
    assert_eq!(create(OBJECTS_MAX as u64), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(world.picture(OBJECTS_MAX as u64), Err(CuError::OUT_OF_MEMORY));
    world.settled(ask::cuTexRefDestroy(&world.guest, C, GoneHandle(texref(7)))).unwrap();
    assert_eq!((create(7), create(8)), (Ok(()), Err(CuError::INVALID_HANDLE)));
    world.settled(ask::vgpuImageUnload(&world.guest, C, GoneHandle(MODULE))).unwrap();
    assert_eq!((create(0), create(OBJECTS_MAX as u64)), (Ok(()), Ok(())));
}

#[test]
fn an_array_ends_at_once_where_the_device_lets_go_of_it() {
    let world = world_of_references(Null::default());
    let before = world.used_bytes();
    world.array(C, 0);
    world.bind(0, Resource::Array(array(0))).unwrap();
    world.bind_surface(0, 0).unwrap();
    assert_eq!((world.end_array(0), world.used_bytes()), (Ok(()), before));
}

#[test]
fn an_array_that_a_device_cannot_let_go_of_counts_until_nothing_is_bound_to_it() {
    let world = world_of_references(Null::default().refusing(&[Step::LetGo]));
    let before = world.used_bytes();
    for number in 0..3 {
        world.array(C, number);
    }
    world.bind(0, Resource::Array(array(0))).unwrap();
    world.bind_surface(0, 0).unwrap();
    assert_eq!(world.end_array(0), Ok(()));
    assert_eq!(world.end_array(0), Err(CuError::INVALID_HANDLE), "it has ended for the guest");
    assert_eq!(world.bind(0, Resource::Array(array(0))), Err(CuError::INVALID_HANDLE));
    assert_eq!(world.used_bytes(), before + 3 * ARRAY_BYTES);
    world.bind_surface(0, 1).unwrap();
    assert_eq!(world.used_bytes(), before + 3 * ARRAY_BYTES, "the texture has it still");
    world.bind(0, Resource::Array(array(2))).unwrap();
    assert_eq!(world.used_bytes(), before + 2 * ARRAY_BYTES);
    // Levels end with their whole.
    let mipmap = MipmapHandle::new(0, 0);
    ask::vgpuMipmapCreate(&world.guest, C, NewHandle(mipmap), SHAPE, 2).unwrap();
    world.settled(ask::vgpuMipmapLevel(&world.guest, C, NewHandle(array(0)), mipmap, 1)).unwrap();
    world.bind_surface(0, 0).unwrap();
    world.settled(ask::cuMipmappedArrayDestroy(&world.guest, C, GoneHandle(mipmap))).unwrap();
    let with_levels = world.used_bytes();
    assert_eq!((world.end_array(1), world.end_array(2)), (Ok(()), Ok(())));
    assert_eq!(
        world.used_bytes(),
        with_levels - ARRAY_BYTES,
        "nothing was bound to the second, the texture is to the third"
    );
    world.settled(ask::vgpuImageUnload(&world.guest, C, GoneHandle(MODULE))).unwrap();
    assert_eq!(world.used_bytes(), 0, "with the module");
}

#[test]
fn what_was_kept_for_references_ends_with_its_context() {
    let world = world_of_references(Null::default().refusing(&[Step::LetGo]));
    world.array(C, 0);
    world.bind_surface(0, 0).unwrap();
    world.end_array(0).unwrap();
    ask::cuTexRefCreate(&world.guest, C, NewHandle(texref(1))).unwrap();
    ask::cuDevicePrimaryCtxReset_v2(&world.guest, ContextId::NONE, 0).unwrap();
    assert_eq!(world.used_bytes(), 0);
    assert_eq!(world.bind_surface(0, 0), Err(CuError::INVALID_HANDLE));
}

#[test]
fn a_kernel_reads_and_writes_what_is_bound_and_faults_when_that_has_ended() {
    let world = world_of_references(Soft::new(1 << 20).unwrap());
    let out = ask::cuMemAlloc_v2(&world.guest, C, 512).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let floats: Vec<u8> = (0..1024).flat_map(|i| (i as f32 / 2.0).to_le_bytes()).collect();
    world.settled(ask::cuMemcpyHtoDAsync_v2(&world.guest, C, at, &floats, Stream::Legacy)).unwrap();
    let read = || -> CuResult<f32> {
        world.run_kernel(0, &out.0.to_le_bytes())?;
        Ok(f32::from_le_bytes(world.bytes_at(out, 4).try_into().unwrap()))
    };
    assert_eq!(ask::vgpuTexRefBind(&world.guest, C, texref(0), row(at, 4096), false), Ok(0));
    assert_eq!(read(), Ok(1.5));
    // From where a texture can start before that; the program would add the 64 bytes between.
    let within = row(DevicePtr(at.0 + 576), 64);
    let bound = |told| ask::vgpuTexRefBind(&world.guest, C, texref(0), within, told);
    assert_eq!((bound(false), bound(true)), (Err(CuError::INVALID_VALUE), Ok(64)));
    assert_eq!(read(), Ok(65.5));
    ask::cuTexRefSetFormat(&world.guest, C, texref(0), 0x20, 2).unwrap();
    assert_eq!(read(), Ok(67.0), "by the reference's own format");
    world.array(C, 0);
    world.bind_surface(0, 0).unwrap();
    world.bind(0, Resource::Array(array(0))).unwrap();
    assert_eq!((world.run_kernel(1, &[]), read().map(f32::to_bits)), (Ok(()), Ok(77)));
    world.settled(ask::cuMemFree_v2(&world.guest, C, at)).unwrap();
    assert_eq!(world.end_array(0), Ok(()));
    assert_eq!(world.run_kernel(1, &[]), Err(CuError::ILLEGAL_ADDRESS));
    assert_eq!(world.bind(0, row(out, 512)), Err(CuError::ILLEGAL_ADDRESS), "the context has failed");
}

#[test]
fn freed_memory_stays_out_of_reach_of_who_reads_it_by_a_reference() {
    let world = world_of_references(Soft::new(1 << 20).unwrap());
    let out = ask::cuMemAlloc_v2(&world.guest, C, 512).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    world.bind(0, row(at, 4096)).unwrap();
    assert_eq!(world.run_kernel(0, &out.0.to_le_bytes()), Ok(()));
    world.settled(ask::cuMemFree_v2(&world.guest, C, at)).unwrap();
    assert_eq!(world.run_kernel(0, &out.0.to_le_bytes()), Err(CuError::ILLEGAL_ADDRESS));
}
