//! Managed variables of modules and libraries: pieces of the arena that nobody frees, and that end with their image.

mod support;

use support::device::ARENA_FULL;
use support::memory::{attribute, calls, device, fill, fill_function, synchronize};
use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const INVALID_HANDLE: u32 = 400;
const NOT_FOUND: u32 = 500;

/// What the device of the tests makes: `counter`, a word, 16 bytes before `numbers`.
const NUMBERS: u64 = 16;
const NUMBERS_BYTES: usize = 984;

fn load_code(session: &Session) -> (u32, u64) {
    let (mut module, image) = (0u64, c".version 8.0 managed".as_ptr());
    let at = &raw mut module;
    (cu!(session.libcuda, cuModuleLoadData(at: *mut u64, image: *const i8)), module)
}

fn load(session: &Session) -> u64 {
    let (code, module) = load_code(session);
    assert_eq!(code, OK);
    module
}

fn library(session: &Session) -> u64 {
    let (mut library, image, none) = (0u64, c".version 8.0 managed".as_ptr(), std::ptr::null::<u64>());
    let at = &raw mut library;
    let code = cu!(session.libcuda, cuLibraryLoadData(at: *mut u64, image: *const i8, none: *const u64, none: *const u64,
        0: u32, none: *const u64, none: *const u64, 0: u32));
    assert_eq!(code, OK);
    library
}

fn unload(session: &Session, module: u64) -> u32 {
    cu!(session.libcuda, cuModuleUnload(module: u64))
}

/// A variable's address and length.
fn global(session: &Session, module: u64, name: &std::ffi::CStr) -> Result<(u64, usize), u32> {
    let (mut address, mut bytes, name) = (0u64, 0usize, name.as_ptr());
    let (at, bytes_at) = (&raw mut address, &raw mut bytes);
    match cu!(session.libcuda, cuModuleGetGlobal_v2(at: *mut u64, bytes_at: *mut usize, module: u64, name: *const i8))
    {
        OK => Ok((address, bytes)),
        code => Err(code),
    }
}

fn of_library(
    session: &Session,
    library: u64,
    name: &std::ffi::CStr,
    managed: bool,
) -> Result<(u64, usize), u32> {
    let (mut address, mut bytes, name) = (0u64, 0usize, name.as_ptr());
    let (at, bytes_at) = (&raw mut address, &raw mut bytes);
    let code = if managed {
        cu!(session.libcuda, cuLibraryGetManaged(at: *mut u64, bytes_at: *mut usize, library: u64, name: *const i8))
    } else {
        cu!(session.libcuda, cuLibraryGetGlobal(at: *mut u64, bytes_at: *mut usize, library: u64, name: *const i8))
    };
    if code == OK { Ok((address, bytes)) } else { Err(code) }
}

fn word(address: u64) -> u32 {
    let place = std::ptr::with_exposed_provenance::<u32>(usize::try_from(address).unwrap());
    // SAFETY: a variable of this process, which the device of the tests has made; nobody writes to it now.
    unsafe { place.read() }
}

#[test]
fn a_modules_variable_has_one_address_for_host_and_kernels_and_is_no_allocation() {
    let session = session();
    let function = fill_function(&session);
    calls(&session);
    let module = load(&session);
    assert_eq!(calls(&session), ["image load", "arena add", "image load managed"]);
    let (counter, bytes) = global(&session, module, c"counter").unwrap();
    assert_eq!((bytes, word(counter)), (4, 40));
    let numbers = counter + NUMBERS;
    assert_eq!(global(&session, module, c"numbers"), Ok((numbers, NUMBERS_BYTES)));
    assert_eq!(
        (global(&session, module, c"table").map(|(_, bytes)| bytes), global(&session, module, c"none")),
        (Ok(64), Err(NOT_FOUND))
    );
    fill(&session, function, counter, 7, 1);
    assert_eq!((synchronize(&session), word(counter)), (OK, 7));

    let before = session.call_count();
    let primary = vgpu_api::ContextId::primary(0).handle().raw();
    for (number, value) in [
        (1, primary),
        (2, 2),
        (3, numbers + 4),
        (4, numbers + 4),
        (8, 1),
        (11, numbers),
        (12, NUMBERS_BYTES as u64),
    ] {
        assert_eq!(attribute(&session, number, numbers + 4), Ok(value), "attribute {number}");
    }
    assert_eq!(attribute(&session, 8, counter + 4), Err(INVALID_VALUE), "nothing is between them");
    let freed = [counter, numbers].map(|at| {
        [
            cu!(session.libcuda, cuMemFree_v2(at: u64)),
            cu!(session.libcuda, cuMemFreeHost(at: u64)),
            cu!(session.libcuda, cuMemHostUnregister(at: u64)),
        ]
    });
    assert_eq!(freed, [[INVALID_VALUE; 3]; 2]);
    assert_eq!(session.call_count(), before, "nothing of it travels");

    // A copy from it is queued and not staged; one over its end is refused.
    let on_device = device(&session, 4096);
    calls(&session);
    assert_eq!(
        cu!(session.libcuda, cuMemcpyDtoDAsync_v2(on_device: u64, numbers: u64, NUMBERS_BYTES: usize, 0: u64)),
        OK
    );
    let past = NUMBERS_BYTES + 1;
    assert_ne!(
        cu!(session.libcuda, cuMemcpyDtoDAsync_v2(on_device: u64, numbers: u64, past: usize, 0: u64)),
        OK
    );
    assert_eq!(calls(&session).len(), 1);

    assert_eq!(unload(&session, module), OK);
    assert_eq!(
        (attribute(&session, 8, counter), attribute(&session, 8, numbers)),
        (Err(INVALID_VALUE), Err(INVALID_VALUE))
    );
}

