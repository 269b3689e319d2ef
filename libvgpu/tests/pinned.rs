//! Pinned memory: pieces of the arena, which the worker of these tests has mapped too. What is copied by its address is never staged.

mod support;

use std::sync::atomic::Ordering;

use support::device::{ARENA_FULL, GATE};
use support::memory::{attribute, calls, device, fill, fill_function, free_device, pattern, synchronize};
use support::session::{ARENA_BYTES, Session, session};
use vgpu_api::snapshot::CAN_MAP_HOST_MEMORY;

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const NOT_SUPPORTED: u32 = 801;

const MIB: usize = 1 << 20;
/// `CU_MEMHOSTALLOC_PORTABLE`, `…_DEVICEMAP`.
const PORTABLE: u32 = 1;
const DEVICE_MAP: u32 = 2;

/// Memory that the library gave.
struct Pinned<'a> {
    session: &'a Session,
    address: u64,
    bytes: usize,
}

impl Pinned<'_> {
    fn slice(&mut self) -> &mut [u8] {
        let place = std::ptr::with_exposed_provenance_mut(usize::try_from(self.address).unwrap());
        // SAFETY: so many bytes were allocated, and nobody else in this process has them.
        unsafe { std::slice::from_raw_parts_mut(place, self.bytes) }
    }

    fn free(self) {
        let Self { session, address, .. } = self;
        assert_eq!(cu!(session.libcuda, cuMemFreeHost(address: u64)), OK);
    }
}

fn host_alloc(session: &Session, bytes: usize, flags: u32) -> Result<Pinned<'_>, u32> {
    let mut address = 0u64;
    let at = &raw mut address;
    match cu!(session.libcuda, cuMemHostAlloc(at: *mut u64, bytes: usize, flags: u32)) {
        OK => Ok(Pinned { session, address, bytes }),
        code => Err(code),
    }
}

fn pin(session: &Session, bytes: usize) -> Pinned<'_> {
    host_alloc(session, bytes, 0).unwrap()
}

fn device_pointer(session: &Session, address: u64, flags: u32) -> Result<u64, u32> {
    let mut value = 0u64;
    let at = &raw mut value;
    match cu!(session.libcuda, cuMemHostGetDevicePointer_v2(at: *mut u64, address: u64, flags: u32)) {
        OK => Ok(value),
        code => Err(code),
    }
}

/// All that is free when nobody holds anything: a part of 2 MiB, that small pieces are cut from, lies somewhere among it, and one of 16 MiB
/// and a page through which pageable memory is copied.
fn take_nearly_all(session: &Session) {
    let most = usize::try_from(ARENA_BYTES).unwrap() / (4 * MIB) - 7;
    let all: Vec<_> = (0..most).map(|_| host_alloc(session, 4 * MIB, DEVICE_MAP)).collect();
    all.into_iter().for_each(|piece| piece.expect("all of it is free").free());
}

