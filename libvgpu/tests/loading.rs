//! How programs load the library: late, under two names, hidden from others, closed too early. Its own program: it counts threads
//! and descriptors.

mod support;

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::fs;
use std::os::unix::fs::symlink;

use support::{Library, built};

const OK: u32 = 0;
const NOT_INITIALIZED: u32 = 3;

fn entries(dir: &str) -> BTreeSet<String> {
    let names = fs::read_dir(dir).expect("Linux has it").map(|entry| entry.expect("readable").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Threads of this process, and what it has open.
fn footprint() -> (usize, BTreeSet<String>) {
    let open = entries("/proc/self/fd");
    // The descriptor that reads the list is gone again.
    let open = open.into_iter().filter(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect();
    (entries("/proc/self/task").len(), open)
}

#[test]
fn loading_and_asking_start_no_thread_and_open_nothing_and_two_names_are_one_library() {
    let before = footprint();
    let dir = std::env::temp_dir().join(format!("vgpu-load-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("a fresh directory");
    let paths = ["libcuda.so.1", "libcuda.so"].map(|name| dir.join(name));
    paths.iter().for_each(|path| symlink(built(), path).expect("a fresh name"));
    let [first, second] = paths.map(|path| Library::at(&path));

    for name in ["cuInit", "cuGetProcAddress_v2", "cuMemAlloc_v2"] {
        assert_eq!(
            first.symbol(name),
            second.symbol(name),
            "{name}: one library, whatever name it was opened by"
        );
        // SAFETY: the default handle; the name ends in NUL.
        let global = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"cuMemAlloc_v2".as_ptr()) };
        assert!(global.is_null(), "RTLD_LOCAL hides it from programs that did not ask for it");
    }
    let (mut pfn, mut status, mut version) = (std::ptr::null_mut::<c_void>(), 9u32, 0i32);
    let (pfn_at, status_at, version_at) = (&raw mut pfn, &raw mut status, &raw mut version);
    for name in [c"cuInit", c"cuLaunchKernel", c"cuNothing"].map(std::ffi::CStr::as_ptr) {
        assert_eq!(
            cu!(first, cuGetProcAddress_v2(name: *const i8, pfn_at: *mut *mut c_void, 13000: i32, 0: u64,
                status_at: *mut u32)),
            OK
        );
    }
    let uuid = 0xd4082055_bde6_704b_8d34_ba123c66e1f2u128.to_be_bytes();
    let (table_at, uuid_at) = (&raw mut pfn, uuid.as_ptr());
    assert_eq!(cu!(first, cuGetExportTable(table_at: *mut *mut c_void, uuid_at: *const u8)), OK);
    assert_eq!(cu!(first, cuDriverGetVersion(version_at: *mut i32)), OK);
    assert_eq!(footprint(), before, "before cuInit: no thread, nothing open");

    // A program that closes what its destructors still call: the library stays.
    let count = first.symbol("cuDeviceGetCount");
    first.close();
    second.close();
    // SAFETY: the type is that of CUDA's header; -z nodelete keeps the code.
    let count = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(*mut i32) -> u32>(count) };
    assert_eq!(count(version_at), NOT_INITIALIZED);
    fs::remove_dir_all(&dir).expect("it is ours");
}
