//! Memory and addresses apart, from the C border to a device of a few lines: results, errors, what pointers say, what travels.

mod support;

use support::device::PIECE;
use support::session::{Session, session};
use vgpu_api::snapshot::{POOL_HANDLE_TYPES, POSIX_FD_SUPPORTED};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const INVALID_DEVICE: u32 = 101;
const INVALID_CONTEXT: u32 = 201;
const PEER_ACCESS_UNSUPPORTED: u32 = 217;
const NOT_FOUND: u32 = 500;
const PEER_ACCESS_NOT_ENABLED: u32 = 705;
const NOT_SUPPORTED: u32 = 801;
const PIECE_BYTES: usize = 2 << 20;
const READ: u32 = 1;
const READ_WRITE: u32 = 3;
const POSIX_FD: u32 = 1;
const FABRIC: u32 = 8;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Location {
    kind: u32,
    id: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Properties {
    kind: u32,
    handle_types: u32,
    location: Location,
    metadata: u64,
    compression: u8,
    remote_dma: u8,
    usage: u16,
    reserved: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "the library reads them")]
struct AccessOf {
    location: Location,
    flags: u32,
}

const ON_DEVICE: Location = Location { kind: 1, id: 0 };
const PINNED: Properties = Properties {
    kind: 1,
    handle_types: 0,
    location: ON_DEVICE,
    metadata: 0,
    compression: 0,
    remote_dma: 0,
    usage: 0,
    reserved: [0; 4],
};

impl Session {
    fn reserve(&self, bytes: usize) -> (u32, u64) {
        let mut at = 0;
        let place = &raw mut at;
        let code =
            cu!(self.libcuda, cuMemAddressReserve(place: *mut u64, bytes: usize, 0: usize, 0: u64, 0: u64));
        (code, at)
    }

    fn create(&self, bytes: usize, properties: &Properties) -> (u32, u64) {
        let (mut handle, properties) = (0, std::ptr::from_ref(properties));
        let place = &raw mut handle;
        let code = cu!(self.libcuda, cuMemCreate(place: *mut u64, bytes: usize, properties: *const Properties, 0: u64));
        (code, handle)
    }

    fn map(&self, at: u64, bytes: usize, handle: u64) -> u32 {
        cu!(self.libcuda, cuMemMap(at: u64, bytes: usize, 0: usize, handle: u64, 0: u64))
    }

    fn open(&self, at: u64, bytes: usize, flags: u32) -> u32 {
        self.open_to(at, bytes, &[AccessOf { location: ON_DEVICE, flags }])
    }

    fn open_to(&self, at: u64, bytes: usize, all: &[AccessOf]) -> u32 {
        let (list, count) = (all.as_ptr(), all.len());
        cu!(self.libcuda, cuMemSetAccess(at: u64, bytes: usize, list: *const AccessOf, count: usize))
    }

    fn access(&self, at: u64, location: Location) -> (u32, u64) {
        let (mut flags, location) = (9, &raw const location);
        let place = &raw mut flags;
        (cu!(self.libcuda, cuMemGetAccess(place: *mut u64, location: *const Location, at: u64)), flags)
    }

    fn unmap(&self, at: u64, bytes: usize) -> u32 {
        cu!(self.libcuda, cuMemUnmap(at: u64, bytes: usize))
    }

    fn release(&self, handle: u64) -> u32 {
        cu!(self.libcuda, cuMemRelease(handle: u64))
    }

    fn unreserve(&self, at: u64, bytes: usize) -> u32 {
        cu!(self.libcuda, cuMemAddressFree(at: u64, bytes: usize))
    }

    fn set(&self, at: u64, value: u8, bytes: usize) -> u32 {
        cu!(self.libcuda, cuMemsetD8_v2(at: u64, value: u8, bytes: usize))
    }

    fn synchronize(&self) -> u32 {
        cu!(self.libcuda, cuCtxSynchronize())
    }

    /// A number of up to 8 bytes that a pointer says of itself.
    fn attribute(&self, number: u32, at: u64) -> (u32, u64) {
        let mut value = 0;
        let place = &raw mut value;
        (cu!(self.libcuda, cuPointerGetAttribute(place: *mut u64, number: u32, at: u64)), value)
    }