#[test]
fn host_and_device_have_one_address_and_the_attributes_say_so() {
    let session = session();
    let mut can_map = 0i32;
    let (at, number) = (&raw mut can_map, u32::try_from(CAN_MAP_HOST_MEMORY).unwrap());
    assert_eq!(cu!(session.libcuda, cuDeviceGetAttribute(at: *mut i32, number: u32, 0: i32)), OK);
    assert_eq!(can_map, 1);
    // What the test before this one has queued is no call of this one.
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    for bytes in [100, 3 * MIB] {
        let mut pinned = host_alloc(&session, bytes, PORTABLE | DEVICE_MAP).unwrap();
        let (start, inside) = (pinned.address, pinned.address + 50);
        pinned.slice().fill(3);
        assert_eq!(start % if bytes > MIB { 4096 } else { 256 }, 0);
        let before = session.call_count();
        let primary = vgpu_api::ContextId::primary(0).handle().raw();
        // Context, type (host), device address, host address, managed, ordinal, range, mapped.
        for (number, value) in [
            (1, primary),
            (2, 1),
            (3, inside),
            (4, inside),
            (8, 0),
            (9, 0),
            (11, start),
            (12, bytes as u64),
            (13, 1),
        ] {
            assert_eq!(attribute(&session, number, inside), Ok(value), "attribute {number}");
        }
        // As PyTorch asks.
        let (mut words, mut pointers) = ([9u32; 3], [9u64; 3]);
        let numbers = [1u32, 2, 3, 4, 8, 9];
        let places = [
            &raw mut pointers[0] as u64,
            &raw mut words[0] as u64,
            &raw mut pointers[1] as u64,
            &raw mut pointers[2] as u64,
            &raw mut words[1] as u64,
            &raw mut words[2] as u64,
        ];
        let (numbers_at, places_at) = (numbers.as_ptr(), places.as_ptr());
        let code = cu!(session.libcuda,
            cuPointerGetAttributes(6: u32, numbers_at: *const u32, places_at: *const u64, inside: u64));
        assert_eq!((code, pointers), (OK, [primary, inside, inside]));
        assert_eq!((words[0], words[1] & 0xff, words[2]), (1, 0, 0));
        let elsewhere = std::thread::scope(|scope| {
            let (numbers, mut kind) = ([2u32], 0u32);
            let (numbers, places) = (numbers.as_ptr() as u64, [&raw mut kind as u64]);
            let places = places.as_ptr() as u64;
            let library = &session.libcuda;
            let ask =
                move || cu!(library, cuPointerGetAttributes(1: u32, numbers: u64, places: u64, inside: u64));
            scope.spawn(ask).join().unwrap()
        });
        assert_eq!(elsewhere, OK, "by a thread without a context");
        assert_eq!(device_pointer(&session, inside, 0), Ok(inside));
        assert_eq!(device_pointer(&session, inside, 1), Err(INVALID_VALUE));
        let mut flags = 0u32;
        let flags_at = &raw mut flags;
        assert_eq!(cu!(session.libcuda, cuMemHostGetFlags(flags_at: *mut u32, inside: u64)), OK);
        assert_eq!(flags, PORTABLE | DEVICE_MAP);
        let code = cu!(session.libcuda, cuMemHostRegister_v2(inside: u64, 10: usize, 0: u32));
        assert_eq!(code, INVALID_VALUE, "it is no page of the program's");
        assert_eq!(cu!(session.libcuda, cuMemFree_v2(start: u64)), INVALID_VALUE, "no device memory");
        assert_eq!(cu!(session.libcuda, cuMemFreeHost(inside: u64)), INVALID_VALUE, "no start");
        assert_eq!(session.call_count(), before, "nothing of it travels");
        pinned.free();
        assert_eq!(cu!(session.libcuda, cuMemFreeHost(start: u64)), INVALID_VALUE, "twice");
        assert_eq!(attribute(&session, 2, start), Err(INVALID_VALUE));
        assert_eq!(device_pointer(&session, start, 0), Err(INVALID_VALUE));
    }
    let mut nothing = 1u64;
    let at = &raw mut nothing;
    assert_eq!(cu!(session.libcuda, cuMemHostAlloc(at: *mut u64, 0: usize, 0: u32)), OK);
    assert_eq!((nothing, cu!(session.libcuda, cuMemFreeHost(nothing: u64))), (0, OK));
    assert_eq!(host_alloc(&session, 64, 8).err(), Some(INVALID_VALUE));
}

/// The worker stands still while all is queued: what it copies are the bytes of then, as a GPU's own copies would be.
#[test]
fn an_asynchronous_copy_is_queued_and_reads_the_memory_when_its_turn_comes() {
    let session = session();
    let function = fill_function(&session);
    for bytes in [16, 100_000, 3 * MIB] {
        let (mut out, mut back, on_device) =
            (pin(&session, bytes), pin(&session, bytes), device(&session, bytes));
        let (from, to) = (out.address, back.address);
        out.slice().fill(1);
        back.slice().fill(0);
        calls(&session);
        GATE.close();
        fill(&session, function, on_device, 7, 1);
        GATE.until_reached();
        let stream = 0u64;
        let code = cu!(session.libcuda,
            cuMemcpyHtoDAsync_v2(on_device: u64, from: u64, bytes: usize, stream: u64));
        assert_eq!(code, OK);
        let code = cu!(session.libcuda,
            cuMemcpyDtoHAsync_v2(to: u64, on_device: u64, bytes: usize, stream: u64));
        assert_eq!(code, OK);
        let later = pattern(bytes, bytes);
        out.slice().copy_from_slice(&later);
        assert!(back.slice().iter().all(|byte| *byte == 0), "not yet");
        GATE.open();
        assert_eq!(calls(&session), ["launch", "copy by address", "copy by address"], "nothing is staged");
        assert!(back.slice() == later, "{bytes} bytes");
        out.free();
        back.free();
        free_device(&session, on_device);
    }
}

