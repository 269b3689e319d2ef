//! Managed memory: pieces of the arena that are told of as the device's. What kernels and copies write there the program reads, and the
//! other way round.

mod support;

use support::device::{ARENA_FULL, GATE};
use support::memory::{attribute, calls, device, fill, fill_function, free_device, pattern, synchronize};
use support::session::{ARENA_BYTES, Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const INVALID_DEVICE: u32 = 101;
const INVALID_HANDLE: u32 = 400;
const NOT_FOUND: u32 = 500;
const NOT_SUPPORTED: u32 = 801;
const CAPTURE_UNSUPPORTED: u32 = 900;
const CAPTURE_INVALIDATED: u32 = 901;

const MIB: usize = 1 << 20;
/// `CU_MEM_ATTACH_*`.
const GLOBAL: u32 = 1;
const HOST: u32 = 2;
const SINGLE: u32 = 4;
/// `CU_DEVICE_CPU`, `CU_DEVICE_INVALID`.
const CPU: i32 = -1;
const NO_DEVICE: i32 = -2;

/// Managed memory of a test.
struct Managed<'a> {
    session: &'a Session,
    address: u64,
    bytes: usize,
}

impl Managed<'_> {
    fn slice(&mut self) -> &mut [u8] {
        let place = std::ptr::with_exposed_provenance_mut(usize::try_from(self.address).unwrap());
        // SAFETY: so many bytes were allocated, and nobody else in this process has them.
        unsafe { std::slice::from_raw_parts_mut(place, self.bytes) }
    }

    fn free(self) {
        free_device(self.session, self.address);
    }
}

fn managed_with(session: &Session, bytes: usize, flags: u32) -> Result<Managed<'_>, u32> {
    let mut address = 0u64;
    let at = &raw mut address;
    match cu!(session.libcuda, cuMemAllocManaged(at: *mut u64, bytes: usize, flags: u32)) {
        OK => Ok(Managed { session, address, bytes }),
        code => Err(code),
    }
}

fn managed(session: &Session, bytes: usize) -> Managed<'_> {
    managed_with(session, bytes, GLOBAL).unwrap()
}

fn stream(session: &Session) -> u64 {
    let mut stream = 0u64;
    let at = &raw mut stream;
    assert_eq!(cu!(session.libcuda, cuStreamCreate(at: *mut u64, 1: u32)), OK);
    stream
}

fn end_stream(session: &Session, stream: u64) {
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
}

#[test]
fn it_has_one_address_and_is_told_of_as_the_devices() {
    let session = session();
    for (number, value) in [(83, 1), (88, 0), (89, 0), (100, 0), (101, 0)] {
        let mut found = 9i32;
        let at = &raw mut found;
        assert_eq!(cu!(session.libcuda, cuDeviceGetAttribute(at: *mut i32, number: u32, 0: i32)), OK);
        assert_eq!(found, value, "device attribute {number}");
    }
    let primary = vgpu_api::ContextId::primary(0).handle().raw();
    for (bytes, flags) in [(100, GLOBAL), (3 * MIB, HOST)] {
        let mut memory = managed_with(&session, bytes, flags).unwrap();
        memory.slice().fill(3);
        let (start, inside) = (memory.address, memory.address + 50);
        let before = session.call_count();
        // Context, type (device), device address, host address, managed, ordinal, range, mapped, the whole of what is mapped.
        for (number, value) in [
            (1, primary),
            (2, 2),
            (3, inside),
            (4, inside),
            (8, 1),
            (9, 0),
            (11, start),
            (12, bytes as u64),
            (13, 1),
            (18, bytes as u64),
            (19, start),
        ] {
            assert_eq!(attribute(&session, number, inside), Ok(value), "attribute {number}");
        }
        let (mut base, mut length) = (0u64, 0usize);
        let (base_at, length_at) = (&raw mut base, &raw mut length);
        let code = cu!(session.libcuda, cuMemGetAddressRange_v2(base_at: *mut u64, length_at: *mut usize, inside: u64));
        assert_eq!((code, base, length), (OK, start, bytes));
        // It is no pinned memory, and only its start is freed.
        let place = &raw mut base;
        let flags_of = cu!(session.libcuda, cuMemHostGetFlags(place: *mut u64, start: u64));
        let mapped = cu!(session.libcuda, cuMemHostGetDevicePointer_v2(place: *mut u64, start: u64, 0: u32));
        let as_pinned = cu!(session.libcuda, cuMemFreeHost(start: u64));
        let in_the_middle = cu!(session.libcuda, cuMemFree_v2(inside: u64));
        assert_eq!([flags_of, mapped, as_pinned, in_the_middle], [INVALID_VALUE; 4]);
        assert_eq!(session.call_count(), before, "nothing of it travels");
        memory.free();
        assert_eq!(cu!(session.libcuda, cuMemFree_v2(start: u64)), INVALID_VALUE, "twice");
        assert_eq!(attribute(&session, 8, start), Err(INVALID_VALUE));
        let code = cu!(session.libcuda, cuMemGetAddressRange_v2(base_at: *mut u64, length_at: *mut usize, inside: u64));
        assert_eq!(code, NOT_FOUND);
    }
    let mut pinned = 0u64;
    let pinned_at = &raw mut pinned;
    assert_eq!(cu!(session.libcuda, cuMemAllocHost_v2(pinned_at: *mut u64, 100: usize)), OK);
    assert_eq!((attribute(&session, 2, pinned), attribute(&session, 8, pinned)), (Ok(1), Ok(0)));
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(pinned: u64)), INVALID_VALUE);
    assert_eq!(cu!(session.libcuda, cuMemFreeHost(pinned: u64)), OK);
}

