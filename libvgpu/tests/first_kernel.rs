//! What a program waits for from its start to its first kernel. The only test of its process: replies are counted from the first one on.

mod support;

use std::ffi::c_void;

use support::calls::Calls;
use support::session::session;

const OK: u32 = 0;

/// The calls are those of cudart 13 and of a program that has one kernel, one allocation and one copy.
#[test]
fn up_to_the_first_kernel_three_replies_are_waited_for_beside_what_the_program_asks_for() {
    let session = session();
    let library = &session.libcuda;
    // The devices came with the start.
    let (mut count, mut device, mut major, mut version) = (0i32, 9i32, 0i32, 0i32);
    let (count_at, device_at, major_at, version_at) =
        (&raw mut count, &raw mut device, &raw mut major, &raw mut version);
    assert_eq!(cu!(library, cuDriverGetVersion(version_at: *mut i32)), OK);
    assert_eq!(cu!(library, cuDeviceGetCount(count_at: *mut i32)), OK);
    assert_eq!(cu!(library, cuDeviceGet(device_at: *mut i32, 0: i32)), OK);
    for attribute in 1..100u32 {
        assert_eq!(cu!(library, cuDeviceGetAttribute(major_at: *mut i32, attribute: u32, 0: i32)), OK);
    }
    let started = session.replies();
    let (mut image, mut kernel) = (0u64, 0u64);
    let (image_at, kernel_at, null) = (&raw mut image, &raw mut kernel, std::ptr::null::<u64>());
    let (text, name) = (c".version 8.0".as_ptr(), c"fill".as_ptr());
    assert_eq!(
        cu!(library, cuLibraryLoadData(image_at: *mut u64, text: *const i8, null: *const u64, null: *const u64, 0: u32,
            null: *const u64, null: *const u64, 0: u32)),
        OK
    );
    assert_eq!(cu!(library, cuLibraryGetKernel(kernel_at: *mut u64, image: u64, name: *const i8)), OK);
    let loaded = session.replies();
    let mut address = 0u64;
    let address_at = &raw mut address;
    assert_eq!(cu!(library, cuMemAlloc_v2(address_at: *mut u64, 64: usize)), OK);
    let allocated = session.replies();
    let bytes = [7u8; 64];
    let from = bytes.as_ptr();
    assert_eq!(cu!(library, cuMemcpyHtoD_v2(address: u64, from: *const u8, 64: usize)), OK);
    let (value, words) = (7u32, 16u32);
    let params =
        [(&raw const address).cast(), (&raw const value).cast(), (&raw const words).cast::<c_void>()];
    let (params_at, none) = (params.as_ptr(), std::ptr::null::<*const c_void>());
    assert_eq!(
        cu!(library, cuLaunchKernel(kernel: u64, 1: u32, 1: u32, 1: u32, 16: u32, 1: u32, 1: u32, 0: u32, 0: u64,
            params_at: *const *const c_void, none: *const *const c_void)),
        OK
    );
    assert_eq!((started, loaded - started, allocated - loaded, session.replies() - allocated), (2, 1, 1, 0));
}
