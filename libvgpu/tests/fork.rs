//! A child made before the start uses CUDA like any process. Its own program: nothing here starts the library in the parent.

mod support;

use support::Library;
use support::session::served;

const OK: u32 = 0;

#[test]
fn a_child_made_before_the_start_may_start_by_itself() {
    // The worker is a thread of the parent; the child's calls go through the socket and shared memory.
    let seen = served();
    let library = Library::open();
    // SAFETY: the child only calls the library and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let (mut context, mut address) = (0u64, 0u64);
        let (context_at, address_at) = (&raw mut context, &raw mut address);
        let codes = [
            cu!(library, cuInit(0: u32)),
            cu!(library, cuDevicePrimaryCtxRetain(context_at: *mut u64, 0: i32)),
            cu!(library, cuCtxSetCurrent(context: u64)),
            cu!(library, cuMemAlloc_v2(address_at: *mut u64, 64: usize)),
            cu!(library, cuMemFree_v2(address: u64)),
            cu!(library, cuCtxSynchronize()),
        ];
        let wrong = codes.iter().position(|code| *code != OK).map_or(0, |place| place + 1);
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(i32::try_from(wrong).unwrap_or(99)) }
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 0, "the call that failed, counted from 1");
    assert!(seen.lock().unwrap().calls.contains(&"alloc"));
}
