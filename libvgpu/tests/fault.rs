//! A kernel that faults: the process is lost for CUDA, as on hardware. Its own program, since the error stays.

mod support;

use support::session::session;

const OK: u32 = 0;
const ILLEGAL_ADDRESS: u32 = 700;

#[test]
fn a_fault_sticks_until_the_process_ends() {
    let session = session();
    let (mut module, mut fault, image, name) =
        (0u64, 0u64, c".version 8.0 fault".as_ptr(), c"fault".as_ptr());
    let (module_at, fault_at, null, one, none, stream) =
        (&raw mut module, &raw mut fault, 0u64, 1u32, 0u32, 0u64);
    assert_eq!(cu!(session.libcuda, cuModuleLoadData(module_at: *mut u64, image: *const i8)), OK);
    assert_eq!(
        cu!(session.libcuda, cuModuleGetFunction(fault_at: *mut u64, module: u64, name: *const i8)),
        OK
    );
    let launch = || {
        cu!(session.libcuda, cuLaunchKernel(fault: u64, one: u32, one: u32, one: u32, one: u32, one: u32, one: u32,
            none: u32, stream: u64, null: u64, null: u64))
    };
    assert_eq!(launch(), OK, "it is only queued");
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), ILLEGAL_ADDRESS);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), ILLEGAL_ADDRESS);
    let mut address = 0u64;
    let at = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, 64: usize)), ILLEGAL_ADDRESS);
    assert_eq!(launch(), ILLEGAL_ADDRESS);
    // What asks nothing of the GPU still answers, so that a program can say what happened.
    assert_eq!(cu!(session.libcuda, cuDeviceGetCount(at: *mut u64)), OK);
}
