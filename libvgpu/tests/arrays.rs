//! Arrays, textures and surfaces: a program's calls, through real rings to a device of a few lines and back.

mod support;

use support::session::{Session, session};
use vgpu_api::{ArrayHandle, ContextId, MipmapHandle};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const INVALID_HANDLE: u32 = 400;
const NOT_SUPPORTED: u32 = 801;

const FLOAT: u64 = 0x20;
/// `CUDA_ARRAY3D_LAYERED`, `_SURFACE_LDST`, `_SPARSE`.
const LAYERED: u64 = 1;
const SURFACE: u64 = 2;
const SPARSE: u64 = 0x40;
/// `CUmemorytype`.
const HOST: u64 = 1;
const DEVICE: u64 = 2;
const ARRAY: u64 = 3;

/// `CUDA_ARRAY3D_DESCRIPTOR` as five words.
fn deep(width: u64, height: u64, depth: u64, [format, channels, flags]: [u64; 3]) -> [u64; 5] {
    [width, height, depth, format | channels << 32, flags]
}

fn create(session: &Session, shape: &[u64; 5]) -> (u32, u64) {
    let (mut array, shape) = (0u64, shape.as_ptr());
    let place = &raw mut array;
    (cu!(session.libcuda, cuArray3DCreate_v2(place: *mut u64, shape: *const u64)), array)
}

fn made(session: &Session, shape: &[u64; 5]) -> u64 {
    let (code, array) = create(session, shape);
    assert_eq!(code, OK, "{shape:?}");
    assert!(ArrayHandle::check(array).is_ok(), "an opaque number");
    array
}

fn destroy(session: &Session, array: u64) -> u32 {
    cu!(session.libcuda, cuArrayDestroy(array: u64))
}

fn counts(session: &Session) -> [usize; 3] {
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    session.seen.lock().unwrap().array_counts
}

/// One side of `CUDA_MEMCPY3D`: x, y, z, level, kind, host, device, array, context, pitch, height.
fn side(kind: u64, what: u64, [x, y, z]: [u64; 3], pitch: u64, height: u64) -> [u64; 11] {
    let only = |wanted| if kind == wanted { what } else { 0 };
    [x, y, z, 0, kind, only(HOST), only(DEVICE), only(ARRAY), 0, pitch, height]
}

fn copy(session: &Session, src: [u64; 11], dst: [u64; 11], size: [u64; 3]) -> u32 {
    let words = [&src[..], &dst, &size].concat();
    let at = words.as_ptr();
    cu!(session.libcuda, cuMemcpy3D_v2(at: *const u64))
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| u8::try_from((i * 7 + i / 251) % 251).unwrap()).collect()
}

#[test]
fn an_array_tells_what_it_was_made_of_and_ends_once() {
    let session = session();
    let before = counts(&session);
    let shape = deep(64, 32, 4, [FLOAT, 2, SURFACE]);
    let array = made(&session, &shape);
    let (mut told, mut flat) = ([0u64; 5], [0u64; 3]);
    let (told_at, flat_at) = (told.as_mut_ptr(), flat.as_mut_ptr());
    assert_eq!(cu!(session.libcuda, cuArray3DGetDescriptor_v2(told_at: *mut u64, array: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuArrayGetDescriptor_v2(flat_at: *mut u64, array: u64)), OK);
    assert_eq!((told, flat), (shape, [64, 32, FLOAT | 2 << 32]));
    // What sparse, deferred and planar arrays would tell.
    let mut place = [0u64; 8];
    let at = place.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuArrayGetSparseProperties(at: *mut u64, array: u64)), INVALID_VALUE);
    assert_eq!(
        cu!(session.libcuda, cuArrayGetMemoryRequirements(at: *mut u64, array: u64, 0: i32)),
        INVALID_VALUE
    );
    assert_eq!(
        cu!(session.libcuda, cuArrayGetMemoryRequirements(at: *mut u64, array: u64, 9: i32)),
        INVALID_VALUE
    );
    assert_eq!(cu!(session.libcuda, cuArrayGetPlane(at: *mut u64, array: u64, 0: u32)), INVALID_VALUE);
    assert_eq!(counts(&session)[0], before[0] + 1);
    assert_eq!(destroy(&session, array), OK);
    assert_eq!(destroy(&session, array), INVALID_HANDLE);
    assert_eq!(
        cu!(session.libcuda, cuArray3DGetDescriptor_v2(told_at: *mut u64, array: u64)),
        INVALID_HANDLE
    );
    assert_eq!(counts(&session), before);
    let (mut old, flat_at) = (0u64, [16u64, 0, FLOAT | 1 << 32]);
    let (old_at, flat_at) = (&raw mut old, flat_at.as_ptr());
    assert_eq!(cu!(session.libcuda, cuArrayCreate_v2(old_at: *mut u64, flat_at: *const u64)), OK);
    assert_eq!(destroy(&session, old), OK);
}

