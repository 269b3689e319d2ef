//! A program's calls, from the C border through real rings to a device of a few lines and back.

mod current;
mod facts;
mod forks;
mod images;
mod memory;
#[path = "../support/mod.rs"]
mod support;

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use support::session::{Session, session};
use vgpu_api::ContextId;

const OK: u32 = 0;
/// A priority above the device's range.
const FAR_TOO_HIGH: i32 = -99;
const INVALID_VALUE: u32 = 1;
const INVALID_CONTEXT: u32 = 201;
const INVALID_HANDLE: u32 = 400;

fn alloc(session: &Session, bytes: usize) -> u64 {
    let mut address = 0u64;
    let place = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, bytes: usize)), OK);
    address
}

fn free(session: &Session, address: u64) {
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), OK);
}

fn write(session: &Session, address: u64, bytes: &[u8]) -> u32 {
    let (source, len) = (bytes.as_ptr(), bytes.len());
    cu!(session.libcuda, cuMemcpyHtoD_v2(address: u64, source: *const u8, len: usize))
}

fn read(session: &Session, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let place = bytes.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(place: *mut u8, address: u64, len: usize)), OK);
    bytes
}

fn synchronize(session: &Session) -> u32 {
    cu!(session.libcuda, cuCtxSynchronize())
}

/// The second word of the marker: replies waited for.
fn replies(session: &Session) -> u64 {
    let marker = session.libcuda.symbol("vgpu_is_shim").cast::<AtomicU64>();
    // SAFETY: two words that live as long as the library.
    let words = unsafe { std::slice::from_raw_parts(marker, 2) };
    assert_eq!(words[0].load(Ordering::Relaxed), vgpu_api::WIRE_HASH);
    words[1].load(Ordering::Relaxed)
}

#[test]
fn the_marker_counts_replies_and_nothing_else() {
    let session = session();
    let address = alloc(&session, 64);
    let before = replies(&session);
    assert_eq!(cu!(session.libcuda, cuMemsetD8Async(address: u64, 1: u8, 64: usize, 0: u64)), OK);
    assert_eq!(replies(&session), before, "queued");
    assert_eq!(synchronize(&session), OK);
    assert_eq!(replies(&session), before + 1);
    free(&session, address);
}

/// The library reads the environment once: the test is played again in a process of its own.
#[test]
fn the_calls_that_wait_are_named_for_who_asked_for_it() {
    const INSIDE: &str = "VGPU_TEST_WAITS";
    if std::env::var_os(INSIDE).is_some() {
        assert_eq!(synchronize(&session()), OK);
        return;
    }
    let named = |level: &str| {
        let mut again = Command::new(std::env::current_exe().expect("the test"));
        again.args(["--exact", "the_calls_that_wait_are_named_for_who_asked_for_it", "--nocapture"]);
        let ended = again.env(INSIDE, "1").env("VGPU_LOG", level).output().expect("it runs");
        assert!(ended.status.success());
        String::from_utf8_lossy(&ended.stderr).contains("vgpu: waits for cuCtxSynchronize\n")
    };
    assert_eq!(["1", "2"].map(named), [false, true]);
}

#[test]
fn streams_and_events_are_made_without_waiting_and_stale_ones_are_refused() {
    let session = session();
    let (mut stream, mut start, mut end, mut ms, mut priority) = (0u64, 0u64, 0u64, 0f32, 9i32);
    let (stream_at, start_at, end_at, ms_at, priority_at) =
        (&raw mut stream, &raw mut start, &raw mut end, &raw mut ms, &raw mut priority);
    assert_eq!(
        cu!(session.libcuda, cuStreamCreateWithPriority(stream_at: *mut u64, 1: u32, FAR_TOO_HIGH: i32)),
        OK
    );
    assert_eq!(cu!(session.libcuda, cuStreamGetPriority(stream: u64, priority_at: *mut i32)), OK);
    assert_eq!(priority, -5, "cut to the device's range");
    assert_eq!(cu!(session.libcuda, cuEventCreate(start_at: *mut u64, 0: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuEventCreate(end_at: *mut u64, 0: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuEventRecord(start: u64, stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuEventRecord_ptsz(end: u64, 0: u64)), OK, "in this thread's own stream");
    assert_eq!(cu!(session.libcuda, cuStreamWaitEvent(stream: u64, end: u64, 0: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuEventSynchronize(end: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuEventElapsedTime(ms_at: *mut f32, start: u64, end: u64)), OK);
    assert!((ms - 1.5).abs() < f32::EPSILON);
    assert_eq!(cu!(session.libcuda, cuStreamSynchronize(stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamSynchronize(stream: u64)), INVALID_HANDLE);
    assert_eq!(cu!(session.libcuda, cuEventDestroy_v2(start: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuEventDestroy_v2(end: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuEventQuery(end: u64)), INVALID_HANDLE);
    assert_eq!(cu!(session.libcuda, cuEventQuery(stream: u64)), INVALID_HANDLE, "a stream is no event");
}

#[test]
fn threads_call_at_once_and_each_gets_its_own_answers() {
    let session = session();
    let (library, primary) = (&session.libcuda, ContextId::primary(0).handle().raw());
    std::thread::scope(|scope| {
        for number in 0..8u8 {
            scope.spawn(move || {
                assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
                for round in 0..50u8 {
                    let mut address = 0u64;
                    let at = &raw mut address;
                    assert_eq!(cu!(library, cuMemAlloc_v2(at: *mut u64, 4096: usize)), OK);
                    let pattern = [number ^ round; 4096];
                    let mut back = [0u8; 4096];
                    let (from, to) = (pattern.as_ptr(), back.as_mut_ptr());
                    assert_eq!(cu!(library, cuMemcpyHtoD_v2(address: u64, from: *const u8, 4096: usize)), OK);
                    assert_eq!(cu!(library, cuMemcpyDtoH_v2(to: *mut u8, address: u64, 4096: usize)), OK);
                    assert_eq!(back, pattern);
                    assert_eq!(cu!(library, cuMemFree_v2(address: u64)), OK);
                }
            });
        }
    });
}

#[test]
fn what_ends_something_ends_it_even_when_an_earlier_call_failed() {
    let session = session();
    let (address, mut event) = (alloc(&session, 64), 0u64);
    let event_at = &raw mut event;
    assert_eq!(cu!(session.libcuda, cuEventCreate(event_at: *mut u64, 0: u32)), OK);
    assert_eq!(write(&session, 0x10, &[0; 4]), OK, "wrong, but only queued");
    while session.seen.lock().unwrap().calls.last() != Some(&"htod") {
        std::thread::yield_now();
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), INVALID_VALUE, "the error of the copy");
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), INVALID_VALUE, "it is freed all the same");
    assert_eq!(cu!(session.libcuda, cuEventDestroy_v2(event: u64)), OK);
    assert_eq!(synchronize(&session), OK);
    let mut kind = 0u32;
    let kind_at = &raw mut kind;
    assert_eq!(
        cu!(session.libcuda, cuPointerGetAttribute(kind_at: *mut u32, 2: u32, address: u64)),
        INVALID_VALUE
    );
}
