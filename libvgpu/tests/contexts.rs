//! Contexts over their whole life: what ends with them, what survives, what a program may do while they end.

mod support;

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use support::session::{Session, session};
use vgpu_api::ContextId;

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_CONTEXT: u32 = 201;
const EXEC_AFFINITY: u32 = 224;
const INVALID_HANDLE: u32 = 400;
const CONTEXT_IS_DESTROYED: u32 = 709;

fn create(session: &Session) -> u64 {
    let mut made = 0u64;
    let at = &raw mut made;
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(at: *mut u64, 0: u32, 0: i32)), OK);
    made
}

fn current(session: &Session) -> u64 {
    let mut context = 0u64;
    let at = &raw mut context;
    assert_eq!(cu!(session.libcuda, cuCtxGetCurrent(at: *mut u64)), OK);
    context
}

fn primary() -> u64 {
    ContextId::primary(0).handle().raw()
}

#[test]
fn every_form_of_create_makes_a_context_and_refuses_what_is_not_offered() {
    let session = session();
    let mut made = 0u64;
    let (at, null) = (&raw mut made, std::ptr::null::<u8>());
    assert_eq!(cu!(session.libcuda, cuCtxCreate(at: *mut u64, 0: u32, 0: i32)), OK);
    assert_eq!(cu!(session.libcuda, cuCtxDestroy(made: u64)), OK);
    assert_eq!(
        cu!(session.libcuda, cuCtxCreate_v3(at: *mut u64, null: *const u8, 0: i32, 0: u32, 0: i32)),
        OK
    );
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
    // CUDA 13's cuCtxCreate, with nothing and with empty parameters.
    let empty = [0u64; 3];
    for params in [null, empty.as_ptr().cast()] {
        assert_eq!(cu!(session.libcuda, cuCtxCreate_v4(at: *mut u64, params: *const u8, 8: u32, 0: i32)), OK);
        let mut flags = 0u32;
        let flags_at = &raw mut flags;
        assert_eq!(cu!(session.libcuda, cuCtxGetFlags(flags_at: *mut u32)), OK);
        assert_eq!(cu!(session.libcuda, cuCtxSetFlags(4: u32)), OK);
        assert_eq!((flags, cu!(session.libcuda, cuCtxGetFlags(flags_at: *mut u32)), flags), (8, OK, 4));
        assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
    }
    let shared = [0u64, 1, 0];
    let params = shared.as_ptr().cast::<u8>();
    assert_eq!(
        cu!(session.libcuda, cuCtxCreate_v4(at: *mut u64, params: *const u8, 0: u32, 0: i32)),
        EXEC_AFFINITY
    );
    assert_eq!(
        cu!(session.libcuda, cuCtxCreate_v2(at: *mut u64, 0x100: u32, 0: i32)),
        INVALID_VALUE,
        "flags"
    );
    assert_eq!(current(&session), primary());
}

#[test]
fn a_destroyed_context_is_709_and_can_still_be_made_current() {
    let session = session();
    let (library, made) = (&session.libcuda, create(&session));
    let mut address = 0u64;
    let at = &raw mut address as usize;
    std::thread::scope(|scope| {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (gone, is_gone) = std::sync::mpsc::channel();
        let other = scope.spawn(move || {
            assert_eq!(cu!(library, cuCtxSetCurrent(made: u64)), OK);
            assert_eq!(cu!(library, cuMemAlloc_v2(at: usize, 64: usize)), OK);
            ready.send(()).unwrap();
            is_gone.recv().unwrap();
            cu!(library, cuMemAlloc_v2(at: usize, 64: usize))
        });
        is_ready.recv().unwrap();
        assert_eq!(cu!(library, cuCtxDestroy_v2(made: u64)), OK);
        gone.send(()).unwrap();
        assert_eq!(other.join().unwrap(), CONTEXT_IS_DESTROYED);
    });
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), CONTEXT_IS_DESTROYED, "twice");
    assert_eq!(current(&session), primary(), "what lay below is current again");
    assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(made: u64)), OK);
    assert_eq!((current(&session), cu!(session.libcuda, cuCtxSynchronize())), (made, CONTEXT_IS_DESTROYED));
    let (none_yet, primary) = (made + 1000, primary());
    assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(none_yet: u64)), INVALID_CONTEXT);
    assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(primary: u64)), OK);
}

