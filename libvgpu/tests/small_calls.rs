//! Calls of several subjects that are answered in the guest or nearly so: user objects, old launches, logs, notices, affinity.

mod support;

use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use support::Library;
use support::session::{Session, session};
use vgpu_api::{ContextId, EventHandle, FunctionHandle};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_DEVICE: u32 = 101;
const INVALID_CONTEXT: u32 = 201;
const INVALID_HANDLE: u32 = 400;
const NOT_PERMITTED: u32 = 800;

type HostFn = unsafe extern "C" fn(*mut c_void);

/// How often a user object was destroyed, what it was given, and what CUDA said to that function.
static DESTROYED: AtomicU32 = AtomicU32::new(0);
static GIVEN: AtomicUsize = AtomicUsize::new(0);
static TOLD: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn destroy(data: *mut c_void) {
    let (library, mut count) = (Library::open(), 0i32);
    let count_at = &raw mut count;
    TOLD.store(cu!(library, cuDeviceGetCount(count_at: *mut i32)), Ordering::Relaxed);
    GIVEN.store(data.addr(), Ordering::Relaxed);
    DESTROYED.fetch_add(1, Ordering::Relaxed);
}

fn user_object(library: &Library, function: Option<HostFn>, owners: u32, flags: u32) -> (u32, u64) {
    let mut object = 0u64;
    let at = &raw mut object;
    let code = cu!(library, cuUserObjectCreate(at: *mut u64, 77: usize, function: Option<HostFn>, owners: u32, flags: u32));
    (code, object)
}

#[test]
fn the_last_owner_of_a_user_object_destroys_it() {
    let session = session();
    let library = &session.libcuda;
    for (function, owners, flags) in
        [(None, 1, 1), (Some(destroy as HostFn), 0, 1), (Some(destroy), 1 << 31, 1), (Some(destroy), 1, 0)]
    {
        assert_eq!(user_object(library, function, owners, flags).0, INVALID_VALUE, "{owners} {flags}");
    }
    let (code, object) = user_object(library, Some(destroy), 2, 1);
    assert_eq!(code, OK);
    let retain = |object: u64, count: u32| cu!(library, cuUserObjectRetain(object: u64, count: u32));
    let release = |object: u64, count: u32| cu!(library, cuUserObjectRelease(object: u64, count: u32));
    assert_eq!(
        (retain(object, 3), retain(object, 0), retain(object, i32::MAX.unsigned_abs())),
        (OK, INVALID_VALUE, INVALID_VALUE)
    );
    assert_eq!(
        (release(object, 6), release(object, 0), release(object, 4)),
        (INVALID_VALUE, INVALID_VALUE, OK)
    );
    assert_eq!(DESTROYED.load(Ordering::Relaxed), 0);
    assert_eq!(release(object, 1), OK);
    let seen =
        (DESTROYED.load(Ordering::Relaxed), GIVEN.load(Ordering::Relaxed), TOLD.load(Ordering::Relaxed));
    assert_eq!(seen, (1, 77, NOT_PERMITTED));
    assert_eq!((release(object, 1), retain(object, 1)), (INVALID_VALUE, INVALID_VALUE));
    let mut count = 0i32;
    let count_at = &raw mut count;
    assert_eq!(cu!(library, cuDeviceGetCount(count_at: *mut i32)), OK, "this thread may again");
}

fn load(session: &Session) -> (u64, u64) {
    let (mut module, mut function, image) = (0u64, 0u64, c".version 7.0".as_ptr());
    let (module_at, function_at, name) = (&raw mut module, &raw mut function, c"fill".as_ptr());
    assert_eq!(cu!(session.libcuda, cuModuleLoadData(module_at: *mut u64, image: *const i8)), OK);
    assert_eq!(
        cu!(session.libcuda, cuModuleGetFunction(function_at: *mut u64, module: u64, name: *const i8)),
        OK
    );
    (module, function)
}

