//! Programs that give nothing, give rubbish, ask too early or without a context: every exported name, a code and never a crash.

mod support;

use std::ffi::c_void;

use support::Library;
use support::every::{PARAMS, call, call_at, params, supported, unsupported};
use support::session::session;
use vgpu_api::result::describe;

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const NOT_INITIALIZED: u32 = 3;
const INVALID_CONTEXT: u32 = 201;
const INVALID_HANDLE: u32 = 400;
const NOT_SUPPORTED: u32 = 801;

/// What answers before `cuInit`.
const EARLY: [&str; 8] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGetProcAddress",
    "cuGetExportTable",
    "cuModuleGetLoadingMode",
    "cuLogs",
];

#[test]
fn before_the_start_every_call_says_so() {
    // In a child: other tests of this program start the library.
    // SAFETY: the child only calls the library and _exit; no thread of the parent holds a lock of the library's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = std::panic::catch_unwind(before_the_start).map_or(1, |()| 0);
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "see the child's message above");
}

fn before_the_start() {
    let library = Library::open();
    for (name, _) in supported() {
        if EARLY.iter().any(|early| name.starts_with(early)) {
            continue;
        }
        let code = call(&library, name, [0; PARAMS]);
        // A null that a call looks at first may be told first.
        assert!([NOT_INITIALIZED, INVALID_VALUE].contains(&code), "{name} before cuInit: {code}");
    }
}

#[test]
fn what_is_not_supported_says_so() {
    let library = Library::open();
    let names = unsupported();
    assert!(names.contains("cuGLInit"), "{names:?}");
    for name in names {
        assert_eq!(call(&library, name, [0; PARAMS]), NOT_SUPPORTED, "{name}");
    }
}

#[test]
fn nulls_everywhere_are_a_code_and_the_next_call_works() {
    let session = session();
    let library = &session.libcuda;
    for (name, _) in supported() {
        let code = call(library, name, [0; PARAMS]);
        assert!(describe(code).is_some(), "{name}: {code}");
        recover(library);
    }
}

/// Whatever a call did, the primary context of device 0 is retained and current after this, and no error waits.
fn recover(library: &Library) {
    let mut context = 0u64;
    let place = &raw mut context as u64;
    assert_eq!(call(library, "cuDevicePrimaryCtxRetain", params(&[place, 0])), OK);
    assert_eq!(call(library, "cuCtxSetCurrent", params(&[context])), OK);
    // Beginning a capture of the thread's own stream takes nothing but nulls.
    let _ = call(library, "cuStreamEndCapture_ptsz", params(&[0, place]));
    let _ = call(library, "cuCtxSynchronize", [0; PARAMS]);
    assert_eq!(call(library, "cuCtxSynchronize", [0; PARAMS]), OK);
}

/// What a program gives that mixes things up: handles of nothing, small numbers, an empty place for every pointer.
fn rubbish(shape: &str, place: u64, handle: u64) -> [u64; PARAMS] {
    let values: Vec<u64> = shape
        .bytes()
        .map(|letter| match letter {
            b'p' => place,
            b'o' => handle,
            _ => 1,
        })
        .collect();
    params(&values)
}

#[test]
fn handles_of_nothing_are_refused_by_every_call() {
    let session = session();
    let library = &session.libcuda;
    let mut place = vec![0u64; 1024];
    let mut refused = 0;
    for handle in [1 << 40, 0xdead_beef_0000_0001, u64::MAX] {
        for (name, shape) in supported() {
            // Between two addresses of the program, or a callback that nobody calls.
            if name.starts_with("cuMemcpy") && !shape.contains('p') || name.starts_with("cuLogs") {
                continue;
            }
            place.fill(0);
            let code = call(library, name, rubbish(shape, place.as_mut_ptr() as u64, handle));
            assert!(describe(code).is_some(), "{name}: {code}");
            if shape.contains('o') {
                let expected = [INVALID_HANDLE, INVALID_CONTEXT, INVALID_VALUE, NOT_SUPPORTED];
                assert!(expected.contains(&code), "{name} with handle {handle:#x}: {code}");
                refused += 1;
            }
            recover(library);
        }
    }
    assert!(refused > 200, "only {refused} calls have a handle");
}

