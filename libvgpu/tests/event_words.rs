//! Questions about events that a word in pinned memory answers, and those that it must not answer.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::calls::Calls;
use support::device::{EVENTS_PENDING, REFUSED_AFTER, WORDS_STAY};
use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const NOT_READY: u32 = 600;
const DEFAULT: u64 = 0;
const PIECE: usize = 4096;

fn event(session: &Session) -> u64 {
    let mut event = 0u64;
    let place = &raw mut event;
    assert_eq!(cu!(session.libcuda, cuEventCreate(place: *mut u64, 0: u32)), OK);
    event
}

/// Records an event, which takes no reply, and waits until the worker has come so far.
fn record(session: &Session, event: u64) {
    let waits =
        session.waits(|| assert_eq!(cu!(session.libcuda, cuEventRecord(event: u64, DEFAULT: u64)), OK));
    assert_eq!(waits, 0);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
}

/// Replies that it takes to hear that an event is reached, however often the library says by itself that it is not.
fn asks(session: &Session, event: u64) -> u64 {
    session.waits(|| {
        loop {
            match cu!(session.libcuda, cuEventQuery(event: u64)) {
                OK => return,
                code => assert_eq!(code, NOT_READY),
            }
        }
    })
}

fn pin(session: &Session) -> u64 {
    let mut address = 0u64;
    let place = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemHostAlloc(place: *mut u64, PIECE: usize, 0: u32)), OK);
    address
}

/// Whether a question right behind a record is answered by its word, which is not there, and without a reply. Asked again where the machine
/// let so much time pass in between that the worker was asked.
fn is_told_apart(session: &Session, event: u64) -> bool {
    (0..100).any(|_| {
        record(session, event);
        let mut code = OK;
        let waits = session.waits(|| code = cu!(session.libcuda, cuEventQuery(event: u64)));
        assert_eq!(code == NOT_READY, waits == 0, "the device has reached it, and the worker knows");
        waits == 0
    })
}