#[test]
fn what_cannot_be_allocated_is_refused() {
    let session = session();
    let refused = |bytes: usize, flags: u32| managed_with(&session, bytes, flags).err();
    assert_eq!(refused(0, GLOBAL), Some(INVALID_VALUE));
    for flags in [0, GLOBAL | HOST, SINGLE, 8, u32::MAX] {
        assert_eq!(refused(64, flags), Some(INVALID_VALUE), "flags {flags}");
    }
    assert_eq!(cu!(session.libcuda, cuMemAllocManaged(0: u64, 64: usize, GLOBAL: u32)), INVALID_VALUE);
    assert_eq!(refused(usize::try_from(ARENA_BYTES).unwrap() + 1, GLOBAL), Some(OUT_OF_MEMORY));
    assert_eq!(refused(usize::MAX, GLOBAL), Some(OUT_OF_MEMORY));
    ARENA_FULL.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(refused(3 * MIB, GLOBAL), Some(OUT_OF_MEMORY), "no pages of the program's own take its place");
    ARENA_FULL.store(false, std::sync::atomic::Ordering::Relaxed);
    managed(&session, 3 * MIB).free();
}

#[test]
fn a_kernel_writes_what_the_program_reads() {
    let session = session();
    let function = fill_function(&session);
    let mut memory = managed(&session, 4096);
    memory.slice().fill(1);
    fill(&session, function, memory.address + 8, 0x0807_0605, 1);
    assert_eq!(synchronize(&session), OK);
    assert_eq!(memory.slice()[..13], [1, 1, 1, 1, 1, 1, 1, 1, 5, 6, 7, 8, 1]);
    memory.free();
}

/// A call that is not asynchronous has done its copy, since the program may look at once.
#[test]
fn copies_take_it_as_host_and_as_device_on_either_side() {
    let session = session();
    let (copied, waited) = ("copy by address", "stream sync");
    for bytes in [64, 100_000] {
        let (mut a, mut b, on_device) =
            (managed(&session, bytes), managed(&session, bytes), device(&session, bytes));
        let (at_a, at_b) = (a.address, b.address);
        let (sent, mut plain) = (pattern(bytes, 3), vec![0u8; bytes]);
        let (from, to) = (sent.as_ptr() as u64, plain.as_mut_ptr() as u64);
        calls(&session);
        // From the program's own memory, however that travels, to the device, which it is on.
        assert_eq!(cu!(session.libcuda, cuMemcpyHtoD_v2(at_a: u64, from: u64, bytes: usize)), OK);
        assert!(a.slice() == sent);
        assert_eq!(calls(&session).last(), Some(&waited));
        // From the host, which it is on, to the device.
        assert_eq!(cu!(session.libcuda, cuMemcpyHtoD_v2(on_device: u64, at_a: u64, bytes: usize)), OK);
        assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(at_b: u64, on_device: u64, bytes: usize)), OK);
        assert!(b.slice() == sent);
        assert_eq!(calls(&session), [copied, waited, copied, waited]);
        assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(to: u64, at_b: u64, bytes: usize)), OK);
        assert!(plain == sent);
        calls(&session);
        // On the device alone.
        b.slice().fill(0);
        assert_eq!(cu!(session.libcuda, cuMemcpyDtoD_v2(at_b: u64, on_device: u64, bytes: usize)), OK);
        assert!(b.slice() == sent);
        a.slice().fill(7);
        assert_eq!(cu!(session.libcuda, cuMemcpyDtoD_v2(on_device: u64, at_a: u64, bytes: usize)), OK);
        assert_eq!(calls(&session), ["dtod", waited, "dtod"]);
        // By unified addresses, of all kinds.
        for (dst, src) in [(at_b, at_a), (on_device, at_b), (at_a, on_device), (at_b, from), (to, at_b)] {
            assert_eq!(cu!(session.libcuda, cuMemcpy(dst: u64, src: u64, bytes: usize)), OK);
        }
        assert!(a.slice().iter().all(|byte| *byte == 7) && b.slice() == sent && plain == sent);
        let by_the_program = waited;
        assert_eq!(
            calls(&session),
            [copied, waited, copied, waited, copied, waited, by_the_program, by_the_program]
        );
        a.free();
        b.free();
        free_device(&session, on_device);
    }
}

