//! Children of a process that has a channel.

use std::ffi::{CString, c_char, c_void};

use super::*;

const NOT_INITIALIZED: u32 = 3;

#[test]
fn a_child_of_fork_gets_not_initialized_and_the_parent_goes_on() {
    let session = session();
    // SAFETY: the child only calls the library and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut address = 0u64;
        let at = &raw mut address;
        let code = cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, 64: usize));
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(i32::try_from(code).unwrap()) }
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 3);
    let address = alloc(&session, 64);
    free(&session, address);
}

#[test]
fn a_child_of_fork_has_no_logs() {
    let session = session();
    let library = &session.libcuda;
    let place = CString::new("/dev/null").unwrap();
    // SAFETY: the child only calls the library and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let (mut handle, mut iterator, mut buffer, mut bytes) = (0u64, 0u32, [0u8; 4096], 4096usize);
        let (handle_at, iterator_at) = (&raw mut handle, &raw mut iterator);
        let (buffer_at, bytes_at, place) = (buffer.as_mut_ptr(), &raw mut bytes, place.as_ptr());
        let hears = hears as extern "C" fn(_, _, _, _);
        let codes = [
            cu!(library, cuLogsRegisterCallback(hears: extern "C" fn(*mut c_void, u32, *mut c_char, usize), 0: u64, handle_at: *mut u64)),
            cu!(library, cuLogsUnregisterCallback(handle: u64)),
            cu!(library, cuLogsCurrent(iterator_at: *mut u32, 0: u32)),
            cu!(library, cuLogsDumpToFile(iterator_at: *mut u32, place: *const c_char, 0: u32)),
            cu!(library, cuLogsDumpToMemory(iterator_at: *mut u32, buffer_at: *mut u8, bytes_at: *mut usize, 0: u32)),
        ];
        let wrong = codes.iter().position(|code| *code != NOT_INITIALIZED).map_or(0, |place| place + 1);
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(i32::try_from(wrong).unwrap_or(99)) }
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(
        (libc::WIFEXITED(status), libc::WEXITSTATUS(status)),
        (true, 0),
        "the call that answered, counted from 1"
    );
}

extern "C" fn hears(_: *mut c_void, _: u32, _: *mut c_char, _: usize) {}

/// Its exit handlers and thread-local destructors run, with what they inherited.
#[test]
fn a_child_that_ends_by_exit_leaves_the_parents_channel_alone() {
    let session = session();
    let (mut event, mut stream) = (0u64, 0u64);
    let (event_at, stream_at) = (&raw mut event, &raw mut stream);
    assert_eq!(cu!(session.libcuda, cuEventCreate(event_at: *mut u64, 0: u32)), OK);
    assert_eq!(
        cu!(session.libcuda, cuEventRecord_ptsz(event: u64, 0: u64)),
        OK,
        "this thread has a stream to end"
    );
    let before = session.call_count();
    // SAFETY: the child only ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: that its handlers run is what is tested.
        unsafe { libc::exit(5) }
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), 5);
    assert_eq!(cu!(session.libcuda, cuStreamCreate(stream_at: *mut u64, 0: u32)), OK);
    assert_eq!(synchronize(&session), OK);
    let calls = session.seen.lock().unwrap().calls[before..].to_vec();
    assert!(!calls.contains(&"stream destroy"), "{calls:?}");
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuEventDestroy_v2(event: u64)), OK);
}