#[test]
fn a_synchronous_copy_returns_when_it_is_done_and_waits_once() {
    let session = session();
    let bytes = 3 * MIB;
    let (mut out, mut back, on_device) =
        (pin(&session, bytes), pin(&session, bytes), device(&session, bytes));
    let (from, to) = (out.address, back.address);
    let sent = pattern(bytes, 5);
    out.slice().copy_from_slice(&sent);
    calls(&session);
    assert_eq!(cu!(session.libcuda, cuMemcpyHtoD_v2(on_device: u64, from: u64, bytes: usize)), OK);
    out.slice().fill(0);
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(to: u64, on_device: u64, bytes: usize)), OK);
    assert!(back.slice() == sent);
    assert_eq!(calls(&session), ["copy by address", "stream sync", "copy by address", "stream sync"]);
    assert_eq!(cu!(session.libcuda, cuMemcpyHtoD_v2(on_device: u64, from: u64, 64: usize)), OK);
    out.slice().fill(9);
    assert_eq!(
        calls(&session),
        ["copy by address", "stream sync"],
        "a few bytes too, for every stream to see"
    );
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(to: u64, on_device: u64, 64: usize)), OK);
    assert_eq!(back.slice()[..65], [&[0; 64][..], &sent[64..65]].concat());
    out.free();
    back.free();
    free_device(&session, on_device);
}

#[test]
fn a_set_without_a_stream_is_done_when_it_returns() {
    let session = session();
    let (mut pinned, on_device, stream) = (pin(&session, 4096), device(&session, 4096), 0u64);
    let at = pinned.address;
    pinned.slice().fill(1);
    calls(&session);
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(at: u64, 7: u8, 64: usize)), OK);
    assert_eq!(pinned.slice()[63..65], [7, 1]);
    assert_eq!(cu!(session.libcuda, cuMemsetD2D32_v2(at: u64, 32: usize, 9: u32, 1: usize, 2: usize)), OK);
    assert_eq!(pinned.slice()[32..37], [9, 0, 0, 0, 7]);
    assert_eq!(calls(&session), ["memset", "stream sync", "memset", "stream sync"]);
    assert_eq!(cu!(session.libcuda, cuMemsetD8Async(at: u64, 8: u8, 64: usize, stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(on_device: u64, 8: u8, 64: usize)), OK);
    assert_eq!(calls(&session), ["memset"; 2], "nobody waits for these");
    pinned.free();
    free_device(&session, on_device);
}

