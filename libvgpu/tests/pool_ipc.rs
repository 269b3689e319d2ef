//! Pools between processes, from the C border to a device of a few lines: what descriptors and exported pointers hold, what is refused.

mod support;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use support::device::THEIRS;
use support::session::{Session, session};
use vgpu_api::snapshot::{POOL_HANDLE_TYPES, POSIX_FD_SUPPORTED};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const NOT_SUPPORTED: u32 = 801;
const POSIX_FD: u32 = 1;
const FABRIC: u32 = 8;

/// `CUmemPoolPtrExportData`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Data([u8; 64]);

/// `CUmemPoolProps` of the first device.
fn properties(handle_types: u32) -> [u32; 22] {
    let mut words = [0; 22];
    words[..3].copy_from_slice(&[1, handle_types, 1]);
    words
}

/// A file in memory that holds this.
fn file(bytes: &[u8]) -> OwnedFd {
    let file = idm::region::sealed_memory("test", bytes.len()).unwrap();
    idm::Region::map(&file, bytes.len()).unwrap().write(0, bytes);
    file
}

/// What another process would have sent, of its device of that number.
fn theirs(mark: &[u8; 8], device: u32) -> [u8; 64] {
    let mut handle = [0; 64];
    handle[..8].copy_from_slice(mark);
    handle[8..24].copy_from_slice(&THEIRS.0);
    handle[24..32].copy_from_slice(&1u64.to_le_bytes());
    handle[32..36].copy_from_slice(&device.to_le_bytes());
    handle
}

/// What the device of these tests takes for a piece of that pool.
fn their_piece(bytes: u64) -> Data {
    let mut data = [0; 64];
    data[..8].copy_from_slice(b"vgpu ptr");
    data[8..24].copy_from_slice(&THEIRS.0);
    data[40..48].copy_from_slice(&512u64.to_le_bytes());
    data[48..56].copy_from_slice(&bytes.to_le_bytes());
    Data(data)
}

impl Session {
    fn seen(&self, name: &str) -> usize {
        self.seen.lock().unwrap().calls.iter().filter(|call| **call == name).count()
    }

    fn pool(&self, handle_types: u32) -> (u32, u64) {
        let (mut pool, properties) = (0u64, properties(handle_types));
        let (place, given) = (&raw mut pool, properties.as_ptr());
        (cu!(self.libcuda, cuMemPoolCreate(place: *mut u64, given: *const u32)), pool)
    }

    fn end_pool(&self, pool: u64) -> u32 {
        cu!(self.libcuda, cuMemPoolDestroy(pool: u64))
    }

    fn export(&self, pool: u64, of: u32, flags: u64) -> (u32, i32) {
        let mut fd = -1i32;
        let place = &raw mut fd;
        (
            cu!(
                self.libcuda,
                cuMemPoolExportToShareableHandle(place: *mut i32, pool: u64, of: u32, flags: u64)
            ),
            fd,
        )
    }

    fn import(&self, fd: i32, of: u32, flags: u64) -> (u32, u64) {
        let (mut pool, fd) = (0u64, i64::from(fd));
        let place = &raw mut pool;
        (
            cu!(
                self.libcuda,
                cuMemPoolImportFromShareableHandle(place: *mut u64, fd: i64, of: u32, flags: u64)
            ),
            pool,
        )
    }

    fn import_bytes(&self, bytes: &[u8]) -> (u32, u64) {
        self.import(file(bytes).as_raw_fd(), POSIX_FD, 0)
    }

    fn alloc(&self, pool: u64, bytes: usize) -> (u32, u64) {
        let mut at = 0u64;
        let place = &raw mut at;
        (
            cu!(
                self.libcuda,
                cuMemAllocFromPoolAsync(place: *mut u64, bytes: usize, pool: u64, 0: u64)
            ),
            at,
        )
    }

    fn free(&self, at: u64) -> u32 {
        cu!(self.libcuda, cuMemFreeAsync(at: u64, 0: u64))
    }

    fn export_pointer(&self, at: u64) -> (u32, Data) {
        let mut data = Data([0; 64]);
        let place = &raw mut data;
        (cu!(self.libcuda, cuMemPoolExportPointer(place: *mut Data, at: u64)), data)
    }

    fn import_pointer(&self, pool: u64, data: Data) -> (u32, u64) {
        let (mut at, data) = (0u64, &raw const data);
        let place = &raw mut at;
        (cu!(self.libcuda, cuMemPoolImportPointer(place: *mut u64, pool: u64, data: *const Data)), at)
    }

    fn word(&self, number: u32, at: u64) -> u64 {
        let mut value = 0u64;
        let place = &raw mut value;
        assert_eq!(cu!(self.libcuda, cuPointerGetAttribute(place: *mut u64, number: u32, at: u64)), OK);
        value
    }
}

#[test]
fn a_pool_that_is_made_for_it_goes_out_by_a_descriptor_and_its_pointers_by_their_bytes() {
    let session = session();
    let (code, pool) = session.pool(POSIX_FD);
    assert_eq!(code, OK);
    let (code, fd) = session.export(pool, POSIX_FD, 0);
    assert_eq!((code, session.seen("shareable pool create")), (OK, 1));
    // SAFETY: the library opened it for its caller.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut bytes = [0; 64];
    std::fs::File::from(fd).read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, theirs(b"vgpu pol", 0));

    let (code, at) = session.alloc(pool, 3000);
    assert_eq!(code, OK);
    assert_eq!((session.word(14, at), session.word(17, at)), (u64::from(POSIX_FD), pool));
    let (code, data) = session.export_pointer(at);
    let mut wanted = their_piece(3000);
    wanted.0[24..40].fill(7);
    assert_eq!((code, data), (OK, wanted));
    assert_eq!(session.export_pointer(at + 512).0, INVALID_VALUE, "it starts elsewhere");
    assert_eq!(session.free(at), OK);
    assert_eq!(session.export_pointer(at).0, INVALID_VALUE);
    assert_eq!(session.end_pool(pool), OK);
    assert_eq!(session.export(pool, POSIX_FD, 0).0, INVALID_VALUE);
}