#[test]
fn a_launch_of_the_old_kind_is_one_of_the_new_kind() {
    let session = session();
    let library = &session.libcuda;
    let (module, fill) = load(&session);
    let mut address = 0u64;
    let address_at = &raw mut address;
    assert_eq!(cu!(library, cuMemAlloc_v2(address_at: *mut u64, 64: usize)), OK);
    assert_eq!(cu!(library, cuFuncSetBlockShape(fill: u64, 16: i32, 2: i32, 1: i32)), OK);
    assert_eq!(cu!(library, cuFuncSetSharedSize(fill: u64, 256: u32)), OK);
    assert_eq!(cu!(library, cuLaunch(fill: u64)), INVALID_VALUE, "without its parameters");
    assert_eq!(cu!(library, cuParamSetSize(fill: u64, 16: u32)), OK);
    let source = (&raw const address).cast::<c_void>();
    assert_eq!(cu!(library, cuParamSetv(fill: u64, 0: i32, source: *const c_void, 8: u32)), OK);
    assert_eq!(cu!(library, cuParamSetf(fill: u64, 8: i32, 1.0: f32)), OK);
    assert_eq!(cu!(library, cuParamSeti(fill: u64, 12: i32, 16: u32)), OK);
    assert_eq!(cu!(library, cuLaunchGrid(fill: u64, 3: i32, 5: i32)), OK);
    let mut back = [0f32; 16];
    let place = back.as_mut_ptr();
    assert_eq!(cu!(library, cuMemcpyDtoH_v2(place: *mut f32, address: u64, 64: usize)), OK);
    assert!(back.iter().all(|value| value.to_bits() == 1.0f32.to_bits()), "{back:?}");
    let launch = session.seen.lock().unwrap().launches.last().cloned().unwrap();
    assert_eq!(
        (launch.shape.grid, launch.shape.block, launch.shape.shared_bytes),
        ([3, 5, 1], [16, 2, 1], 256)
    );
    let mut stream = 0u64;
    let stream_at = &raw mut stream;
    assert_eq!(cu!(library, cuStreamCreate(stream_at: *mut u64, 0: u32)), OK);
    assert_eq!(cu!(library, cuLaunchGridAsync(fill: u64, 1: i32, 1: i32, stream: u64)), OK);
    assert_eq!(cu!(library, cuStreamSynchronize(stream: u64)), OK);
    let launch = session.seen.lock().unwrap().launches.last().cloned().unwrap();
    assert_ne!(launch.shape.stream, vgpu_api::Stream::Legacy);

    for (offset, wrong) in [(-4, "negative"), (32_764, "past the largest block")] {
        assert_eq!(cu!(library, cuParamSeti(fill: u64, offset: i32, 1: u32)), INVALID_VALUE, "{wrong}");
    }
    assert_eq!(cu!(library, cuParamSetSize(fill: u64, 40_000: u32)), INVALID_VALUE);
    let negative = -1i32;
    assert_eq!(cu!(library, cuFuncSetBlockShape(fill: u64, negative: i32, 1: i32, 1: i32)), INVALID_VALUE);
    assert_eq!(cu!(library, cuLaunchGrid(fill: u64, 0: i32, 1: i32)), INVALID_VALUE);
    let nothing = FunctionHandle::new(9, 0x99_0000).raw();
    assert_eq!(cu!(library, cuFuncSetSharedSize(nothing: u64, 1: u32)), INVALID_HANDLE);
    assert_eq!(cu!(library, cuLaunch(nothing: u64)), INVALID_HANDLE);
    assert_eq!(cu!(library, cuStreamDestroy_v2(stream: u64)), OK);
    assert_eq!(cu!(library, cuMemFree_v2(address: u64)), OK);
    assert_eq!(cu!(library, cuModuleUnload(module: u64)), OK);
    assert_eq!(cu!(library, cuLaunch(fill: u64)), INVALID_HANDLE);
}

#[test]
fn a_context_that_was_attached_to_ends_with_its_last_detach() {
    let session = session();
    let library = &session.libcuda;
    let (mut made, mut attached) = (0u64, 0u64);
    let (made_at, attached_at) = (&raw mut made, &raw mut attached);
    assert_eq!(cu!(library, cuCtxCreate_v2(made_at: *mut u64, 0: u32, 0: i32)), OK);
    assert_eq!(cu!(library, cuCtxAttach(attached_at: *mut u64, 1: u32)), INVALID_VALUE);
    assert_eq!(cu!(library, cuCtxAttach(attached_at: *mut u64, 0: u32)), OK);
    assert_eq!(attached, made);
    assert_eq!(cu!(library, cuCtxDetach(made: u64)), OK);
    assert_eq!(cu!(library, cuCtxSynchronize()), OK, "it is still there");
    assert_eq!(cu!(library, cuCtxDetach(made: u64)), OK);
    assert_eq!(cu!(library, cuCtxDetach(made: u64)), INVALID_CONTEXT);
    let primary = ContextId::primary(0).handle().raw();
    assert_eq!(cu!(library, cuCtxDetach(primary: u64)), INVALID_CONTEXT, "it is not detached from");
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
}

