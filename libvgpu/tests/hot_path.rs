//! What the steady state costs, counted, not timed: no reply waited for, no system call, no allocation.
//!
//! The library is linked in, so that its allocations are this program's. The worker is held in the middle of a launch: a call that
//! waited for an answer would never return.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use support::device::GATE;
use support::session::served;
use vgpu as _;

const OK: u32 = 0;
const ROUNDS: u32 = 300;

// SAFETY: the types are those of CUDA's header. The library takes null or a place of the right size; the test gives the latter.
unsafe extern "C" {
    safe fn cuInit(flags: u32) -> u32;
    safe fn cuDevicePrimaryCtxRetain(context: *mut u64, device: i32) -> u32;
    safe fn cuCtxCreate_v2(context: *mut u64, flags: u32, device: i32) -> u32;
    safe fn cuCtxSetCurrent(context: u64) -> u32;
    safe fn cuCtxGetCurrent(context: *mut u64) -> u32;
    safe fn cuCtxGetDevice(device: *mut i32) -> u32;
    safe fn cuCtxSynchronize() -> u32;
    safe fn cuDeviceGetAttribute(value: *mut i32, number: u32, device: i32) -> u32;
    safe fn cuModuleLoadData(module: *mut u64, image: *const c_char) -> u32;
    safe fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) -> u32;
    safe fn cuFuncGetAttribute(value: *mut i32, number: u32, function: u64) -> u32;
    safe fn cuPointerGetAttribute(value: *mut c_void, number: u32, address: u64) -> u32;
    safe fn cuStreamIsCapturing(stream: u64, status: *mut u32) -> u32;
    safe fn cuStreamCreate(stream: *mut u64, flags: u32) -> u32;
    safe fn cuStreamBeginCapture_v2(stream: u64, mode: u32) -> u32;
    safe fn cuStreamEndCapture(stream: u64, graph: *mut u64) -> u32;
    safe fn cuGraphInstantiateWithFlags(exec: *mut u64, graph: u64, flags: u64) -> u32;
    safe fn cuGraphLaunch(exec: u64, stream: u64) -> u32;
    safe fn cuStreamWaitEvent(stream: u64, event: u64, flags: u32) -> u32;
    safe fn cuEventCreate(event: *mut u64, flags: u32) -> u32;
    safe fn cuEventRecord(event: u64, stream: u64) -> u32;
    safe fn cuEventRecord_ptsz(event: u64, stream: u64) -> u32;
    safe fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: u64) -> u32;
    safe fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) -> u32;
    safe fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: u64) -> u32;
    safe fn cuMemHostAlloc(place: *mut u64, bytes: usize, flags: u32) -> u32;
    safe fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: u64) -> u32;
    safe fn cuLaunchKernel(
        function: u64,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: u64,
        params: *const *const c_void,
        extra: *const *const c_void,
    ) -> u32;
    safe fn cuLaunchKernelEx(
        config: *const u64,
        function: u64,
        params: *const *const c_void,
        extra: *const *const c_void,
    ) -> u32;
}

thread_local! {
    static ALLOCATIONS: Cell<u32> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: the system's allocator, counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counters are one program's.
static ALONE: Mutex<()> = Mutex::new(());

/// System calls that the filtered thread tried.
static SYSTEM_CALLS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_system_call(_: i32) {
    SYSTEM_CALLS.fetch_add(1, Ordering::Relaxed);
}

/// From here on every system call of this thread is counted and not made, but the two that end a signal handler and the thread.
fn trap_system_calls() {
    let allowed = |number: libc::c_long| {
        let number = u32::try_from(number).expect("a system call's number");
        [
            libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: number }, // equal?
            libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
        ]
    };
    let mut filter = vec![libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 }]; // the number
    filter.extend([allowed(libc::SYS_rt_sigreturn), allowed(libc::SYS_exit)].concat());
    filter.push(libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_TRAP });
    let program =
        libc::sock_fprog { len: u16::try_from(filter.len()).expect("short"), filter: filter.as_mut_ptr() };
    let handler: extern "C" fn(i32) = count_system_call;
    // SAFETY: the handler only counts.
    unsafe { libc::signal(libc::SIGSYS, handler as libc::sighandler_t) };
    // SAFETY: it only takes privileges away from this thread.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is read during the call.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// Ends a thread that can make no other system call.