    fn seen(&self, name: &str) -> usize {
        self.seen.lock().unwrap().calls.iter().filter(|call| **call == name).count()
    }
}

/// What PyTorch's expandable segments do.
#[test]
fn a_segment_grows_piece_by_piece_and_is_used_as_one() {
    let session = session();
    let (code, huge) = session.reserve(96 << 30);
    assert_eq!((code, session.unreserve(huge, 96 << 30)), (OK, OK));
    let (_, base) = session.reserve(8 * PIECE_BYTES);
    let asked = Properties { handle_types: POSIX_FD, ..PINNED };
    let mut handles = Vec::new();
    for piece in 0..3 {
        let (code, handle) = session.create(PIECE_BYTES, &asked);
        assert_eq!((code, session.map(base + piece * PIECE, PIECE_BYTES, handle)), (OK, OK));
        handles.push(handle);
    }
    assert_eq!(session.open(base, 3 * PIECE_BYTES, READ_WRITE), OK);
    assert_eq!(session.set(base, 5, 3 * PIECE_BYTES), OK);
    let (mut back, across) = ([0u8; 16], base + PIECE - 8);
    let place = back.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(place: *mut u8, across: u64, 16: usize)), OK);
    assert_eq!(back, [5; 16]);
    assert_eq!(
        cu!(session.libcuda, cuMemcpy(across: u64, place: *mut u8, 16: usize)),
        OK,
        "it is no host memory"
    );
    // A hole, and reserved addresses beyond: refused at once, and nothing of the program's memory is touched.
    assert_eq!(session.unmap(base + PIECE, PIECE_BYTES), OK);
    let hole = base + PIECE;
    for at in [across, hole, base + 5 * PIECE] {
        assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(place: *mut u8, at: u64, 16: usize)), INVALID_VALUE);
        assert_eq!(cu!(session.libcuda, cuMemcpy(at: u64, place: *mut u8, 16: usize)), INVALID_VALUE);
    }
    for (piece, handle) in (0..3).zip(handles) {
        if piece != 1 {
            assert_eq!(session.unmap(base + piece * PIECE, PIECE_BYTES), OK);
        }
        assert_eq!(session.release(handle), OK);
    }
    assert_eq!((session.unreserve(base, 8 * PIECE_BYTES), session.synchronize()), (OK, OK));
}

#[test]
fn only_reserving_and_creating_wait_for_an_answer() {
    let session = session();
    let (_, base) = session.reserve(4 * PIECE_BYTES);
    let (_, handle) = session.create(PIECE_BYTES, &PINNED);
    let (granularity, mut bytes, properties) =
        (session.seen("granularity"), 0usize, std::ptr::from_ref(&PINNED));
    let place = &raw mut bytes;
    for option in 0..2u32 {
        for _ in 0..3 {
            assert_eq!(
                cu!(session.libcuda, cuMemGetAllocationGranularity(place: *mut usize, properties: *const Properties,
                    option: u32)),
                OK
            );
            assert_eq!(bytes, PIECE_BYTES);
        }
    }
    assert_eq!(session.seen("granularity"), granularity + 1, "the other was asked before");
    let before = ["map", "set access", "unmap", "memory release", "unreserve"].map(|name| session.seen(name));
    assert_eq!(session.map(base, PIECE_BYTES, handle), OK);
    assert_eq!(session.open(base, PIECE_BYTES, READ_WRITE), OK);
    assert_eq!(session.unmap(base, PIECE_BYTES), OK);
    assert_eq!(session.release(handle), OK);
    assert_eq!(session.unreserve(base, 4 * PIECE_BYTES), OK);
    assert_eq!(session.synchronize(), OK);
    let after = ["map", "set access", "unmap", "memory release", "unreserve"].map(|name| session.seen(name));
    assert_eq!(after, before.map(|count| count + 1));
}