#[test]
fn an_event_is_recorded_and_waited_for_in_a_whole_context() {
    let session = session();
    let library = &session.libcuda;
    let (mut event, primary) = (0u64, ContextId::primary(0).handle().raw());
    let event_at = &raw mut event;
    assert_eq!(cu!(library, cuEventCreate(event_at: *mut u64, 0: u32)), OK);
    assert_eq!(cu!(library, cuCtxRecordEvent(primary: u64, event: u64)), OK);
    assert_eq!(cu!(library, cuCtxWaitEvent(primary: u64, event: u64)), OK);
    let wrong = EventHandle::new(0, 999).raw();
    assert_eq!(cu!(library, cuCtxRecordEvent(primary: u64, wrong: u64)), INVALID_HANDLE);
    assert_eq!(cu!(library, cuCtxWaitEvent(event: u64, event: u64)), INVALID_CONTEXT);
    assert_eq!(cu!(library, cuCtxRecordEvent(0: u64, event: u64)), INVALID_CONTEXT);
    // Both are queued: seen when a later call has its answer.
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
    let seen = session.seen.lock().unwrap().calls.clone();
    let queued: Vec<_> = seen.into_iter().filter(|call| ["ctx record", "ctx wait"].contains(call)).collect();
    assert_eq!(queued, ["ctx record", "ctx wait"]);
    // The event knows its context, whoever asks.
    let elsewhere = std::thread::scope(|scope| {
        let ask = || [cu!(library, cuEventQuery(event: u64)), cu!(library, cuEventSynchronize(event: u64))];
        scope.spawn(ask).join().unwrap()
    });
    assert_eq!(elsewhere, [OK, OK], "a thread without a context");
    let mut none = 0u64;
    let none_at = &raw mut none;
    for flags in [4u32, 8, 14] {
        assert_eq!(cu!(library, cuEventCreate(none_at: *mut u64, flags: u32)), INVALID_VALUE, "{flags}");
    }
    assert_eq!(cu!(library, cuEventDestroy_v2(event: u64)), OK);
}

#[test]
fn what_devices_do_not_have_is_said_of_each_operation() {
    let session = session();
    let library = &session.libcuda;
    let (mut can, operations, none) = ([9u32; 3], [0u32, 9, 12], std::ptr::null::<u32>());
    let (can_at, list) = (can.as_mut_ptr(), operations.as_ptr());
    assert_eq!(
        cu!(library, cuDeviceGetHostAtomicCapabilities(can_at: *mut u32, list: *const u32, 2: u32, 0: i32)),
        OK
    );
    assert_eq!(can, [0, 0, 9]);
    assert_eq!(
        cu!(library, cuDeviceGetP2PAtomicCapabilities(can_at: *mut u32, list: *const u32, 3: u32, 0: i32, 1: i32)),
        OK
    );
    assert_eq!(can, [0; 3]);
    let host = |list: *const u32, count: u32, device: i32| cu!(library, cuDeviceGetHostAtomicCapabilities(can_at: *mut u32, list: *const u32, count: u32, device: i32));
    let unknown = [13u32];
    assert_eq!(
        (host(none, 1, 0), host(list, 0, 0), host(list, 1, 5)),
        (INVALID_VALUE, INVALID_VALUE, INVALID_DEVICE)
    );
    assert_eq!(host(unknown.as_ptr(), 1, 0), INVALID_VALUE);
    assert_eq!(
        cu!(library, cuDeviceGetP2PAtomicCapabilities(can_at: *mut u32, list: *const u32, 1: u32, 1: i32, 1: i32)),
        INVALID_DEVICE
    );
    let (mut all, mut affinity) = (0i32, [9i32; 2]);
    let (all_at, affinity_at) = (&raw mut all, affinity.as_mut_ptr());
    assert_eq!(cu!(library, cuDeviceGetAttribute(all_at: *mut i32, 16: i32, 0: i32)), OK);
    assert_eq!(cu!(library, cuCtxGetExecAffinity(affinity_at: *mut i32, 0: i32)), OK);
    assert_eq!(affinity, [0, all], "all multiprocessors");
    assert_eq!(cu!(library, cuCtxGetExecAffinity(affinity_at: *mut i32, 1: i32)), INVALID_VALUE);
}