/// One test: what comes first is a process without pinned memory.
#[test]
fn an_event_that_was_asked_about_is_watched_from_its_next_record_on() {
    let session = session();
    let (first, other) = (event(&session), event(&session));
    for _ in 0..3 {
        record(&session, first);
        assert_eq!(asks(&session, first), 1, "there is no pinned memory for a word");
    }
    assert_eq!(session.seen_count("stream memory"), 0);

    // The words come to lie where the program had the first numbers that there are.
    let (kept, given) = (pin(&session), pin(&session));
    let numbers = std::ptr::with_exposed_provenance_mut::<u64>(usize::try_from(given).unwrap());
    // SAFETY: the library gave so many bytes.
    unsafe { std::slice::from_raw_parts_mut(numbers, PIECE / 8) }.fill(1);
    assert_eq!(cu!(session.libcuda, cuMemFreeHost(given: u64)), OK);
    record(&session, first);
    assert_eq!(asks(&session, first), 1);
    assert_eq!(asks(&session, first), 1, "watched, but not recorded since");
    assert_eq!(session.seen_count("stream memory"), 0);
    WORDS_STAY.store(true, Ordering::Relaxed);
    record(&session, first);
    assert_eq!([asks(&session, first), asks(&session, first)], [1, 1], "the device has not written");
    assert_eq!(cu!(session.libcuda, cuEventQuery(first: u64)), OK, "reached once, reached for good");
    WORDS_STAY.store(false, Ordering::Relaxed);
    record(&session, first);
    assert_eq!([asks(&session, first), asks(&session, first)], [0, 0]);
    assert_eq!(session.seen_count("stream memory"), 2, "one word a record");
    record(&session, other);
    assert_eq!(session.seen_count("stream memory"), 2, "nobody has asked about that one");

    WORDS_STAY.store(true, Ordering::Relaxed);
    record(&session, first);
    assert_eq!(asks(&session, first), 1, "what is there is of the record before");
    assert!(is_told_apart(&session, first), "no reply says what its word says");
    WORDS_STAY.store(false, Ordering::Relaxed);
    record(&session, first);
    assert_eq!(asks(&session, first), 0);
    let primary = vgpu_api::ContextId::primary(0).handle().raw();
    assert_eq!(cu!(session.libcuda, cuCtxRecordEvent(primary: u64, first: u64)), OK);
    assert_eq!(asks(&session, first), 1, "recorded behind all streams");
    record(&session, first);
    launch_a_graph(&session);
    assert_eq!(asks(&session, first), 1, "the graph may have recorded it");

    // A word comes a moment before its record.
    record(&session, first);
    assert_eq!(asks(&session, first), 0);
    EVENTS_PENDING.store(true, Ordering::Relaxed);
    assert_eq!([elapsed(&session, other, first), elapsed(&session, other, first)], [OK, OK]);
    EVENTS_PENDING.store(true, Ordering::Relaxed);
    assert_eq!(elapsed(&session, other, other), NOT_READY, "nobody was told that it is reached");
    EVENTS_PENDING.store(false, Ordering::Relaxed);

    // What asks for times is no question about the event: the next one goes to the worker when it is due.
    WORDS_STAY.store(true, Ordering::Relaxed);
    record(&session, first);
    std::thread::sleep(Duration::from_millis(60));
    EVENTS_PENDING.store(true, Ordering::Relaxed);
    assert_eq!(elapsed(&session, first, first), NOT_READY);
    EVENTS_PENDING.store(false, Ordering::Relaxed);
    assert_eq!(cu!(session.libcuda, cuEventQuery(first: u64)), OK);
    WORDS_STAY.store(false, Ordering::Relaxed);

    // Anything may be why a number does not come.
    WORDS_STAY.store(true, Ordering::Relaxed);
    record(&session, first);
    fail(&session);
    let waits = session.waits(|| assert_eq!(cu!(session.libcuda, cuEventQuery(first: u64)), OK));
    assert_eq!(waits, 1, "an error has come since the record");
    WORDS_STAY.store(false, Ordering::Relaxed);

    // The next event gets the word of one that has ended.
    record(&session, first);
    assert_eq!(asks(&session, first), 0);
    assert_eq!(cu!(session.libcuda, cuEventDestroy_v2(first: u64)), OK);
    let next = event(&session);
    record(&session, next);
    assert_eq!([asks(&session, next), asks(&session, next)], [1, 1]);
    WORDS_STAY.store(true, Ordering::Relaxed);
    record(&session, next);
    assert_eq!(asks(&session, next), 1);
    WORDS_STAY.store(false, Ordering::Relaxed);
    record(&session, next);
    assert_eq!(asks(&session, next), 0);

    // There are 512 words.
    let many: Vec<u64> = (0..600).map(|_| event(&session)).collect();
    for each in &many {
        record(&session, *each);
        asks(&session, *each);
        record(&session, *each);
    }
    let answered = many.iter().filter(|each| asks(&session, **each) == 0).count();
    assert_eq!(answered, 511);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK, "nothing has failed on the way");
    assert_eq!(cu!(session.libcuda, cuMemFreeHost(kept: u64)), OK);
    record(&session, next);
    assert_eq!(asks(&session, next), 0, "the words stay when the program has no pinned memory any more");
}

fn elapsed(session: &Session, start: u64, end: u64) -> u32 {
    let mut milliseconds = 0f32;
    let place = &raw mut milliseconds;
    cu!(session.libcuda, cuEventElapsedTime(place: *mut f32, start: u64, end: u64))
}

/// A queued copy is refused, and the program is told.
fn fail(session: &Session) {
    let (bytes, mut address) = (vec![0u8; 40 << 10], 0u64);
    let (length, from, place) = (bytes.len(), bytes.as_ptr(), &raw mut address);
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, length: usize)), OK);
    REFUSED_AFTER.store(0, Ordering::Relaxed);
    let code = cu!(session.libcuda, cuMemcpyHtoDAsync_v2(address: u64, from: *const u8, length: usize, DEFAULT: u64));
    let told = [code, cu!(session.libcuda, cuCtxSynchronize())];
    REFUSED_AFTER.store(-1, Ordering::Relaxed);
    assert!(told.contains(&INVALID_VALUE), "{told:?}");
}

fn launch_a_graph(session: &Session) {
    let (stream, mut graph, mut exec) = (session.stream(0), 0u64, 0u64);
    let (graph_at, exec_at) = (&raw mut graph, &raw mut exec);
    assert_eq!(cu!(session.libcuda, cuStreamBeginCapture_v2(stream: u64, 0: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuMemsetD8Async(0x7000_0000: u64, 1: u8, 64: usize, stream: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamEndCapture(stream: u64, graph_at: *mut u64)), OK);
    assert_eq!(cu!(session.libcuda, cuGraphInstantiateWithFlags(exec_at: *mut u64, graph: u64, 0: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuGraphLaunch(exec: u64, stream: u64)), OK);
}
