//! Device memory between processes, from the C border to a device of a few lines: what handles hold, what is counted here, what is refused.

mod support;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use support::device::THEIRS;
use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_CONTEXT: u32 = 201;
const NOT_FOUND: u32 = 500;
const NOT_SUPPORTED: u32 = 801;
const PIECE_BYTES: usize = 2 << 20;
const POSIX_FD: u32 = 1;
const FABRIC: u32 = 8;
/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`.
const LAZY: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handle([u8; 64]);

/// `CUmemAllocationProp` of a device's memory.
fn properties(handle_types: u32) -> [u32; 8] {
    [1, handle_types, 1, 0, 0, 0, 0, 0]
}

/// What another process would have sent, of so many bytes.
fn theirs(mark: &[u8; 8], bytes: u64) -> Handle {
    let mut handle = [0; 64];
    handle[..8].copy_from_slice(mark);
    handle[8..24].copy_from_slice(&THEIRS.0);
    handle[24..32].copy_from_slice(&bytes.to_le_bytes());
    Handle(handle)
}

impl Session {
    fn seen(&self, name: &str) -> usize {
        self.seen.lock().unwrap().calls.iter().filter(|call| **call == name).count()
    }

    fn synchronize(&self) -> u32 {
        cu!(self.libcuda, cuCtxSynchronize())
    }

    fn alloc(&self, bytes: usize) -> u64 {
        let mut at = 0u64;
        let place = &raw mut at;
        assert_eq!(cu!(self.libcuda, cuMemAlloc_v2(place: *mut u64, bytes: usize)), OK);
        at
    }

    fn free(&self, at: u64) -> u32 {
        cu!(self.libcuda, cuMemFree_v2(at: u64))
    }

    fn handle_of(&self, at: u64) -> (u32, Handle) {
        let mut handle = Handle([0; 64]);
        let place = &raw mut handle;
        (cu!(self.libcuda, cuIpcGetMemHandle(place: *mut Handle, at: u64)), handle)
    }

    fn open(&self, handle: Handle, flags: u32) -> (u32, u64) {
        let mut at = 0u64;
        let place = &raw mut at;
        (cu!(self.libcuda, cuIpcOpenMemHandle_v2(place: *mut u64, handle: Handle, flags: u32)), at)
    }

    fn close(&self, at: u64) -> u32 {
        cu!(self.libcuda, cuIpcCloseMemHandle(at: u64))
    }

    fn create(&self, handle_types: u32) -> u64 {
        let (mut handle, properties) = (0u64, properties(handle_types));
        let (place, given) = (&raw mut handle, properties.as_ptr());
        assert_eq!(
            cu!(self.libcuda, cuMemCreate(place: *mut u64, PIECE_BYTES: usize, given: *const u32, 0: u64)),
            OK
        );
        handle
    }

    fn export(&self, handle: u64, of: u32, flags: u64) -> (u32, i32) {
        let mut fd = -1i32;
        let place = &raw mut fd;
        (
            cu!(self.libcuda, cuMemExportToShareableHandle(place: *mut i32, handle: u64, of: u32, flags: u64)),
            fd,
        )
    }

    fn import(&self, fd: i32, of: u32) -> (u32, u64) {
        let (mut handle, fd) = (0u64, i64::from(fd));
        let place = &raw mut handle;
        (cu!(self.libcuda, cuMemImportFromShareableHandle(place: *mut u64, fd: i64, of: u32)), handle)
    }

    fn word(&self, number: u32, at: u64) -> u64 {
        let mut value = 0u64;
        let place = &raw mut value;
        assert_eq!(cu!(self.libcuda, cuPointerGetAttribute(place: *mut u64, number: u32, at: u64)), OK);
        value
    }
}

/// A file in memory that holds this.
fn file(bytes: &[u8]) -> OwnedFd {
    let file = idm::region::sealed_memory("test", bytes.len()).unwrap();
    idm::Region::map(&file, bytes.len()).unwrap().write(0, bytes);
    file
}

#[test]
fn an_allocation_has_one_handle_which_its_own_process_does_not_open() {
    let session = session();
    let at = session.alloc(3 * PIECE_BYTES);
    let asked = session.seen("ipc export");
    let (code, handle) = session.handle_of(at);
    assert_eq!((code, session.handle_of(at + 4096)), (OK, (OK, handle)), "any address of it");
    assert_eq!(session.seen("ipc export"), asked + 1);
    assert_eq!(session.open(handle, LAZY).0, INVALID_CONTEXT);
    assert_eq!(session.word(10, at), 1, "it can be shared");
    assert_eq!((session.handle_of(0).0, session.handle_of(0x1234).0), (INVALID_VALUE, INVALID_VALUE));
    assert_eq!(session.free(at), OK);
    assert_eq!(session.handle_of(at).0, INVALID_VALUE);
    // Whatever lies there next has another one, also in the same memory.
    let (code, next) = session.handle_of(session.alloc(3 * PIECE_BYTES));
    assert_eq!((code, words(next)[..4] == words(handle)[..4]), (OK, true), "of the same memory and as long");
    assert_ne!(words(next)[6], words(handle)[6]);
}

/// The words of a handle: 1 and 2 are its memory's name, 3 the length, 5 where it starts in that memory, 6 what no other allocation has.
fn words(handle: Handle) -> [u64; 8] {
    std::array::from_fn(|place| u64::from_le_bytes(handle.0[8 * place..][..8].try_into().unwrap()))
}

#[test]
fn a_handle_says_where_in_a_shared_memory_an_allocation_starts() {
    let session = session();
    let (one, two) = (session.alloc(100), session.alloc(200));
    let [first, second] =
        [one, two].map(|at| session.handle_of(at)).map(|(code, handle)| (code, words(handle)));
    assert_eq!((first.0, second.0, first.1[1..3] == second.1[1..3]), (OK, OK, true));
    assert_eq!((first.1[3], second.1[3], second.1[5].wrapping_sub(first.1[5])), (100, 200, two - one));

    // What is opened is that part, and other parts are other openings.
    let part = |offset: u64, bytes: u64| {
        let mut handle = theirs(b"vgpu ipc", bytes);
        handle.0[40..48].copy_from_slice(&offset.to_le_bytes());
        handle
    };
    let (code, low) = session.open(part(512, 1000), LAZY);
    let (_, high) = session.open(part(1536, 1000), LAZY);
    assert_eq!((code, session.word(12, low), session.word(12, high), low == high), (OK, 1000, 1000, false));
    assert_eq!(session.open(part(1536, 1000), LAZY), (OK, high), "open already");
    assert_eq!(session.open(part(4096, 512), LAZY).0, INVALID_VALUE, "past the end");
    assert_eq!([low, high, high].map(|at| session.close(at)), [OK; 3]);
    assert_eq!([low, high].map(|at| session.close(at)), [INVALID_VALUE; 2]);
    assert_eq!([one, two].map(|at| session.free(at)), [OK; 2]);
}

#[test]
fn what_is_open_is_device_memory_until_it_was_closed_as_often_and_nobody_frees_it() {
    let session = session();
    let handle = theirs(b"vgpu ipc", 4096);
    let (code, at) = session.open(handle, LAZY);
    let opened = session.seen("ipc open");
    assert_eq!((code, session.open(handle, LAZY)), (OK, (OK, at)));
    assert_eq!(session.seen("ipc open"), opened);
    assert_eq!((session.word(2, at) & 0xffff_ffff, session.word(12, at)), (2, 4096));
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(at: u64, 5: u8, 4096: usize)), OK);
    assert_eq!((session.free(at), session.handle_of(at).0), (INVALID_VALUE, INVALID_VALUE));
    assert_eq!(cu!(session.libcuda, cuMemFreeAsync(at: u64, 0: u64)), INVALID_VALUE);
    let closed = session.seen("ipc close");
    assert_eq!((session.close(at), session.seen("ipc close")), (OK, closed));
    assert_eq!((session.close(at), session.seen("ipc close")), (OK, closed + 1));
    assert_eq!(session.close(at), INVALID_VALUE);
    let (base, bytes) = (std::ptr::null_mut(), std::ptr::null_mut());
    let range = cu!(session.libcuda, cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, at: u64));
    assert_eq!(range, NOT_FOUND);
}

#[test]
fn an_event_with_the_flag_is_shared_and_a_wait_for_what_others_record_is_queued() {
    let session = session();
    let (mut event, mut opened, mut handle) = (0u64, 0u64, Handle([0; 64]));
    let (event_at, opened_at, handle_at) = (&raw mut event, &raw mut opened, &raw mut handle);
    for (flags, wanted) in [(4u32, INVALID_VALUE), (8, INVALID_VALUE), (2, OK)] {
        assert_eq!(cu!(session.libcuda, cuEventCreate(event_at: *mut u64, flags: u32)), wanted, "{flags}");
    }
    let get = |event: u64| cu!(session.libcuda, cuIpcGetEventHandle(handle_at: *mut Handle, event: u64));
    assert_eq!(get(event), INVALID_VALUE, "made without the flag");
    assert_eq!(cu!(session.libcuda, cuEventDestroy_v2(event: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuEventCreate(event_at: *mut u64, 6: u32)), OK);
    assert_eq!((get(event), &handle.0[..8]), (OK, b"vgpu evt".as_slice()));
    let open =
        |handle: Handle| cu!(session.libcuda, cuIpcOpenEventHandle(opened_at: *mut u64, handle: Handle));
    assert_eq!(open(theirs(b"vgpu ipc", 1)), INVALID_VALUE);
    assert_eq!(open(theirs(b"vgpu evt", 1)), OK);
    let waits = session.seen("wait event");
    assert_eq!(
        cu!(session.libcuda, cuStreamWaitEvent(0: u64, opened: u64, 0: u32)),
        OK,
        "nobody here recorded it"
    );
    assert_eq!((session.synchronize(), session.seen("wait event")), (OK, waits + 1));
    for event in [event, opened] {
        assert_eq!(cu!(session.libcuda, cuEventDestroy_v2(event: u64)), OK);
    }
}

#[test]
fn a_descriptor_stands_for_memory_and_may_be_closed_at_once() {
    let session = session();
    let handle = session.create(POSIX_FD);
    let (code, fd) = session.export(handle, POSIX_FD, 0);
    assert_eq!(code, OK);
    // SAFETY: the library opened it for its caller.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    let given = file(&theirs(b"vgpu mem", 2 * PIECE_BYTES as u64).0);
    let (code, imported) = session.import(given.as_raw_fd(), POSIX_FD);
    assert_eq!(code, OK);
    assert_eq!(session.export(imported, POSIX_FD, 0).0, OK, "it may be given on");
    // A length that the worker does not know of it: the handle is given back.
    let (ended, wrong) = (session.seen("memory release"), file(&theirs(b"vgpu mem", PIECE_BYTES as u64).0));
    assert_eq!(session.import(wrong.as_raw_fd(), POSIX_FD).0, INVALID_VALUE);
    assert_eq!((session.synchronize(), session.seen("memory release")), (OK, ended + 1));
    for handle in [handle, imported] {
        assert_eq!(cu!(session.libcuda, cuMemRelease(handle: u64)), OK);
    }
    let plain = session.create(0);
    assert_eq!(session.export(plain, POSIX_FD, 0).0, INVALID_VALUE, "it was not made for that");
    assert_eq!(cu!(session.libcuda, cuMemRelease(plain: u64)), OK);
    assert_eq!(session.export(plain, POSIX_FD, 0).0, INVALID_VALUE);
}

#[test]
fn what_is_no_handle_is_refused() {
    let session = session();
    let handle = session.create(POSIX_FD);
    assert_eq!(session.export(handle, FABRIC, 0).0, NOT_SUPPORTED);
    assert_eq!(session.export(handle, 3, 0).0, INVALID_VALUE);
    assert_eq!(session.export(handle, POSIX_FD, 1).0, INVALID_VALUE);
    assert_eq!(cu!(session.libcuda, cuMemRelease(handle: u64)), OK);
    let whole = theirs(b"vgpu mem", PIECE_BYTES as u64).0;
    for bytes in [&whole[..63], &theirs(b"vgpu ipc", 4096).0, &[0; 64]] {
        assert_eq!(session.import(file(bytes).as_raw_fd(), POSIX_FD).0, INVALID_VALUE);
    }
    assert_eq!(session.import(-1, POSIX_FD).0, INVALID_VALUE);
    assert_eq!(session.import(file(&whole).as_raw_fd(), FABRIC).0, NOT_SUPPORTED);
    for handle in [theirs(b"vgpu mem", 4096), Handle([0; 64]), theirs(b"vgpu ipc", 0)] {
        assert_eq!(session.open(handle, LAZY).0, INVALID_VALUE);
    }
    assert_eq!(session.open(theirs(b"vgpu ipc", 4096), 0).0, INVALID_VALUE, "flags");
    let mut strangers = theirs(b"vgpu ipc", 4096);
    strangers.0[10] ^= 1;
    assert_eq!(session.open(strangers, LAZY).0, INVALID_VALUE);
}