#[test]
fn what_no_array_can_be_is_told_before_anything_travels() {
    let session = session();
    let before = session.call_count();
    for (shape, wanted) in [
        (deep(0, 0, 0, [FLOAT, 1, 0]), INVALID_VALUE),
        (deep(8, 8, 0, [FLOAT, 3, 0]), INVALID_VALUE),
        (deep(8, 8, 0, [0x77, 1, 0]), INVALID_VALUE),
        (deep(8, 0, 8, [FLOAT, 1, 0]), INVALID_VALUE),
        (deep(8, 8, 0, [FLOAT, 1, LAYERED]), INVALID_VALUE),
        (deep(8, 8, 5, [FLOAT, 1, 4]), INVALID_VALUE),
        (deep(8, 8, 8, [FLOAT, 1, 0x1000]), INVALID_VALUE),
        (deep(4097, 0, 0, [FLOAT, 1, 0]), INVALID_VALUE),
        (deep(8, 4097, 0, [FLOAT, 1, 0]), INVALID_VALUE),
        (deep(8, 8, 0, [0xb0, 1, 0]), NOT_SUPPORTED),
        (deep(8, 8, 0, [FLOAT, 1, SPARSE]), NOT_SUPPORTED),
    ] {
        assert_eq!(create(&session, &shape).0, wanted, "{shape:?}");
    }
    let null = std::ptr::null_mut::<u64>();
    let shape = deep(8, 8, 0, [FLOAT, 1, 0]);
    let at = shape.as_ptr();
    assert_eq!(cu!(session.libcuda, cuArray3DCreate_v2(null: *mut u64, at: *const u64)), INVALID_VALUE);
    assert_eq!(session.call_count(), before);
    let big = deep(4096, 4096, 4096, [FLOAT, 4, 0]);
    assert_eq!(create(&session, &big).0, OUT_OF_MEMORY);
}

#[test]
fn a_box_comes_back_from_an_array_as_it_went_there() {
    let session = session();
    // 40 x 30 x 5 elements of 8 bytes; a box of 20 x 10 x 3 at (4, 3, 1), out of rows of 200 bytes and slices of 12 rows.
    let array = made(&session, &deep(40, 30, 5, [FLOAT, 2, 0]));
    let source = pattern(200 * 12 * 3);
    let size = [160, 10, 3];
    let in_array = side(ARRAY, array, [32, 3, 1], 0, 0);
    assert_eq!(copy(&session, side(HOST, source.as_ptr() as u64, [8, 1, 0], 200, 12), in_array, size), OK);
    let mut back = vec![0u8; 160 * 10 * 3];
    let packed = side(HOST, back.as_mut_ptr() as u64, [0; 3], 160, 10);
    assert_eq!(copy(&session, in_array, packed, size), OK);
    let row = |z: usize, y: usize| z * 2400 + (1 + y) * 200 + 8;
    let rows = (0..3).flat_map(|z| (0..10).map(move |y| row(z, y)));
    let wanted: Vec<u8> = rows.flat_map(|row| source[row..row + 160].to_vec()).collect();
    assert!(back == wanted);
    // Through another array and device memory, and back to rows with gaps.
    let other = made(&session, &deep(20, 10, 3, [FLOAT, 2, LAYERED]));
    assert_eq!(copy(&session, in_array, side(ARRAY, other, [0; 3], 0, 0), size), OK);
    let mut address = 0u64;
    let at = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, 8192: usize)), OK);
    let on_device = side(DEVICE, address, [0; 3], 256, 10);
    assert_eq!(copy(&session, side(ARRAY, other, [0; 3], 0, 0), on_device, size), OK);
    assert_eq!(copy(&session, on_device, in_array, size), OK);
    let mut gaps = vec![0u8; 200 * 12 * 3];
    let with_gaps = side(HOST, gaps.as_mut_ptr() as u64, [8, 1, 0], 200, 12);
    assert_eq!(copy(&session, in_array, with_gaps, size), OK);
    let rows = (0..3).flat_map(|z| (0..10).map(move |y| row(z, y)));
    assert!(rows.flat_map(|row| gaps[row..row + 160].to_vec()).eq(wanted.iter().copied()));
    let written = |bytes: &[u8]| bytes.iter().filter(|byte| **byte != 0).count();
    assert!(written(&wanted) > 4000, "most of the pattern can be told from nothing");
    assert_eq!(written(&gaps), written(&wanted), "and nothing beside it");
    for array in [array, other] {
        assert_eq!(destroy(&session, array), OK);
    }
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), OK);
}