#[test]
fn unified_copies_sets_boxes_and_kernels_take_its_addresses() {
    let session = session();
    let function = fill_function(&session);
    let (mut a, mut b, on_device) = (pin(&session, 4096), pin(&session, 2 * MIB), device(&session, 4096));
    let (at_a, at_b, stream) = (a.address, b.address, 0u64);
    let mut plain = [0u8; 16];
    let at_plain = plain.as_mut_ptr() as u64;
    calls(&session);

    a.slice().fill(1);
    assert_eq!(cu!(session.libcuda, cuMemcpyAsync(on_device: u64, at_a: u64, 4096: usize, stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpyAsync(at_b: u64, on_device: u64, 4096: usize, stream: u64)), OK);
    assert_eq!(calls(&session), ["copy by address"; 2]);
    assert!(b.slice()[..4096].iter().all(|byte| *byte == 1));
    // From pinned to pinned, in the stream's order; without Async it is done.
    a.slice().fill(2);
    assert_eq!(cu!(session.libcuda, cuMemcpy(at_b: u64, at_a: u64, 4096: usize)), OK);
    assert_eq!(b.slice()[4095], 2);
    assert_eq!(calls(&session), ["copy by address", "stream sync"]);
    // To and from what is the program's own, by the program.
    assert_eq!(cu!(session.libcuda, cuMemcpy(at_plain: u64, at_a: u64, 16: usize)), OK);
    plain.iter_mut().for_each(|byte| *byte += 1);
    assert_eq!(cu!(session.libcuda, cuMemcpy(at_a: u64, at_plain: u64, 16: usize)), OK);
    assert_eq!(a.slice()[14..18], [3, 3, 2, 2]);

    assert_eq!(cu!(session.libcuda, cuMemsetD8Async(at_a: u64, 5: u8, 4000: usize, stream: u64)), OK);
    let tail = at_a + 4000;
    fill(&session, function, tail, 0x0807_0605, 24);
    assert_eq!(synchronize(&session), OK);
    assert_eq!(a.slice()[3998..4002], [5, 5, 5, 6]);
    assert_eq!(a.slice()[4092..], [5, 6, 7, 8]);

    // Two rows of 8 bytes, 16 apart, to rows that follow each other: x, y, kind, host, device, array, pitch.
    a.slice()[..32].copy_from_slice(&pattern(32, 0));
    calls(&session);
    let there = [0, 0, 1, at_a, 0, 0, 16, 0, 0, 2, 0, on_device, 0, 8, 8, 2];
    let back = [0, 0, 2, 0, on_device, 0, 8, 0, 0, 1, at_b, 0, 0, 8, 8, 2];
    let (there_at, back_at) = (there.as_ptr(), back.as_ptr());
    assert_eq!(cu!(session.libcuda, cuMemcpy2DAsync_v2(there_at: *const u64, stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpy2D_v2(back_at: *const u64)), OK);
    let rows = [&pattern(32, 0)[..8], &pattern(32, 0)[16..24]].concat();
    assert_eq!(b.slice()[..16], rows);
    assert_eq!(calls(&session), [&["copy by address"; 3][..], &["stream sync"]].concat());
    a.free();
    b.free();
    free_device(&session, on_device);
}

/// A batch's order of access says whether its sources are still there when it has returned: in the stream's order, during the call.
#[test]
fn a_batch_is_queued_but_for_sources_that_are_there_during_the_call_only() {
    let session = session();
    let (bytes, mut stream, none) = (100_000, 0u64, 0u32);
    let stream_at = &raw mut stream;
    assert_eq!(cu!(session.libcuda, cuStreamCreate(stream_at: *mut u64, none: u32)), OK);
    let (mut source, on_device) = (pin(&session, bytes), device(&session, 3 * bytes));
    source.slice().fill(3);
    calls(&session);
    let (to, from) = ([0, 1, 2].map(|i| on_device + i * bytes as u64), [source.address; 3]);
    let (sizes, attributes, first) = ([bytes; 3], [[1u32, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]], [0usize, 2]);
    let (to, from, sizes) = (to.as_ptr(), from.as_ptr(), sizes.as_ptr());
    let (attributes, first) = (attributes.as_ptr(), first.as_ptr());
    let code = cu!(session.libcuda, cuMemcpyBatchAsync_v2(to: *const u64, from: *const u64, sizes: *const usize,
        3: usize, attributes: *const [u32; 6], first: *const usize, 2: usize, stream: u64));
    assert_eq!(code, OK);
    source.slice().fill(0);
    let copy = "copy by address";
    assert_eq!(calls(&session), [copy, copy, copy, "stream sync"]);
    let (mut last, last_at) = ([0u8; 4], on_device + 2 * bytes as u64);
    let place = last.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(place: *mut u8, last_at: u64, 4: usize)), OK);
    assert_eq!(last, [3; 4], "it was read before the call returned");
    calls(&session);
    let (few, during_call) = ([64usize], [[2u32, 0, 0, 0, 0, 0]]);
    let (few, during_call) = (few.as_ptr(), during_call.as_ptr());
    let code = cu!(session.libcuda, cuMemcpyBatchAsync_v2(to: *const u64, from: *const u64, few: *const usize,
        1: usize, during_call: *const [u32; 6], first: *const usize, 1: usize, stream: u64));
    assert_eq!((code, calls(&session)), (OK, vec!["htod"]), "a few bytes are taken along");
    source.free();
    free_device(&session, on_device);
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
}

#[test]
fn words_of_streams_may_be_pinned_ones() {
    let session = session();
    let (mut words, stream) = (pin(&session, 64), 0u64);
    let at = words.address;
    let write = cu!(session.libcuda, cuStreamWriteValue32_v2(stream: u64, at: u64, 5: u32, 0: u32));
    let wait = cu!(session.libcuda, cuStreamWaitValue32_v2(stream: u64, at: u64, 5: u32, 1: u32));
    assert_eq!((write, wait, synchronize(&session)), (OK, OK, OK));
    assert_eq!(words.slice()[..4], [5, 0, 0, 0]);
    words.free();
}