#[test]
fn memory_is_asked_for_as_documented() {
    let session = session();
    for (properties, code) in [
        (Properties { handle_types: POSIX_FD, ..PINNED }, OK),
        (Properties { compression: 1, ..PINNED }, OK),
        (Properties { handle_types: FABRIC, ..PINNED }, NOT_SUPPORTED),
        (Properties { handle_types: 2, ..PINNED }, NOT_SUPPORTED),
        (Properties { remote_dma: 1, ..PINNED }, NOT_SUPPORTED),
        (Properties { usage: 1, ..PINNED }, NOT_SUPPORTED),
        (Properties { kind: 2, ..PINNED }, NOT_SUPPORTED),
        (Properties { kind: 0, ..PINNED }, INVALID_VALUE),
        (Properties { kind: 3, ..PINNED }, INVALID_VALUE),
        (Properties { location: Location { kind: 2, id: 0 }, ..PINNED }, NOT_SUPPORTED),
        (Properties { location: Location { kind: 0, id: 0 }, ..PINNED }, INVALID_VALUE),
        (Properties { location: Location { kind: 1, id: 7 }, ..PINNED }, INVALID_DEVICE),
        (Properties { metadata: 1, ..PINNED }, INVALID_VALUE),
    ] {
        let (got, handle) = session.create(PIECE_BYTES, &properties);
        assert_eq!(got, code, "{properties:?}");
        if got == OK {
            let mut of_handle = PINNED;
            let place = &raw mut of_handle;
            assert_eq!(
                cu!(session.libcuda, cuMemGetAllocationPropertiesFromHandle(place: *mut Properties, handle: u64)),
                OK
            );
            assert_eq!(of_handle, Properties { compression: 0, ..properties }, "memory is never compressed");
            assert_eq!(session.release(handle), OK);
        }
    }
    assert_eq!(session.create(1 << 30, &PINNED).0, OUT_OF_MEMORY);
    for bytes in [0, 1, PIECE_BYTES - 1, usize::MAX] {
        assert_eq!(session.create(bytes, &PINNED).0, INVALID_VALUE, "{bytes}");
    }
    let mut handle = 0u64;
    let (null, place, properties) =
        (std::ptr::null_mut::<u64>(), &raw mut handle, std::ptr::from_ref(&PINNED));
    let nothing = std::ptr::null::<Properties>();
    let bytes = PIECE_BYTES;
    for (out, given, flags) in [(null, properties, 0u64), (place, nothing, 0), (place, properties, 1)] {
        assert_eq!(
            cu!(session.libcuda, cuMemCreate(out: *mut u64, bytes: usize, given: *const Properties, flags: u64)),
            INVALID_VALUE
        );
    }
}

#[test]
fn reservations_are_whole_pages_and_given_back_whole() {
    let session = session();
    let mut at = 0u64;
    let place = &raw mut at;
    for (bytes, alignment, wanted, flags) in [
        (0usize, 0usize, 0u64, 0u64),
        (4095, 0, 0, 0),
        (PIECE_BYTES, 3, 0, 0),
        (PIECE_BYTES, 0, 1, 0),
        (PIECE_BYTES, 0, 0, 1),
    ] {
        let code = cu!(session.libcuda, cuMemAddressReserve(place: *mut u64, bytes: usize, alignment: usize,
            wanted: u64, flags: u64));
        assert_eq!(code, INVALID_VALUE, "{bytes} {alignment} {wanted} {flags}");
    }
    let (_, base) = session.reserve(2 * PIECE_BYTES);
    for (at, bytes) in
        [(base, PIECE_BYTES), (base + PIECE, PIECE_BYTES), (0, 0), (base + 4096, 2 * PIECE_BYTES)]
    {
        assert_eq!(session.unreserve(at, bytes), INVALID_VALUE);
    }
    assert_eq!(session.unreserve(base, 2 * PIECE_BYTES), OK);
    assert_eq!(session.unreserve(base, 2 * PIECE_BYTES), INVALID_VALUE, "gone");
}

/// Else a pointer of the program's own would be taken for one of the device's.
#[test]
fn addresses_that_the_program_uses_are_not_reserved() {
    let session = session();
    let (_, first) = session.reserve(PIECE_BYTES);
    let next = first + PIECE;
    // A page of the program's own, only where nothing is.
    let page = |at: u64| {
        let place = std::ptr::with_exposed_provenance_mut(usize::try_from(at).unwrap());
        let kind = libc::MAP_FIXED_NOREPLACE | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, where nothing is.
        let mapped = unsafe { libc::mmap(place, 4096, libc::PROT_READ, kind, -1, 0) };
        (mapped == place).then_some(mapped)
    };
    let give_back = |page| {
        // SAFETY: a page of above.
        assert_eq!(unsafe { libc::munmap(page, 4096) }, 0);
    };
    let mine = page(next).expect("the device gives these addresses next");
    let given_back = session.seen("unreserve");
    let (code, other) = session.reserve(PIECE_BYTES);
    assert_eq!((code, other == next), (OK, false));
    assert_eq!((session.synchronize(), session.seen("unreserve")), (OK, given_back + 1));
    give_back(mine);
    // What is reserved is kept free until it is given back.
    let (_, third) = session.reserve(PIECE_BYTES);
    assert!(page(third).is_none());
    for at in [first, other, third] {
        assert_eq!(session.unreserve(at, PIECE_BYTES), OK);
    }
    give_back(page(third).expect("free again"));
}