#[test]
fn sets_and_rows_are_done_when_they_return() {
    let session = session();
    let (mut memory, on_device) = (managed(&session, 4096), device(&session, 4096));
    let at = memory.address;
    memory.slice().fill(1);
    calls(&session);
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(at: u64, 7: u8, 64: usize)), OK);
    assert_eq!(memory.slice()[63..65], [7, 1]);
    assert_eq!(calls(&session), ["memset", "stream sync"]);
    // Two rows of 8 bytes, 16 apart in memory of the program's own; there it is named as the device's.
    let own = pattern(32, 1);
    let copy = [0, 0, 1, own.as_ptr() as u64, 0, 0, 16, 0, 0, 2, 0, at, 0, 8, 8, 2];
    let copy_at = copy.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpy2D_v2(copy_at: *const u64)), OK);
    assert_eq!(memory.slice()[..17], [&own[..8], &own[16..24], &[7]].concat());
    assert_eq!(calls(&session), ["htod", "htod", "stream sync"]);
    // The same rows to the device and back to another place, the way told by the addresses.
    let there = [0, 0, 4, 0, at, 0, 8, 0, 0, 4, 0, on_device, 0, 32, 8, 2];
    let back = [0, 0, 2, 0, on_device, 0, 32, 0, 0, 2, 0, at + 100, 0, 8, 8, 2];
    let (there_at, back_at) = (there.as_ptr(), back.as_ptr());
    assert_eq!(cu!(session.libcuda, cuMemcpy2DAsync_v2(there_at: *const u64, 0: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpy2D_v2(back_at: *const u64)), OK);
    assert_eq!(memory.slice()[100..116], [&own[..8], &own[16..24]].concat());
    assert_eq!(calls(&session), [&["copy by address"; 4][..], &["stream sync"]].concat());
    memory.free();
    free_device(&session, on_device);
}

/// The worker stands still while all is queued: a free comes after that, and only then somebody else gets the memory.
#[test]
fn it_is_freed_after_all_that_was_queued_and_with_its_context() {
    let session = session();
    let function = fill_function(&session);
    managed(&session, 1).free();
    let large = managed(&session, 5 * MIB);
    let first = large.address;
    calls(&session);
    GATE.close();
    fill(&session, function, first, 7, 1);
    GATE.until_reached();
    std::thread::scope(|scope| {
        let freed = scope.spawn(|| {
            let primary = vgpu_api::ContextId::primary(0).handle().raw();
            assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(primary: u64)), OK);
            free_device(&session, first);
            session.call_count()
        });
        GATE.open();
        assert_eq!(freed.join().unwrap(), 2, "the kernel, and the end of the memory behind it");
    });
    assert_eq!(calls(&session), ["launch", "arena remove"]);
    let mut again = managed(&session, 5 * MIB);
    assert_eq!(again.address, first);
    assert!(again.slice().iter().all(|byte| *byte == 0), "pages of the system's");
    again.free();

    let mut made = 0u64;
    let made_at = &raw mut made;
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(made_at: *mut u64, 0: u32, 0: i32)), OK);
    let (small, large) = (managed(&session, 100).address, managed(&session, 2 * MIB).address);
    assert_eq!(attribute(&session, 1, large), Ok(made));
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
    let seen = calls(&session);
    assert_eq!(seen[seen.len() - 3..], ["ctx destroy", "arena settle", "arena remove"]);
    for gone in [small, large] {
        assert_eq!(cu!(session.libcuda, cuMemFree_v2(gone: u64)), INVALID_VALUE);
        assert_eq!(attribute(&session, 8, gone), Err(INVALID_VALUE));
    }
}