#[test]
fn reserved_addresses_without_memory_are_no_side_of_a_copy() {
    let session = session();
    let (pinned, stream) = (pin(&session, 4096), 0u64);
    let (at, bytes, mut reserved, null) = (pinned.address, 2 * MIB, 0u64, 0u64);
    let out = &raw mut reserved;
    let code = cu!(session.libcuda, cuMemAddressReserve(out: *mut u64, bytes: usize, 0: usize, null: u64, null: u64));
    assert_eq!(code, OK);
    calls(&session);
    let to = cu!(session.libcuda, cuMemcpyAsync(reserved: u64, at: u64, 16: usize, stream: u64));
    let from = cu!(session.libcuda, cuMemcpyAsync(at: u64, reserved: u64, 16: usize, stream: u64));
    // A row of 16 bytes, by two unified addresses: x, y, kind, host, device, array, pitch.
    let row = [0, 0, 4, 0, at, 0, 0, 0, 0, 4, 0, reserved, 0, 0, 16, 1];
    let row = row.as_ptr();
    let boxed = cu!(session.libcuda, cuMemcpy2DAsync_v2(row: *const u64, stream: u64));
    assert_eq!([to, from, boxed], [INVALID_VALUE; 3]);
    assert_eq!(calls(&session), Vec::<&str>::new());
    assert_eq!(cu!(session.libcuda, cuMemAddressFree(reserved: u64, bytes: usize)), OK);
    pinned.free();
}

#[test]
fn a_copy_past_the_end_of_a_piece_is_refused_at_once() {
    let session = session();
    let (pinned, on_device, stream) = (pin(&session, 1000), device(&session, 8192), 0u64);
    let (whole, inside, end) = (pinned.address, pinned.address + 900, on_device + 8000);
    calls(&session);
    for (from, bytes) in [(whole, 1001), (inside, 101), (inside, 4096)] {
        let code = cu!(session.libcuda,
            cuMemcpyHtoDAsync_v2(on_device: u64, from: u64, bytes: usize, stream: u64));
        assert_eq!(code, INVALID_VALUE, "{bytes} bytes");
        let code = cu!(session.libcuda, cuMemcpyAsync(from: u64, on_device: u64, bytes: usize, stream: u64));
        assert_eq!(code, INVALID_VALUE, "{bytes} bytes");
    }
    for (at, bytes) in [(on_device, 8193), (end, 193), (whole, 1001)] {
        assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(at: u64, 1: u8, bytes: usize)), INVALID_VALUE);
    }
    let code = cu!(session.libcuda, cuMemcpyDtoHAsync_v2(whole: u64, end: u64, 193: usize, stream: u64));
    assert_eq!(code, INVALID_VALUE, "nor what the device does not have");
    assert_eq!(
        cu!(session.libcuda, cuMemcpyDtoHAsync_v2(whole: u64, on_device: u64, 0: usize, stream: u64)),
        OK
    );
    assert_eq!(calls(&session), Vec::<&str>::new());
    pinned.free();
    free_device(&session, on_device);
}

#[test]
fn small_pieces_share_a_part_and_large_ones_are_given_back_to_the_system() {
    let session = session();
    // One part stays for the next small piece, whoever ran before.
    pin(&session, 1).free();
    calls(&session);
    let mut small: Vec<_> = (1..=100).map(|bytes| pin(&session, bytes * 7)).collect();
    for (number, piece) in small.iter_mut().enumerate() {
        piece.slice().fill(u8::try_from(number).unwrap());
    }
    for (number, piece) in small.iter_mut().enumerate() {
        assert!(piece.slice().iter().all(|byte| usize::from(*byte) == number));
    }
    assert_eq!(calls(&session), Vec::<&str>::new(), "there is room for all of them");
    small.into_iter().for_each(Pinned::free);
    assert_eq!(calls(&session), ["arena settle"; 100], "a copy may be on its way to each");

    let mut large = pin(&session, 5 * MIB + 1);
    large.slice().fill(6);
    let first = large.address;
    large.free();
    assert_eq!(calls(&session), ["arena add", "arena remove"]);
    let mut again = pin(&session, 5 * MIB + 1);
    assert_eq!(again.address, first);
    assert!(again.slice().iter().all(|byte| *byte == 0), "pages of the system's");
    again.free();
}