#[test]
fn a_large_box_goes_in_pieces_of_a_megabyte() {
    let session = session();
    // 4096 floats of 4 channels a row: 64 KiB; 40 rows.
    let array = made(&session, &deep(4096, 40, 0, [FLOAT, 4, 0]));
    let (source, mut back) = (pattern(65536 * 40), vec![0u8; 65536 * 40]);
    let (size, in_array) = ([65536, 40, 1], side(ARRAY, array, [0; 3], 0, 0));
    let before = session.call_count();
    assert_eq!(copy(&session, side(HOST, source.as_ptr() as u64, [0; 3], 65536, 0), in_array, size), OK);
    assert_eq!(session.call_count() - before, 3);
    assert_eq!(copy(&session, in_array, side(HOST, back.as_mut_ptr() as u64, [0; 3], 65536, 0), size), OK);
    assert!(back == source);
    assert_eq!(session.call_count() - before, 6);
    assert_eq!(destroy(&session, array), OK);
}

#[test]
fn copies_past_an_arrays_sides_or_between_its_elements_are_refused() {
    let session = session();
    let array = made(&session, &deep(16, 8, 0, [FLOAT, 1, 0]));
    let mut bytes = vec![0u8; 4096];
    let memory = bytes.as_mut_ptr() as u64;
    let host = |pitch| side(HOST, memory, [0; 3], pitch, 8);
    let before = session.call_count();
    for (corner, size) in [
        ([0, 0, 0], [68, 1, 1]),
        ([4, 0, 0], [64, 1, 1]),
        ([0, 7, 0], [4, 2, 1]),
        ([0, 0, 1], [4, 1, 1]),
        ([2, 0, 0], [4, 1, 1]),
        ([0, 0, 0], [6, 1, 1]),
        ([u64::MAX - 3, 0, 0], [4, 1, 1]),
    ] {
        let in_array = side(ARRAY, array, corner, 0, 0);
        assert_eq!(copy(&session, host(128), in_array, size), INVALID_VALUE, "{corner:?} {size:?}");
        assert_eq!(copy(&session, in_array, host(128), size), INVALID_VALUE, "{corner:?} {size:?}");
        assert_eq!(copy(&session, in_array, in_array, size), INVALID_VALUE, "{corner:?} {size:?}");
    }
    let mut levelled = side(ARRAY, array, [0; 3], 0, 0);
    levelled[3] = 1;
    assert_eq!(copy(&session, host(64), levelled, [4, 1, 1]), INVALID_VALUE);
    let wrong = side(ARRAY, ArrayHandle::new(9, 4000).raw(), [0; 3], 0, 0);
    assert_eq!(copy(&session, host(64), wrong, [4, 1, 1]), INVALID_HANDLE);
    assert_eq!(
        copy(&session, host(2), side(ARRAY, array, [0; 3], 0, 0), [4, 1, 1]),
        INVALID_VALUE,
        "the host's rows"
    );
    assert_eq!(session.call_count(), before);
    assert_eq!(destroy(&session, array), OK);
}

