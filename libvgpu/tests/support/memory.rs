//! What tests of memory ask and do.

use std::ffi::c_void;

use super::session::Session;
use crate::cu;

const OK: u32 = 0;

pub fn device(session: &Session, bytes: usize) -> u64 {
    let mut address = 0u64;
    let at = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(at: *mut u64, bytes: usize)), OK);
    address
}

pub fn free_device(session: &Session, address: u64) {
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), OK);
}

pub fn synchronize(session: &Session) -> u32 {
    cu!(session.libcuda, cuCtxSynchronize())
}

/// What reached the worker since the last look.
pub fn calls(session: &Session) -> Vec<&'static str> {
    assert_eq!(synchronize(session), OK);
    let mut calls = std::mem::take(&mut session.seen.lock().unwrap().calls);
    assert_eq!(calls.pop(), Some("ctx sync"));
    calls
}

/// A pointer attribute of eight bytes or fewer.
pub fn attribute(session: &Session, number: u32, address: u64) -> Result<u64, u32> {
    let mut value = 0u64;
    let at = &raw mut value;
    match cu!(session.libcuda, cuPointerGetAttribute(at: *mut u64, number: u32, address: u64)) {
        OK => Ok(value),
        code => Err(code),
    }
}

pub fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|i| u8::try_from((i * 31 + seed) % 251).unwrap()).collect()
}

/// Launches `fill(dst, value, count)` of the fake image.
pub fn fill(session: &Session, function: u64, dst: u64, value: u32, count: u32) {
    let params = [(&raw const dst).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
    let (list, null, stream, one, none) =
        (params.as_ptr(), std::ptr::null::<*const c_void>(), 0u64, 1u32, 0u32);
    let code = cu!(session.libcuda, cuLaunchKernel(function: u64, one: u32, one: u32, one: u32, one: u32, one: u32,
        one: u32, none: u32, stream: u64, list: *const *const c_void, null: *const *const c_void));
    assert_eq!(code, OK);
}

pub fn fill_function(session: &Session) -> u64 {
    let (mut module, mut function) = (0u64, 0u64);
    let (module_at, function_at) = (&raw mut module, &raw mut function);
    let (image, name) = (c".version 8.0 pinned".as_ptr(), c"fill".as_ptr());
    assert_eq!(cu!(session.libcuda, cuModuleLoadData(module_at: *mut u64, image: *const i8)), OK);
    assert_eq!(
        cu!(session.libcuda, cuModuleGetFunction(function_at: *mut u64, module: u64, name: *const i8)),
        OK
    );
    function
}
