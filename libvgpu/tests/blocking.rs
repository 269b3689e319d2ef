//! `CUDA_LAUNCH_BLOCKING=1`: each call waits, a launch for its kernel. Its own program, since the library reads the variable once.

mod support;

use support::session::session;

const OK: u32 = 0;

#[test]
fn a_launch_waits_for_its_kernel_and_a_copy_for_its_answer() {
    // SAFETY: the only test of its program, before any other thread.
    unsafe { std::env::set_var("CUDA_LAUNCH_BLOCKING", "1") };
    let session = session();
    let (mut module, mut fill, image, name) =
        (0u64, 0u64, c".version 8.0 blocking".as_ptr(), c"fill".as_ptr());
    let (module_at, fill_at, null, one, none) = (&raw mut module, &raw mut fill, 0u64, 1u32, 0u32);
    assert_eq!(cu!(session.libcuda, cuModuleLoadData(module_at: *mut u64, image: *const i8)), OK);
    assert_eq!(
        cu!(session.libcuda, cuModuleGetFunction(fill_at: *mut u64, module: u64, name: *const i8)),
        OK
    );
    let (mut address, mut stream) = (0u64, 0u64);
    let (address_at, stream_at) = (&raw mut address, &raw mut stream);
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(address_at: *mut u64, 64: usize)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamCreate(stream_at: *mut u64, 0: u32)), OK);
    let (value, count) = (5u32, 16u32);
    let params = [
        (&raw const address).cast::<std::ffi::c_void>(),
        (&raw const value).cast(),
        (&raw const count).cast(),
    ];
    let params_at = params.as_ptr();
    session.seen.lock().unwrap().calls.clear();
    assert_eq!(
        cu!(session.libcuda, cuLaunchKernel(fill: u64, one: u32, one: u32, one: u32, one: u32, one: u32, one: u32,
            none: u32, stream: u64, params_at: *const *const std::ffi::c_void, null: u64)),
        OK
    );
    // Nothing was waited for since: both have been answered.
    assert_eq!(session.seen.lock().unwrap().calls, ["launch", "stream sync"]);
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(address: u64, 0: u8, 64: usize)), OK);
    assert_eq!(session.seen.lock().unwrap().calls.len(), 3, "answered, too");
}
