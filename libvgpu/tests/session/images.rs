//! Images, their functions and variables, and launches.

use std::ffi::{CString, c_void};

use vgpu_api::{FunctionHandle, Handle};

use super::*;

const LAUNCH_OUT_OF_RESOURCES: u32 = 701;
const INVALID_PTX: u32 = 218;
const NOT_FOUND: u32 = 500;

fn load(session: &Session, image: &std::ffi::CStr) -> (u32, u64) {
    let (mut module, image) = (0u64, image.as_ptr());
    let place = &raw mut module;
    (cu!(session.libcuda, cuModuleLoadData(place: *mut u64, image: *const i8)), module)
}

fn function(session: &Session, module: u64, name: &std::ffi::CStr) -> u64 {
    let (mut function, name) = (0u64, name.as_ptr());
    let place = &raw mut function;
    assert_eq!(cu!(session.libcuda, cuModuleGetFunction(place: *mut u64, module: u64, name: *const i8)), OK);
    function
}

fn launch(session: &Session, function: u64, grid: u32, block: u32, params: &[*const c_void]) -> u32 {
    let (list, null, stream) = (params.as_ptr(), std::ptr::null::<*const c_void>(), 0u64);
    let list = if params.is_empty() { null } else { list };
    let (one, none) = (1u32, 0u32);
    cu!(session.libcuda, cuLaunchKernel(function: u64, grid: u32, one: u32, one: u32, block: u32, one: u32, one: u32,
        none: u32, stream: u64, list: *const *const c_void, null: *const *const c_void))
}

#[test]
fn a_kernel_runs_with_its_packed_parameters() {
    let session = session();
    let (code, module) = load(&session, c".version 8.0 fill");
    assert_eq!(code, OK);
    let fill = function(&session, module, c"fill");
    let address = alloc(&session, 4096);
    let (value, count) = (0xa1b2_c3d4u32, 1024u32);
    let params =
        [(&raw const address).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
    assert_eq!(launch(&session, fill, 4, 256, &params), OK);
    assert_eq!(synchronize(&session), OK);
    assert!(read(&session, address, 4096).chunks_exact(4).all(|word| word == value.to_le_bytes()));

    // The same through `extra`, as nvjet launches, with a cluster attribute.
    let mut block = address.to_le_bytes().to_vec();
    block.extend(7u32.to_le_bytes());
    block.extend(1024u32.to_le_bytes());
    let bytes = block.len();
    let extra = [1usize, block.as_ptr() as usize, 2, &raw const bytes as usize, 0];
    let mut attribute = [0u8; 72];
    attribute[0] = 4;
    attribute[8] = 2;
    attribute[12] = 1;
    attribute[16] = 1;
    let mut config = [0u64; 7];
    config[0] = 4 | 1 << 32;
    config[1] = 1 | 256 << 32;
    config[2] = 1 | 1 << 32;
    config[5] = attribute.as_ptr() as u64;
    config[6] = 1;
    let (config_at, extra_at, null) = (config.as_ptr(), extra.as_ptr(), 0u64);
    assert_eq!(
        cu!(session.libcuda, cuLaunchKernelEx(config_at: *const u64, fill: u64, null: u64, extra_at: *const usize)),
        OK
    );
    assert_eq!(synchronize(&session), OK);
    let seen = session.seen.lock().unwrap().launches.last().unwrap().clone();
    assert_eq!((seen.shape.grid, seen.shape.block), ([4, 1, 1], [256, 1, 1]));
    assert_eq!((seen.attribute_ids, seen.params), (vec![4], block.clone()));

    // What a program leaves out is zeros, as NVIDIA's driver has it; nothing at all and too much are mistakes.
    for (bytes, code) in [(12usize, OK), (8, OK), (0, INVALID_VALUE), (17, LAUNCH_OUT_OF_RESOURCES)] {
        block.resize(17, 0xee);
        let extra = [1usize, block.as_ptr() as usize, 2, &raw const bytes as usize, 0];
        let extra_at = extra.as_ptr();
        assert_eq!(
            cu!(session.libcuda, cuLaunchKernelEx(config_at: *const u64, fill: u64, null: u64, extra_at: *const usize)),
            code,
            "{bytes} bytes"
        );
        if code == OK {
            assert_eq!(synchronize(&session), OK);
            let mut given = block[..bytes].to_vec();
            given.resize(16, 0);
            assert_eq!(session.seen.lock().unwrap().launches.last().unwrap().params, given);
        }
    }
    free(&session, address);
    assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), OK);
    assert_eq!(launch(&session, fill, 1, 1, &[]), INVALID_HANDLE, "its module is gone");
}