fn end_thread() {
    // SAFETY: ends this thread only; what it had stays where it is.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// What the calls work on.
#[derive(Clone, Copy)]
struct World {
    context: u64,
    function: u64,
    stream: u64,
    event: u64,
    /// Pinned memory, as long as the variable `table`.
    pinned: u64,
    exec: u64,
}

/// Each call of the steady state once.
fn steady_state(world: World, memory: u64) -> [(&'static str, u32); 20] {
    let World { function, stream, event, pinned, exec, .. } = world;
    let (address, word, count, bytes) = (memory, 7u32, 4u32, [1u8; 64]);
    let params = [(&raw const address).cast(), (&raw const word).cast(), (&raw const count).cast::<c_void>()];
    let (list, null) = (params.as_ptr(), std::ptr::null());
    let mut attribute = [0u8; 72];
    (attribute[0], attribute[8], attribute[12], attribute[16]) = (4, 1, 1, 1); // a cluster of one block
    let cluster = [1 | 1 << 32, 1 | 32 << 32, 1 | 1 << 32, 0, stream, attribute.as_ptr() as u64, 1];
    let (mut context, mut number, mut status, mut kind) = (0u64, 0i32, 0u32, 0u32);
    [
        ("cuCtxSetCurrent", cuCtxSetCurrent(world.context)),
        ("cuCtxGetCurrent", cuCtxGetCurrent(&raw mut context)),
        ("cuCtxGetDevice", cuCtxGetDevice(&raw mut number)),
        ("cuDeviceGetAttribute", cuDeviceGetAttribute(&raw mut number, 75, 0)),
        ("cuFuncGetAttribute", cuFuncGetAttribute(&raw mut number, 8, function)),
        ("cuPointerGetAttribute", cuPointerGetAttribute((&raw mut kind).cast(), 2, memory)),
        ("cuStreamIsCapturing", cuStreamIsCapturing(stream, &raw mut status)),
        ("cuMemcpyHtoDAsync_v2", cuMemcpyHtoDAsync_v2(memory, bytes.as_ptr().cast(), 64, stream)),
        ("cuMemcpyHtoDAsync_v2, pinned", cuMemcpyHtoDAsync_v2(memory, pointer(pinned), 64, stream)),
        ("cuMemcpyDtoHAsync_v2, pinned", cuMemcpyDtoHAsync_v2(pinned, memory, 64, stream)),
        ("cuMemcpyAsync, pinned", cuMemcpyAsync(pinned, memory, 64, stream)),
        ("cuPointerGetAttribute, pinned", cuPointerGetAttribute((&raw mut kind).cast(), 2, pinned)),
        ("cuMemsetD8Async", cuMemsetD8Async(memory, 1, 64, stream)),
        ("cuLaunchKernel", cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, list, null)),
        ("cuLaunchKernel, legacy stream", cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, list, null)),
        ("cuLaunchKernelEx, a cluster", cuLaunchKernelEx(cluster.as_ptr(), function, list, null)),
        ("cuEventRecord", cuEventRecord(event, stream)),
        ("cuEventRecord_ptsz, the thread's stream", cuEventRecord_ptsz(event, 0)),
        ("cuStreamWaitEvent", cuStreamWaitEvent(stream, event, 0)),
        ("cuGraphLaunch", cuGraphLaunch(exec, stream)),
    ]
}

fn pointer(address: u64) -> *const c_void {
    std::ptr::with_exposed_provenance(usize::try_from(address).expect("64 bits"))
}

/// The address of the variable `table` of the fake device's image.
const TABLE: u64 = 0x7000_0000;

fn prepare(context: u64) -> World {
    let mut world = World { context, function: 0, stream: 0, event: 0, pinned: 0, exec: 0 };
    let (mut module, mut graph) = (0u64, 0u64);
    assert_eq!(cuCtxSetCurrent(context), OK);
    assert_eq!(cuModuleLoadData(&raw mut module, c".version 8.0 hot".as_ptr()), OK);
    assert_eq!(cuModuleGetFunction(&raw mut world.function, module, c"fill".as_ptr()), OK);
    assert_eq!(cuStreamCreate(&raw mut world.stream, 0), OK);
    assert_eq!(cuEventCreate(&raw mut world.event, 0), OK);
    assert_eq!(cuMemHostAlloc(&raw mut world.pinned, 64, 0), OK);
    // A capture that has ended leaves nothing to ask about.
    assert_eq!(cuStreamBeginCapture_v2(world.stream, 0), OK);
    assert_eq!(cuMemsetD8Async(TABLE, 1, 64, world.stream), OK);
    // Pinned memory is no reason for a launch to wait.
    assert_eq!(cuMemcpyDtoHAsync_v2(world.pinned, TABLE, 64, world.stream), OK);
    assert_eq!(cuStreamEndCapture(world.stream, &raw mut graph), OK);
    assert_eq!(cuGraphInstantiateWithFlags(&raw mut world.exec, graph, 0), OK);

    world
}

