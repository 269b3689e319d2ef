//! What a program finds when it opens the library.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use support::elf::{
    DF_1_NODELETE, DF_STATIC_TLS, DT_FLAGS, DT_FLAGS_1, DT_GNU_HASH, DT_NEEDED, DT_SONAME, DT_TEXTREL, Elf,
};

#[path = "../src/answered.rs"]
#[allow(dead_code, reason = "the table needs a part of it")]
mod answered;
#[path = "../src/names.rs"]
mod names;

#[test]
fn every_name_of_libnvidia_ml_is_exported_and_nothing_else() {
    let exported = Elf::read(&support::built()).exported();
    let wanted = names::NAMES.iter().map(|row| row.name).chain([answered::PRIVATE]);
    let wanted: BTreeSet<String> = wanted.map(String::from).collect();
    let missing: Vec<_> = wanted.difference(&exported).collect();
    let foreign: Vec<_> = exported.difference(&wanted).collect();
    assert!(missing.is_empty() && foreign.is_empty(), "missing {missing:?}, foreign {foreign:?}");
}

#[test]
fn the_library_has_nvmls_name_and_stays_loaded() {
    let elf = Elf::read(&support::built());
    assert_eq!(elf.names(DT_SONAME), ["libnvidia-ml.so.1"]);
    assert_ne!(elf.dynamic(DT_FLAGS_1).unwrap_or(0) & DF_1_NODELETE, 0, "-z nodelete");
}

/// As libcuda has to: `libvgpu/tests/exports.rs`.
fn loads_anywhere(elf: &Elf) {
    let flags = elf.dynamic(DT_FLAGS).unwrap_or(0);
    assert_eq!(flags & DF_STATIC_TLS, 0, "thread-local variables of the static kind");
    assert_eq!(elf.dynamic(DT_TEXTREL), None, "code that the loader would have to write into");
    assert!(elf.dynamic(DT_GNU_HASH).is_some(), "a hash table that every glibc since 2.5 reads");
}

#[test]
fn the_library_asks_nothing_unusual_of_a_loader() {
    loads_anywhere(&Elf::read(&support::built()));
}

/// What `cargo xtask dist` installs, and its test gives in VGPU_LIBNVML: linked by zig against an old glibc.
#[test]
#[ignore = "played by part installed with VGPU_LIBNVML, the library that dist has made"]
fn the_installed_library_needs_no_glibc_newer_than_2_17() {
    let path = std::env::var_os("VGPU_LIBNVML").expect("VGPU_LIBNVML names the installed library");
    let elf = Elf::read(Path::new(&path));
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