/// `CUmemLocation`, in a register.
fn location(kind: u32, id: i32) -> u64 {
    u64::from(kind) | u64::from(id.cast_unsigned()) << 32
}

fn range_attribute(session: &Session, number: u32, at: u64, bytes: usize) -> Result<i32, u32> {
    let mut value = 99i32;
    let out = &raw mut value;
    let code = cu!(session.libcuda, cuMemRangeGetAttribute(out: *mut i32, 4: usize, number: u32, at: u64, bytes: usize));
    if code == OK { Ok(value) } else { Err(code) }
}

#[test]
fn advice_for_the_host_is_kept_page_by_page_and_none_for_the_device_is_taken() {
    let session = session();
    let memory = managed(&session, 4 * 4096 + MIB);
    let (at, whole) = (memory.address, memory.bytes);
    let before = session.call_count();
    let advise = |from: u64, bytes: usize, advice: u32, device: i32| cu!(session.libcuda, cuMemAdvise(from: u64, bytes: usize, advice: u32, device: i32));
    let advise_at = |advice: u32, place: u64| cu!(session.libcuda, cuMemAdvise_v2(at: u64, 4096: usize, advice: u32, place: u64));
    // READ_MOSTLY 1 and 2, PREFERRED_LOCATION 3 and 4, ACCESSED_BY 5 and 6; a byte stands for its page.
    assert_eq!(range_attribute(&session, 1, at, whole), Ok(0));
    assert_eq!(advise(at + 4095, 2, 1, 0), OK);
    assert_eq!(range_attribute(&session, 1, at, 8192), Ok(1));
    assert_eq!(range_attribute(&session, 1, at, 8193), Ok(0));
    assert_eq!(advise(at, whole, 1, CPU), OK);
    assert_eq!(range_attribute(&session, 1, at, whole), Ok(1));
    assert_eq!(advise(at + 4096, 1, 2, 0), OK);
    assert_eq!(
        [0, 1, 2].map(|page| range_attribute(&session, 1, at + page * 4096, 4096)),
        [Ok(1), Ok(0), Ok(1)]
    );
    assert_eq!(range_attribute(&session, 2, at, 1), Ok(NO_DEVICE));
    assert_eq!((advise(at, 8192, 3, CPU), range_attribute(&session, 2, at, 8192)), (OK, Ok(CPU)));
    assert_eq!(
        (range_attribute(&session, 5, at, 8192), range_attribute(&session, 5, at, 8193)),
        (Ok(2), Ok(0))
    );
    assert_eq!((advise(at, 4096, 4, 0), range_attribute(&session, 2, at, 1)), (OK, Ok(NO_DEVICE)));
    assert_eq!((advise_at(3, location(2, 55)), range_attribute(&session, 2, at, 1)), (OK, Ok(CPU)));
    assert_eq!(advise_at(5, location(2, 0)), OK);
    let mut processors = [9i32; 3];
    let list = processors.as_mut_ptr();
    let accessed_by = |bytes: usize, room: usize| cu!(session.libcuda, cuMemRangeGetAttribute(list: *mut i32, room: usize, 3: u32, at: u64, bytes: usize));
    assert_eq!([accessed_by(1, 0), accessed_by(1, 5)], [INVALID_VALUE; 2]);
    assert_eq!((accessed_by(4096, 12), processors), (OK, [CPU, NO_DEVICE, NO_DEVICE]));
    assert_eq!((accessed_by(4097, 12), processors), (OK, [NO_DEVICE; 3]));
    assert_eq!((advise(at, 1, 6, CPU), accessed_by(1, 8), processors), (OK, OK, [NO_DEVICE; 3]));
    // What was never prefetched: place, type, number.
    assert_eq!(
        [4, 7, 8].map(|number| range_attribute(&session, number, at, 1)),
        [Ok(NO_DEVICE), Ok(0), Ok(0)]
    );
    // Two questions at once.
    let (mut words, numbers, rooms) = ([9i32; 2], [1u32, 2], [4usize; 2]);
    let outs = [&raw mut words[0], &raw mut words[1]];
    let (outs, rooms, numbers) = (outs.as_ptr(), rooms.as_ptr(), numbers.as_ptr());
    let code = cu!(session.libcuda, cuMemRangeGetAttributes(outs: *const *mut i32, rooms: *const usize,
        numbers: *const u32, 2: usize, at: u64, 4096: usize));
    assert_eq!((code, words), (OK, [1, CPU]));

    // Devices, whose attribute 89 is 0, nodes of the host's memory, what is no place.
    for advice in [3, 5, 6] {
        assert_eq!(
            [advise(at, 1, advice, 0), advise(at, 1, advice, 7)],
            [INVALID_DEVICE; 2],
            "advice {advice}"
        );
        assert_eq!(advise_at(advice, location(1, 0)), INVALID_DEVICE);
        assert_eq!(
            [advise_at(advice, location(0, 0)), advise_at(advice, location(9, 0))],
            [INVALID_VALUE; 2]
        );
    }
    assert_eq!([3, 4].map(|kind| advise_at(3, location(kind, 0))), [NOT_SUPPORTED; 2]);
    assert_eq!([3, 4].map(|kind| advise_at(5, location(kind, 0))), [INVALID_VALUE; 2]);
    assert_eq!([0, 7].map(|advice| advise(at, 1, advice, CPU)), [INVALID_VALUE; 2]);
    assert_eq!([0, 9].map(|number| range_attribute(&session, number, at, 1)), [Err(INVALID_VALUE); 2]);
    let wrong =
        cu!(session.libcuda, cuMemRangeGetAttribute(list: *mut i32, 8: usize, 1: u32, at: u64, 1: usize));
    assert_eq!(wrong, INVALID_VALUE, "a word in two");
    // What does not lie in one managed allocation.
    let own = 7u64;
    for (from, bytes) in
        [(at, 0), (at, whole + 1), (at + 1, whole), (&raw const own as u64, 8), (at, usize::MAX)]
    {
        assert_eq!(advise(from, bytes, 1, 0), INVALID_VALUE);
        assert_eq!(range_attribute(&session, 1, from, bytes), Err(INVALID_VALUE));
    }
    assert_eq!(session.call_count(), before, "nothing of it travels");

    // Who gets the memory next has no advice, nor has a neighbour on the same page.
    memory.free();
    let again = managed(&session, whole);
    assert_eq!(again.address, at);
    assert_eq!(
        (range_attribute(&session, 1, at, 1), range_attribute(&session, 2, at, 1)),
        (Ok(0), Ok(NO_DEVICE))
    );
    again.free();
    let (one, other) = (managed(&session, 64), managed(&session, 64));
    assert_eq!(advise(one.address, 1, 1, 0), OK);
    assert_eq!(range_attribute(&session, 1, one.address, 64), Ok(1));
    assert_eq!(range_attribute(&session, 1, other.address, 64), Ok(0));
    one.free();
    other.free();
}