#[test]
fn a_row_is_copied_by_the_old_forms() {
    let session = session();
    let (one, other) =
        (made(&session, &deep(256, 0, 0, [FLOAT, 1, 0])), made(&session, &deep(256, 0, 0, [0x03, 1, 0])));
    let (source, mut back, mut address) = (pattern(1024), [0u8; 512], 0u64);
    let (from, to, at) = (source.as_ptr(), back.as_mut_ptr(), &raw mut address);
    assert_eq!(cu!(session.libcuda, cuMemcpyHtoA_v2(one: u64, 0: usize, from: *const u8, 1024: usize)), OK);
    assert_eq!(
        cu!(session.libcuda, cuMemcpyAtoA_v2(other: u64, 512: usize, one: u64, 256: usize, 512: usize)),
        OK
    );
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, 1024: usize)), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpyAtoD_v2(address: u64, other: u64, 512: usize, 512: usize)), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoA_v2(one: u64, 0: usize, address: u64, 512: usize)), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpyAtoH_v2(to: *mut u8, one: u64, 0: usize, 512: usize)), OK);
    assert_eq!(back[..], source[256..768]);
    let stream = 2u64; // per thread
    assert_eq!(
        cu!(session.libcuda, cuMemcpyHtoAAsync_v2(one: u64, 512: usize, from: *const u8, 512: usize, stream: u64)),
        OK
    );
    assert_eq!(
        cu!(session.libcuda, cuMemcpyAtoHAsync_v2(to: *mut u8, one: u64, 512: usize, 512: usize, stream: u64)),
        OK
    );
    assert_eq!(back[..], source[..512]);
    assert_eq!(
        cu!(session.libcuda, cuMemcpyHtoA_v2(one: u64, 516: usize, from: *const u8, 512: usize)),
        INVALID_VALUE
    );
    let wide = made(&session, &deep(64, 0, 0, [FLOAT, 4, 0]));
    assert_eq!(
        cu!(session.libcuda, cuMemcpyAtoA_v2(wide: u64, 0: usize, one: u64, 0: usize, 64: usize)),
        INVALID_VALUE,
        "elements of another size"
    );
    for array in [one, other, wide] {
        assert_eq!(destroy(&session, array), OK);
    }
}

#[test]
fn a_copy_of_pinned_memory_to_an_array_waits_for_who_writes_there_and_is_done_when_it_returns() {
    let session = session();
    let array = made(&session, &deep(16, 0, 0, [FLOAT, 1, 0]));
    let (mut pinned, pageable) = (0u64, [1u8; 64]);
    let at = &raw mut pinned;
    assert_eq!(cu!(session.libcuda, cuMemHostAlloc(at: *mut u64, 64: usize, 0: u32)), OK);
    let (own, stream) = (pageable.as_ptr() as u64, 0u64);
    let calls = |work: &dyn Fn() -> u32| {
        assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
        session.seen.lock().unwrap().calls.clear();
        assert_eq!((work(), cu!(session.libcuda, cuCtxSynchronize())), (OK, OK));
        let mut calls = session.seen.lock().unwrap().calls.clone();
        assert_eq!(calls.pop(), Some("ctx sync"));
        calls
    };
    let row = |from: u64| {
        calls(&|| cu!(session.libcuda, cuMemcpyHtoA_v2(array: u64, 0: usize, from: u64, 64: usize)))
    };
    assert_eq!(row(pinned), ["stream sync", "array write", "stream sync"]);
    assert_eq!(row(own), ["array write"], "of its own memory a program is promised no more");
    let (from, to) = (side(HOST, pinned, [0; 3], 0, 0), side(ARRAY, array, [0; 3], 0, 0));
    let boxed = calls(&|| copy(&session, from, to, [64, 1, 1]));
    assert_eq!(boxed, ["stream sync", "array write", "stream sync"]);
    let queued = || cu!(session.libcuda, cuMemcpyHtoAAsync_v2(array: u64, 0: usize, pinned: u64, 64: usize, stream: u64));
    assert_eq!(
        calls(&queued),
        ["stream sync", "array write"],
        "its bytes are taken over in the stream's order"
    );
    assert_eq!((cu!(session.libcuda, cuMemFreeHost(pinned: u64)), destroy(&session, array)), (OK, OK));
}

