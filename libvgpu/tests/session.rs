//! A program's calls, from the C border through real rings to a device of a few lines and back.

mod support;

use std::ffi::{CString, c_char, c_void};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use support::session::{Session, session};
use vgpu_api::snapshot::is_offered;
use vgpu_api::{ContextId, FunctionHandle, Handle, StreamHandle};

const OK: u32 = 0;
/// More bytes than the device has.
const TOO_MUCH: usize = 1 << 40;
/// A priority above the device's range.
const FAR_TOO_HIGH: i32 = -99;
const INVALID_VALUE: u32 = 1;
const LAUNCH_OUT_OF_RESOURCES: u32 = 701;
const NOT_INITIALIZED: u32 = 3;
const OUT_OF_MEMORY: u32 = 2;
const INVALID_CONTEXT: u32 = 201;
const INVALID_PTX: u32 = 218;
const INVALID_HANDLE: u32 = 400;
const NOT_FOUND: u32 = 500;
const CONTEXT_IS_DESTROYED: u32 = 709;

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

fn load(session: &Session, image: &std::ffi::CStr) -> (u32, u64) {
    let (mut module, image) = (0u64, image.as_ptr());
    let place = &raw mut module;
    (cu!(session.libcuda, cuModuleLoadData(place: *mut u64, image: *const i8)), module)
}

fn function(session: &Session, module: u64, name: &std::ffi::CStr) -> u64 {
    let (mut function, name) = (0u64, name.as_ptr());
    let place = &raw mut function;
    assert_eq!(cu!(session.libcuda, cuModuleGetFunction(place: *mut u64, module: u64, name: *const i8)), OK);
    function
}

fn launch(session: &Session, function: u64, grid: u32, block: u32, params: &[*const c_void]) -> u32 {
    let (list, null, stream) = (params.as_ptr(), std::ptr::null::<*const c_void>(), 0u64);
    let list = if params.is_empty() { null } else { list };
    let (one, none) = (1u32, 0u32);
    cu!(session.libcuda, cuLaunchKernel(function: u64, grid: u32, one: u32, one: u32, block: u32, one: u32, one: u32,
        none: u32, stream: u64, list: *const *const c_void, null: *const *const c_void))
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
fn devices_are_answered_from_the_snapshot() {
    let session = session();
    let (mut count, mut name, mut major, mut bytes, mut uuid) = (0i32, [0u8; 32], 0i32, 0usize, [0u8; 16]);
    let (count_at, name_at, major_at, bytes_at, uuid_at) =
        (&raw mut count, name.as_mut_ptr(), &raw mut major, &raw mut bytes, uuid.as_mut_ptr());
    let before = session.call_count();
    assert_eq!(cu!(session.libcuda, cuDeviceGetCount(count_at: *mut i32)), OK);
    assert_eq!(cu!(session.libcuda, cuDeviceGetName(name_at: *mut u8, 32: i32, 1: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuDeviceGetAttribute(major_at: *mut i32, 75: u32, 0: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuDeviceTotalMem_v2(bytes_at: *mut usize, 0: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuDeviceGetUuid(uuid_at: *mut u8, 1: i32)), OK);
    assert_eq!((count, &name[..7], major, bytes, uuid), (2, &b"fake 1\0"[..], 9, 1 << 30, [2; 16]));
    for attribute in 1..148u32 {
        assert_eq!(
            cu!(session.libcuda, cuDeviceGetAttribute(major_at: *mut i32, attribute: u32, 0: i32)),
            OK,
            "{attribute}"
        );
        // The fake device says 1 to all of these.
        if !is_offered(attribute) {
            assert_eq!(major, 0, "{attribute}");
        }
    }
    // What CUDA 13.0 has no name for, as from a driver that does not know it.
    for attribute in [0, 148, 149, 159, 160, 4000, u32::MAX] {
        let code = cu!(session.libcuda, cuDeviceGetAttribute(major_at: *mut i32, attribute: u32, 0: i32));
        assert_eq!(code, INVALID_VALUE, "{attribute}");
    }
    assert_eq!(cu!(session.libcuda, cuDeviceGetName(name_at: *mut u8, 32: i32, 2: i32)), 101);
    assert_eq!(session.call_count(), before, "nothing of it travels");
}

#[test]
fn a_primary_context_can_be_current_before_it_is_retained_but_not_used() {
    let session = session();
    let primary = ContextId::primary(1).handle().raw();
    let mut address = 0u64;
    let place = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(primary: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, 64: usize)), INVALID_CONTEXT);
    let mut retained = 0u64;
    let retained_at = &raw mut retained;
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxRetain(retained_at: *mut u64, 1: i32)), OK);
    assert_eq!(retained, primary);
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, 64: usize)), OK);
    free(&session, address);
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxRelease_v2(1: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, 64: usize)), CONTEXT_IS_DESTROYED);
    let stream = StreamHandle::new(0, 3).raw();
    assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(stream: u64)), INVALID_CONTEXT);
}

