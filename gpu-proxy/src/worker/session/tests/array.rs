//! The gates of arrays, textures and surfaces, over the null device; that any bytes for them are an answer, over `soft` too.

use vgpu_api::array::{ArrayPlace, BoxSide, Extent, LinearPlace, flag};
use vgpu_api::texture::{self, LinearTexels, PitchedTexels, Resource, Sampler, View};
use vgpu_api::wire::to_vec;
use vgpu_api::{Access, ArrayHandle, ArrayShape, MipmapHandle, Object, Op, Texture, Wire};

use super::super::array::OBJECTS_MAX;
use super::*;

const SHAPE: ArrayShape = ArrayShape { width: 16, height: 8, depth: 0, format: 0x20, channels: 1, flags: 0 };
const SIZE: Extent = Extent { width_bytes: 16, height: 2, depth: 1 };

fn array(number: u64) -> ArrayHandle {
    ArrayHandle::new(0, number)
}

fn create(world: &World, number: u64, shape: ArrayShape) -> Result<(), CuError> {
    ask::vgpuArrayCreate(&world.guest, C, NewHandle(array(number)), shape)
}

fn place(number: u64, [x_bytes, y, z]: [u64; 3]) -> ArrayPlace {
    ArrayPlace { array: array(number), x_bytes, y, z }
}

/// The answer to a queued call.
fn queued(world: &World, sent: Result<(), CuError>) -> Result<(), CuError> {
    sent.unwrap();
    world.guest.take_error().map_or(Ok(()), Err)
}

fn sampler() -> Sampler {
    Sampler {
        address: [1; 3],
        filter: 0,
        flags: texture::flag::NORMALIZED,
        anisotropy_max: 0,
        mip_filter: 0,
        mip_bias: 0.0,
        level_min: 0.0,
        level_max: 0.0,
        border: [0; 4],
    }
}

fn of(resource: Resource) -> Texture {
    Texture { resource, sampler: sampler(), view: None }
}