#[test]
fn levels_have_one_name_each_and_end_with_the_whole() {
    let session = session();
    let before = counts(&session);
    let shape = deep(64, 16, 0, [FLOAT, 1, 0]);
    let (mut mipmap, shape_at) = (0u64, shape.as_ptr());
    let at = &raw mut mipmap;
    assert_eq!(cu!(session.libcuda, cuMipmappedArrayCreate(at: *mut u64, shape_at: *const u64, 99: u32)), OK);
    assert!(MipmapHandle::check(mipmap).is_ok());
    let level = |number: u32| {
        let mut array = 0u64;
        let at = &raw mut array;
        (cu!(session.libcuda, cuMipmappedArrayGetLevel(at: *mut u64, mipmap: u64, number: u32)), array)
    };
    let (code, second) = level(2);
    assert_eq!((code, level(2)), (OK, (OK, second)));
    let mut told = [0u64; 5];
    let told_at = told.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuArray3DGetDescriptor_v2(told_at: *mut u64, second: u64)), OK);
    assert_eq!(told, deep(16, 4, 0, [FLOAT, 1, 0]));
    assert_eq!((level(6).0, level(7).0), (OK, INVALID_VALUE), "seven levels: 64 to 1");
    assert_eq!(destroy(&session, second), OK, "it stays until the whole ends");
    let source = pattern(64);
    let host = side(HOST, source.as_ptr() as u64, [0; 3], 64, 0);
    assert_eq!(copy(&session, host, side(ARRAY, second, [0, 3, 0], 0, 0), [64, 1, 1]), OK);
    let mut place = [0u64; 8];
    let place_at = place.as_mut_ptr();
    assert_eq!(
        cu!(session.libcuda, cuMipmappedArrayGetSparseProperties(place_at: *mut u64, mipmap: u64)),
        INVALID_VALUE
    );
    assert_eq!(
        cu!(session.libcuda, cuMipmappedArrayGetMemoryRequirements(place_at: *mut u64, mipmap: u64, 0: i32)),
        INVALID_VALUE
    );
    assert_eq!(cu!(session.libcuda, cuMipmappedArrayDestroy(mipmap: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMipmappedArrayDestroy(mipmap: u64)), INVALID_HANDLE);
    assert_eq!(
        cu!(session.libcuda, cuArray3DGetDescriptor_v2(told_at: *mut u64, second: u64)),
        INVALID_HANDLE
    );
    assert_eq!(counts(&session), before);
}

/// `CUDA_TEXTURE_DESC`: clamp, linear, normalized coordinates.
fn texture_desc() -> [u32; 26] {
    let mut words = [0; 26];
    words[..5].copy_from_slice(&[1, 1, 1, 1, 2]);
    words[10] = 1.5f32.to_bits();
    words
}

/// `CUDA_RESOURCE_DESC`.
fn resource_desc(kind: u64, union: &[u64]) -> [u64; 18] {
    let mut words = [0; 18];
    words[0] = kind;
    words[1..=union.len()].copy_from_slice(union);
    words
}

fn texture(
    session: &Session,
    resource: &[u64; 18],
    texture: &[u32; 26],
    view: Option<&[u64; 14]>,
) -> (u32, u64) {
    let (mut object, resource, texture) = (0u64, resource.as_ptr(), texture.as_ptr());
    let (at, view) = (&raw mut object, view.map_or(std::ptr::null(), |view| view.as_ptr()));
    let code = cu!(session.libcuda, cuTexObjectCreate(at: *mut u64, resource: *const u64, texture: *const u32,
        view: *const u64));
    (code, object)
}