/// A device goes on where it stopped: it would never come to the end of something large by itself.
#[test]
fn what_the_program_has_where_a_device_gives_addresses_may_be_of_any_length() {
    let session = session();
    let (_, first) = session.reserve(PIECE_BYTES);
    let length = 64 << 30;
    let place = std::ptr::with_exposed_provenance_mut(usize::try_from(first + PIECE).unwrap());
    let kind = libc::MAP_FIXED_NOREPLACE | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping that nobody touches, where nothing is.
    let large = unsafe { libc::mmap(place, length, libc::PROT_NONE, kind, -1, 0) };
    assert_eq!(large, place, "the device gives these addresses next");
    let (code, other) = session.reserve(PIECE_BYTES);
    assert_eq!((code, other % PIECE), (OK, 0));
    // SAFETY: the mapping of above.
    assert_eq!(unsafe { libc::munmap(large, length) }, 0);
    let of_mine = first + PIECE..first + PIECE + length as u64;
    assert!(!of_mine.contains(&other), "{other:x}");
    // Kept free here as any other.
    let page = std::ptr::with_exposed_provenance_mut(usize::try_from(other).unwrap());
    // SAFETY: a new mapping, where nothing is.
    let mapped = unsafe { libc::mmap(page, 4096, libc::PROT_NONE, kind, -1, 0) };
    assert_eq!(mapped, libc::MAP_FAILED);
    for at in [first, other] {
        assert_eq!(session.unreserve(at, PIECE_BYTES), OK);
    }
}

#[test]
fn wrong_mappings_are_refused_at_once() {
    let session = session();
    let (_, base) = session.reserve(6 * PIECE_BYTES);
    let (_, handle) = session.create(2 * PIECE_BYTES, &PINNED);
    assert_eq!(session.map(base + PIECE, 2 * PIECE_BYTES, handle), OK);
    // The mapping is queued; it counts as one that was before.
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    let sent = session.call_count();
    let all = 2 * PIECE_BYTES;
    for (what, at, bytes, handle, code) in [
        ("mapped already", base + PIECE, all, handle, INVALID_VALUE),
        ("overlapping", base, all, handle, INVALID_VALUE),
        ("past the end", base + 5 * PIECE, all, handle, INVALID_VALUE),
        ("unaligned", base + 3 * PIECE + 4096, all, handle, INVALID_VALUE),
        ("nothing", base + 3 * PIECE, 0, handle, INVALID_VALUE),
        ("nowhere", u64::MAX - 2 * PIECE + 1, all, handle, INVALID_VALUE),
        ("no memory", base + 3 * PIECE, all, handle + 1, INVALID_VALUE),
        ("no handle", base + 3 * PIECE, all, 5, INVALID_VALUE),
        ("more than the memory", base + 3 * PIECE, 3 * PIECE_BYTES, handle, NOT_SUPPORTED),
        ("a part", base + 3 * PIECE, PIECE_BYTES, handle, NOT_SUPPORTED),
        ("half a piece", base + 3 * PIECE, PIECE_BYTES / 2, handle, NOT_SUPPORTED),
    ] {
        assert_eq!(session.map(at, bytes, handle), code, "{what}");
    }
    let (at, bytes) = (base + 3 * PIECE, all);
    for (offset, flags, code) in [(PIECE_BYTES, 0u64, NOT_SUPPORTED), (0usize, 1, INVALID_VALUE)] {
        assert_eq!(
            cu!(session.libcuda, cuMemMap(at: u64, bytes: usize, offset: usize, handle: u64, flags: u64)),
            code
        );
    }
    for (at, bytes) in
        [(base + PIECE, PIECE_BYTES), (base, 3 * PIECE_BYTES), (base + 2 * PIECE, PIECE_BYTES), (base, 0)]
    {
        assert_eq!(session.unmap(at, bytes), INVALID_VALUE);
        assert_eq!(session.open(at, bytes, READ_WRITE), INVALID_VALUE);
    }
    let mapped = (base + PIECE, 2 * PIECE_BYTES);
    assert_eq!(session.open(mapped.0, mapped.1, 2), INVALID_VALUE, "flags that there are not");
    assert_eq!(session.open_to(mapped.0, mapped.1, &[]), INVALID_VALUE);
    let other = |flags| AccessOf { location: Location { kind: 1, id: 1 }, flags };
    assert_eq!(session.open_to(mapped.0, mapped.1, &[other(READ)]), NOT_SUPPORTED, "another device");
    assert_eq!(session.unreserve(base, 6 * PIECE_BYTES), INVALID_VALUE, "something is mapped");
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(at: u64)), INVALID_VALUE, "nothing there");
    let at = base + PIECE;
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(at: u64)), INVALID_VALUE, "it is unmapped, not freed");
    assert_eq!(session.call_count(), sent, "nothing of it travels");
    assert_eq!((session.unmap(mapped.0, mapped.1), session.release(handle)), (OK, OK));
    assert_eq!(session.unreserve(base, 6 * PIECE_BYTES), OK);
}

