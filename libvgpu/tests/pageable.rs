//! Copies of pageable memory through the arena's slots: every length, several threads, a device that never says that it is done, copies that
//! are refused.

mod support;

use std::sync::atomic::Ordering;

use support::calls::Calls;
use support::device::{REFUSED_AFTER, WORDS_STAY};
use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const UNKNOWN: u32 = 999;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn device(session: &Session, bytes: usize) -> u64 {
    let mut address = 0u64;
    let at = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, bytes: usize)), OK);
    address
}

fn stream(session: &Session) -> u64 {
    let mut stream = 0u64;
    let at = &raw mut stream;
    assert_eq!(cu!(session.libcuda, cuStreamCreate(at: *mut u64, 0: u32)), OK);
    stream
}

fn to_device(session: &Session, to: u64, from: &[u8], stream: u64) -> u32 {
    let (at, bytes) = (from.as_ptr(), from.len());
    cu!(session.libcuda, cuMemcpyHtoDAsync_v2(to: u64, at: *const u8, bytes: usize, stream: u64))
}

fn to_host(session: &Session, to: &mut [u8], from: u64, stream: u64) -> u32 {
    let (at, bytes) = (to.as_mut_ptr(), to.len());
    cu!(session.libcuda, cuMemcpyDtoHAsync_v2(at: *mut u8, from: u64, bytes: usize, stream: u64))
}

fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|i| u8::try_from((i * 31 + i / 4099 + seed) % 251).unwrap()).collect()
}

/// What reached the worker since the last look.
fn calls(session: &Session) -> Vec<&'static str> {
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    let mut calls = std::mem::take(&mut session.seen.lock().unwrap().calls);
    assert_eq!(calls.pop(), Some("ctx sync"));
    calls
}

#[test]
fn bytes_of_every_length_come_back_and_those_of_one_thread_are_not_staged() {
    let session = session();
    calls(&session);
    let lengths = [1, 100, 32 * KIB, 32 * KIB + 1, 64 * KIB, 64 * KIB + 1, MIB, MIB + 1, 2 * MIB - 1];
    let mut seen = Vec::new();
    for bytes in lengths.into_iter().chain([2 * MIB, 5 * MIB + 3, 37 * MIB + 11]) {
        // From here on threads help, and one that comes to no slot, since others do not get on, has its piece staged.
        if bytes == 2 * MIB {
            seen = calls(&session);
        }

        let (sent, at) = (pattern(bytes + 1, bytes), device(&session, bytes + 8));
        let mut back = vec![0; bytes + 9];
        // At odd places on both sides.
        assert_eq!(to_device(&session, at + 3, &sent[1..], 0), OK);
        assert_eq!(to_host(&session, &mut back[5..5 + bytes], at + 3, 0), OK);
        assert!(back[5..5 + bytes] == sent[1..], "{bytes} bytes");
        assert_eq!((&back[..5], &back[5 + bytes..]), (&[0; 5][..], &[0; 4][..]), "beside {bytes} bytes");
        assert_eq!(cu!(session.libcuda, cuMemFree_v2(at: u64)), OK);
    }
    assert!(!seen.iter().any(|call| ["htod staged", "dtoh"].contains(call)), "{seen:?}");
    assert!(seen.contains(&"copy, then write"));
}

#[test]
fn what_is_taken_over_may_be_changed_at_once() {
    let session = session();
    let (mut bytes, at) = (pattern(3 * MIB, 1), device(&session, 3 * MIB));
    let sent = bytes.clone();
    assert_eq!(to_device(&session, at, &bytes, 0), OK);
    bytes.fill(0);
    assert_eq!(to_host(&session, &mut bytes, at, 0), OK);
    assert!(bytes == sent);
}

#[test]
fn many_threads_copy_at_once() {
    let session = session();
    let mut context = 0u64;
    let at = &raw mut context;
    assert_eq!(cu!(session.libcuda, cuCtxGetCurrent(at: *mut u64)), OK);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let session = &session;
            scope.spawn(move || {
                assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(context: u64)), OK);
                let (at, stream) = (device(session, 4 * MIB), stream(session));
                for round in 0..12 {
                    let bytes = [40 * KIB, 300 * KIB, 4 * MIB][round % 3] - thread;
                    let (sent, mut back) = (pattern(bytes, round * 7 + thread), vec![0; bytes]);
                    assert_eq!(to_device(session, at, &sent, stream), OK);
                    assert_eq!(to_host(session, &mut back, at, stream), OK);
                    assert!(back == sent, "thread {thread}, round {round}");
                }
            });
        }
    });
}