#[test]
fn a_notice_that_never_comes_can_be_asked_for_and_given_up() {
    let session = session();
    let library = &session.libcuda;
    let (mut first, mut second, function, null) = (0u64, 0u64, destroy as HostFn, std::ptr::null::<c_void>());
    let (first_at, second_at) = (&raw mut first, &raw mut second);
    let register = |device: i32, function: Option<HostFn>, at: *mut u64| cu!(library, cuDeviceRegisterAsyncNotification(device: i32, function: Option<HostFn>, null: *const c_void, at: *mut u64));
    assert_eq!((register(0, Some(function), first_at), register(0, Some(function), second_at)), (OK, OK));
    assert_ne!(first, second);
    assert_eq!(
        (register(0, None, first_at), register(4, Some(function), first_at)),
        (INVALID_VALUE, INVALID_DEVICE)
    );
    let unregister = |device: i32, handle: u64| cu!(library, cuDeviceUnregisterAsyncNotification(device: i32, handle: u64));
    assert_eq!(
        (unregister(1, first), unregister(0, first), unregister(0, first)),
        (INVALID_VALUE, OK, INVALID_VALUE)
    );
    assert_eq!(unregister(0, second), OK);
}

/// What a callback heard, by the thread that it told.
/// How far [`takes_long`] has come: it was called, and it has returned.
static LONG: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
/// The code of ending a callback in itself.
static ENDED_ITSELF: AtomicU32 = AtomicU32::new(u32::MAX);

extern "C" fn takes_long(_: *mut c_void, _: u32, _: *mut c_char, _: usize) {
    LONG[0].fetch_add(1, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(100));
    LONG[1].fetch_add(1, Ordering::SeqCst);
}

/// `data`: where its own handle is.
extern "C" fn ends_itself(data: *mut c_void, _: u32, _: *mut c_char, _: usize) {
    // SAFETY: the test's word, which nobody writes meanwhile.
    let (library, handle) = (Library::open(), unsafe { data.cast::<u64>().read() });
    ENDED_ITSELF.store(cu!(library, cuLogsUnregisterCallback(handle: u64)), Ordering::SeqCst);
}

#[test]
fn a_callback_is_over_when_its_end_returns_but_for_its_own_thread() {
    let session = session();
    let library = &session.libcuda;
    let fails = || assert_ne!(cu!(library, cuStreamGetPriority(7: u64, 0: usize)), OK);
    let listens = |function: extern "C" fn(*mut c_void, u32, *mut c_char, usize),
                   data: *mut u64,
                   handle_at: *mut u64| {
        assert_eq!(
            cu!(library, cuLogsRegisterCallback(function: extern "C" fn(*mut c_void, u32, *mut c_char, usize), data: *mut u64, handle_at: *mut u64)),
            OK
        );
    };
    let mut handle = 0u64;
    listens(takes_long, std::ptr::null_mut(), &raw mut handle);
    std::thread::scope(|scope| {
        scope.spawn(fails);
        while LONG[0].load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(cu!(library, cuLogsUnregisterCallback(handle: u64)), OK);
        let [called, returned] = LONG.each_ref().map(|count| count.load(Ordering::SeqCst));
        assert_eq!(called, returned, "none runs any more");
    });

    let at = &raw mut handle;
    listens(ends_itself, at, at);
    fails();
    assert_eq!(ENDED_ITSELF.load(Ordering::SeqCst), OK);
    assert_eq!(cu!(library, cuLogsUnregisterCallback(handle: u64)), INVALID_VALUE);
}

static HEARD: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());

extern "C" fn hears(data: *mut c_void, level: u32, message: *mut c_char, bytes: usize) {
    assert_eq!(level, 0);
    // SAFETY: a text with its NUL, lent for the call.
    let text = unsafe { CStr::from_ptr(message) }.to_str().unwrap();
    assert_eq!(text.len(), bytes);
    HEARD.lock().unwrap().push((data.expose_provenance() as u64, text.to_owned()));
}