#[test]
fn mistakes_of_a_launch_come_from_the_launch() {
    let session = session();
    let (_, module) = load(&session, c".version 8.0 limits");
    let fault = function(&session, module, c"fault");
    let fill = function(&session, module, c"fill");
    assert_eq!(launch(&session, fault, 0, 32, &[]), INVALID_VALUE, "an empty grid");
    assert_eq!(launch(&session, fault, 1, 1025, &[]), INVALID_VALUE, "more threads than the device has");
    assert_eq!(launch(&session, fill, 1, 1, &[]), INVALID_VALUE, "parameters are missing");
    let (big, null, stream, one) = (50_000u32, 0u64, 0u64, 1u32);
    assert_eq!(
        cu!(session.libcuda, cuLaunchKernel(fault: u64, one: u32, one: u32, one: u32, one: u32, one: u32, one: u32,
        big: u32, stream: u64, null: u64, null: u64)),
        INVALID_VALUE,
        "more dynamic shared memory than allowed"
    );
    let stranger = FunctionHandle::new(5, 99 << 16).raw();
    assert_eq!(launch(&session, stranger, 1, 1, &[]), INVALID_HANDLE);
    assert_eq!(launch(&session, 0x1234, 1, 1, &[]), INVALID_HANDLE);
    assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), OK);
}

#[test]
fn a_broken_image_says_why_and_a_long_list_of_functions_arrives_whole() {
    let session = session();
    let (mut module, mut log, image) = (0u64, [b'x'; 16], c".broken");
    let (module_at, image_at) = (&raw mut module, image.as_ptr());
    let (options, values) = ([5u32, 6], [log.as_mut_ptr() as u64, 16]);
    let (options_at, values_at) = (options.as_ptr(), values.as_ptr());
    assert_eq!(
        cu!(session.libcuda, cuModuleLoadDataEx(module_at: *mut u64, image_at: *const i8, 2: u32, options_at: *const u32,
            values_at: *const u64)),
        INVALID_PTX
    );
    assert_eq!(&log, b"line 1: no such\0");

    let text = format!(".version 8.0 many {}\0", "-".repeat(200_000));
    let image = std::ffi::CStr::from_bytes_with_nul(text.as_bytes()).unwrap();
    let (code, module) = load(&session, image);
    assert_eq!(code, OK);
    let last = CString::new(format!("extra_{:060}", 39_999)).unwrap();
    let handle = Handle::parse(function(&session, module, &last)).unwrap();
    assert_eq!(FunctionHandle::ordinal(handle), 40_001);
    let (name, mut place) = (c"missing".as_ptr(), 0u64);
    let at = &raw mut place;
    assert_eq!(
        cu!(session.libcuda, cuModuleGetFunction(at: *mut u64, module: u64, name: *const i8)),
        NOT_FOUND
    );
    assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), OK);
}

#[test]
fn a_variable_of_an_image_is_device_memory_that_nobody_frees() {
    let session = session();
    let (_, module) = load(&session, c".version 8.0 variable");
    let (mut address, mut bytes, mut kind, mut base) = (0u64, 0usize, 0u32, 0u64);
    let (at, bytes_at, kind_at, base_at, name) =
        (&raw mut address, &raw mut bytes, &raw mut kind, &raw mut base, c"table".as_ptr());
    assert_eq!(
        cu!(session.libcuda, cuModuleGetGlobal_v2(at: *mut u64, bytes_at: *mut usize, module: u64, name: *const i8)),
        OK
    );
    let inside = address + 8;
    assert_eq!(cu!(session.libcuda, cuPointerGetAttribute(kind_at: *mut u32, 2: u32, inside: u64)), OK);
    assert_eq!(
        cu!(session.libcuda, cuMemGetAddressRange_v2(base_at: *mut u64, bytes_at: *mut usize, inside: u64)),
        OK
    );
    assert_eq!((kind, base, bytes), (2, address, 64));
    assert_eq!(cu!(session.libcuda, cuMemFree_v2(address: u64)), INVALID_VALUE);
    assert_eq!(write(&session, inside, &[0; 57]), INVALID_VALUE, "one byte past its end");
    // A unified copy knows which side it is.
    let from = 7u64;
    let from_at = &raw const from as u64;
    assert_eq!(cu!(session.libcuda, cuMemcpy(inside: u64, from_at: u64, 8: usize)), OK);
    assert_eq!(read(&session, inside, 8), 7u64.to_le_bytes());
    assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), OK);
    assert_eq!(
        cu!(session.libcuda, cuPointerGetAttribute(kind_at: *mut u32, 2: u32, inside: u64)),
        INVALID_VALUE,
        "it went with its module"
    );
}