#[test]
fn an_imported_pool_gives_only_what_was_exported_of_it() {
    let session = session();
    let (code, pool) = session.import_bytes(&theirs(b"vgpu pol", 0));
    assert_eq!(code, OK);
    let allocated = session.seen("alloc");
    assert_eq!(session.alloc(pool, 64).0, INVALID_VALUE);
    assert_eq!(cu!(session.libcuda, cuDeviceSetMemPool(0: i32, pool: u64)), INVALID_VALUE);
    assert_eq!(session.export(pool, POSIX_FD, 0).0, INVALID_VALUE);
    assert_eq!(session.seen("alloc"), allocated);

    let (code, at) = session.import_pointer(pool, their_piece(1000));
    assert_eq!(code, OK);
    // Device memory, in the imported pool.
    assert_eq!(
        (session.word(2, at) & 0xffff_ffff, session.word(17, at), session.word(12, at)),
        (2, pool, 1000)
    );
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(at: u64, 5: u8, 1000: usize)), OK);
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(at: u64)), OK);
    assert_eq!(session.free(at), INVALID_VALUE);
    let (_, at) = session.import_pointer(pool, their_piece(1000));
    assert_eq!((session.free(at), session.end_pool(pool)), (OK, OK));
    assert_eq!(session.import_pointer(pool, their_piece(1000)).0, INVALID_VALUE);
}

#[test]
fn what_is_no_pool_or_no_pointer_of_one_is_refused() {
    let session = session();
    for (handle_types, wanted) in
        [(FABRIC, NOT_SUPPORTED), (POSIX_FD | FABRIC, NOT_SUPPORTED), (2, NOT_SUPPORTED)]
    {
        assert_eq!(session.pool(handle_types).0, wanted, "{handle_types}");
    }
    let (_, plain) = session.pool(0);
    assert_eq!(session.export(plain, POSIX_FD, 0).0, INVALID_VALUE, "it was not made for that");
    let (_, pool) = session.pool(POSIX_FD);
    assert_eq!(session.export(pool, FABRIC, 0).0, NOT_SUPPORTED);
    assert_eq!(
        (session.export(pool, 3, 0).0, session.export(pool, POSIX_FD, 1).0),
        (INVALID_VALUE, INVALID_VALUE)
    );
    let mut default = 0u64;
    let place = &raw mut default;
    assert_eq!(cu!(session.libcuda, cuDeviceGetDefaultMemPool(place: *mut u64, 0: i32)), OK);
    assert_eq!(session.export(default, POSIX_FD, 0).0, INVALID_VALUE);

    let mut strangers = theirs(b"vgpu pol", 0);
    strangers[9] ^= 1;
    for bytes in [&strangers[..], &theirs(b"vgpu pol", 0)[..63], &theirs(b"vgpu mem", 0), &[0; 64]] {
        assert_eq!(session.import_bytes(bytes).0, INVALID_VALUE);
    }
    assert_eq!(session.import_bytes(&theirs(b"vgpu pol", 40)).0, NOT_SUPPORTED, "a device that is not seen");
    let whole = file(&theirs(b"vgpu pol", 0));
    assert_eq!(session.import(whole.as_raw_fd(), POSIX_FD, 1).0, INVALID_VALUE);
    assert_eq!(session.import(whole.as_raw_fd(), FABRIC, 0).0, NOT_SUPPORTED);
    assert_eq!(session.import(-1, POSIX_FD, 0).0, INVALID_VALUE);
    // The worker says that it lies elsewhere: the handle is given back.
    let ended = session.seen("pool destroy");
    assert_eq!(session.import_bytes(&theirs(b"vgpu pol", 1)).0, INVALID_VALUE);
    assert_eq!((cu!(session.libcuda, cuCtxSynchronize()), session.seen("pool destroy")), (OK, ended + 1));

    let (_, imported) = session.import_bytes(&theirs(b"vgpu pol", 0));
    for data in [Data([0; 64]), Data(theirs(b"vgpu ipc", 0))] {
        assert_eq!(session.import_pointer(imported, data).0, INVALID_VALUE);
    }
    let (at, null) = (&raw mut default, std::ptr::null::<Data>());
    let nowhere =
        cu!(session.libcuda, cuMemPoolImportPointer(at: *mut u64, imported: u64, null: *const Data));
    assert_eq!(nowhere, INVALID_VALUE);
    for at in [0, 0x1234] {
        assert_eq!(session.export_pointer(at).0, INVALID_VALUE);
    }
    for pool in [plain, pool, imported] {
        assert_eq!(session.end_pool(pool), OK);
    }
}

#[test]
fn a_device_says_that_pools_go_by_descriptors_where_memory_does() {
    let session = session();
    let attribute = |number: u32| {
        let mut value = -1i32;
        let place = &raw mut value;
        assert_eq!(cu!(session.libcuda, cuDeviceGetAttribute(place: *mut i32, number: u32, 0: i32)), OK);
        value
    };
    // The device itself says something else of pools.
    assert_eq!([POOL_HANDLE_TYPES, POSIX_FD_SUPPORTED].map(attribute), [1; 2]);
}