#[test]
fn no_context_set_current_takes_one_off() {
    let session = session();
    let made = create(&session);
    assert_eq!(cu!(session.libcuda, cuCtxSetCurrent(0: u64)), OK);
    assert_eq!(current(&session), primary());
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
}

#[test]
fn what_belongs_to_a_context_ends_with_it_and_the_numbers_can_be_given_again() {
    let session = session();
    for round in 0..3 {
        let made = create(&session);
        let (mut stream, mut event, mut module, mut pinned, mut flags) = (0u64, 0u64, 0u64, 0u64, 0u32);
        let (stream_at, event_at, module_at, pinned_at, flags_at) =
            (&raw mut stream, &raw mut event, &raw mut module, &raw mut pinned, &raw mut flags);
        let image = c".version 8.0 ends".as_ptr();
        assert_eq!(cu!(session.libcuda, cuStreamCreate(stream_at: *mut u64, 0: u32)), OK);
        assert_eq!(cu!(session.libcuda, cuEventCreate(event_at: *mut u64, 0: u32)), OK);
        assert_eq!(
            cu!(session.libcuda, cuEventRecord_ptsz(event: u64, 0: u64)),
            OK,
            "the thread's own stream"
        );
        assert_eq!(cu!(session.libcuda, cuModuleLoadData(module_at: *mut u64, image: *const i8)), OK);
        assert_eq!(cu!(session.libcuda, cuMemHostAlloc(pinned_at: *mut u64, 4096: usize, 0: u32)), OK);
        assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK, "round {round}");
        assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(made: u64)), OK);
        assert_eq!(cu!(session.libcuda, cuStreamSynchronize(stream: u64)), INVALID_HANDLE);
        assert_eq!(cu!(session.libcuda, cuEventQuery(event: u64)), INVALID_HANDLE);
        assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), INVALID_HANDLE);
        assert_eq!(cu!(session.libcuda, cuMemHostGetFlags(flags_at: *mut u32, pinned: u64)), INVALID_VALUE);
    }
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
}

#[test]
fn a_reset_primary_context_is_new_and_its_threads_streams_are_made_again() {
    let session = session();
    let (mut event, mut state, mut flags) = (0u64, 9i32, 9u32);
    let (event_at, state_at, flags_at) = (&raw mut event, &raw mut state, &raw mut flags);
    for round in 0..2 {
        assert_eq!(cu!(session.libcuda, cuEventCreate(event_at: *mut u64, 0: u32)), OK);
        assert_eq!(cu!(session.libcuda, cuEventRecord_ptsz(event: u64, 0: u64)), OK);
        assert_eq!(cu!(session.libcuda, cuStreamSynchronize_ptsz(0: u64)), OK, "round {round}");
        assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxReset_v2(0: i32)), OK);
        assert_eq!(cu!(session.libcuda, cuEventQuery(event: u64)), INVALID_HANDLE);
    }
    assert_eq!(
        cu!(session.libcuda, cuDevicePrimaryCtxGetState(0: i32, flags_at: *mut u32, state_at: *mut i32)),
        OK
    );
    assert_eq!(state, 1);
    assert_eq!(cu!(session.libcuda, cuCtxSynchronize()), OK);
}

static ENDED: AtomicU32 = AtomicU32::new(0);
static RELEASE: AtomicU64 = AtomicU64::new(0);

