//! A program that was handed no arena, as in front of NVIDIA's driver in a PV Dom0: it is told of no memory that both sides reach, and gets none.

mod support;

use std::sync::atomic::Ordering;

use support::memory::{attribute, calls, device, free_device};
use support::session::{NO_ARENA, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const NOT_SUPPORTED: u32 = 801;

#[test]
fn there_is_no_managed_memory_and_pinned_memory_is_the_programs_own() {
    NO_ARENA.store(true, Ordering::Relaxed);
    let session = session();
    for number in [19, 83, 88, 89] {
        let mut found = 9i32;
        let at = &raw mut found;
        assert_eq!(cu!(session.libcuda, cuDeviceGetAttribute(at: *mut i32, number: u32, 0: i32)), OK);
        assert_eq!(found, 0, "device attribute {number}");
    }
    let (mut address, mut pinned) = (7u64, 0u64);
    let (at, pinned_at) = (&raw mut address, &raw mut pinned);
    let managed = |bytes: usize, flags: u32| cu!(session.libcuda, cuMemAllocManaged(at: *mut u64, bytes: usize, flags: u32));
    assert_eq!([managed(64, 1), managed(64, 2), managed(3 << 20, 1)], [NOT_SUPPORTED; 3]);
    assert_eq!([managed(0, 1), managed(64, 4)], [INVALID_VALUE; 2]);
    assert_eq!(address, 7);
    let image = c".version 8.0 managed".as_ptr();
    assert_eq!(cu!(session.libcuda, cuModuleLoadData(at: *mut u64, image: *const i8)), NOT_SUPPORTED);
    assert_eq!(address, 7);

    assert_eq!(cu!(session.libcuda, cuMemAllocHost_v2(pinned_at: *mut u64, 100: usize)), OK);
    assert_eq!((attribute(&session, 2, pinned), attribute(&session, 3, pinned)), (Ok(1), Err(INVALID_VALUE)));
    let advised = cu!(session.libcuda, cuMemAdvise(pinned: u64, 100: usize, 1: u32, 0: i32));
    assert_eq!((advised, cu!(session.libcuda, cuMemFree_v2(pinned: u64))), (INVALID_VALUE, INVALID_VALUE));
    let on_device = device(&session, 100);
    calls(&session);
    assert_eq!(
        cu!(session.libcuda, cuMemcpyHtoDAsync_v2(on_device: u64, pinned: u64, 100: usize, 0: u64)),
        OK
    );
    assert_eq!(calls(&session), ["htod"], "as any memory of the program's");
    free_device(&session, on_device);
    assert_eq!(cu!(session.libcuda, cuMemFreeHost(pinned: u64)), OK);
}