#[test]
fn a_prefetch_is_checked_and_then_refused_as_devices_without_concurrent_access_do() {
    let session = session();
    let (memory, stream, nowhere) = (managed(&session, 8192), stream(&session), 7u64);
    let at = memory.address;
    let prefetch = |from: u64, bytes: usize, device: i32, stream: u64| cu!(session.libcuda, cuMemPrefetchAsync(from: u64, bytes: usize, device: i32, stream: u64));
    let prefetch_at = |place: u64, flags: u32| cu!(session.libcuda, cuMemPrefetchAsync_v2(at: u64, 4096: usize, place: u64, flags: u32, stream: u64));
    for device in [0, CPU, 7, NO_DEVICE] {
        assert_eq!(prefetch(at, 8192, device, stream), INVALID_DEVICE, "device {device}");
    }
    assert_eq!([1, 2, 3, 4].map(|kind| prefetch_at(location(kind, 0), 0)), [INVALID_DEVICE; 4]);
    assert_eq!([location(0, 0), location(5, 0)].map(|place| prefetch_at(place, 0)), [INVALID_VALUE; 2]);
    assert_eq!(prefetch_at(location(1, 0), 1), INVALID_VALUE);
    for (from, bytes) in [(at, 0), (at, 8193), (at + 1, 8192), (&raw const nowhere as u64, 8)] {
        assert_eq!(prefetch(from, bytes, 0, 0), INVALID_VALUE);
    }
    assert_eq!(prefetch(at, 1, 0, 1 << 40), INVALID_HANDLE);
    assert_eq!(range_attribute(&session, 4, at, 1), Ok(NO_DEVICE), "none was made");
    memory.free();
    end_stream(&session, stream);
}

