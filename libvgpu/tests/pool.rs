//! Pools, words in the order of streams, attributes of streams, batches of copies: from the C border to a device of a few lines.

mod support;

use std::cell::Cell;

use support::session::{Session, session};
use vgpu_api::PoolHandle;

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const INVALID_DEVICE: u32 = 101;
const INVALID_HANDLE: u32 = 400;
const TIMEOUT: u32 = 909;
const NOT_SUPPORTED: u32 = 801;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "the library reads them")]
struct Location {
    kind: u32,
    id: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "the library reads them")]
struct Properties {
    kind: u32,
    handle_types: u32,
    location: Location,
    security: u64,
    bytes_max: u64,
    usage: u16,
    reserved: [u8; 54],
}

const ON_DEVICE: Location = Location { kind: 1, id: 0 };
const PINNED: Properties = Properties {
    kind: 1,
    handle_types: 0,
    location: ON_DEVICE,
    security: 0,
    bytes_max: 0,
    usage: 0,
    reserved: [0; 54],
};

impl Session {
    fn pool(&self, properties: &Properties) -> (u32, u64) {
        let (mut pool, properties) = (0, std::ptr::from_ref(properties));
        let place = &raw mut pool;
        (cu!(self.libcuda, cuMemPoolCreate(place: *mut u64, properties: *const Properties)), pool)
    }

    fn current_pool(&self) -> u64 {
        let mut pool = 0;
        let place = &raw mut pool;
        assert_eq!(cu!(self.libcuda, cuDeviceGetMemPool(place: *mut u64, 0: i32)), OK);
        pool
    }

    fn alloc(&self, bytes: usize, stream: u64) -> (u32, u64) {
        let mut at = 0;
        let place = &raw mut at;
        (cu!(self.libcuda, cuMemAllocAsync(place: *mut u64, bytes: usize, stream: u64)), at)
    }

    fn alloc_from(&self, pool: u64, bytes: usize, stream: u64) -> (u32, u64) {
        let mut at = 0;
        let place = &raw mut at;
        let code =
            cu!(self.libcuda, cuMemAllocFromPoolAsync(place: *mut u64, bytes: usize, pool: u64, stream: u64));
        (code, at)
    }

    fn free(&self, at: u64, stream: u64) -> u32 {
        cu!(self.libcuda, cuMemFreeAsync(at: u64, stream: u64))
    }

    fn attribute(&self, number: u32, at: u64) -> (u32, u64) {
        let mut value = 0;
        let place = &raw mut value;
        (cu!(self.libcuda, cuPointerGetAttribute(place: *mut u64, number: u32, at: u64)), value)
    }

    fn stream(&self) -> u64 {
        let mut stream = 0;
        let place = &raw mut stream;
        assert_eq!(cu!(self.libcuda, cuStreamCreate(place: *mut u64, 0: u32)), OK);
        stream
    }

    fn end(&self, stream: u64) {
        assert_eq!(cu!(self.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
    }

    fn words(&self, at: u64) -> [u64; 2] {
        let mut words = [0; 2];
        let place = words.as_mut_ptr();
        assert_eq!(cu!(self.libcuda, cuMemcpyDtoH_v2(place: *mut u64, at: u64, 16: usize)), OK);
        words
    }

    fn synchronize(&self) -> u32 {
        cu!(self.libcuda, cuCtxSynchronize())
    }
}

#[test]
fn memory_of_a_pool_is_allocated_used_and_freed_in_a_stream() {
    let session = session();
    let stream = session.stream();
    let (code, at) = session.alloc(4096, stream);
    assert_eq!(code, OK);
    let (count, value) = (1024usize, 7u32);
    assert_eq!(cu!(session.libcuda, cuMemsetD32Async(at: u64, value: u32, count: usize, stream: u64)), OK);
    assert_eq!(session.words(at), [0x0000_0007_0000_0007; 2]);
    let beyond = [0u8; 16];
    let (place, end) = (beyond.as_ptr(), at + 4090);
    assert_eq!(cu!(session.libcuda, cuMemcpyHtoD_v2(end: u64, place: *const u8, 16: usize)), INVALID_VALUE);
    assert_eq!((session.free(at, stream), session.free(at, stream)), (OK, INVALID_VALUE));
    assert_eq!(session.alloc(1 << 40, stream).0, OUT_OF_MEMORY);
    assert_eq!(session.alloc(64, 5).0, INVALID_HANDLE);
    // Each kind of memory by the other's call.
    let (_, pooled) = session.alloc(64, 0);
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(pooled: u64)), OK);
    let mut plain = 0u64;
    let place = &raw mut plain;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, 64: usize)), OK);
    assert_eq!(session.free(plain, stream), OK);
    session.end(stream);
    assert_eq!(session.free(at, stream), INVALID_HANDLE, "the stream has ended");
    assert_eq!(session.synchronize(), OK);
}