#[test]
fn pointers_into_mappings_say_what_they_are() {
    let session = session();
    let (_, base) = session.reserve(4 * PIECE_BYTES);
    let (_, handle) = session.create(2 * PIECE_BYTES, &Properties { handle_types: POSIX_FD, ..PINNED });
    assert_eq!(session.map(base + PIECE, 2 * PIECE_BYTES, handle), OK);
    let at = base + 2 * PIECE + 100;
    let is = |number, value| assert_eq!(session.attribute(number, at), (OK, value), "attribute {number}");
    is(16, 0);
    assert_eq!(session.access(at, ON_DEVICE), (OK, 0));
    assert_eq!(session.open(base + PIECE, 2 * PIECE_BYTES, READ), OK);
    is(16, 1);
    assert_eq!(session.open(base + PIECE, 2 * PIECE_BYTES, READ_WRITE), OK);
    is(16, 3);
    assert_eq!(session.access(at, ON_DEVICE), (OK, 3));
    assert_eq!(session.access(at, Location { kind: 1, id: 1 }), (OK, 0));
    assert_eq!(session.access(base, ON_DEVICE).0, INVALID_VALUE, "nothing is mapped");
    // Type, address, managed, ordinal, IPC, reservation, mapped, exports, pool, mapping.
    for (number, value) in [
        (2, 2),
        (3, at),
        (8, 0),
        (9, 0),
        (10, 0),
        (11, base),
        (12, 4 * PIECE),
        (13, 1),
        (14, 1),
        (17, 0),
        (18, 2 * PIECE),
        (19, base + PIECE),
    ] {
        is(number, value);
    }
    assert_eq!((session.attribute(13, base), session.attribute(11, base)), ((OK, 0), (OK, base)));
    assert_eq!(session.attribute(3, base).0, INVALID_VALUE);
    let (mut start, mut bytes) = (0u64, 0usize);
    let (start_at, bytes_at) = (&raw mut start, &raw mut bytes);
    assert_eq!(
        cu!(session.libcuda, cuMemGetAddressRange_v2(start_at: *mut u64, bytes_at: *mut usize, at: u64)),
        OK
    );
    assert_eq!((start, bytes), (base + PIECE, 2 * PIECE_BYTES));
    assert_eq!(
        cu!(session.libcuda, cuMemGetAddressRange_v2(start_at: *mut u64, bytes_at: *mut usize, base: u64)),
        NOT_FOUND
    );
    // The handle again, by any address, after it was released too; it counts.
    let mut again = 0u64;
    let place = &raw mut again;
    assert_eq!(session.release(handle), OK);
    assert_eq!(session.release(handle), INVALID_VALUE, "released");
    assert_eq!(cu!(session.libcuda, cuMemRetainAllocationHandle(place: *mut u64, at: u64)), OK);
    assert_eq!(again, handle);
    assert_eq!(cu!(session.libcuda, cuMemRetainAllocationHandle(place: *mut u64, base: u64)), INVALID_VALUE);
    let ended = session.seen("memory release");
    assert_eq!(session.unmap(base + PIECE, 2 * PIECE_BYTES), OK);
    assert_eq!((session.synchronize(), session.seen("memory release")), (OK, ended), "held");
    assert_eq!((session.release(again), session.synchronize()), (OK, OK));
    assert_eq!(session.seen("memory release"), ended + 1);
    assert_eq!(session.unreserve(base, 4 * PIECE_BYTES), OK);
    assert_eq!(session.attribute(11, base).0, INVALID_VALUE, "nobody's");
}