#[test]
fn what_failed_is_told_kept_and_written() {
    let session = session();
    let library = &session.libcuda;
    // Other tests of this program fail calls, too: each line is looked for by its call.
    let null = std::ptr::null_mut();
    let fails = || cu!(library, cuStreamGetPriority(7: u64, null: *mut i32));
    let (mut handle, data, hears) = (0u64, 5u64, hears as extern "C" fn(_, _, _, _));
    let handle_at = &raw mut handle;
    assert_eq!(
        cu!(library, cuLogsRegisterCallback(hears: extern "C" fn(*mut c_void, u32, *mut c_char, usize), data: u64, handle_at: *mut u64)),
        OK
    );
    let mut iterator = 9u32;
    let iterator_at = &raw mut iterator;
    assert_eq!(cu!(library, cuLogsCurrent(iterator_at: *mut u32, 1: u32)), INVALID_VALUE);
    assert_eq!(cu!(library, cuLogsCurrent(iterator_at: *mut u32, 0: u32)), OK);
    let from = iterator;
    let code = fails();
    assert_ne!(code, OK);
    let told = |(data, text): &&(u64, String)| *data == 5 && text.contains("cuStreamGetPriority");
    let heard = HEARD.lock().unwrap().iter().filter(told).cloned().collect::<Vec<_>>();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].1.ends_with(&format!("({code})")), "{heard:?}");
    assert_eq!(cu!(library, cuLogsUnregisterCallback(handle: u64)), OK);
    assert_eq!(cu!(library, cuLogsUnregisterCallback(handle: u64)), INVALID_VALUE);
    fails();
    assert_eq!(HEARD.lock().unwrap().iter().filter(told).count(), 1, "nobody listens any more");

    let (mut buffer, mut bytes) = ([b'x'; 25_600], 25_600usize);
    let (buffer_at, bytes_at) = (buffer.as_mut_ptr(), &raw mut bytes);
    let dump = || cu!(library, cuLogsDumpToMemory(iterator_at: *mut u32, buffer_at: *mut u8, bytes_at: *mut usize, 0: u32));
    assert_eq!(dump(), OK);
    let text = str::from_utf8(&buffer[..bytes]).unwrap();
    assert_eq!((text.matches("cuStreamGetPriority").count(), buffer[bytes]), (2, 0), "{text}");
    assert!(text.contains(&heard[0].1) && iterator != from);
    fails();
    for room in [0, 8] {
        // SAFETY: `bytes` lives, and nobody else has it now.
        unsafe { bytes_at.write(room) };
        assert_eq!((dump(), bytes), (INVALID_VALUE, 0), "no room for a line");
    }

    let path = std::env::temp_dir().join(format!("vgpu-logs-{}", std::process::id()));
    let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let place = text.as_ptr();
    assert_eq!(cu!(library, cuLogsDumpToFile(iterator_at: *mut u32, place: *const i8, 0: u32)), OK);
    assert!(std::fs::read_to_string(&path).unwrap().contains("cuStreamGetPriority"));
    std::fs::remove_file(&path).unwrap();
    let nowhere = c"/nowhere/at/all".as_ptr();
    assert_eq!(
        cu!(library, cuLogsDumpToFile(iterator_at: *mut u32, nowhere: *const i8, 0: u32)),
        INVALID_VALUE
    );
}

#[test]
fn no_library_shares_a_functions_address_with_the_host() {
    let session = session();
    let library = &session.libcuda;
    let (mut loaded, mut function, image, name) = (0u64, 0u64, c".version 7.0".as_ptr(), c"fill".as_ptr());
    let (at, function_at, null) = (&raw mut loaded, &raw mut function, std::ptr::null::<u64>());
    assert_eq!(
        cu!(library, cuLibraryLoadData(at: *mut u64, image: *const i8, null: *const u64, null: *const u64, 0: u32,
            null: *const u64, null: *const u64, 0: u32)),
        OK
    );
    assert_eq!(
        cu!(library, cuLibraryGetUnifiedFunction(function_at: *mut u64, loaded: u64, name: *const i8)),
        INVALID_VALUE
    );
    assert_eq!(cu!(library, cuLibraryUnload(loaded: u64)), OK);
    assert_eq!(
        cu!(library, cuLibraryGetUnifiedFunction(function_at: *mut u64, loaded: u64, name: *const i8)),
        INVALID_HANDLE
    );
}