#[test]
fn a_device_has_a_default_pool_and_a_current_one() {
    let session = session();
    let (mut default, mut other, location) = (0u64, 0u64, std::ptr::from_ref(&ON_DEVICE));
    let (default_at, other_at) = (&raw mut default, &raw mut other);
    assert_eq!(cu!(session.libcuda, cuDeviceGetDefaultMemPool(default_at: *mut u64, 0: i32)), OK);
    assert_eq!(session.current_pool(), default);
    assert_eq!(
        cu!(session.libcuda, cuMemGetDefaultMemPool(other_at: *mut u64, location: *const Location, 1: u32)),
        OK
    );
    assert_eq!(other, default);
    assert_eq!(cu!(session.libcuda, cuDeviceGetDefaultMemPool(other_at: *mut u64, 1: i32)), OK);
    assert_ne!(other, default);
    assert_eq!(cu!(session.libcuda, cuDeviceGetDefaultMemPool(other_at: *mut u64, 2: i32)), INVALID_DEVICE);
    assert_eq!(cu!(session.libcuda, cuMemPoolDestroy(default: u64)), INVALID_VALUE, "a default pool stays");
    assert_eq!(
        cu!(session.libcuda, cuMemGetMemPool(other_at: *mut u64, location: *const Location, 2: u32)),
        NOT_SUPPORTED,
        "managed memory"
    );

    let (code, pool) = session.pool(&Properties { bytes_max: 1 << 20, ..PINNED });
    assert_eq!((code, cu!(session.libcuda, cuDeviceSetMemPool(0: i32, pool: u64))), (OK, OK));
    assert_eq!(session.current_pool(), pool);
    assert_eq!(
        cu!(session.libcuda, cuDeviceSetMemPool(1: i32, pool: u64)),
        INVALID_VALUE,
        "another device's"
    );
    assert_eq!(cu!(session.libcuda, cuDeviceSetMemPool(0: i32, 5: u64)), INVALID_VALUE);
    let (_, at) = session.alloc(64, 0);
    assert_eq!(session.attribute(17, at), (OK, pool));
    assert_eq!(
        [2, 9, 13, 16].map(|number| session.attribute(number, at)),
        [(OK, 2), (OK, 0), (OK, 1), (OK, 3)]
    );
    assert_eq!([11, 12].map(|number| session.attribute(number, at)), [(OK, at), (OK, 64)]);
    assert_eq!(cu!(session.libcuda, cuMemPoolDestroy(pool: u64)), OK);
    assert_eq!(session.current_pool(), default, "the default one again");
    assert_eq!(cu!(session.libcuda, cuMemPoolDestroy(pool: u64)), INVALID_VALUE, "gone");
    assert_eq!(session.alloc_from(pool, 64, 0).0, INVALID_VALUE);
    assert_eq!((session.free(at, 0), session.synchronize()), (OK, OK));

    let (_, mine) = session.pool(&PINNED);
    assert_eq!(cu!(session.libcuda, cuMemSetMemPool(location: *const Location, 1: u32, mine: u64)), OK);
    let (_, at) = session.alloc_from(default, 64, 0);
    assert_eq!((session.current_pool(), session.attribute(17, at)), (mine, (OK, default)));
    assert_eq!((session.free(at, 0), cu!(session.libcuda, cuMemPoolDestroy(mine: u64))), (OK, OK));
}

