//! Many threads at once: objects made and ended, work in one stream, contexts of their own.

mod support;

use std::ffi::c_void;
use std::sync::Mutex;

use support::Library;
use support::session::{served, session};
use vgpu_api::ContextId;

const OK: u32 = 0;
const INVALID_HANDLE: u32 = 400;
const THREADS: u32 = 8;
const ROUNDS: u32 = 200;

/// The listener of this test serves one connection: a second start would wait for ever.
#[test]
fn threads_that_start_at_once_start_once() {
    let _seen = served();
    let library = Library::open();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| assert_eq!(cu!(library, cuInit(0: u32)), OK));
        }
    });
    assert_eq!(cu!(library, cuInit(0: u32)), OK);
}

/// A number that another thread was given before the worker heard of the first object's end would be refused there.
#[test]
fn events_and_streams_made_and_ended_by_many_threads_never_share_a_number() {
    let session = session();
    session.seen.lock().unwrap().calls.clear();
    let (library, primary) = (&session.libcuda, ContextId::primary(0).handle().raw());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(move || {
                assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
                for round in 0..ROUNDS {
                    let (mut event, mut stream) = (0u64, 0u64);
                    let (event_at, stream_at) = (&raw mut event, &raw mut stream);
                    assert_eq!(cu!(library, cuEventCreate(event_at: *mut u64, 2: u32)), OK, "round {round}");
                    assert_eq!(
                        cu!(library, cuStreamCreate(stream_at: *mut u64, 0: u32)),
                        OK,
                        "round {round}"
                    );
                    assert_eq!(cu!(library, cuEventRecord(event: u64, stream: u64)), OK, "round {round}");
                    assert_eq!(cu!(library, cuStreamDestroy_v2(stream: u64)), OK, "round {round}");
                    assert_eq!(cu!(library, cuEventDestroy_v2(event: u64)), OK, "round {round}");
                }
                assert_eq!(cu!(library, cuCtxSynchronize()), OK);
            });
        }
    });
    let calls = &session.seen.lock().unwrap().calls;
    let count = |name: &str| calls.iter().filter(|call| **call == name).count();
    assert_eq!((count("event create"), count("event destroy")), (1600, 1600));
    assert_eq!((count("stream create"), count("stream destroy")), (1600, 1600));
}

/// CUDA's order is that of the host: what a thread queued before it let go of a lock comes before what the next one queues.
#[test]
fn work_that_threads_queue_in_turn_arrives_in_turn() {
    let session = session();
    session.seen.lock().unwrap().launches.clear();
    let (library, primary) = (&session.libcuda, ContextId::primary(0).handle().raw());
    let (mut module, mut fill) = (0u64, 0u64);
    let (module_at, fill_at, image, name) =
        (&raw mut module, &raw mut fill, c".version 8.0 turns".as_ptr(), c"fill".as_ptr());
    assert_eq!(cu!(library, cuModuleLoadData(module_at: *mut u64, image: *const i8)), OK);
    assert_eq!(cu!(library, cuModuleGetFunction(fill_at: *mut u64, module: u64, name: *const i8)), OK);
    let turn = Mutex::new(0u32);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
                for _ in 0..ROUNDS {
                    let mut number = turn.lock().unwrap();
                    let (address, count) = (0x7000_0000u64, 1u32);
                    let params =
                        [(&raw const address).cast(), (&raw const *number).cast(), (&raw const count).cast::<c_void>()];
                    let (list, null, stream, one, none) = (params.as_ptr(), 0u64, 0u64, 1u32, 0u32);
                    let code = cu!(library, cuLaunchKernel(fill: u64, one: u32, one: u32, one: u32, one: u32, one: u32,
                        one: u32, none: u32, stream: u64, list: *const *const c_void, null: u64));
                    assert_eq!(code, OK);
                    *number += 1;
                }
            });
        }
    });
    assert_eq!(cu!(library, cuCtxSynchronize()), OK);
    let numbers = session
        .seen
        .lock()
        .unwrap()
        .launches
        .iter()
        .map(|launch| launch.params[8..12].to_vec())
        .collect::<Vec<_>>();
    let wanted: Vec<_> = (0..THREADS * ROUNDS).map(|number| number.to_le_bytes().to_vec()).collect();
    assert!(numbers == wanted, "{} launches arrived", numbers.len());
    assert_eq!(cu!(library, cuModuleUnload(module: u64)), OK);
}

/// Threads load, launch and unload modules of their own, while the others do.
#[test]
fn modules_come_and_go_under_other_threads_launches() {
    let session = session();
    let (library, primary) = (&session.libcuda, ContextId::primary(0).handle().raw());
    std::thread::scope(|scope| {
        for number in 0..4u32 {
            scope.spawn(move || {
                assert_eq!(cu!(library, cuCtxSetCurrent(primary: u64)), OK);
                for round in 0..25u32 {
                    let (mut module, mut fill) = (0u64, 0u64);
                    let (module_at, fill_at, image, name) =
                        (&raw mut module, &raw mut fill, c".version 8.0 come".as_ptr(), c"fill".as_ptr());
                    assert_eq!(cu!(library, cuModuleLoadData(module_at: *mut u64, image: *const i8)), OK);
                    assert_eq!(cu!(library, cuModuleGetFunction(fill_at: *mut u64, module: u64, name: *const i8)), OK);
                    let (address, value, count) = (0x7000_0000u64 + 4 * u64::from(number), number * 1000 + round, 1u32);
                    let params =
                        [(&raw const address).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
                    let (list, null, stream, one, none) = (params.as_ptr(), 0u64, 0u64, 1u32, 0u32);
                    let code = cu!(library, cuLaunchKernel(fill: u64, one: u32, one: u32, one: u32, one: u32, one: u32,
                        one: u32, none: u32, stream: u64, list: *const *const c_void, null: u64));
                    assert_eq!(code, OK);
                    let mut back = 0u32;
                    let back_at = &raw mut back;
                    assert_eq!(cu!(library, cuMemcpyDtoH_v2(back_at: *mut u32, address: u64, 4: usize)), OK);
                    assert_eq!(back, value);
                    assert_eq!(cu!(library, cuModuleUnload(module: u64)), OK);
                    assert_eq!(cu!(library, cuModuleUnload(module: u64)), INVALID_HANDLE, "twice");
                }
            });
        }
    });
}