#[test]
fn memory_is_attached_whole_to_a_stream_and_to_no_capture() {
    let session = session();
    let (memory, stream) = (managed_with(&session, 8192, HOST).unwrap(), stream(&session));
    let (at, nowhere) = (memory.address, 7u64);
    calls(&session);
    let attach = |stream: u64, from: u64, bytes: usize, flags: u32| cu!(session.libcuda, cuStreamAttachMemAsync(stream: u64, from: u64, bytes: usize, flags: u32));
    for (of, bytes, flags) in
        [(stream, 0, SINGLE), (stream, 8192, GLOBAL), (0, 0, HOST), (0, 8192, GLOBAL), (2, 0, SINGLE)]
    {
        assert_eq!(attach(of, at, bytes, flags), OK, "{bytes} bytes, flags {flags}");
    }
    assert_eq!(calls(&session).len(), 1, "but for the stream of this thread nothing travels");
    for (of, from, bytes, flags) in [
        (stream, at, 4096, GLOBAL),
        (stream, at + 1, 8192, GLOBAL),
        (stream, &raw const nowhere as u64, 0, GLOBAL),
        (stream, at, 0, 0),
        (stream, at, 0, GLOBAL | HOST),
        (0, at, 0, SINGLE),
        (1, at, 0, SINGLE),
    ] {
        assert_eq!(attach(of, from, bytes, flags), INVALID_VALUE, "{bytes} bytes, flags {flags}");
    }
    let own = cu!(session.libcuda, cuStreamAttachMemAsync_ptsz(0: u64, at: u64, 0: usize, SINGLE: u32));
    assert_eq!(own, OK, "the thread's own stream is one");
    assert_eq!(attach(1 << 40, at, 0, GLOBAL), INVALID_HANDLE);
    assert_eq!(cu!(session.libcuda, cuStreamBeginCapture_v2(stream: u64, 0: u32)), OK);
    assert_eq!(attach(stream, at, 0, GLOBAL), CAPTURE_UNSUPPORTED);
    let mut graph = 0u64;
    let graph_at = &raw mut graph;
    assert_eq!(
        cu!(session.libcuda, cuStreamEndCapture(stream: u64, graph_at: *mut u64)),
        CAPTURE_INVALIDATED
    );
    memory.free();
    end_stream(&session, stream);
}

/// Whichever kind of memory a node calls it: nobody reads or writes it for the device.
#[test]
fn graphs_copy_and_set_it_by_its_address() {
    let session = session();
    let (mut memory, on_device, stream) = (managed(&session, 512), device(&session, 64), stream(&session));
    let at = memory.address;
    assert_eq!(cu!(session.libcuda, cuStreamBeginCapture_v2(stream: u64, 0: u32)), OK);
    let (second, third, fourth) = (at + 64, at + 128, at + 192);
    let code = cu!(session.libcuda, cuMemcpyHtoDAsync_v2(on_device: u64, at: u64, 64: usize, stream: u64));
    assert_eq!(code, OK, "as the host's");
    let code =
        cu!(session.libcuda, cuMemcpyDtoDAsync_v2(second: u64, on_device: u64, 64: usize, stream: u64));
    assert_eq!(code, OK, "as the device's");
    assert_eq!(cu!(session.libcuda, cuMemcpyAsync(third: u64, second: u64, 64: usize, stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemsetD8Async(fourth: u64, 9: u8, 64: usize, stream: u64)), OK);
    let (mut graph, mut exec) = (0u64, 0u64);
    let (graph_at, exec_at) = (&raw mut graph, &raw mut exec);
    assert_eq!(cu!(session.libcuda, cuStreamEndCapture(stream: u64, graph_at: *mut u64)), OK);
    let made = cu!(session.libcuda, cuGraphInstantiateWithFlags(exec_at: *mut u64, graph: u64, 0: u64));
    assert_eq!((made, cu!(session.libcuda, cuGraphDestroy(graph: u64))), (OK, OK));
    for seed in [1, 2] {
        let sent = pattern(64, seed);
        memory.slice().fill(0);
        memory.slice()[..64].copy_from_slice(&sent);
        calls(&session);
        assert_eq!(cu!(session.libcuda, cuGraphLaunch(exec: u64, stream: u64)), OK);
        assert_eq!(calls(&session), ["graph launch", "memset"], "one record, and the worker's own set");
        assert_eq!(memory.slice()[..192], [&sent[..], &sent, &sent].concat());
        assert_eq!(memory.slice()[191..257], [&sent[63..], &[9; 64], &[0]].concat());
    }
    assert_eq!(cu!(session.libcuda, cuGraphExecDestroy(exec: u64)), OK);
    memory.free();
    free_device(&session, on_device);
    end_stream(&session, stream);
}
