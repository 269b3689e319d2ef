//! The linker as programs use it: inputs from memory and files, logs and figures in places of the program, an image that stays.

mod support;

use std::ffi::CString;

use support::Library;
use support::session::session;
use vgpu_api::LinkerHandle;

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_PTX: u32 = 218;
const FILE_NOT_FOUND: u32 = 301;
const INVALID_HANDLE: u32 = 400;
const NOT_SUPPORTED: u32 = 801;
/// `CU_JIT_INPUT_PTX`.
const PTX: u32 = 1;

fn create(library: &Library, options: &[u32], values: &mut [u64]) -> (u32, u64) {
    let (mut linker, count) = (0u64, u32::try_from(options.len()).unwrap());
    let (at, options, values) = (&raw mut linker, options.as_ptr(), values.as_mut_ptr());
    let code = cu!(library, cuLinkCreate_v2(count: u32, options: *const u32, values: *mut u64, at: *mut u64));
    (code, linker)
}

fn add(library: &Library, linker: u64, input: u32, bytes: &[u8]) -> u32 {
    let (data, len, name, null) = (bytes.as_ptr(), bytes.len(), c"in.ptx".as_ptr(), std::ptr::null::<u64>());
    cu!(library, cuLinkAddData_v2(linker: u64, input: u32, data: *const u8, len: usize, name: *const i8, 0: u32,
        null: *const u64, null: *const u64))
}

fn add_file(library: &Library, linker: u64, path: &str) -> u32 {
    let path = CString::new(path).unwrap();
    let (path, null) = (path.as_ptr(), std::ptr::null::<u64>());
    cu!(library, cuLinkAddFile_v2(linker: u64, 1: u32, path: *const i8, 0: u32, null: *const u64, null: *const u64))
}

fn complete(library: &Library, linker: u64) -> (u32, Vec<u8>, usize) {
    let (mut image, mut len) = (std::ptr::null::<u8>(), 0usize);
    let (image_at, len_at) = (&raw mut image, &raw mut len);
    let code = cu!(library, cuLinkComplete(linker: u64, image_at: *mut *const u8, len_at: *mut usize));
    if code != OK {
        return (code, Vec::new(), 0);
    }
    // SAFETY: the image of so many bytes, which lives as long as the linker.
    (code, unsafe { std::slice::from_raw_parts(image, len) }.to_vec(), image.addr())
}

#[test]
fn inputs_come_together_in_one_image_that_stays_until_the_end() {
    let session = session();
    let library = &session.libcuda;
    let (code, linker) = create(library, &[7, 0], &mut [4, 64]);
    assert_eq!(code, OK);
    assert_eq!(add(library, linker, PTX, b".first"), OK);
    let path = std::env::temp_dir().join(format!("vgpu-link-{}.ptx", std::process::id()));
    // More than staging takes at once.
    let long = vec![b'x'; 3 << 20];
    std::fs::write(&path, &long).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(add_file(library, linker, path), OK);
    std::fs::remove_file(path).unwrap();
    let (code, image, place) = complete(library, linker);
    assert_eq!(code, OK);
    assert!(image == [&b"in.ptx"[..], b".first", path.as_bytes(), &long].concat());
    assert_eq!(complete(library, linker), (OK, image, place), "again, at the same place");
    assert_eq!(cu!(library, cuLinkDestroy(linker: u64)), OK);
    assert_eq!(cu!(library, cuLinkDestroy(linker: u64)), INVALID_HANDLE);
    assert_eq!(complete(library, linker).0, INVALID_HANDLE);
}

#[test]
fn what_the_linker_says_is_written_where_the_program_wants_it() {
    let session = session();
    let library = &session.libcuda;
    let (mut info, mut error) = ([b'x'; 64], [b'x'; 10]);
    let options = [3u32, 4, 5, 6, 2, 1];
    let mut values = [info.as_mut_ptr() as u64, 64, error.as_mut_ptr() as u64, 10, 0, 128];
    let (code, linker) = create(library, &options, &mut values);
    assert_eq!(code, OK);
    assert_eq!(add(library, linker, PTX, b".broken"), INVALID_PTX);
    assert_eq!((&info[..7], &error), (&b"linked\0"[..], b"line 1: n\0"));
    assert_eq!((values[1], values[3], values[5]), (6, 9, 256));
    let [a, b, c, d, ..] = values[4].to_ne_bytes();
    assert_eq!(f32::from_ne_bytes([a, b, c, d]).to_bits(), 1.5f32.to_bits());
    assert_eq!(cu!(library, cuLinkDestroy(linker: u64)), OK);
}

#[test]
fn what_is_no_option_input_file_or_linker_is_refused() {
    let session = session();
    let library = &session.libcuda;
    assert_eq!(create(library, &[35], &mut [0]).0, INVALID_VALUE);
    assert_eq!(create(library, &[7; 65], &mut [0; 65]).0, INVALID_VALUE);
    for lists in [17, 18, 19, 25, 27] {
        assert_eq!(create(library, &[lists], &mut [1]).0, NOT_SUPPORTED, "{lists}");
    }
    let (_, linker) = create(library, &[], &mut []);
    assert_eq!(add(library, linker, 6, b"x"), INVALID_VALUE);
    assert_eq!(add(library, linker, PTX, b""), INVALID_VALUE);
    assert_eq!(add_file(library, linker, "/nowhere/at/all"), FILE_NOT_FOUND);
    for wrong in [0, linker + 1, LinkerHandle::new(5, 0).raw()] {
        assert_eq!(add(library, wrong, PTX, b"x"), INVALID_HANDLE);
        assert_eq!(add_file(library, wrong, "/nowhere"), INVALID_HANDLE);
    }
    assert_eq!(cu!(library, cuLinkDestroy(linker: u64)), OK);
}

#[test]
fn a_linker_ends_with_its_context() {
    let session = session();
    let library = &session.libcuda;
    let mut made = 0u64;
    let made_at = &raw mut made;
    assert_eq!(cu!(library, cuCtxCreate_v2(made_at: *mut u64, 0: u32, 0: i32)), OK);
    let (code, linker) = create(library, &[], &mut []);
    assert_eq!((code, cu!(library, cuCtxDestroy_v2(made: u64))), (OK, OK));
    assert_eq!(add(library, linker, PTX, b"x"), INVALID_HANDLE);
}