#[test]
fn the_stack_of_contexts_is_the_threads_own() {
    let session = session();
    let (mut made, mut popped, mut device) = (0u64, 0u64, 9i32);
    let (made_at, popped_at, device_at) = (&raw mut made, &raw mut popped, &raw mut device);
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(made_at: *mut u64, 0: u32, 1: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuCtxGetDevice(device_at: *mut i32)), OK);
    assert_eq!(device, 1);
    let library = &session.libcuda;
    let of_another_thread = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut current = 9u64;
            let current_at = &raw mut current;
            (cu!(library, cuCtxGetCurrent(current_at: *mut u64)), current)
        });
        other.join().unwrap()
    });
    assert_eq!(of_another_thread, (OK, 0));
    assert_eq!(cu!(session.libcuda, cuCtxPopCurrent_v2(popped_at: *mut u64)), OK);
    assert_eq!(popped, made);
    assert_eq!(cu!(session.libcuda, cuCtxGetCurrent(popped_at: *mut u64)), OK);
    assert_eq!(popped, ContextId::primary(0).handle().raw());
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuCtxPushCurrent_v2(made: u64)), OK);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), CONTEXT_IS_DESTROYED);
}

#[test]
fn bytes_of_every_size_come_back_whole() {
    let session = session();
    for len in [1usize, 4096, 32 * 1024, 32 * 1024 + 1, 3 << 20, (9 << 20) + 5] {
        let address = alloc(&session, len);
        let pattern: Vec<u8> = (0..len).map(|i| u8::try_from((i * 31 + len) % 251).unwrap()).collect();
        assert_eq!(write(&session, address, &pattern), OK);
        assert!(read(&session, address, len) == pattern, "{len} bytes");
        free(&session, address);
    }
}

#[test]
fn unified_copies_find_their_direction_and_bad_lengths_are_refused_at_once() {
    let session = session();
    let address = alloc(&session, 64);
    let (bytes, mut back) = ([7u8; 64], [0u8; 64]);
    let (from, to) = (bytes.as_ptr() as u64, back.as_mut_ptr() as u64);
    assert_eq!(cu!(session.libcuda, cuMemcpy(address: u64, from: u64, 64: usize)), OK);
    assert_eq!(cu!(session.libcuda, cuMemcpyAsync(to: u64, address: u64, 64: usize, 0: u64)), OK);
    assert_eq!(back, bytes);
    assert_eq!(write(&session, address, &[0; 65]), INVALID_VALUE);
    assert_eq!(write(&session, 0x10, &[0; 4]), OK, "an address nobody knows is the worker's to refuse");
    assert_eq!(synchronize(&session), INVALID_VALUE, "and comes with the next call");
    assert_eq!(synchronize(&session), OK, "once");
    free(&session, address);
}

#[test]
fn sets_fill_rows_and_elements() {
    let session = session();
    let address = alloc(&session, 64);
    assert_eq!(cu!(session.libcuda, cuMemsetD32_v2(address: u64, 0x0403_0201: u32, 16: usize)), OK);
    assert_eq!(cu!(session.libcuda, cuMemsetD2D8_v2(address: u64, 16: usize, 9: u8, 2: usize, 4: usize)), OK);
    let bytes = read(&session, address, 64);
    assert_eq!(
        (&bytes[..4], &bytes[16..20], &bytes[62..]),
        (&[9, 9, 3, 4][..], &[9, 9, 3, 4][..], &[3, 4][..])
    );
    let odd = address + 2;
    assert_eq!(cu!(session.libcuda, cuMemsetD32_v2(odd: u64, 0: u32, 1: usize)), INVALID_VALUE);
    free(&session, address);
}