#[test]
fn without_room_pages_of_the_process_take_its_place_but_for_who_asks_for_a_device_address() {
    let session = session();
    let on_device = device(&session, 100_000);
    let full = |bytes: usize, seen: &[&str]| {
        assert_eq!(host_alloc(&session, bytes, DEVICE_MAP).err(), Some(OUT_OF_MEMORY));
        let mut own = host_alloc(&session, bytes, PORTABLE).unwrap();
        let address = own.address;
        assert_eq!((attribute(&session, 2, address), attribute(&session, 4, address)), (Ok(1), Ok(address)));
        assert_eq!((attribute(&session, 3, address), attribute(&session, 13, address)), (Err(1), Ok(0)));
        assert_eq!(device_pointer(&session, address, 0), Err(NOT_SUPPORTED));
        let (sent, stream) = (pattern(100_000, bytes), 0u64);
        own.slice()[..100_000].copy_from_slice(&sent);
        calls(&session);
        let code = cu!(session.libcuda,
            cuMemcpyHtoDAsync_v2(on_device: u64, address: u64, 100_000: usize, stream: u64));
        assert_eq!(code, OK);
        own.slice().fill(0);
        let code = cu!(session.libcuda,
            cuMemcpyDtoHAsync_v2(address: u64, on_device: u64, 100_000: usize, stream: u64));
        assert_eq!(code, OK);
        assert_eq!(calls(&session), seen);
        assert!(own.slice()[..100_000] == sent);
        own.free();
    };
    ARENA_FULL.store(true, Ordering::Relaxed);
    // The worker is asked once; and again when a piece was given back: then copies go through it.
    full(3 * MIB, &["arena add", "htod staged", "dtoh"]);
    ARENA_FULL.store(false, Ordering::Relaxed);
    pin(&session, 3 * MIB).free();
    let too_much = usize::try_from(ARENA_BYTES).unwrap() + 1;
    full(too_much, &["arena add", "copy, then write", "copy, then wait"]);
    full(too_much, &["copy, then write", "copy, then wait"]);
    assert_eq!(host_alloc(&session, usize::MAX, 0).err(), Some(OUT_OF_MEMORY));
    take_nearly_all(&session);
    free_device(&session, on_device);
}

#[test]
fn what_a_context_pinned_ends_with_it_and_what_another_pinned_does_not() {
    let session = session();
    let mut kept = pin(&session, 2 * MIB);
    kept.slice().fill(8);
    let mut made = 0u64;
    let made_at = &raw mut made;
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(made_at: *mut u64, 0: u32, 0: i32)), OK);
    let (small, large) = (pin(&session, 100).address, pin(&session, 2 * MIB).address);
    // It is every context's while it is there.
    let on_device = device(&session, 64);
    let from = kept.address;
    assert_eq!(cu!(session.libcuda, cuMemcpyHtoDAsync_v2(on_device: u64, from: u64, 64: usize, 0: u64)), OK);
    assert_eq!(synchronize(&session), OK);
    assert_eq!(attribute(&session, 1, large), Ok(made));
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
    let seen = calls(&session);
    assert_eq!(seen[seen.len() - 3..], ["ctx destroy", "arena settle", "arena remove"]);
    for gone in [small, large] {
        assert_eq!(cu!(session.libcuda, cuMemFreeHost(gone: u64)), INVALID_VALUE);
        assert_eq!(attribute(&session, 2, gone), Err(INVALID_VALUE));
    }
    assert!(kept.slice().iter().all(|byte| *byte == 8));
    kept.free();
}

#[test]
fn threads_pin_and_free_at_once_and_nobody_gets_what_another_has() {
    let session = session();
    let primary = vgpu_api::ContextId::primary(0).handle().raw();
    std::thread::scope(|scope| {
        for thread in 1..=8u8 {
            let session = &session;
            scope.spawn(move || {
                assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(primary: u64)), OK);
                let mut held: Vec<Pinned<'_>> = Vec::new();
                for round in 0..150usize {
                    let sizes = [1, 600, 4096, 70_000, 600_000, 3 * MIB];
                    let mut piece = pin(session, sizes[(round * 7 + usize::from(thread)) % sizes.len()]);
                    piece.slice().fill(thread);
                    held.push(piece);
                    if held.len() > 2 {
                        let mut piece = held.swap_remove(round % held.len());
                        assert!(piece.slice().iter().all(|byte| *byte == thread), "another has it");
                        piece.free();
                    }
                }
                held.into_iter().for_each(Pinned::free);
            });
        }
    });
    calls(&session);
    take_nearly_all(&session);
}

