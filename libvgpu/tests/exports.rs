//! What a program finds when it opens the library, before anything is connected.

mod support;

use std::collections::BTreeSet;
use std::ffi::{CString, c_void};

use support::Library;
use support::elf::{
    DF_1_NODELETE, DF_STATIC_TLS, DT_FLAGS, DT_FLAGS_1, DT_GNU_HASH, DT_NEEDED, DT_SONAME, DT_TEXTREL, Elf,
};
use vgpu_api::symbols::TABLE;

const NOT_INITIALIZED: u32 = 3;
const NOT_FOUND: u32 = 500;
const NOT_SUPPORTED: u32 = 801;

#[test]
fn every_name_of_libcuda_is_exported_and_nothing_else_but_the_marker() {
    let exported = Elf::read(&support::built()).exported();
    let wanted: BTreeSet<String> =
        TABLE.iter().map(|row| row.elf.to_owned()).chain(["vgpu_is_shim".to_owned()]).collect();
    let missing: Vec<_> = wanted.difference(&exported).collect();
    let foreign: Vec<_> = exported.difference(&wanted).collect();
    assert!(missing.is_empty() && foreign.is_empty(), "missing {missing:?}, foreign {foreign:?}");
}

#[test]
fn the_library_has_cudas_name_and_stays_loaded() {
    let elf = Elf::read(&support::built());
    assert_eq!(elf.names(DT_SONAME), ["libcuda.so.1"]);
    assert_ne!(elf.dynamic(DT_FLAGS_1).unwrap_or(0) & DF_1_NODELETE, 0, "-z nodelete");
}

/// Opened late, by a process that has used up the loader's spare room for thread-local variables, or by a hardened one.
fn loads_anywhere(elf: &Elf) {
    assert_eq!(
        elf.dynamic(DT_FLAGS).unwrap_or(0) & DF_STATIC_TLS,
        0,
        "thread-local variables of the static kind"
    );
    assert_eq!(elf.dynamic(DT_TEXTREL), None, "code that the loader would have to write into");
    assert!(elf.dynamic(DT_GNU_HASH).is_some(), "a hash table that every glibc since 2.5 reads");
}

#[test]
fn the_library_asks_nothing_unusual_of_a_loader() {
    loads_anywhere(&Elf::read(&support::built()));
}

/// What `cargo xtask dist` installs, and its test gives in VGPU_LIBCUDA: linked by zig against an old glibc.
#[test]
#[ignore = "played by part installed with VGPU_LIBCUDA, the library that dist has made"]
fn the_installed_library_needs_no_glibc_newer_than_2_17() {
    let path = std::env::var_os("VGPU_LIBCUDA").expect("VGPU_LIBCUDA names the installed library");
    let elf = Elf::read(std::path::Path::new(&path));
    let number = |version: &str| -> Option<Vec<u32>> {
        version.strip_prefix("GLIBC_")?.split('.').map(|part| part.parse().ok()).collect()
    };
    let needed = elf.needed_versions();
    assert!(needed.iter().any(|version| number(version).is_some()), "it needs some glibc: {needed:?}");
    for version in &needed {
        let number = number(version).unwrap_or_else(|| panic!("{version} is no version of glibc"));
        assert!(number <= vec![2, 17], "{version}");
    }
    assert_eq!(elf.exported(), Elf::read(&support::built()).exported());
    loads_anywhere(&elf);
    // Small images have no more: no libgcc_s.
    let glibc =
        ["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "ld-linux-x86-64.so.2"];
    let strangers: Vec<_> =
        elf.names(DT_NEEDED).into_iter().filter(|name| !glibc.contains(&name.as_str())).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn every_query_of_cudart_and_pytorch_is_answered_by_the_right_form() {
    let library = Library::open();
    let queries = include_str!("data/gpa-cudart13.2-with-versions.txt");
    let mut asked = 0;
    for line in queries.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, versions)) = line.split_once([' ', ':', '\t']) else { continue };
        for version in versions
            .split(|letter: char| letter == ',' || letter.is_whitespace())
            .filter(|part| !part.is_empty())
        {
            let (number, per_thread) = match version.strip_suffix('p') {
                Some(number) => (number, true),
                None => (version, false),
            };
            let number: i32 = number.parse().unwrap_or_else(|_| panic!("{line}"));
            // Forms newer than the version that we implement are not there.
            let known =
                TABLE.iter().any(|row| row.base == name && i32::try_from(row.version).unwrap() <= number);
            if number > 13000 || !known {
                continue;
            }
            let text = CString::new(name).unwrap();
            let (text, mut pfn, mut status) = (text.as_ptr(), std::ptr::null_mut::<c_void>(), 9u32);
            let flags = if per_thread { 2u64 } else { 0 };
            let (place, status_place) = (&raw mut pfn, &raw mut status);
            let code = cu!(library, cuGetProcAddress_v2(
                text: *const i8, place: *mut *mut c_void, number: i32, flags: u64, status_place: *mut u32));
            assert_eq!((code, status), (0, 0), "{name} {version}");
            let wanted = TABLE
                .iter()
                .filter(|row| row.base == name && i32::try_from(row.version).unwrap() <= number)
                .filter(|row| per_thread || row.mode == vgpu_api::symbols::Mode::Legacy)
                .max_by_key(|row| (row.mode, row.version))
                .unwrap();
            assert_eq!(pfn, library.symbol(wanted.elf), "{name} {version} is {}", wanted.elf);
            // The form of CUDA 11, which has no status.
            pfn = std::ptr::null_mut();
            let place = &raw mut pfn;
            let code = cu!(library, cuGetProcAddress(
                text: *const i8, place: *mut *mut c_void, number: i32, flags: u64));
            assert_eq!((code, pfn), (0, library.symbol(wanted.elf)), "{name} {version}");
            asked += 1;
        }
    }
    assert!(asked > 400, "only {asked} queries were read");
}

