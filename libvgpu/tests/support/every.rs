//! Calls any export by name, for tests of all of them.

use std::collections::BTreeSet;
use std::ffi::c_void;

use vgpu_api::surface::group_of;
use vgpu_api::symbols::TABLE;

use super::Library;

/// Parameters of the longest call.
pub const PARAMS: usize = 16;

/// Calls an export of integer and pointer parameters with these; one that has fewer doesn't look at the rest.
pub fn call(library: &Library, name: &str, params: [u64; PARAMS]) -> u32 {
    let address = library.symbol(name);
    assert!(!address.is_null(), "{name}");
    call_at(address, params)
}

/// Calls a function of integer and pointer parameters.
pub fn call_at(address: *mut c_void, params: [u64; PARAMS]) -> u32 {
    #[rustfmt::skip]
    type Any = unsafe extern "C" fn(
        u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
    ) -> u32;
    // SAFETY: on x86-64 integers and pointers of any width travel alike, and the caller cleans up.
    let function = unsafe { std::mem::transmute::<*mut c_void, Any>(address) };
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = params;
    // SAFETY: what is given is null, a place of the test, or a number that is no address.
    unsafe { function(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) }
}

/// The exports that this library supports: name and shape.
pub fn supported() -> Vec<(&'static str, &'static str)> {
    let mut names: Vec<_> =
        TABLE.iter().filter(|row| group_of(row.elf).is_some()).map(|row| (row.elf, row.shape)).collect();
    names.dedup();
    assert!(names.len() > 200, "{}", names.len());
    names
}

/// The exports that this library does not support.
pub fn unsupported() -> BTreeSet<&'static str> {
    TABLE.iter().map(|row| row.elf).filter(|name| group_of(name).is_none()).collect()
}

/// The first parameters of a call; the rest is 0.
pub fn params(some: &[u64]) -> [u64; PARAMS] {
    std::array::from_fn(|i| some.get(i).copied().unwrap_or(0))
}