/// Runs the steady state on a thread that can make no system call while the worker stands still. Allocations and system calls
/// of each call.
fn counts_of(world: World) -> Vec<(&'static str, u32)> {
    static RESULTS: Mutex<Vec<(&'static str, u32)>> = Mutex::new(Vec::new());
    static DONE: AtomicBool = AtomicBool::new(false);
    DONE.store(false, Ordering::Release);
    RESULTS.lock().unwrap().clear();
    SYSTEM_CALLS.store(0, Ordering::Relaxed);
    std::thread::spawn(move || {
        // What a thread makes once: its own stream, its places.
        steady_state(world, TABLE).iter().for_each(|(name, code)| assert_eq!(*code, OK, "{name}"));
        let mut results = RESULTS.lock().unwrap();
        results.reserve(64);
        trap_system_calls();
        ALLOCATIONS.set(0);
        let mut failed = 0;
        for _ in 0..ROUNDS {
            for (name, code) in steady_state(world, TABLE) {
                if code != OK {
                    failed += 1;
                    results.truncate(32);
                    results.push((name, code));
                }
            }
        }
        let (allocations, system_calls) = (ALLOCATIONS.get(), SYSTEM_CALLS.load(Ordering::Relaxed));
        results.extend([("allocations", allocations), ("system calls", system_calls), ("failed", failed)]);
        drop(results);
        DONE.store(true, Ordering::Release);
        end_thread();
    });
    let started = Instant::now();
    while !DONE.load(Ordering::Acquire) {
        assert!(started.elapsed() < Duration::from_secs(20), "a call waits for the worker");
        std::thread::sleep(Duration::from_millis(1));
    }
    RESULTS.lock().unwrap().clone()
}

#[test]
fn the_steady_state_makes_no_round_trip_no_system_call_and_no_allocation() {
    let _alone = ALONE.lock().unwrap();
    let seen = served();
    let (mut primary, mut created) = (0u64, 0u64);
    assert_eq!(cuInit(0), OK);
    // The library keeps its panics to itself: linked into this program, also those of the test.
    drop(std::panic::take_hook());
    assert_eq!(cuDevicePrimaryCtxRetain(&raw mut primary, 0), OK);
    assert_eq!(cuCtxCreate_v2(&raw mut created, 0, 0), OK);

    for (kind, context) in [("primary", primary), ("created", created)] {
        let world = prepare(context);
        assert_eq!(cuCtxSynchronize(), OK);
        seen.lock().unwrap().calls.clear();

        GATE.close();
        let first = (TABLE, 7u32, 4u32);
        let params =
            [(&raw const first.0).cast(), (&raw const first.1).cast(), (&raw const first.2).cast::<c_void>()];
        let null = std::ptr::null();
        let code = cuLaunchKernel(world.function, 1, 1, 1, 32, 1, 1, 0, 0, params.as_ptr(), null);
        assert_eq!(code, OK);
        GATE.until_reached();
        let counts = counts_of(world);
        GATE.open();

        assert_eq!(counts, [("allocations", 0), ("system calls", 0), ("failed", 0)], "{kind} context");
        assert_eq!(cuCtxSynchronize(), OK, "{kind} context");
        let launches = seen.lock().unwrap().calls.iter().filter(|call| **call == "launch").count();
        assert_eq!(launches, 1 + 3 * (1 + ROUNDS as usize), "{kind} context: all of them arrived");
    }
}

/// The canary: a thread whose system calls are trapped, and allocations counted, shows both.
#[test]
fn an_allocation_and_a_system_call_would_be_seen() {
    static SEEN: AtomicU32 = AtomicU32::new(u32::MAX);
    let _alone = ALONE.lock().unwrap();
    ALLOCATIONS.set(0);
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get(), 1);
    std::thread::spawn(|| {
        trap_system_calls();
        let before = SYSTEM_CALLS.load(Ordering::Relaxed);
        // SAFETY: it has no parameters and changes nothing.
        unsafe { libc::syscall(libc::SYS_getppid) };
        SEEN.store(SYSTEM_CALLS.load(Ordering::Relaxed) - before, Ordering::Release);
        end_thread();
    });
    let started = Instant::now();
    while SEEN.load(Ordering::Acquire) == u32::MAX && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Not the start either: the thread has come to its end.
    assert_eq!(SEEN.load(Ordering::Acquire), 1);
}
