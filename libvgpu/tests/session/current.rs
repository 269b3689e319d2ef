//! Which context is current, and what that may be.

use vgpu_api::{ContextId, StreamHandle};

use super::*;

const CONTEXT_IS_DESTROYED: u32 = 709;

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