#[test]
fn a_textures_number_is_the_devices_and_its_description_the_programs() {
    let session = session();
    let before = counts(&session);
    let array = made(&session, &deep(16, 8, 0, [FLOAT, 1, 0]));
    let (resource, sampler) = (resource_desc(0, &[array]), texture_desc());
    let mut view = [0u64; 14];
    view[..3].copy_from_slice(&[0x16, 16, 8]);
    let (code, object) = texture(&session, &resource, &sampler, Some(&view));
    assert_eq!((code, object), (OK, 1), "what the device said");
    let (mut told, mut told_sampler, mut told_view) = ([9u64; 18], [9u32; 26], [9u64; 14]);
    let (at, sampler_at, view_at) = (told.as_mut_ptr(), told_sampler.as_mut_ptr(), told_view.as_mut_ptr());
    assert_eq!(cu!(session.libcuda, cuTexObjectGetResourceDesc(at: *mut u64, object: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuTexObjectGetTextureDesc(sampler_at: *mut u32, object: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuTexObjectGetResourceViewDesc(view_at: *mut u64, object: u64)), OK);
    assert_eq!((&told[1..17], told_sampler, &told_view[1..4]), (&resource[1..17], sampler, &view[1..4]));
    let (code, plain) = texture(&session, &resource, &sampler, None);
    assert_eq!((code, plain), (OK, 2));
    assert_eq!(
        cu!(session.libcuda, cuTexObjectGetResourceViewDesc(view_at: *mut u64, plain: u64)),
        INVALID_VALUE
    );
    for object in [object, plain] {
        assert_eq!(cu!(session.libcuda, cuTexObjectDestroy(object: u64)), OK);
        assert_eq!(cu!(session.libcuda, cuTexObjectDestroy(object: u64)), OK, "nothing is no error");
        assert_eq!(
            cu!(session.libcuda, cuTexObjectGetTextureDesc(sampler_at: *mut u32, object: u64)),
            INVALID_VALUE
        );
    }
    assert_eq!(destroy(&session, array), OK);
    assert_eq!(counts(&session), before);
}

#[test]
fn a_texture_that_cannot_be_is_refused() {
    let session = session();
    let mut address = 0u64;
    let at = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, 65536: usize)), OK);
    let array = made(&session, &deep(16, 8, 0, [FLOAT, 1, 0]));
    let (float, sampler) = (FLOAT | 1 << 32, texture_desc());
    let linear = resource_desc(2, &[address, float, 4096]);
    let pitched = resource_desc(3, &[address, float, 100, 10, 512]);
    for good in [linear, pitched] {
        let (code, object) = texture(&session, &good, &sampler, None);
        assert_eq!(code, OK);
        assert_eq!(cu!(session.libcuda, cuTexObjectDestroy(object: u64)), OK);
    }
    let mut flags = linear;
    flags[17] = 1;
    for wrong in [
        resource_desc(4, &[array]),
        resource_desc(2, &[address + 4, float, 4096]),
        resource_desc(2, &[address, FLOAT | 3 << 32, 4096]),
        resource_desc(2, &[address, 0x21 | 1 << 32, 4096]),
        resource_desc(2, &[address, float, 0]),
        resource_desc(3, &[address, float, 100, 10, 396]),
        resource_desc(3, &[address, float, 100, 10, 520]),
        resource_desc(3, &[address, float, 5000, 10, 65536]),
        resource_desc(3, &[address, float, 100, u64::MAX, 512]),
        flags,
    ] {
        assert_eq!(texture(&session, &wrong, &sampler, None).0, INVALID_VALUE, "{wrong:?}");
    }
    assert_eq!(texture(&session, &resource_desc(0, &[address]), &sampler, None).0, INVALID_HANDLE);
    assert_eq!(texture(&session, &resource_desc(1, &[array]), &sampler, None).0, INVALID_HANDLE);
    let mut unknown = sampler;
    unknown[3] = 2;
    assert_eq!(texture(&session, &resource_desc(0, &[array]), &unknown, None).0, INVALID_VALUE);
    assert_eq!(
        texture(&session, &linear, &sampler, Some(&[0; 14])).0,
        INVALID_VALUE,
        "a view of linear memory"
    );
    assert_eq!(destroy(&session, array), OK);
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), OK);
}

#[test]
fn surfaces_are_made_of_arrays_that_are_for_them() {
    let session = session();
    let before = counts(&session);
    let (array, other) = (
        made(&session, &deep(16, 8, 0, [FLOAT, 1, SURFACE])),
        made(&session, &deep(16, 8, 0, [FLOAT, 1, 0])),
    );
    let surface = |resource: [u64; 18]| {
        let (mut object, resource) = (0u64, resource.as_ptr());
        let at = &raw mut object;
        (cu!(session.libcuda, cuSurfObjectCreate(at: *mut u64, resource: *const u64)), object)
    };
    let (code, object) = surface(resource_desc(0, &[array]));
    assert_eq!(code, OK);
    assert_eq!(surface(resource_desc(0, &[other])).0, INVALID_VALUE);
    assert_eq!(surface(resource_desc(2, &[0x7000_0000, FLOAT | 1 << 32, 64])).0, INVALID_VALUE);
    assert_eq!(surface(resource_desc(0, &[7])).0, INVALID_HANDLE);
    let mut told = [0u64; 18];
    let at = told.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuSurfObjectGetResourceDesc(at: *mut u64, object: u64)), OK);
    assert_eq!(told[1], array);
    assert_eq!(cu!(session.libcuda, cuTexObjectGetResourceDesc(at: *mut u64, object: u64)), INVALID_VALUE);
    assert_eq!(cu!(session.libcuda, cuSurfObjectDestroy(object: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuSurfObjectDestroy(object: u64)), OK, "nothing is no error");
    for array in [array, other] {
        assert_eq!(destroy(&session, array), OK);
    }
    assert_eq!(counts(&session), before);
}