#[test]
fn its_memory_comes_back_with_the_module_or_its_context() {
    let session = session();
    // Another piece keeps the part of the arena.
    let (first, second) = (load(&session), load(&session));
    let at = |module| global(&session, module, c"counter").unwrap().0;
    let (first_at, second_at) = (at(first), at(second));
    assert_eq!(second_at.abs_diff(first_at), 1024, "one for each module");
    calls(&session);
    assert_eq!(unload(&session, first), OK);
    assert_eq!(calls(&session), ["image unload", "arena settle"], "given out again after all work");
    assert_eq!((unload(&session, first), at(load(&session))), (INVALID_HANDLE, first_at));
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxReset_v2(0: i32)), OK);
    assert_eq!(attribute(&session, 8, second_at), Err(INVALID_VALUE));
    assert_eq!(at(load(&session)), first_at, "the reset gave both back");
}

#[test]
fn a_librarys_variable_is_one_for_all_contexts() {
    let session = session();
    let library = library(&session);
    let counter = of_library(&session, library, c"counter", true).unwrap();
    assert_eq!((counter.1, word(counter.0)), (4, 40));
    assert_eq!(of_library(&session, library, c"counter", false), Ok(counter));
    // A variable of the device is none.
    assert_eq!(of_library(&session, library, c"table", true), Err(NOT_FOUND));
    assert_eq!(of_library(&session, library, c"none", true), Err(NOT_FOUND));
    let mut other = 0u64;
    let at = &raw mut other;
    assert_eq!(cu!(session.libcuda, cuCtxCreate_v2(at: *mut u64, 0: u32, 0: i32)), OK);
    assert_eq!(of_library(&session, library, c"counter", true), Ok(counter));
    assert_eq!((attribute(&session, 8, counter.0), attribute(&session, 1, counter.0)), (Ok(1), Ok(other)));
    assert_eq!(cu!(session.libcuda, cuCtxDestroy_v2(other: u64)), OK);
    assert_eq!((attribute(&session, 8, counter.0), word(counter.0)), (Ok(1), 40));
    assert_eq!(cu!(session.libcuda, cuLibraryUnload(library: u64)), OK);
    assert_eq!(attribute(&session, 8, counter.0), Err(INVALID_VALUE));
}

#[test]
fn an_image_that_is_known_has_a_block_of_its_own_each_time() {
    let session = session();
    let first = load(&session);
    let first_at = global(&session, first, c"counter").unwrap().0;
    calls(&session);
    let second = load(&session);
    assert_eq!(calls(&session), ["image load", "image load managed"], "its bytes do not travel again");
    assert_ne!(global(&session, second, c"counter").unwrap().0, first_at);
}

#[test]
fn without_room_for_it_an_image_is_not_loaded() {
    let session = session();
    calls(&session);
    ARENA_FULL.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(load_code(&session).0, OUT_OF_MEMORY);
    let seen = calls(&session);
    assert_eq!(seen, ["image load", "arena add", "upload forget"], "the worker does not keep it for a block");
    ARENA_FULL.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(load_code(&session).0, OK);
    let seen = calls(&session);
    assert_eq!(seen, ["image load", "arena add", "image load managed"], "sent anew");
}