#[test]
fn devices_have_virtual_memory_and_descriptors_of_it_and_of_pools() {
    let session = session();
    let mut attribute = 9i32;
    let attribute_at = &raw mut attribute;
    for (number, value) in
        [(102u32, 1), (POSIX_FD_SUPPORTED, 1), (110, 0), (115, 1), (POOL_HANDLE_TYPES, 1), (122, 1), (123, 1)]
    {
        assert_eq!(
            cu!(session.libcuda, cuDeviceGetAttribute(attribute_at: *mut i32, number: u32, 0: i32)),
            OK
        );
        assert_eq!(attribute, value, "{number}");
    }
}

#[test]
fn other_contexts_of_a_device_have_no_peer_access_to_give() {
    let session = session();
    let (mut made, mut own, mut can) = (0u64, 0u64, 9i32);
    let (made_at, own_at, can_at) = (&raw mut made, &raw mut own, &raw mut can);
    assert_eq!(cu!(session.libcuda, cuCtxGetCurrent(own_at: *mut u64)), OK);
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(made_at: *mut u64, 0: u32, 0: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuDeviceCanAccessPeer(can_at: *mut i32, 0: i32, 0: i32)), OK);
    assert_eq!(can, 0);
    assert_eq!(cu!(session.libcuda, cuCtxEnablePeerAccess(own: u64, 0: u32)), PEER_ACCESS_UNSUPPORTED);
    assert_eq!(cu!(session.libcuda, cuCtxEnablePeerAccess(own: u64, 1: u32)), INVALID_VALUE);
    assert_eq!(
        cu!(session.libcuda, cuCtxEnablePeerAccess(made: u64, 0: u32)),
        PEER_ACCESS_UNSUPPORTED,
        "itself"
    );
    assert_eq!(cu!(session.libcuda, cuCtxEnablePeerAccess(5: u64, 0: u32)), INVALID_CONTEXT);
    assert_eq!(cu!(session.libcuda, cuCtxDisablePeerAccess(own: u64)), PEER_ACCESS_NOT_ENABLED);
    assert_eq!(cu!(session.libcuda, cuCtxDisablePeerAccess(5: u64)), INVALID_CONTEXT);
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
}

/// Frameworks map what they need while they capture: none of it waits or is work of a stream.
#[test]
fn a_capture_forbids_no_mapping() {
    let session = session();
    let (mut stream, mut graph) = (0u64, 0u64);
    let (stream_at, graph_at) = (&raw mut stream, &raw mut graph);
    assert_eq!(cu!(session.libcuda, cuStreamCreate(stream_at: *mut u64, 1: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamBeginCapture_v2(stream: u64, 0: u32)), OK);
    let (reserved, at) = session.reserve(PIECE_BYTES);
    let (created, handle) = session.create(PIECE_BYTES, &PINNED);
    assert_eq!((reserved, created, session.map(at, PIECE_BYTES, handle)), (OK, OK, OK));
    assert_eq!(session.open(at, PIECE_BYTES, READ_WRITE), OK);
    assert_eq!(cu!(session.libcuda, cuMemsetD8Async(at: u64, 1: u8, 64: usize, stream: u64)), OK);
    assert_eq!((session.unmap(at, PIECE_BYTES), session.release(handle)), (OK, OK));
    assert_eq!(session.unreserve(at, PIECE_BYTES), OK);
    assert_eq!(cu!(session.libcuda, cuStreamEndCapture(stream: u64, graph_at: *mut u64)), OK);
    assert_eq!(cu!(session.libcuda, cuGraphDestroy(graph: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
}