#[test]
fn an_allocation_too_large_says_2_and_pointers_know_what_they_are() {
    let session = session();
    let mut place = 0u64;
    let at = &raw mut place;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, TOO_MUCH: usize)), OUT_OF_MEMORY);
    let address = alloc(&session, 4096);
    let inside = address + 100;
    let (mut kind, mut base, mut bytes) = (0u32, 0u64, 0usize);
    let (kind_at, base_at, bytes_at) = (&raw mut kind, &raw mut base, &raw mut bytes);
    assert_eq!(cu!(session.libcuda, cuPointerGetAttribute(kind_at: *mut u32, 2: u32, inside: u64)), OK);
    assert_eq!(
        cu!(session.libcuda, cuMemGetAddressRange_v2(base_at: *mut u64, bytes_at: *mut usize, inside: u64)),
        OK
    );
    assert_eq!((kind, base, bytes), (2, address, 4096));
    let mine = &raw const kind as u64;
    assert_eq!(
        cu!(session.libcuda, cuPointerGetAttribute(kind_at: *mut u32, 2: u32, mine: u64)),
        INVALID_VALUE
    );
    let (numbers, places) = ([2u32, 3], [kind_at as u64, base_at as u64]);
    let (numbers_at, places_at) = (numbers.as_ptr(), places.as_ptr());
    assert_eq!(
        cu!(session.libcuda, cuPointerGetAttributes(2: u32, numbers_at: *const u32, places_at: *const u64, mine: u64)),
        OK
    );
    assert_eq!((kind, base), (0, 0), "unregistered host memory: success, type 0");
    free(&session, address);
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), INVALID_VALUE, "twice");
}

#[test]
fn a_kernel_runs_with_its_packed_parameters() {
    let session = session();
    let (code, module) = load(&session, c".version 8.0 fill");
    assert_eq!(code, OK);
    let fill = function(&session, module, c"fill");
    let address = alloc(&session, 4096);
    let (value, count) = (0xa1b2_c3d4u32, 1024u32);
    let params =
        [(&raw const address).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
    assert_eq!(launch(&session, fill, 4, 256, &params), OK);
    assert_eq!(synchronize(&session), OK);
    assert!(read(&session, address, 4096).chunks_exact(4).all(|word| word == value.to_le_bytes()));

    // The same through `extra`, as nvjet launches, with a cluster attribute.
    let mut block = address.to_le_bytes().to_vec();
    block.extend(7u32.to_le_bytes());
    block.extend(1024u32.to_le_bytes());
    let bytes = block.len();
    let extra = [1usize, block.as_ptr() as usize, 2, &raw const bytes as usize, 0];
    let mut attribute = [0u8; 72];
    attribute[0] = 4;
    attribute[8] = 2;
    attribute[12] = 1;
    attribute[16] = 1;
    let mut config = [0u64; 7];
    config[0] = 4 | 1 << 32;
    config[1] = 1 | 256 << 32;
    config[2] = 1 | 1 << 32;
    config[5] = attribute.as_ptr() as u64;
    config[6] = 1;
    let (config_at, extra_at, null) = (config.as_ptr(), extra.as_ptr(), 0u64);
    assert_eq!(
        cu!(session.libcuda, cuLaunchKernelEx(config_at: *const u64, fill: u64, null: u64, extra_at: *const usize)),
        OK
    );
    assert_eq!(synchronize(&session), OK);
    let seen = session.seen.lock().unwrap().launches.last().unwrap().clone();
    assert_eq!((seen.shape.grid, seen.shape.block), ([4, 1, 1], [256, 1, 1]));
    assert_eq!((seen.attribute_ids, seen.params), (vec![4], block.clone()));

    // What a program leaves out is zeros, as NVIDIA's driver has it; nothing at all and too much are mistakes.
    for (bytes, code) in [(12usize, OK), (8, OK), (0, INVALID_VALUE), (17, LAUNCH_OUT_OF_RESOURCES)] {
        block.resize(17, 0xee);
        let extra = [1usize, block.as_ptr() as usize, 2, &raw const bytes as usize, 0];
        let extra_at = extra.as_ptr();
        assert_eq!(
            cu!(session.libcuda, cuLaunchKernelEx(config_at: *const u64, fill: u64, null: u64, extra_at: *const usize)),
            code,
            "{bytes} bytes"
        );
        if code == OK {
            assert_eq!(synchronize(&session), OK);
            let mut given = block[..bytes].to_vec();
            given.resize(16, 0);
            assert_eq!(session.seen.lock().unwrap().launches.last().unwrap().params, given);
        }
    }
    free(&session, address);
    assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), OK);
    assert_eq!(launch(&session, fill, 1, 1, &[]), INVALID_HANDLE, "its module is gone");
}