#[test]
fn a_context_takes_its_arrays_and_objects_along_and_two_may_have_one_number() {
    let session = session();
    let before = counts(&session);
    let array = made(&session, &deep(16, 8, 0, [FLOAT, 1, 0]));
    let sampler = texture_desc();
    let (code, first) = texture(&session, &resource_desc(0, &[array]), &sampler, None);
    assert_eq!(code, OK);
    let mut context = 0u64;
    let at = &raw mut context;
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(at: *mut u64, 0: u32, 0: i32)), OK);
    let mine = made(&session, &deep(16, 8, 0, [FLOAT, 1, 0]));
    let (shape, mut mipmap) = (deep(8, 8, 0, [FLOAT, 1, 0]), 0u64);
    let (shape_at, mipmap_at) = (shape.as_ptr(), &raw mut mipmap);
    assert_eq!(
        cu!(session.libcuda, cuMipmappedArrayCreate(mipmap_at: *mut u64, shape_at: *const u64, 2: u32)),
        OK
    );
    let (code, second) = texture(&session, &resource_desc(0, &[mine]), &sampler, None);
    assert_eq!((code, second), (OK, first), "the same number in another context");
    let mut told = [0u64; 18];
    let told_at = told.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuTexObjectGetResourceDesc(told_at: *mut u64, second: u64)), OK);
    assert_eq!(told[1], mine);
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(context: u64)), OK);
    assert_eq!(destroy(&session, mine), INVALID_HANDLE);
    assert_eq!(cu!(session.libcuda, cuMipmappedArrayDestroy(mipmap: u64)), INVALID_HANDLE);
    assert_eq!(cu!(session.libcuda, cuTexObjectGetResourceDesc(told_at: *mut u64, first: u64)), OK);
    assert_eq!(told[1], array, "that of this context is there");
    assert_eq!(cu!(session.libcuda, cuTexObjectDestroy(first: u64)), OK);
    assert_eq!(destroy(&session, array), OK);
    assert_eq!(counts(&session), before);
}

#[test]
fn a_peer_copy_asks_an_array_for_its_context() {
    let session = session();
    let array = made(&session, &deep(16, 0, 0, [FLOAT, 1, 0]));
    let (source, primary) = (pattern(64), ContextId::primary(0).handle().raw());
    let mut host = side(HOST, source.as_ptr() as u64, [0; 3], 64, 0);
    host[8] = primary;
    let words = [&host[..], &side(ARRAY, array, [0; 3], 0, 0), &[64, 1, 1]].concat();
    let at = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpy3DPeer(at: *const u64)), OK);
    let mut back = [0u8; 64];
    let to = back.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpyAtoH_v2(to: *mut u8, array: u64, 0: usize, 64: usize)), OK);
    assert_eq!(back, source[..]);
    assert_eq!(destroy(&session, array), OK);
}

#[test]
fn the_longest_linear_texture_is_the_devices_to_say() {
    let session = session();
    let mut most = 0usize;
    let at = &raw mut most;
    let format = 0x20u32;
    assert_eq!(
        cu!(session.libcuda, cuDeviceGetTexture1DLinearMaxWidth(at: *mut usize, format: u32, 4: u32, 1: i32)),
        OK
    );
    assert_eq!(most, 1324);
    let ask = |format: u32, channels: u32, device: i32| cu!(session.libcuda, cuDeviceGetTexture1DLinearMaxWidth(at: *mut usize, format: u32, channels: u32, device: i32));
    assert_eq!((ask(0x20, 3, 0), ask(0x21, 1, 0), ask(0x20, 1, 7)), (INVALID_VALUE, INVALID_VALUE, 101));
}
