//! Tensor maps: each set of parameters travels once, and what is wrong with them is told at once.

mod support;

use support::Library;
use support::session::session;

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;

/// A `CUtensorMap`.
#[repr(C, align(64))]
struct Map([u8; 128]);

fn tiled(library: &Library, map: *mut Map, rank: u32, address: u64) -> u32 {
    let (dims, strides, ones) = ([64u64; 5], [256u64; 4], [1u32; 5]);
    let (dims, strides, ones) = (dims.as_ptr(), strides.as_ptr(), ones.as_ptr());
    cu!(library, cuTensorMapEncodeTiled(map: *mut Map, 7: u32, rank: u32, address: u64, dims: *const u64,
        strides: *const u64, ones: *const u32, ones: *const u32, 0: u32, 3: u32, 2: u32, 1: u32))
}

fn asked(session: &support::session::Session) -> usize {
    session.seen.lock().unwrap().calls.iter().filter(|call| **call == "tensor map").count()
}

#[test]
fn the_same_parameters_travel_once_and_give_the_same_map() {
    let session = session();
    let library = &session.libcuda;
    let (mut first, mut second) = (Map([0; 128]), Map([1; 128]));
    let before = asked(&session);
    assert_eq!(tiled(library, &raw mut first, 2, 0x7000_0000), OK);
    assert_eq!(tiled(library, &raw mut second, 2, 0x7000_0000), OK);
    assert_eq!((first.0, asked(&session)), (second.0, before + 1));
    // Form, type, address: as the device of this test writes them.
    assert_eq!(
        (first.0[..8].to_vec(), &first.0[8..12]),
        (vec![0, 0, 0, 0, 7, 0, 0, 0], &[0, 0, 0, 0x70][..])
    );
    assert_eq!(tiled(library, &raw mut second, 3, 0x7000_0000), OK);
    assert_eq!(asked(&session), before + 2);
    let (map, address) = (&raw mut second, 0x7000_0010_u64);
    assert_eq!(cu!(library, cuTensorMapReplaceAddress(map: *mut Map, address: u64)), OK);
    assert_eq!(&second.0[8..12], &[0x10, 0, 0, 0x70]);
}

#[test]
fn the_other_forms_take_their_corners_along() {
    let session = session();
    let library = &session.libcuda;
    let mut map = Map([0; 128]);
    let at = &raw mut map;
    let (dims, strides, ones, lower, upper) = ([8u64; 5], [256u64; 4], [1u32; 5], [-1i32; 3], [1i32; 3]);
    let (dims, strides, ones) = (dims.as_ptr(), strides.as_ptr(), ones.as_ptr());
    let (lower, upper) = (lower.as_ptr(), upper.as_ptr());
    let im2col = |rank: u32| {
        cu!(library, cuTensorMapEncodeIm2col(at: *mut Map, 7: u32, rank: u32, 4096: u64, dims: *const u64,
            strides: *const u64, lower: *const i32, upper: *const i32, 16: u32, 32: u32, ones: *const u32, 0: u32, 0: u32,
            0: u32, 0: u32))
    };
    assert_eq!((im2col(2), im2col(3), im2col(5), im2col(6)), (INVALID_VALUE, OK, OK, INVALID_VALUE));
    let wide = |rank: u32| {
        cu!(library, cuTensorMapEncodeIm2colWide(at: *mut Map, 7: u32, rank: u32, 4096: u64, dims: *const u64,
            strides: *const u64, 0: i32, 1: i32, 16: u32, 32: u32, ones: *const u32, 0: u32, 1: u32, 0: u32, 0: u32, 0: u32))
    };
    assert_eq!((wide(2), wide(3), wide(5), wide(6)), (INVALID_VALUE, OK, OK, INVALID_VALUE));
}

#[test]
fn ranks_places_and_addresses_that_are_wrong_are_refused() {
    let session = session();
    let library = &session.libcuda;
    let mut map = Map([0; 128]);
    let at = &raw mut map;
    assert_eq!(tiled(library, at, 0, 4096), INVALID_VALUE);
    assert_eq!(tiled(library, at, 6, 4096), INVALID_VALUE);
    assert_eq!(tiled(library, std::ptr::null_mut(), 2, 4096), INVALID_VALUE);
    assert_eq!(tiled(library, at.wrapping_byte_add(16), 2, 4096), INVALID_VALUE, "not at a multiple of 64");
    assert_eq!(tiled(library, at, 2, 0), INVALID_VALUE, "the worker's word");
}