#[test]
fn mistakes_of_a_launch_come_from_the_launch() {
    let session = session();
    let (_, module) = load(&session, c".version 8.0 limits");
    let fault = function(&session, module, c"fault");
    let fill = function(&session, module, c"fill");
    assert_eq!(launch(&session, fault, 0, 32, &[]), INVALID_VALUE, "an empty grid");
    assert_eq!(launch(&session, fault, 1, 1025, &[]), INVALID_VALUE, "more threads than the device has");
    assert_eq!(launch(&session, fill, 1, 1, &[]), INVALID_VALUE, "parameters are missing");
    let (big, null, stream, one) = (50_000u32, 0u64, 0u64, 1u32);
    assert_eq!(
        cu!(session.libcuda, cuLaunchKernel(fault: u64, one: u32, one: u32, one: u32, one: u32, one: u32, one: u32,
        big: u32, stream: u64, null: u64, null: u64)),
        INVALID_VALUE,
        "more dynamic shared memory than allowed"
    );
    let stranger = FunctionHandle::new(5, 99 << 16).raw();
    assert_eq!(launch(&session, stranger, 1, 1, &[]), INVALID_HANDLE);
    assert_eq!(launch(&session, 0x1234, 1, 1, &[]), INVALID_HANDLE);
    assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), OK);
}

#[test]
fn a_broken_image_says_why_and_a_long_list_of_functions_arrives_whole() {
    let session = session();
    let (mut module, mut log, image) = (0u64, [b'x'; 16], c".broken");
    let (module_at, image_at) = (&raw mut module, image.as_ptr());
    let (options, values) = ([5u32, 6], [log.as_mut_ptr() as u64, 16]);
    let (options_at, values_at) = (options.as_ptr(), values.as_ptr());
    assert_eq!(
        cu!(session.libcuda, cuModuleLoadDataEx(module_at: *mut u64, image_at: *const i8, 2: u32, options_at: *const u32,
            values_at: *const u64)),
        INVALID_PTX
    );
    assert_eq!(&log, b"line 1: no such\0");

    let text = format!(".version 8.0 many {}\0", "-".repeat(200_000));
    let image = std::ffi::CStr::from_bytes_with_nul(text.as_bytes()).unwrap();
    let (code, module) = load(&session, image);
    assert_eq!(code, OK);
    let last = CString::new(format!("extra_{:060}", 39_999)).unwrap();
    let handle = Handle::parse(function(&session, module, &last)).unwrap();
    assert_eq!(FunctionHandle::ordinal(handle), 40_001);
    let (name, mut place) = (c"missing".as_ptr(), 0u64);
    let at = &raw mut place;
    assert_eq!(
        cu!(session.libcuda, cuModuleGetFunction(at: *mut u64, module: u64, name: *const i8)),
        NOT_FOUND
    );
    assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), OK);
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

