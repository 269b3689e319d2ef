//! Functions of the program that a stream calls.

use super::*;
use crate::worker::host_functions::{Count, HostFunctions};

/// The guest's thread for the functions that streams call: what it was told, in order.
fn run_host_functions(staging: &Heap, mailbox: usize, count: u64) -> Vec<(u64, u64)> {
    let told = (1..=count).map(|posted| {
        while staging.word(mailbox + host_function::POSTED) != posted {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        let told = [host_function::FUNCTION, host_function::STATUS].map(|at| staging.word(mailbox + at));
        staging.write(mailbox + host_function::DONE, &posted.to_le_bytes());
        (told[0], told[1])
    });
    told.collect()
}

#[test]
fn a_stream_waits_until_the_guest_has_run_its_functions_in_order() {
    let world = world();
    let stream = StreamHandle::new(0, 0);
    ask::cuStreamCreateWithPriority(&world.guest, C, NewHandle(stream), 0, 0).unwrap();
    ask::cuLaunchHostFunc(&world.guest, C, Stream::Legacy, 1).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE), "nobody looks anywhere");
    for (offset, len) in [(4, 128), (0, 127), (65 << 10, 128), (u64::MAX - 7, 128)] {
        let refused = ask::vgpuHostFunctions(&world.guest, ContextId::NONE, Staged { offset, len });
        assert_eq!(refused, Err(CuError::INVALID_VALUE), "{len} at {offset}");
    }
    let mailbox = Staged { offset: 4096, len: 128 };
    ask::vgpuHostFunctions(&world.guest, ContextId::NONE, mailbox).unwrap();
    let again = ask::vgpuHostFunctions(&world.guest, ContextId::NONE, mailbox);
    assert_eq!(again, Err(CuError::INVALID_VALUE), "once");
    let gone = Stream::Made(StreamHandle::new(3, 0));
    ask::cuStreamAddCallback(&world.guest, C, gone, 1).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_HANDLE));
    ask::cuLaunchHostFunc(&world.guest, ContextId(99), Stream::Legacy, 1).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_CONTEXT));

    let staging = world.staging.clone();
    let guest = std::thread::spawn(move || run_host_functions(&staging, 4096, 3));
    for (stream, number) in [(Stream::Legacy, 7), (Stream::Made(stream), u64::MAX)] {
        ask::cuLaunchHostFunc(&world.guest, C, stream, number).unwrap();
    }
    ask::cuStreamAddCallback(&world.guest, C, Stream::Legacy, 8).unwrap();
    // The null device has done all when it answers.
    assert_eq!(world.staging.word(4096 + host_function::DONE), 3);
    assert_eq!(
        (guest.join().unwrap(), world.guest.take_error()),
        (vec![(7, 0), (u64::MAX, 0), (8, 0)], None)
    );
}

/// The function may wait for another thread of the program, whose call comes through the same loop.
#[test]
fn the_end_of_a_context_is_put_aside_while_a_function_of_the_program_is_queued() {
    let world = world_with(Null::default().calling_from_a_thread());
    let made = ContextId(100);
    ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
    begin_function(&world.guest);
    let destroy = || ask::cuCtxDestroy_v2(&world.guest, ContextId::NONE, made);
    let reset = || ask::cuDevicePrimaryCtxReset_v2(&world.guest, ContextId::NONE, 0);
    assert_eq!(destroy(), Err(CuError::NOT_READY));
    assert_eq!(end_function(&world.staging, reset), Ok(()));
    assert_eq!((destroy(), destroy()), (Ok(()), Err(CuError::INVALID_CONTEXT)), "once");
    assert_eq!(ask::cuCtxSynchronize(&world.guest, C), Err(CuError::INVALID_CONTEXT));
}

/// A device lets go of nothing that was queued in a context which has failed, and calls nothing of it.
#[test]
fn what_is_queued_in_a_failed_context_puts_no_call_aside() {
    let world = world_with(Null::default().stalling().busy().refusing(&[Step::HostFunction]));
    let made = ContextId(100);
    let sync = || ask::cuCtxSynchronize(&world.guest, C);
    let mailbox = Staged { offset: 0, len: host_function::MAILBOX_BYTES as u64 };
    ask::vgpuHostFunctions(&world.guest, C, mailbox).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    for asked in [true, false] {
        ask::cuCtxCreate_v2(&world.guest, ContextId::NONE, made, 0, 0).unwrap();
        let wait = MemoryOp { kind: MemoryOpKind::WaitEqual, at, bytes: 4, value: 1 };
        ask::vgpuStreamMemory(&world.guest, made, Stream::Legacy, vec![wait]).unwrap();
        assert_eq!(sync(), Err(CuError::NOT_READY), "a word is waited for");
        ask::cuLaunchHostFunc(&world.guest, made, Stream::Legacy, 5).unwrap();
        assert_eq!(world.guest.take_error(), Some(CuError::ILLEGAL_ADDRESS));
        if asked {
            assert_eq!(sync(), Ok(()), "it has failed");
        }
        let destroy = ask::cuCtxDestroy_v2(&world.guest, ContextId::NONE, made);
        assert_eq!((destroy, sync()), (Err(CuError::ILLEGAL_ADDRESS), Ok(())), "it has ended");
    }
}

#[test]
fn a_device_that_waits_for_a_guest_is_let_go_with_the_session() {
    let staging: Arc<dyn Staging> = Arc::new(Heap(Arc::new(Mutex::new(vec![0; 4096]))));
    let functions = HostFunctions::new(staging, Staged { offset: 0, len: 128 }).unwrap();
    let function = functions.function(1, &Count::default()).unwrap();
    let device = std::thread::spawn(move || function(0));
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(!device.is_finished(), "no guest has answered");
    drop(functions);
    device.join().unwrap();
}

#[test]
fn functions_that_a_device_never_calls_are_no_more_than_a_bound() {
    let staging: Arc<dyn Staging> = Arc::new(Heap(Arc::new(Mutex::new(vec![0; 4096]))));
    let functions = HostFunctions::new(staging, Staged { offset: 0, len: 128 }).unwrap();
    let count = Count::default();
    let kept: Vec<_> = std::iter::from_fn(|| functions.function(0, &count).ok()).take(100_000).collect();
    assert_eq!(kept.len(), 1 << 16);
    assert_eq!(functions.function(0, &count).err(), Some(CuError::OUT_OF_MEMORY));
    drop(kept);
    assert!(!count.is_any() && functions.function(0, &count).is_ok());
}