/// Sizes that no memory has: refused, and nothing of their size is allocated on the way, which would end the program.
#[test]
fn a_box_wider_than_all_memory_is_refused() {
    let session = session();
    let library = &session.libcuda;
    let (mut on_device, mut on_host) = (0u64, [0u64; 8]);
    assert_eq!(call(library, "cuMemAlloc_v2", params(&[&raw mut on_device as u64, 4096])), OK);
    let host = on_host.as_mut_ptr() as u64;
    let (from_host, from_device) = ([1, host, 0], [2, 0, on_device]);
    for (src, dst) in [(from_device, from_host), (from_host, from_device), (from_device, from_device)] {
        for width in [1 << 30, 1 << 40, 1 << 62, (1 << 63) - 8, 1 << 63, u64::MAX - 8, u64::MAX] {
            for pitch in [0, width, width.saturating_add(8)] {
                // x, y, kind, host, device, array, pitch.
                let flat = |[kind, host, device]: [u64; 3]| [0, 0, kind, host, device, 0, pitch];
                let what = [&flat(src)[..], &flat(dst), &[width, 2]].concat();
                let code = call(library, "cuMemcpy2D_v2", params(&[what.as_ptr() as u64]));
                assert_eq!(code, INVALID_VALUE, "{width:#x} in {pitch:#x}");
                // x, y, z, level, kind, host, device, array, context, pitch, height of a slice: one row, so that it fits.
                let deep = |[kind, host, device]: [u64; 3]| [0, 0, 0, 0, kind, host, device, 0, 0, pitch, 1];
                let what = [&deep(src)[..], &deep(dst), &[width, 2, 1]].concat();
                let code = call(library, "cuMemcpy3D_v2", params(&[what.as_ptr() as u64]));
                assert_eq!(code, INVALID_VALUE, "{width:#x} in {pitch:#x}");
            }
        }
    }
    recover(library);
}

#[test]
fn a_thread_without_a_context_is_told_so() {
    let session = session();
    let library = &session.libcuda;
    let code_in_a_new_thread = |name: &'static str, params: [u64; PARAMS]| {
        std::thread::scope(|scope| scope.spawn(|| call(library, name, params)).join().unwrap())
    };
    let mut place = [0u64; 64];
    let at = place.as_mut_ptr() as u64;
    for (name, given) in [
        ("cuMemAlloc_v2", params(&[at, 64])),
        ("cuMemGetInfo_v2", params(&[at, at])),
        ("cuStreamCreate", params(&[at, 0])),
        ("cuEventCreate", params(&[at, 0])),
        ("cuModuleLoadData", params(&[at, at])),
        ("cuLaunchKernel", params(&[1 << 40, 1, 1, 1, 1, 1, 1])),
        ("cuMemcpyHtoD_v2", params(&[0x7000_0000, at, 8])),
        ("cuMemsetD8_v2", params(&[0x7000_0000, 0, 8])),
        ("cuCtxSynchronize", params(&[])),
        ("cuCtxGetDevice", params(&[at])),
        ("cuCtxPopCurrent_v2", params(&[at])),
        ("cuMemHostAlloc", params(&[at, 64, 0])),
    ] {
        assert_eq!(code_in_a_new_thread(name, given), INVALID_CONTEXT, "{name}");
    }
}

/// The private tables that cudart and others ask for: UUID, slots that are functions.
const TABLES: [(u128, std::ops::Range<usize>); 10] = [
    (0x6bd5fb6c_5bf4_e74a_8987_d93912fd9df9, 1..13),
    (0x42d85a81_23f6_cb47_8298_f6e78a3aecdc, 1..4),
    (0xa094798c_2e74_2e74_93f2_0800200c0a66, 1..7),
    (0xc693336e_1121_df11_a8c3_68f355d89593, 0..3),
    (0x0ca50b8c_1004_929a_89a7_d0df10e77286, 1..2),
    (0xd4082055_bde6_704b_8d34_ba123c66e1f2, 1..3),
    (0x263e8860_7cd2_6143_92f6_bbd5006dfa7e, 1..4),
    (0x21318c60_9714_3248_8ca6_41ff7324c8f2, 1..95),
    (0x6e163fbe_b958_444d_835c_e182aff1991e, 1..99),
    (0x1734dc26_800d_4745_8726_c0f1e7dd8bca, 1..17),
];

/// Callers look at no slot before they call it.
#[test]
fn every_slot_of_every_private_table_can_be_called_with_nulls() {
    let session = session();
    for (uuid, slots) in TABLES {
        let (mut table, uuid) = (std::ptr::null::<usize>(), uuid.to_be_bytes());
        let given = params(&[&raw mut table as u64, uuid.as_ptr() as u64]);
        assert_eq!(call(&session.libcuda, "cuGetExportTable", given), OK);
        for slot in slots {
            // SAFETY: the table has these slots.
            let address = unsafe { *table.wrapping_add(slot) };
            let code = call_at(address as *mut c_void, [0; PARAMS]);
            assert!(describe(code).is_some(), "slot {slot} of {uuid:02x?}: {code}");
        }
    }
    recover(&session.libcuda);
}