#[test]
fn pools_are_asked_for_as_documented() {
    let session = session();
    for (properties, code) in [
        (Properties { handle_types: 8, ..PINNED }, NOT_SUPPORTED),
        (Properties { usage: 2, ..PINNED }, NOT_SUPPORTED),
        (Properties { kind: 2, ..PINNED }, NOT_SUPPORTED),
        (Properties { kind: 0, ..PINNED }, INVALID_VALUE),
        (Properties { location: Location { kind: 2, id: 0 }, ..PINNED }, NOT_SUPPORTED),
        (Properties { location: Location { kind: 1, id: 9 }, ..PINNED }, INVALID_VALUE),
        (Properties { security: 1, ..PINNED }, INVALID_VALUE),
        (Properties { reserved: [1; 54], ..PINNED }, INVALID_VALUE),
    ] {
        assert_eq!(session.pool(&properties).0, code, "{properties:?}");
    }
    let null = std::ptr::null::<Properties>();
    let mut pool = 0u64;
    let place = &raw mut pool;
    assert_eq!(
        cu!(session.libcuda, cuMemPoolCreate(place: *mut u64, null: *const Properties)),
        INVALID_VALUE
    );
}

#[test]
fn attributes_and_access_of_a_pool_have_their_types() {
    let session = session();
    let pool = session.current_pool();
    let (mut flag, mut long, wanted) = ([9u32, 9], 9u64, 1u64 << 33);
    let (flag_at, long_at, wanted_at, on) = (flag.as_mut_ptr(), &raw mut long, &raw const wanted, [0u32, 0]);
    let on_at = on.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemPoolSetAttribute(pool: u64, 4: u32, wanted_at: *const u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemPoolGetAttribute(pool: u64, 4: u32, long_at: *mut u64)), OK);
    assert_eq!(long, wanted);
    assert_eq!(cu!(session.libcuda, cuMemPoolSetAttribute(pool: u64, 2: u32, on_at: *const u32)), OK);
    assert_eq!(cu!(session.libcuda, cuMemPoolGetAttribute(pool: u64, 2: u32, flag_at: *mut u32)), OK);
    assert_eq!(flag, [0, 9], "four bytes");
    let zero = &raw const on;
    for (number, code) in [(6u32, OK), (8, OK), (5, INVALID_VALUE), (7, INVALID_VALUE), (9, INVALID_VALUE)] {
        let got = cu!(session.libcuda, cuMemPoolSetAttribute(pool: u64, number: u32, zero: *const [u32; 2]));
        assert_eq!(got, code, "{number}");
    }
    assert_eq!(
        cu!(session.libcuda, cuMemPoolSetAttribute(pool: u64, 6: u32, wanted_at: *const u64)),
        INVALID_VALUE,
        "a high mark can only be reset"
    );
    for number in [0u32, 9] {
        assert_eq!(
            cu!(session.libcuda, cuMemPoolGetAttribute(pool: u64, number: u32, long_at: *mut u64)),
            INVALID_VALUE
        );
    }
    assert_eq!(cu!(session.libcuda, cuMemPoolTrimTo(pool: u64, 0: usize)), OK);
    // As NVIDIA's driver: no bytes are no memory, and can be freed.
    let mut nothing = 9u64;
    let nothing_at = &raw mut nothing;
    assert_eq!(cu!(session.libcuda, cuMemAllocAsync(nothing_at: *mut u64, 0: usize, 0: u64)), OK);
    assert_eq!((nothing, cu!(session.libcuda, cuMemFreeAsync(nothing: u64, 0: u64))), (0, OK));
    let nobody = PoolHandle::new(3, 99).raw();
    assert_eq!(cu!(session.libcuda, cuMemPoolTrimTo(nobody: u64, 0: usize)), INVALID_VALUE);

    // Kind, ordinal, flags.
    for (access, code) in [
        ([1u32, 0, 3], OK),
        ([1, 0, 0], INVALID_DEVICE),
        ([1, 1, 0], OK),
        ([1, 1, 3], NOT_SUPPORTED),
        ([1, 0, 2], INVALID_VALUE),
        ([1, 7, 3], INVALID_DEVICE),
    ] {
        let list = &raw const access;
        let got = cu!(session.libcuda, cuMemPoolSetAccess(pool: u64, list: *const [u32; 3], 1: usize));
        assert_eq!(got, code, "{access:?}");
    }
    for (id, wanted) in [(0, 3), (1, 0)] {
        let (location, mut flags) = (Location { kind: 1, id }, 9u32);
        let (location_at, flags_at) = (&raw const location, &raw mut flags);
        assert_eq!(
            cu!(session.libcuda, cuMemPoolGetAccess(flags_at: *mut u32, pool: u64, location_at: *const Location)),
            OK
        );
        assert_eq!(flags, wanted);
    }
}