#[test]
fn a_name_that_is_unknown_is_said_by_the_code_or_the_status() {
    let library = Library::open();
    let (mut pfn, mut status) = (std::ptr::dangling_mut::<c_void>(), 9u32);
    let (place, status_place, name) = (&raw mut pfn, &raw mut status, c"cuNoSuchCall".as_ptr());
    let code = cu!(library, cuGetProcAddress(name: *const i8, place: *mut *mut c_void, 13000: i32, 0: u64));
    assert_eq!((code, pfn.is_null()), (NOT_FOUND, true));
    pfn = std::ptr::dangling_mut();
    let place = &raw mut pfn;
    let code = cu!(library, cuGetProcAddress_v2(
        name: *const i8, place: *mut *mut c_void, 13000: i32, 0: u64, status_place: *mut u32));
    assert_eq!((code, status, pfn.is_null()), (0, 1, true));
}

#[test]
fn before_the_start_calls_say_so_and_those_that_need_no_start_work() {
    let library = Library::open();
    let (mut version, mut context) = (0i32, 0u64);
    let (version_place, context_place) = (&raw mut version, &raw mut context);
    assert_eq!(cu!(library, cuDriverGetVersion(version_place: *mut i32)), 0);
    assert_eq!(version, 13000);
    assert_eq!(cu!(library, cuCtxGetCurrent(context_place: *mut u64)), NOT_INITIALIZED);
    assert_eq!(cu!(library, cuGraphicsUnregisterResource()), NOT_SUPPORTED);
    let mut text = std::ptr::null::<i8>();
    let place = &raw mut text;
    assert_eq!(cu!(library, cuGetErrorName(700: u32, place: *mut *const i8)), 0);
    // SAFETY: the library gives a text that lives for ever.
    assert_eq!(unsafe { std::ffi::CStr::from_ptr(text) }, c"CUDA_ERROR_ILLEGAL_ADDRESS");
}

#[test]
fn the_private_tables_have_their_sizes_and_the_one_that_must_fail_fails() {
    let library = Library::open();
    let table = |uuid: u128| {
        let uuid = uuid.to_be_bytes();
        let (mut table, id) = (std::ptr::null::<usize>(), uuid.as_ptr());
        let place = &raw mut table;
        let code = cu!(library, cuGetExportTable(place: *mut *const usize, id: *const u8));
        // SAFETY: a table of the library starts with its size.
        (code == 0).then(|| unsafe { (*table, table) })
    };
    assert_eq!(table(0x6bd5fb6c_5bf4_e74a_8987_d93912fd9df9).unwrap().0, 13 * 8);
    assert_eq!(table(0x21318c60_9714_3248_8ca6_41ff7324c8f2).unwrap().0, 95 * 8);
    assert!(table(0xf8cff951_2146_8b4e_b9e2_fb469e7c0dd9).is_none(), "with it cudart would skip its start");
    let (_, cls) = table(0xc693336e_1121_df11_a8c3_68f355d89593).unwrap();
    let last = cls.wrapping_add(3);
    // SAFETY: it has four slots, the last one NULL.
    assert_eq!(unsafe { *last }, 0);
}