/// `CUDA_MEMCPY3D`, both sides on the device or in host memory, as 25 words.
fn copy_3d(
    src: (u32, u64, [u64; 3], u64, u64),
    dst: (u32, u64, [u64; 3], u64, u64),
    size: [u64; 3],
) -> [u64; 25] {
    let mut words = [0; 25];
    for (at, (kind, address, [x, y, z], pitch, height)) in [(0, src), (11, dst)] {
        let (host, device) = if kind == 1 { (address, 0) } else { (0, address) };
        words[at..at + 11].copy_from_slice(&[x, y, z, 0, kind.into(), host, device, 0, 0, pitch, height]);
    }
    words[22..].copy_from_slice(&size);
    words
}

#[test]
fn a_box_of_bytes_is_copied_row_by_row_and_nothing_beside_it() {
    let session = session();
    // Two slices of three rows of sixteen bytes on the device; of each the middle 4 x 2 bytes are set from packed host memory.
    let address = alloc(&session, 96);
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(address: u64, 0xee: u8, 96: usize)), OK);
    let source: Vec<u8> = (1..=16).collect();
    let words = copy_3d((1, source.as_ptr() as u64, [0; 3], 4, 2), (2, address, [6, 1, 0], 16, 3), [4, 2, 2]);
    let at = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpy3D_v2(at: *const u64)), OK);
    let bytes = read(&session, address, 96);
    let mut wanted = vec![0xee; 96];
    for (row, start) in [22, 38, 70, 86].into_iter().enumerate() {
        wanted[start..start + 4].copy_from_slice(&source[4 * row..4 * row + 4]);
    }
    assert_eq!(bytes, wanted);
    // And back, by the form for two contexts of one device.
    let mut back = [0u8; 16];
    let primary = ContextId::primary(0).handle().raw();
    let mut words =
        copy_3d((2, address, [6, 1, 0], 16, 3), (1, back.as_mut_ptr() as u64, [0; 3], 4, 2), [4, 2, 2]);
    (words[8], words[19]) = (primary, primary);
    let at = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpy3DPeer(at: *const u64)), OK);
    assert_eq!(back, source[..]);
    words[9] = 8; // rows that overlap: 6 bytes in, 4 wide, 8 apart
    let at = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpy3DPeer(at: *const u64)), INVALID_VALUE);
    let other = alloc(&session, 96);
    assert_eq!(
        cu!(session.libcuda, cuMemcpyPeer(other: u64, primary: u64, address: u64, primary: u64, 96: usize)),
        OK
    );
    assert_eq!(read(&session, other, 96), wanted);
    free(&session, address);
    free(&session, other);
}

#[test]
fn rows_to_the_host_are_asked_for_together() {
    let session = session();
    // Rows of 1000 bytes, 1024 apart: 2.4 MB, three questions of a megabyte at most.
    const ROWS: usize = 2500;
    let (address, pattern) =
        (alloc(&session, ROWS * 1024), (0..ROWS * 1024).map(|i| u8::try_from(i * 13 % 251).unwrap()));
    let pattern: Vec<u8> = pattern.collect();
    assert_eq!(write(&session, address, &pattern), OK);
    let mut back = vec![0u8; ROWS * 1000];
    // `CUDA_MEMCPY2D`, as 16 words: source, destination, width, height.
    let words =
        [0, 0, 2, 0, address, 0, 1024, 0, 0, 1, back.as_mut_ptr() as u64, 0, 0, 1000, 1000, ROWS as u64];
    let at = words.as_ptr();
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
    session.seen.lock().unwrap().calls.clear();
    assert_eq!(cu!(session.libcuda, cuMemcpy2D_v2(at: *const u64)), OK);
    let wanted: Vec<u8> = pattern.chunks(1024).flat_map(|row| &row[..1000]).copied().collect();
    assert!(back == wanted);
    assert_eq!(session.seen.lock().unwrap().calls, ["copy, then wait"; 3]);
    free(&session, address);
}