#[test]
fn what_pools_gave_ends_with_the_primary_context() {
    let session = session();
    let (_, at) = session.alloc(64, 0);
    assert_eq!(session.attribute(9, at), (OK, 0));
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxReset_v2(0: i32)), OK);
    assert_eq!(session.attribute(9, at).0, INVALID_VALUE);
    assert_eq!(session.free(at, 0), INVALID_VALUE);
    let (code, again) = session.alloc(64, 0);
    assert_eq!((code, session.free(again, 0)), (OK, OK), "pools stay");
}

/// One of a batch.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[allow(dead_code, reason = "the library reads them")]
struct Op {
    operation: u32,
    own_flags: u32,
    at: u64,
    value: u64,
    flags: u32,
    rest: [u32; 5],
}

#[test]
fn words_are_written_and_waited_for_in_the_order_of_a_stream() {
    let session = session();
    let stream = session.stream();
    let (_, at) = session.alloc(16, stream);
    let all = u64::MAX;
    let (second, odd) = (at + 8, at + 2);
    assert_eq!(cu!(session.libcuda, cuStreamWriteValue64_v2(stream: u64, at: u64, all: u64, 0: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamWriteValue32_v2(stream: u64, at: u64, 5: u32, 0: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamWaitValue32_v2(stream: u64, at: u64, 5: u32, 1: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamWaitValue64_v2(stream: u64, at: u64, 1: u64, 2: u32)), OK);
    let none = Op::default();
    let ops = [
        Op { operation: 5, at: second, value: 77, ..none },
        Op { operation: 6, own_flags: 1, ..none },
        Op { operation: 4, at: second, value: 70, ..none },
        // The upper half of a word of 32 bits means nothing.
        Op { operation: 1, at: second, value: 0xffff_ffff_0000_004d, flags: 1, ..none },
    ];
    let list = ops.as_ptr();
    assert_eq!(cu!(session.libcuda, cuStreamBatchMemOp_v2(stream: u64, 4: u32, list: *const Op, 0: u32)), OK);
    assert_eq!(session.synchronize(), OK);
    assert_eq!(session.words(at), [0xffff_ffff_0000_0005, 77]);

    for flags in [1u32, 2, 1 << 30] {
        assert_eq!(
            cu!(session.libcuda, cuStreamWriteValue32_v2(stream: u64, at: u64, 5: u32, flags: u32)),
            INVALID_VALUE
        );
    }
    assert_eq!(
        cu!(session.libcuda, cuStreamWaitValue32_v2(stream: u64, at: u64, 5: u32, 4: u32)),
        INVALID_VALUE
    );
    let flush = 1u32 << 30;
    assert_eq!(
        cu!(session.libcuda, cuStreamWaitValue32_v2(stream: u64, at: u64, 5: u32, flush: u32)),
        NOT_SUPPORTED
    );
    assert_eq!(
        cu!(session.libcuda, cuStreamWriteValue32_v2(stream: u64, odd: u64, 5: u32, 0: u32)),
        INVALID_VALUE
    );
    assert_eq!(
        cu!(session.libcuda, cuStreamWaitValue64_v2(stream: u64, odd: u64, 5: u64, 0: u32)),
        INVALID_VALUE
    );
    assert_eq!(
        cu!(session.libcuda, cuStreamWriteValue32_v2(5: u64, at: u64, 5: u32, 0: u32)),
        INVALID_HANDLE
    );
    for (op, code) in [
        (Op { operation: 3, ..none }, NOT_SUPPORTED),
        (Op { operation: 6, own_flags: 2, ..none }, INVALID_VALUE),
        (Op { operation: 7, at, ..none }, INVALID_VALUE),
        (Op { operation: 0, at, ..none }, INVALID_VALUE),
    ] {
        let one = &raw const op;
        let got = cu!(session.libcuda, cuStreamBatchMemOp_v2(stream: u64, 1: u32, one: *const Op, 0: u32));
        assert_eq!(got, code, "operation {}", op.operation);
    }
    let null = std::ptr::null::<Op>();
    for (count, ops, flags) in [(1u32, null, 0u32), (256, list, 0), (1, list, 1)] {
        assert_eq!(
            cu!(session.libcuda, cuStreamBatchMemOp_v2(stream: u64, count: u32, ops: *const Op, flags: u32)),
            INVALID_VALUE
        );
    }
    // The forms before CUDA 11.7, which a driver has only on demand.
    assert_eq!(
        cu!(session.libcuda, cuStreamWriteValue32(stream: u64, at: u64, 5: u32, 0: u32)),
        NOT_SUPPORTED
    );
    // What comes of a wait that is never over is the device's to say, later.
    assert_eq!(cu!(session.libcuda, cuStreamWaitValue32_v2(stream: u64, at: u64, 99: u32, 1: u32)), OK);
    assert_eq!(session.synchronize(), TIMEOUT);
    assert_eq!(session.free(at, stream), OK);
    session.end(stream);
}

#[test]
fn attributes_of_streams_are_kept_copied_and_forgotten() {
    let session = session();
    let (one, two) = (session.stream(), session.stream());
    let get = |stream: u64, number: u32| {
        let mut value = [9u8; 64];
        let place = value.as_mut_ptr();
        (cu!(session.libcuda, cuStreamGetAttribute(stream: u64, number: u32, place: *mut u8)), value)
    };
    let value = |bytes: &[u8]| {
        let mut value = [0u8; 64];
        value[..bytes.len()].copy_from_slice(bytes);
        value
    };
    let set = |stream: u64, number: u32, bytes: &[u8]| {
        let value = value(bytes);
        let place = value.as_ptr();
        cu!(session.libcuda, cuStreamSetAttribute(stream: u64, number: u32, place: *const u8))
    };
    for (number, start) in [(1, &[][..]), (3, &[0xff; 4]), (8, &[]), (9, &[0, 1]), (10, &[]), (16, &[])] {
        assert_eq!(get(one, number), (OK, value(start)), "attribute {number}");
        assert_eq!(get(0, number), (OK, value(start)), "of the default stream");
    }
    assert_eq!(set(one, 3, &[4]), OK);
    assert_eq!(set(one, 8, &(-3i32).to_le_bytes()), OK);
    assert_eq!(
        (get(one, 3).1, get(two, 3).1, get(0, 3).1),
        (value(&[4]), value(&[0xff; 4]), value(&[0xff; 4]))
    );
    let mut priority = 0i32;
    let place = &raw mut priority;
    assert_eq!(cu!(session.libcuda, cuStreamGetPriority(one: u64, place: *mut i32)), OK);
    assert_eq!(priority, -3);
    // Brought into the device's range.
    assert_eq!((set(two, 8, &[99]), get(two, 8).1), (OK, value(&[])));
    assert_eq!((set(two, 8, &(-99i32).to_le_bytes()), get(two, 8).1), (OK, value(&(-5i32).to_le_bytes())));
    for (number, bytes) in
        [(3, &[0][..]), (3, &[5]), (9, &[0, 200]), (10, &[2]), (16, &[2]), (2, &[1]), (0, &[]), (17, &[])]
    {
        assert_eq!(set(one, number, bytes), INVALID_VALUE, "attribute {number} {bytes:?}");
    }
    assert_eq!(
        (get(one, 2).0, get(5, 3).0, set(5, 3, &[1])),
        (INVALID_VALUE, INVALID_HANDLE, INVALID_HANDLE)
    );
    // A window: address, length, share of hits, kinds. The device says that it may have 1 byte.
    let (_, at) = session.alloc(64, 0);
    let window = |address: u64, bytes: u64, share: f32, missing: u32| {
        [
            &address.to_le_bytes()[..],
            &bytes.to_le_bytes(),
            &share.to_le_bytes(),
            &[2, 0, 0, 0],
            &missing.to_le_bytes(),
        ]
        .concat()
    };
    assert_eq!(set(one, 1, &window(at, 1, 0.5, 1)), OK);
    for bad in [window(at, 2, 0.5, 1), window(5, 1, 0.5, 1), window(at, 1, 1.5, 1), window(at, 1, 0.5, 2)] {
        assert_eq!(set(one, 1, &bad), INVALID_VALUE);
    }
    assert_eq!(cu!(session.libcuda, cuStreamCopyAttributes(two: u64, one: u64)), OK);
    assert_eq!([1, 3, 8].map(|number| get(two, number)), [1, 3, 8].map(|number| get(one, number)));
    assert_eq!(cu!(session.libcuda, cuStreamCopyAttributes(two: u64, 5: u64)), INVALID_HANDLE);
    assert_eq!((session.free(at, 0), session.synchronize()), (OK, OK));
    [one, two].into_iter().for_each(|stream| session.end(stream));
    let again = session.stream();
    assert_eq!(get(again, 3).1, value(&[0xff; 4]));
    session.end(again);
}

#[test]
fn a_batch_copies_all_or_says_which_one_it_could_not() {
    let session = session();
    let stream = session.stream();
    let (_, at) = session.alloc(32, stream);
    let (source, mut back) = ([[1u8; 16], [2; 16]], [0u8; 32]);
    let (from, to) = (source.as_ptr() as u64, back.as_mut_ptr() as u64);
    // Order of access, hints, flags.
    let attributes = [[1u32, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 1]];
    let failed = Cell::new(9usize);
    let failed_at = failed.as_ptr();
    let batch = |pairs: &[(u64, u64, usize)], attributes: &[[u32; 6]], first: &[usize], stream: u64| {
        let to: Vec<u64> = pairs.iter().map(|pair| pair.0).collect();
        let from: Vec<u64> = pairs.iter().map(|pair| pair.1).collect();
        let sizes: Vec<usize> = pairs.iter().map(|pair| pair.2).collect();
        let (to, from, sizes, count) = (to.as_ptr(), from.as_ptr(), sizes.as_ptr(), pairs.len());
        let (attributes, first, groups) = (attributes.as_ptr(), first.as_ptr(), first.len());
        cu!(session.libcuda, cuMemcpyBatchAsync(to: *const u64, from: *const u64, sizes: *const usize, count: usize,
            attributes: *const [u32; 6], first: *const usize, groups: usize, failed_at: *mut usize, stream: u64))
    };
    let pairs = [(at + 16, from, 16), (at, from + 16, 16)];
    assert_eq!(batch(&pairs, &attributes, &[0, 1], stream), OK);
    assert_eq!(batch(&[(to, at, 32)], &attributes, &[0], stream), OK);
    assert_eq!((&back[..16], &back[16..]), (&[2u8; 16][..], &[1u8; 16][..]));
    let bad = [(at, from, 16), (at + 16, from, 17)];
    assert_eq!(batch(&bad, &attributes, &[0], stream), INVALID_VALUE);
    assert_eq!(failed.get(), 1);
    for (first, attributes) in [
        (&[1][..], attributes),
        (&[0, 0], attributes),
        (&[0, 2], attributes),
        (&[0, 1, 1], attributes),
        (&[], attributes),
        (&[0], [[0; 6]; 2]),
        (&[0], [[4, 0, 0, 0, 0, 0]; 2]),
        (&[0], [[1, 0, 0, 0, 0, 2]; 2]),
    ] {
        assert_eq!(batch(&pairs, &attributes, first, stream), INVALID_VALUE, "{first:?} {attributes:?}");
        assert_eq!(failed.get(), usize::MAX, "none of them");
        failed.set(9);
    }
    assert_eq!((batch(&pairs, &attributes, &[0], 5), failed.get()), (INVALID_HANDLE, usize::MAX));
    assert_eq!(batch(&[], &attributes, &[0], stream), INVALID_VALUE);
    assert_eq!(batch(&pairs, &attributes, &[0], 0), INVALID_VALUE, "not the default stream");
    assert_eq!(batch(&pairs, &attributes, &[0], 2), OK, "but a thread's own");
    assert_eq!((session.free(at, stream), session.synchronize()), (OK, OK));
    session.end(stream);
}
