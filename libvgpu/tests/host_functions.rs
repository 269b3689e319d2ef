//! Functions of the program that a stream calls: the stream waits for them, in order, and they may not call CUDA.

mod support;

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use support::Library;
use support::session::session;
use vgpu_api::StreamHandle;

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_CONTEXT: u32 = 201;
const INVALID_HANDLE: u32 = 400;
const NOT_PERMITTED: u32 = 800;

type HostFn = unsafe extern "C" fn(*mut c_void);
type StreamCallback = unsafe extern "C" fn(u64, u32, *mut c_void);

/// Data, and of a callback the stream and its status.
type Ran = (usize, Option<(u64, u32)>);

/// Each function that ran.
static RAN: Mutex<Vec<Ran>> = Mutex::new(Vec::new());

unsafe extern "C" fn note(data: *mut c_void) {
    std::thread::sleep(Duration::from_millis(2));
    RAN.lock().unwrap().push((data.addr(), None));
}

unsafe extern "C" fn note_told(stream: u64, status: u32, data: *mut c_void) {
    RAN.lock().unwrap().push((data.addr(), Some((stream, status))));
}

fn launch(library: &Library, stream: u64, function: Option<HostFn>, data: usize) -> u32 {
    cu!(library, cuLaunchHostFunc(stream: u64, function: Option<HostFn>, data: usize))
}

fn add_callback(
    library: &Library,
    stream: u64,
    function: Option<StreamCallback>,
    data: usize,
    flags: u32,
) -> u32 {
    cu!(library, cuStreamAddCallback(stream: u64, function: Option<StreamCallback>, data: usize, flags: u32))
}

#[test]
fn functions_run_in_the_order_of_their_stream_before_it_is_done() {
    let session = session();
    let library = &session.libcuda;
    let mut stream = 0u64;
    let stream_at = &raw mut stream;
    assert_eq!(cu!(library, cuStreamCreate(stream_at: *mut u64, 0: u32)), OK);
    RAN.lock().unwrap().clear();
    for round in 0..50 {
        assert_eq!(launch(library, stream, Some(note), round), OK);
        assert_eq!(add_callback(library, stream, Some(note_told), round, 0), OK);
    }
    assert_eq!(cu!(library, cuStreamSynchronize(stream: u64)), OK);
    let expected: Vec<_> = (0..50).flat_map(|round| [(round, None), (round, Some((stream, OK)))]).collect();
    assert_eq!(*RAN.lock().unwrap(), expected);
    let (thread_stream, function) = (2u64, Some(note as HostFn));
    assert_eq!(
        cu!(library, cuLaunchHostFunc_ptsz(thread_stream: u64, function: Option<HostFn>, 77: usize)),
        OK
    );
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
    assert_eq!(RAN.lock().unwrap().last(), Some(&(77, None)));
    assert_eq!(cu!(library, cuStreamDestroy_v2(stream: u64)), OK);
}

#[test]
fn what_is_no_function_flag_or_stream_is_refused_at_once() {
    let session = session();
    let library = &session.libcuda;
    assert_eq!(launch(library, 0, None, 0), INVALID_VALUE);
    assert_eq!(add_callback(library, 0, None, 0, 0), INVALID_VALUE);
    assert_eq!(add_callback(library, 0, Some(note_told), 0, 1), INVALID_VALUE);
    for stream in [StreamHandle::new(0, 4000).raw(), 3, 1 << 40] {
        assert_eq!(launch(library, stream, Some(note), 0), INVALID_HANDLE, "{stream:#x}");
        assert_eq!(add_callback(library, stream, Some(note_told), 0, 0), INVALID_HANDLE);
    }
    let without =
        std::thread::scope(|scope| scope.spawn(|| launch(library, 0, Some(note), 0)).join().unwrap());
    assert_eq!(without, INVALID_CONTEXT);
}

/// What the calls of a function gave, the version that it was told, and the two ends by which the test holds it.
static CODES: [AtomicU32; 4] = [const { AtomicU32::new(u32::MAX) }; 4];
static VERSION: AtomicU32 = AtomicU32::new(0);
static HOLD: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>> = Mutex::new(None);

fn version(library: &Library) -> u32 {
    let mut version = 0u32;
    let place = &raw mut version;
    assert_eq!(cu!(library, cuDriverGetVersion(place: *mut u32)), OK);
    version
}

unsafe extern "C" fn calls_cuda(_: *mut c_void) {
    let library = Library::open();
    let (mut place, mut text) = (0u64, std::ptr::null::<i8>());
    let (at, text_at) = (&raw mut place, &raw mut text);
    let codes = [
        cu!(library, cuCtxGetCurrent(at: *mut u64)),
        cu!(library, cuMemAlloc_v2(at: *mut u64, 64: usize)),
        cu!(library, cuInit(0: u32)),
        cu!(library, cuGetErrorName(800: u32, text_at: *mut *const i8)),
    ];
    for (place, code) in CODES.iter().zip(codes) {
        place.store(code, Ordering::Relaxed);
    }
    VERSION.store(version(&library), Ordering::Relaxed);
    let (runs, go_on) = HOLD.lock().unwrap().take().unwrap();
    runs.send(()).unwrap();
    go_on.recv().unwrap();
}

#[test]
fn a_function_may_not_call_cuda_and_others_may_meanwhile() {
    let session = session();
    let library = &session.libcuda;
    let ((runs, is_running), (let_go, go_on)) = (mpsc::channel(), mpsc::channel());
    *HOLD.lock().unwrap() = Some((runs, go_on));
    assert_eq!(launch(library, 0, Some(calls_cuda), 0), OK);
    is_running.recv().unwrap();
    let mut device = 9i32;
    let device_at = &raw mut device;
    assert_eq!(cu!(library, cuCtxGetDevice(device_at: *mut i32)), OK, "of another thread");
    let_go.send(()).unwrap();
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
    let codes = CODES.each_ref().map(|code| code.load(Ordering::Relaxed));
    assert_eq!(codes, [NOT_PERMITTED, NOT_PERMITTED, NOT_PERMITTED, OK]);
    let told = VERSION.load(Ordering::Relaxed);
    assert_eq!((told, version(library)), (12090, 12090), "the worker's, which is the lower one");
}