#[test]
fn a_variable_of_an_image_is_device_memory_that_nobody_frees() {
    let session = session();
    let (_, module) = load(&session, c".version 8.0 variable");
    let (mut address, mut bytes, mut kind, mut base) = (0u64, 0usize, 0u32, 0u64);
    let (at, bytes_at, kind_at, base_at, name) =
        (&raw mut address, &raw mut bytes, &raw mut kind, &raw mut base, c"table".as_ptr());
    assert_eq!(
        cu!(session.libcuda, cuModuleGetGlobal_v2(at: *mut u64, bytes_at: *mut usize, module: u64, name: *const i8)),
        OK
    );
    let inside = address + 8;
    assert_eq!(cu!(session.libcuda, cuPointerGetAttribute(kind_at: *mut u32, 2: u32, inside: u64)), OK);
    assert_eq!(
        cu!(session.libcuda, cuMemGetAddressRange_v2(base_at: *mut u64, bytes_at: *mut usize, inside: u64)),
        OK
    );
    assert_eq!((kind, base, bytes), (2, address, 64));
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), INVALID_VALUE);
    assert_eq!(write(&session, inside, &[0; 57]), INVALID_VALUE, "one byte past its end");
    // A unified copy knows which side it is.
    let from = 7u64;
    let from_at = &raw const from as u64;
    assert_eq!(cu!(session.libcuda, cuMemcpy(inside: u64, from_at: u64, 8: usize)), OK);
    assert_eq!(read(&session, inside, 8), 7u64.to_le_bytes());
    assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), OK);
    assert_eq!(
        cu!(session.libcuda, cuPointerGetAttribute(kind_at: *mut u32, 2: u32, inside: u64)),
        INVALID_VALUE,
        "it went with its module"
    );
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

#[test]
fn a_library_says_why_its_image_is_broken_too() {
    let session = session();
    let (mut library, mut log, mut info, image) = (0u64, [b'x'; 16], [b'x'; 4], c".broken");
    let (at, image_at, null) = (&raw mut library, image.as_ptr(), std::ptr::null::<u64>());
    let (options, values) = ([5u32, 6, 3, 4], [log.as_mut_ptr() as u64, 16, info.as_mut_ptr() as u64, 4]);
    let (options_at, values_at) = (options.as_ptr(), values.as_ptr());
    assert_eq!(
        cu!(session.libcuda, cuLibraryLoadData(at: *mut u64, image_at: *const i8, options_at: *const u32,
            values_at: *const u64, 4: u32, null: *const u64, null: *const u64, 0: u32)),
        INVALID_PTX
    );
    assert_eq!((&log, info[0]), (b"line 1: no such\0", 0));
}

#[test]
fn a_stream_knows_its_context_in_both_forms() {
    let session = session();
    let (mut stream, mut context, mut green) = (0u64, 0u64, 9u64);
    let (stream_at, context_at, green_at) = (&raw mut stream, &raw mut context, &raw mut green);
    assert_eq!(cu!(session.libcuda, cuStreamCreate(stream_at: *mut u64, 0: u32)), OK);
    for stream in [stream, 0, 1, 2] {
        context = 0;
        assert_eq!(cu!(session.libcuda, cuStreamGetCtx(stream: u64, context_at: *mut u64)), OK);
        assert_eq!(context, ContextId::primary(0).handle().raw());
        assert_eq!(
            cu!(session.libcuda, cuStreamGetCtx_v2(stream: u64, context_at: *mut u64, green_at: *mut u64)),
            OK
        );
        assert_eq!(green, 0);
    }
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
}

#[test]
fn what_old_programs_ask_of_a_device_is_made_of_its_attributes() {
    let session = session();
    let (mut properties, mut value) = ([0i32; 14], 9i32);
    let (at, value_at) = (&raw mut properties, &raw mut value);
    assert_eq!(cu!(session.libcuda, cuDeviceGetProperties(at: *mut [i32; 14], 0: i32)), OK);
    assert_eq!((properties[0], properties[3], properties[7], properties[9]), (1024, 64, 49152, 32));
    assert_eq!(cu!(session.libcuda, cuDeviceGetP2PAttribute(value_at: *mut i32, 2: u32, 1: i32, 0: i32)), OK);
    assert_eq!(value, 0);
    assert_eq!(
        cu!(session.libcuda, cuDeviceGetP2PAttribute(value_at: *mut i32, 2: u32, 0: i32, 0: i32)),
        101
    );
}