/// What a runtime's destructor may do: release once more.
extern "C" fn at_the_end(_context: u64, _key: u64, _value: u64) {
    let address = RELEASE.load(Ordering::Relaxed) as *mut c_void;
    // SAFETY: the test put the address of `cuDevicePrimaryCtxRelease_v2` there.
    let release = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(i32) -> u32>(address) };
    assert_eq!(release(1), INVALID_CONTEXT, "it is released");
    ENDED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn destructors_of_local_storage_may_call_the_library() {
    let session = session();
    let uuid = 0xc693336e_1121_df11_a8c3_68f355d89593u128.to_be_bytes();
    let (mut table, id) = (std::ptr::null::<*const c_void>(), uuid.as_ptr());
    let at = &raw mut table;
    assert_eq!(cu!(session.libcuda, cuGetExportTable(at: *mut *const *const c_void, id: *const u8)), OK);
    type Put = extern "C" fn(u64, u64, u64, extern "C" fn(u64, u64, u64)) -> u32;
    // SAFETY: the table has four slots: put, delete, get, NULL.
    let slot = unsafe { *table };
    // SAFETY: slot 0 is `put`.
    let put = unsafe { std::mem::transmute::<*const c_void, Put>(slot) };
    RELEASE.store(session.libcuda.symbol("cuDevicePrimaryCtxRelease_v2") as u64, Ordering::Relaxed);
    let mut second = 0u64;
    let second_at = &raw mut second;
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxRetain(second_at: *mut u64, 1: i32)), OK);
    assert_eq!(put(second, 0x1230, 1, at_the_end), OK);
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxRelease_v2(1: i32)), OK);
    assert_eq!(ENDED.load(Ordering::Relaxed), 1, "once, and the lock was free");
}

/// cuSOLVER and cuFFT ask for it, and end with an error without it.
#[test]
fn every_name_of_a_stream_stands_for_one_handle() {
    let session = session();
    let uuid = 0x21318c60_9714_3248_8ca6_41ff7324c8f2u128.to_be_bytes();
    let (mut table, id) = (std::ptr::null::<*const c_void>(), uuid.as_ptr());
    let at = &raw mut table;
    assert_eq!(cu!(session.libcuda, cuGetExportTable(at: *mut *const *const c_void, id: *const u8)), OK);
    type StreamOf = extern "C" fn(u64, u64, *mut u64, u64) -> u32;
    let slot = |number: usize| {
        // SAFETY: the table has 95 slots.
        let place = unsafe { table.add(number) };
        // SAFETY: as above.
        let slot = unsafe { *place };
        // SAFETY: that is what slots 39 and 51 are.
        unsafe { std::mem::transmute::<*const c_void, StreamOf>(slot) }
    };
    let (id_of, stream_of) = (slot(39), slot(51));
    let primary = ContextId::primary(0).handle().raw();
    let of = |context, stream| {
        let mut handle = 0;
        (stream_of(context, stream, &raw mut handle, 0), handle)
    };
    assert_eq!([of(primary, 0), of(primary, 1), of(0, 0)], [(OK, 1); 3]);
    let (code, own) = of(primary, 2);
    assert_eq!((code, own > 2, of(primary, own)), (OK, true, (OK, own)), "the thread's");
    let (mut id, mut said) = (0u64, 0u64);
    let said_at = &raw mut said;
    assert_eq!(id_of(primary, own, &raw mut id, 1), OK);
    assert_eq!(cu!(session.libcuda, cuStreamGetId(own: u64, said_at: *mut u64)), OK);
    assert_eq!(id, said);
    assert_eq!(id_of(primary, 0, &raw mut id, 1), INVALID_VALUE);
    assert_eq!(of(primary, 5).0, INVALID_HANDLE);
    assert_eq!(of(5, 0).0, INVALID_CONTEXT);
}

#[test]
fn the_capture_mode_is_the_threads_and_is_exchanged() {
    let session = session();
    let mut mode = 2u32;
    let at = &raw mut mode;
    assert_eq!(cu!(session.libcuda, cuThreadExchangeStreamCaptureMode(at: *mut u32)), OK);
    assert_eq!(mode, 0, "the old one");
    assert_eq!(cu!(session.libcuda, cuThreadExchangeStreamCaptureMode(at: *mut u32)), OK);
    assert_eq!(mode, 2);
    mode = 3;
    assert_eq!(cu!(session.libcuda, cuThreadExchangeStreamCaptureMode(at: *mut u32)), INVALID_VALUE);
    assert_eq!(mode, 3);
}