#[test]
fn an_array_counts_against_the_grant_before_it_is_made_and_no_more_when_it_has_ended() {
    let world = world();
    let large = ArrayShape { width: 512, height: 256, ..SHAPE };
    create(&world, 0, large).unwrap();
    assert_eq!(world.used_bytes(), 512 << 10);
    assert_eq!(create(&world, 1, ArrayShape { height: 257, ..large }), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(create(&world, 1, ArrayShape { height: 1 << 40, ..large }), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(create(&world, 1, ArrayShape { height: u64::MAX, ..large }), Err(CuError::INVALID_VALUE));
    let mipmap = MipmapHandle::new(0, 0);
    let of_levels = |levels| ask::vgpuMipmapCreate(&world.guest, C, NewHandle(mipmap), SHAPE, levels);
    assert_eq!(of_levels(0), Err(CuError::INVALID_VALUE));
    assert_eq!(of_levels(6), Err(CuError::INVALID_VALUE), "16 by 8 has five levels");
    of_levels(5).unwrap();
    // 512 + 128 + 32 + 8 + 4 bytes, in units of 512.
    assert_eq!(world.used_bytes(), (512 << 10) + 1024);
    queued(&world, ask::cuMipmappedArrayDestroy(&world.guest, C, GoneHandle(mipmap))).unwrap();
    queued(&world, ask::cuArrayDestroy(&world.guest, C, GoneHandle(array(0)))).unwrap();
    assert_eq!(world.used_bytes(), 0);
    let again = queued(&world, ask::cuArrayDestroy(&world.guest, C, GoneHandle(array(0))));
    assert_eq!(again, Err(CuError::INVALID_HANDLE));
}

#[test]
fn an_array_that_cannot_be_and_a_place_in_use_are_refused() {
    let world = world();
    for (shape, wanted) in [
        (ArrayShape { width: 0, ..SHAPE }, CuError::INVALID_VALUE),
        (ArrayShape { channels: 3, ..SHAPE }, CuError::INVALID_VALUE),
        (ArrayShape { format: 0x91, ..SHAPE }, CuError::NOT_SUPPORTED),
        (ArrayShape { flags: 0x80, ..SHAPE }, CuError::NOT_SUPPORTED),
    ] {
        assert_eq!(create(&world, 0, shape), Err(wanted));
    }
    create(&world, 0, SHAPE).unwrap();
    assert_eq!(create(&world, 0, SHAPE), Err(CuError::INVALID_HANDLE));
    assert_eq!(create(&world, 1 << 30, SHAPE), Err(CuError::INVALID_HANDLE), "an index far away");
    assert_eq!(world.used_bytes(), 512);
}

#[test]
fn a_box_outside_an_array_never_reaches_the_device() {
    let world = world();
    create(&world, 0, SHAPE).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let rows = |pitch, height| BoxSide::Linear(LinearPlace { at, pitch, height });
    let write = |place, size: Extent, len: usize| {
        queued(&world, ask::vgpuArrayWrite(&world.guest, C, place, size, &vec![0; len], Stream::Legacy))
    };
    let staged = |len| Staged { offset: 0, len };
    assert_eq!(write(place(0, [48, 6, 0]), SIZE, 32), Ok(()));
    for (corner, size) in [
        ([52, 6, 0], SIZE),
        ([48, 7, 0], SIZE),
        ([48, 6, 1], SIZE),
        ([2, 0, 0], SIZE),
        ([u64::MAX - 3, 0, 0], SIZE),
        ([0, u64::MAX, 0], SIZE),
        ([0, 0, 0], Extent { width_bytes: 17, ..SIZE }),
        ([0, 0, 0], Extent { height: u64::MAX, ..SIZE }),
    ] {
        let (wrong, invalid) = (place(0, corner), Err(CuError::INVALID_VALUE));
        assert_eq!(write(wrong, size, 32), invalid, "{corner:?}");
        let read = ask::vgpuArrayReadStaged(&world.guest, C, staged(32), wrong, size, Stream::Legacy);
        assert_eq!(read, invalid);
        for (to, from) in [(BoxSide::Array(wrong), rows(64, 8)), (rows(64, 8), BoxSide::Array(wrong))] {
            assert_eq!(
                queued(&world, ask::vgpuCopyBox(&world.guest, C, to, from, size, Stream::Legacy)),
                invalid
            );
        }
    }
    for len in [31, 33, 0] {
        assert_eq!(
            write(place(0, [0; 3]), SIZE, len),
            Err(CuError::INVALID_VALUE),
            "other bytes than the box has"
        );
        let (place, staged) = (place(0, [0; 3]), staged(len as u64));
        let written = ask::vgpuArrayWriteStaged(&world.guest, C, place, SIZE, staged, Stream::Legacy);
        assert_eq!(written, Err(CuError::INVALID_VALUE));
    }
    let gone = write(place(3, [0; 3]), SIZE, 32);
    assert_eq!(gone, Err(CuError::INVALID_HANDLE));
}

#[test]
fn the_other_side_of_a_box_lies_inside_an_allocation() {
    let world = world();
    create(&world, 0, ArrayShape { depth: 4, ..SHAPE }).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let size = Extent { width_bytes: 64, height: 8, depth: 4 };
    let own_stack = DevicePtr(std::ptr::from_ref(&world) as u64);
    let good = LinearPlace { at, pitch: 128, height: 8 };
    for (rows, fits) in [
        (good, true),
        (LinearPlace { pitch: 131, ..good }, false),
        (LinearPlace { pitch: 63, ..good }, false),
        (LinearPlace { height: 7, ..good }, false),
        (LinearPlace { height: u64::MAX, ..good }, false),
        (LinearPlace { at: at.offset(65).unwrap(), ..good }, false),
        (LinearPlace { at: own_stack, ..good }, false),
    ] {
        let array = BoxSide::Array(place(0, [0; 3]));
        for (to, from) in [(array, BoxSide::Linear(rows)), (BoxSide::Linear(rows), array)] {
            let copied = queued(&world, ask::vgpuCopyBox(&world.guest, C, to, from, size, Stream::Legacy));
            assert_eq!(copied.is_ok(), fits, "{rows:?}");
        }
    }
}

#[test]
fn a_box_in_staging_is_one_piece_of_a_megabyte_at_most() {
    let world = world();
    create(&world, 0, ArrayShape { width: 512, height: 64, ..SHAPE }).unwrap();
    let write = |size: Extent, staged| {
        ask::vgpuArrayWriteStaged(&world.guest, C, place(0, [0; 3]), size, staged, Stream::Legacy)
    };
    let rows = |height| Extent { width_bytes: 2048, height, depth: 1 };
    // There are 64 KiB of staging.
    assert_eq!(write(rows(32), Staged { offset: 0, len: 64 << 10 }), Ok(()));
    assert_eq!(write(rows(32), Staged { offset: 1, len: 64 << 10 }), Err(CuError::INVALID_VALUE));
    assert_eq!(write(rows(33), Staged { offset: 0, len: 66 << 10 }), Err(CuError::INVALID_VALUE));
    assert_eq!(write(rows(1), Staged { offset: u64::MAX, len: 2048 }), Err(CuError::INVALID_VALUE));
}

#[test]
fn a_level_ends_with_its_whole_and_not_by_itself() {
    let world = world();
    let mipmap = MipmapHandle::new(0, 0);
    ask::vgpuMipmapCreate(&world.guest, C, NewHandle(mipmap), SHAPE, 3).unwrap();
    let level = |number, level| {
        queued(&world, ask::vgpuMipmapLevel(&world.guest, C, NewHandle(array(number)), mipmap, level))
    };
    assert_eq!(level(0, 2), Ok(()));
    assert_eq!(level(1, 3), Err(CuError::INVALID_VALUE));
    assert_eq!(level(0, 1), Err(CuError::INVALID_HANDLE), "a place in use");
    let write = |x| {
        let bytes = [0; 16];
        let size = Extent { width_bytes: 16, height: 1, depth: 1 };
        let written = ask::vgpuArrayWrite(&world.guest, C, place(0, [x, 0, 0]), size, &bytes, Stream::Legacy);
        queued(&world, written)
    };
    assert_eq!((write(0), write(4)), (Ok(()), Err(CuError::INVALID_VALUE)), "level 2 is 4 wide");
    let alone = queued(&world, ask::cuArrayDestroy(&world.guest, C, GoneHandle(array(0))));
    assert_eq!(alone, Err(CuError::INVALID_HANDLE));
    queued(&world, ask::cuMipmappedArrayDestroy(&world.guest, C, GoneHandle(mipmap))).unwrap();
    assert_eq!(write(0), Err(CuError::INVALID_HANDLE));
    create(&world, 0, SHAPE).unwrap();
}

#[test]
fn a_texture_reads_what_is_the_processes_and_its_number_is_its_contexts() {
    let world = world();
    create(&world, 0, SHAPE).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let own_stack = DevicePtr(std::ptr::from_ref(&world) as u64);
    let texture = |texture| ask::vgpuTextureCreate(&world.guest, C, texture);
    let (format, channels) = (0x20, 1);
    let linear = |at, bytes| of(Resource::Linear(LinearTexels { at, format, channels, bytes }));
    let pitched = |at, pitch, height| {
        of(Resource::Pitched(PitchedTexels { at, format, channels, width: 32, height, pitch }))
    };
    for good in [of(Resource::Array(array(0))), linear(at, 4096), pitched(at, 256, 16)] {
        texture(good).unwrap();
    }
    for wrong in [
        linear(at, 4097),
        linear(own_stack, 16),
        linear(at, 0),
        pitched(at, 256, 17),
        pitched(at, 64, 16),
        pitched(own_stack, 256, 1),
        pitched(at, u64::MAX, 3),
        Texture { sampler: Sampler { filter: 2, ..sampler() }, ..linear(at, 16) },
    ] {
        assert_eq!(texture(wrong), Err(CuError::INVALID_VALUE), "{wrong:?}");
    }
    assert_eq!(texture(of(Resource::Array(array(1)))), Err(CuError::INVALID_HANDLE));
    assert_eq!(texture(of(Resource::Mipmap(MipmapHandle::new(0, 0)))), Err(CuError::INVALID_HANDLE));
    let view = View { format: 0, width: 16, height: 8, depth: 0, levels: [0, 0], layers: [0, 0] };
    let seen = |view| texture(Texture { view: Some(view), ..of(Resource::Array(array(0))) });
    assert!(seen(view).is_ok());
    assert_eq!(seen(View { levels: [0, 1], ..view }), Err(CuError::INVALID_VALUE));
    assert_eq!(seen(View { layers: [0, 1], ..view }), Err(CuError::INVALID_VALUE));
}

#[test]
fn an_object_is_ended_in_its_own_context_once() {
    let world = world();
    create(&world, 0, ArrayShape { flags: flag::SURFACE, ..SHAPE }).unwrap();
    create(&world, 1, SHAPE).unwrap();
    let other = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, other, 0, 0).unwrap();
    let texture = ask::vgpuTextureCreate(&world.guest, C, of(Resource::Array(array(0)))).unwrap();
    let surface = ask::vgpuSurfaceCreate(&world.guest, C, array(0)).unwrap();
    assert_eq!(
        ask::vgpuSurfaceCreate(&world.guest, C, array(1)),
        Err(CuError::INVALID_VALUE),
        "not for surfaces"
    );
    let end_texture =
        |context, object| queued(&world, ask::cuTexObjectDestroy(&world.guest, context, object));
    let end_surface =
        |context, object| queued(&world, ask::cuSurfObjectDestroy(&world.guest, context, object));
    let invalid = Err(CuError::INVALID_VALUE);
    assert_eq!((end_texture(other, texture), end_texture(C, Object(3))), (invalid, invalid));
    assert_eq!((end_texture(C, texture), end_texture(C, texture)), (Ok(()), invalid));
    assert_eq!((end_surface(other, surface), end_surface(C, surface)), (invalid, Ok(())));
    assert_eq!(end_surface(C, surface), invalid);
}

#[test]
fn objects_have_an_end() {
    let world = world();
    create(&world, 0, ArrayShape { flags: flag::SURFACE, ..SHAPE }).unwrap();
    for _ in 0..OBJECTS_MAX {
        ask::vgpuSurfaceCreate(&world.guest, C, array(0)).unwrap();
        ask::vgpuTextureCreate(&world.guest, C, of(Resource::Array(array(0)))).unwrap();
    }
    let full = Err(CuError::OUT_OF_MEMORY);
    assert_eq!(ask::vgpuSurfaceCreate(&world.guest, C, array(0)), full);
    assert_eq!(ask::vgpuTextureCreate(&world.guest, C, of(Resource::Array(array(0)))), full);
}

#[test]
fn a_context_takes_its_arrays_along_and_another_context_keeps_its_own() {
    let world = world();
    let made = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
    ask::vgpuArrayCreate(&world.guest, made, NewHandle(array(0)), SHAPE).unwrap();
    let mipmap = MipmapHandle::new(0, 0);
    ask::vgpuMipmapCreate(&world.guest, made, NewHandle(mipmap), SHAPE, 2).unwrap();
    queued(&world, ask::vgpuMipmapLevel(&world.guest, made, NewHandle(array(1)), mipmap, 1)).unwrap();
    let texture = ask::vgpuTextureCreate(&world.guest, made, of(Resource::Mipmap(mipmap))).unwrap();
    create(&world, 2, SHAPE).unwrap();
    ask::cuCtxDestroy_v2(&world.guest, C, made).unwrap();
    assert_eq!(world.used_bytes(), 512);
    for number in [0, 1] {
        let ended = queued(&world, ask::cuArrayDestroy(&world.guest, C, GoneHandle(array(number))));
        assert_eq!(ended, Err(CuError::INVALID_HANDLE));
    }
    assert_eq!(
        queued(&world, ask::cuTexObjectDestroy(&world.guest, C, texture)),
        Err(CuError::INVALID_VALUE)
    );
    queued(&world, ask::cuArrayDestroy(&world.guest, C, GoneHandle(array(2)))).unwrap();
    assert_eq!(world.used_bytes(), 0);
}

/// Calls that are right, one number of which is then another.
#[test]
fn a_right_call_with_a_wrong_number_is_an_answer_or_an_end() {
    let devices: [fn() -> Box<dyn Device>; 2] =
        [|| Box::new(Null::default()), || Box::new(Soft::new(1 << 20).unwrap())];
    for (seed, device) in (7..).zip(devices) {
        let page = SharedPage::create().unwrap();
        let quota = Quota::new(SharedPage::map(page.fd()).unwrap(), 3).unwrap();
        let _grant = Grant::new(Arc::new(page), 1 << 20);
        let staging = Heap(Arc::new(Mutex::new(vec![0; 64 << 10])));
        let mut session = Session::new(device(), quota, Box::new(staging));
        let mut reply = [0; vgpu_api::wire::REPLY_BYTES_MAX];
        let mut call = |op: Op, payload: &[u8]| {
            let call = vgpu_api::Call { context: C, sync: true };
            let answer = vgpu_api::dispatch(&mut session, op as u16, call, payload, &mut reply)?;
            Ok::<_, vgpu_api::WireError>((answer.code, reply[..answer.reply_bytes].to_vec()))
        };
        call(Op::cuDevicePrimaryCtxRetain, &[0; 8]).unwrap();
        let (_, at) = call(Op::cuMemAlloc_v2, &4096_u64.to_le_bytes()).unwrap();
        let at = DevicePtr(u64::from_le_bytes(at.try_into().unwrap()));
        let right = right_calls(at);
        let interesting = [0, 1, 2, 4, 7, 16, 4096, 1 << 32, at.0, at.0 + 4095, u64::MAX, u64::MAX - 7];
        let mut random = Random(seed);
        let mut succeeded = std::collections::BTreeSet::new();
        for round in 0..100_000 {
            let (op, payload) = &right[usize::try_from(random.next()).unwrap() % right.len()];
            let mut payload = payload.clone();
            if round % 4 != 0 {
                let place = usize::try_from(random.next()).unwrap() % payload.len();
                let value = random.of(&interesting).to_le_bytes();
                let width = value.len().min(payload.len() - place);
                payload[place..place + width].copy_from_slice(&value[..width]);
            }
            if call(*op, &payload).is_ok_and(|(code, _)| code == 0) {
                succeeded.insert(*op as u16);
            }
        }
        let all: std::collections::BTreeSet<_> = right.iter().map(|(op, _)| *op as u16).collect();
        // Objects are ended by numbers that nobody guesses here.
        let guessed = [Op::cuTexObjectDestroy as u16, Op::cuSurfObjectDestroy as u16];
        assert!(
            all.iter().all(|op| succeeded.contains(op) || guessed.contains(op)),
            "{succeeded:?} of {all:?}"
        );
    }
}

/// One of each call, of parts that exist when the others have come before.
fn right_calls(at: DevicePtr) -> Vec<(Op, Vec<u8>)> {
    fn all(parts: &[&dyn Fn() -> Vec<u8>]) -> Vec<u8> {
        parts.iter().flat_map(|part| part()).collect()
    }
    fn part<'a, T: Wire<'a>>(value: T) -> impl Fn() -> Vec<u8> {
        move || to_vec(&value)
    }
    let shape = ArrayShape { flags: flag::SURFACE, ..SHAPE };
    let mipmap = MipmapHandle::new(0, 0);
    let (one, level) = (part(array(0)), part(array(1)));
    let (in_array, size) = (part(place(0, [0; 3])), part(SIZE));
    let (stream, staged) = (part(Stream::Legacy), part(Staged { offset: 0, len: 32 }));
    let in_box = part(BoxSide::Array(place(0, [16, 1, 0])));
    let rows = part(BoxSide::Linear(LinearPlace { at, pitch: 64, height: 8 }));
    let texture = |resource| to_vec(&of(resource));
    let (format, channels) = (0x20, 1);
    let pitched = PitchedTexels { at, format, channels, width: 16, height: 8, pitch: 64 };
    vec![
        (Op::vgpuArrayCreate, all(&[&one, &part(shape)])),
        (Op::cuArrayDestroy, all(&[&one])),
        (Op::vgpuMipmapCreate, all(&[&part(mipmap), &part(shape), &part(3_u32)])),
        (Op::vgpuMipmapLevel, all(&[&level, &part(mipmap), &part(1_u32)])),
        (Op::cuMipmappedArrayDestroy, all(&[&part(mipmap)])),
        (Op::vgpuArrayWrite, all(&[&in_array, &size, &part(&[7_u8; 32][..]), &stream])),
        (Op::vgpuArrayWriteStaged, all(&[&in_array, &size, &staged, &stream])),
        (Op::vgpuArrayReadStaged, all(&[&staged, &in_array, &size, &stream])),
        (Op::vgpuCopyBox, all(&[&in_box, &rows, &size, &stream])),
        (Op::vgpuCopyBox, all(&[&rows, &in_box, &size, &stream])),
        (Op::vgpuTextureCreate, texture(Resource::Array(array(0)))),
        (Op::vgpuTextureCreate, texture(Resource::Mipmap(mipmap))),
        (Op::vgpuTextureCreate, texture(Resource::Linear(LinearTexels { at, format, channels, bytes: 64 }))),
        (Op::vgpuTextureCreate, texture(Resource::Pitched(pitched))),
        (Op::cuTexObjectDestroy, all(&[&part(Object(1 << 16))])),
        (Op::vgpuSurfaceCreate, all(&[&one])),
        (Op::cuSurfObjectDestroy, all(&[&part(Object(1 << 16))])),
        (Op::cuDeviceGetTexture1DLinearMaxWidth, all(&[&part(0_u32), &part(format), &part(1_u32)])),
    ]
}

#[test]
fn a_mapping_that_may_only_be_read_is_a_source_and_no_target() {
    let world = world_of(Null::default(), 2 * MAPPING_BYTES);
    create(&world, 0, SHAPE).unwrap();
    let memory = MemoryHandle::new(0, 0);
    let at = ask::cuMemAddressReserve(&world.guest, C, MAPPING_BYTES, 0, DevicePtr(0)).unwrap();
    ask::cuMemCreate(&world.guest, C, NewHandle(memory), MAPPING_BYTES, 0).unwrap();
    ask::cuMemMap(&world.guest, C, at, MAPPING_BYTES, memory).unwrap();
    let copied = |access| {
        ask::cuMemSetAccess(&world.guest, C, at, MAPPING_BYTES, 0, access).unwrap();
        let rows = BoxSide::Linear(LinearPlace { at, pitch: 64, height: 2 });
        let array = BoxSide::Array(place(0, [0; 3]));
        [(array, rows), (rows, array)].map(|(to, from)| {
            queued(&world, ask::vgpuCopyBox(&world.guest, C, to, from, SIZE, Stream::Legacy))
        })
    };
    let refused = Err(CuError::INVALID_VALUE);
    assert_eq!(copied(Access::None), [refused; 2]);
    assert_eq!(copied(Access::Read), [Ok(()), refused]);
    assert_eq!(copied(Access::ReadWrite), [Ok(()); 2]);
}