#[test]
fn a_library_says_why_its_image_is_broken_too() {
    let session = session();
    let (mut library, mut log, mut info, image) = (0u64, [b'x'; 16], [b'x'; 4], c".broken");
    let (at, image_at, null) = (&raw mut library, image.as_ptr(), std::ptr::null::<u64>());
    let (options, values) = ([5u32, 6, 3, 4], [log.as_mut_ptr() as u64, 16, info.as_mut_ptr() as u64, 4]);
    let (options_at, values_at) = (options.as_ptr(), values.as_ptr());
    assert_eq!(
        cu!(session.libcuda, cuLibraryLoadData(at: *mut u64, image_at: *const i8, options_at: *const u32,
            values_at: *const u64, 4: u32, null: *const u64, null: *const u64, 0: u32)),
        INVALID_PTX
    );
    assert_eq!((&log, info[0]), (b"line 1: no such\0", 0));
}

/// A fat binary of CUDA's form: of each entry its kind, its target and the text in it.
fn fat_binary(entries: &[(u16, u32, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, target, text) in entries {
        let mut entry = [0; 64];
        entry[..2].copy_from_slice(&kind.to_le_bytes());
        entry[4..8].copy_from_slice(&64_u32.to_le_bytes());
        entry[8..16].copy_from_slice(&(text.len() as u64).to_le_bytes());
        entry[28..32].copy_from_slice(&target.to_le_bytes());
        body.extend(entry);
        body.extend(text.as_bytes());
    }
    let header = [0xba55_ed50_u64 | 1 << 32 | 16 << 48, body.len() as u64].map(u64::to_le_bytes);
    [header.concat(), body].concat()
}

/// The device of these tests is of compute capability 9.0.
#[test]
fn of_a_fat_binary_only_what_a_device_can_run_travels() {
    let session = session();
    let (machine_code, ptx) = (2, 1);
    let entries = [
        (machine_code, 80, "of an earlier one"),
        (machine_code, 90, "of its own"),
        (machine_code, 100, "of a later one"),
        (ptx, 80, "text for many"),
        (ptx, 100, "text for later ones"),
    ];
    let images = [
        (fat_binary(&entries), fat_binary(&[entries[1], entries[3]])),
        (fat_binary(&entries[..2]), fat_binary(&entries[1..2])),
        // Which error that is the driver says.
        (fat_binary(&[entries[0], entries[4]]), fat_binary(&[entries[0], entries[4]])),
    ];
    for (image, travels) in images {
        let ((mut module, mut library), at, null) = ((0u64, 0u64), image.as_ptr(), std::ptr::null::<u64>());
        let (module_at, library_at) = (&raw mut module, &raw mut library);
        let before: Vec<u32> = session.seen.lock().unwrap().uploads.keys().copied().collect();
        assert_eq!(cu!(session.libcuda, cuModuleLoadData(module_at: *mut u64, at: *const u8)), OK);
        assert_eq!(
            cu!(session.libcuda, cuLibraryLoadData(library_at: *mut u64, at: *const u8, null: *const u64,
                null: *const u64, 0: u32, null: *const u64, null: *const u64, 0: u32)),
            OK
        );
        let mut uploads = session.seen.lock().unwrap().uploads.clone();
        uploads.retain(|number, _| !before.contains(number));
        assert_eq!(uploads.into_values().collect::<Vec<_>>(), [travels.clone(), travels]);
        assert_eq!(cu!(session.libcuda, cuModuleUnload(module: u64)), OK);
        assert_eq!(cu!(session.libcuda, cuLibraryUnload(library: u64)), OK);
    }
}