/// One address for program and device: a node needs nobody to read or write for it.
#[test]
fn a_capture_takes_copies_of_pinned_memory_and_a_launch_of_them_does_not_wait() {
    let session = session();
    let (mut pinned, on_device, pageable) = (pin(&session, 256), device(&session, 256), [9u8; 64]);
    let (host, mut stream) = (pinned.address, 0u64);
    let stream_at = &raw mut stream;
    assert_eq!(cu!(session.libcuda, cuStreamCreate(stream_at: *mut u64, 1: u32)), OK);
    let capture = |work: &dyn Fn()| {
        assert_eq!(cu!(session.libcuda, cuStreamBeginCapture_v2(stream: u64, 0: u32)), OK);
        work();
        let (mut graph, mut exec) = (0u64, 0u64);
        let (graph_at, exec_at) = (&raw mut graph, &raw mut exec);
        assert_eq!(cu!(session.libcuda, cuStreamEndCapture(stream: u64, graph_at: *mut u64)), OK);
        let made = cu!(session.libcuda, cuGraphInstantiateWithFlags(exec_at: *mut u64, graph: u64, 0: u64));
        assert_eq!((made, cu!(session.libcuda, cuGraphDestroy(graph: u64))), (OK, OK));
        exec
    };
    let launch = |exec: u64| {
        calls(&session);
        assert_eq!(cu!(session.libcuda, cuGraphLaunch(exec: u64, stream: u64)), OK);
        calls(&session)
    };
    let (back, beside, rows) = (host + 64, host + 128, host + 192);
    let by_address = capture(&|| {
        assert_eq!(
            cu!(session.libcuda, cuMemcpyHtoDAsync_v2(on_device: u64, host: u64, 64: usize, stream: u64)),
            OK
        );
        assert_eq!(
            cu!(session.libcuda, cuMemcpyDtoHAsync_v2(back: u64, on_device: u64, 64: usize, stream: u64)),
            OK
        );
        assert_eq!(cu!(session.libcuda, cuMemcpyAsync(beside: u64, back: u64, 64: usize, stream: u64)), OK);
        // Two rows of 8 bytes, 16 apart on the device, from its first and its third 8 bytes.
        let side = |kind: u64, address: u64, pitch: u64| match kind {
            1 => [0, 0, 1, address, 0, 0, pitch],
            _ => [0, 0, kind, 0, address, 0, pitch],
        };
        let copy: Vec<u64> = [&side(2, on_device, 16)[..], &side(1, rows, 8), &[8, 2]].concat();
        let copy = copy.as_ptr();
        assert_eq!(cu!(session.libcuda, cuMemcpy2DAsync_v2(copy: *const u64, stream: u64)), OK);
    });
    for seed in [1, 2] {
        let bytes = pattern(64, seed);
        pinned.slice()[..64].copy_from_slice(&bytes);
        assert_eq!(launch(by_address), ["graph launch"]);
        let slice = pinned.slice();
        assert_eq!((&slice[64..128], &slice[128..192]), (&bytes[..], &bytes[..]));
        assert_eq!((&slice[192..200], &slice[200..208]), (&bytes[..8], &bytes[16..24]));
    }

    // The program's own memory on the other side: this library reads it, and waits.
    let from = pageable.as_ptr() as u64;
    let mixed = capture(&|| {
        assert_eq!(cu!(session.libcuda, cuMemcpyAsync(back: u64, from: u64, 64: usize, stream: u64)), OK);
    });
    assert_eq!(launch(mixed), ["graph put", "graph launch", "stream sync"]);
    assert_eq!(pinned.slice()[64..128], pageable);

    pinned.free();
    for exec in [by_address, mixed] {
        assert_eq!(cu!(session.libcuda, cuGraphExecDestroy(exec: u64)), OK);
    }
    free_device(&session, on_device);
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
}