/// As when all slots are a stream's that stands still: others go through staging, and nothing hangs.
#[test]
fn without_a_free_slot_bytes_are_staged_and_a_context_gives_its_slots_back() {
    let session = session();
    let mut made = 0u64;
    let made_at = &raw mut made;
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(made_at: *mut u64, 0: u32, 0: i32)), OK);
    let (sent, at) = (pattern(20 * MIB, 3), device(&session, 20 * MIB));
    let mut back = vec![0; 20 * MIB];
    calls(&session);
    WORDS_STAY.store(true, Ordering::Relaxed);
    assert_eq!(to_device(&session, at, &sent, 0), OK);
    let seen = calls(&session);
    let count = |name: &str| seen.iter().filter(|call| **call == name).count();
    assert_eq!((count("copy, then write"), count("htod staged")), (16, 4), "{seen:?}");
    assert_eq!(to_host(&session, &mut back, at, 0), OK);
    assert!(back == sent);
    let seen = calls(&session);
    let count = |name: &str| seen.iter().filter(|call| **call == name).count();
    assert_eq!(
        (count("dtoh"), count("stream sync"), seen.len()),
        (20, 21, 41),
        "a piece of 1 MiB each: {seen:?}"
    );
    WORDS_STAY.store(false, Ordering::Relaxed);
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
    let mut primary = 0u64;
    let primary_at = &raw mut primary;
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxRetain(primary_at: *mut u64, 0: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(primary: u64)), OK);
    let at = device(&session, 20 * MIB);
    assert_eq!(to_device(&session, at, &sent, 0), OK);
    assert_eq!(calls(&session).iter().filter(|call| **call == "htod staged").count(), 0);
}

/// Whose stream is done and whose word is not there was not copied: no old bytes of a slot reach the program.
#[test]
fn a_word_that_is_never_written_is_an_error_and_no_bytes() {
    let session = session();
    let bytes = 2 * MIB - 1;
    let (sent, at) = (pattern(bytes, 9), device(&session, bytes));
    let mut back = vec![0; bytes];
    assert_eq!(to_device(&session, at, &sent, 0), OK);
    calls(&session);
    WORDS_STAY.store(true, Ordering::Relaxed);
    assert_eq!(to_host(&session, &mut back, at, 0), UNKNOWN);
    WORDS_STAY.store(false, Ordering::Relaxed);
    assert!(back.iter().all(|byte| *byte == 0));
    assert!(calls(&session).contains(&"stream sync"));
}

/// What one slot holds is one record and one reply, no word and no second wait; refused, it is told once and brings no bytes.
#[test]
fn a_small_copy_to_the_host_is_one_call() {
    let session = session();
    for bytes in [1, 4096, 64 * KIB, MIB] {
        let (sent, at) = (pattern(bytes, 4), device(&session, bytes));
        let mut back = vec![0; bytes];
        assert_eq!(to_device(&session, at, &sent, 0), OK);
        // The first one makes the slots.
        assert_eq!(to_host(&session, &mut back, at, 0), OK);
        calls(&session);
        // More than there are slots.
        for _ in 0..20 {
            back.fill(0);
            assert_eq!(session.waits(|| assert_eq!(to_host(&session, &mut back, at, 0), OK)), 1);
            assert!(back == sent);
            REFUSED_AFTER.store(0, Ordering::Relaxed);
            back.fill(0);
            assert_eq!(to_host(&session, &mut back, at, 0), INVALID_VALUE);
            assert!(back.iter().all(|byte| *byte == 0));
        }
        assert_eq!(calls(&session), ["copy, then wait"; 40], "{bytes} bytes");
    }
}

/// An address that the library does not know, and the worker neither: its own call tells, whoever else calls meanwhile.
#[test]
fn a_copy_of_no_memory_tells_of_it_itself() {
    let session = session();
    for bytes in [4096, 40 * KIB, 5 * MIB] {
        let (nowhere, mut back) = (0x7777_0000_0000, vec![0; bytes]);
        assert_eq!(to_host(&session, &mut back, nowhere, 0), INVALID_VALUE);
        if bytes > 32 * KIB {
            assert_eq!(to_device(&session, nowhere, &back, 0), INVALID_VALUE);
        }
        assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK, "told once");
    }
}

#[test]
fn a_copy_that_is_refused_is_told_once() {
    let session = session();
    let (sent, at) = (pattern(5 * MIB, 2), device(&session, 5 * MIB));
    let mut back = vec![0; sent.len()];
    for good in [0, 3] {
        REFUSED_AFTER.store(good, Ordering::Relaxed);
        assert_eq!(to_host(&session, &mut back, at, 0), INVALID_VALUE);
        REFUSED_AFTER.store(-1, Ordering::Relaxed);
        assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK, "told already");
        REFUSED_AFTER.store(good, Ordering::Relaxed);
        // Queued: the next call that waits tells.
        let code = to_device(&session, at, &sent, 0);
        let told = [code, cu!(session.libcuda, cuCtxSynchronize()), cu!(session.libcuda, cuCtxSynchronize())];
        REFUSED_AFTER.store(-1, Ordering::Relaxed);
        assert_eq!(told.iter().filter(|code| **code == INVALID_VALUE).count(), 1, "{told:?}");
        assert_eq!(to_device(&session, at, &sent, 0), OK);
        assert_eq!(to_host(&session, &mut back, at, 0), OK);
        assert!(back == sent, "all slots are as before");
    }
}
