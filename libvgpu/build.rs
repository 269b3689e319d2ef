//! Makes the exports that nobody wrote (801) and the table of `cuGetProcAddress`, and says how the library is linked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use vgpu_api::surface::group_of;
use vgpu_api::symbols::{Symbol, TABLE};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Programs and other libraries look for this name; the library stays loaded when a program closes it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("symbols.rs");
    fs::write(&out, stubs() + &bases()).expect("OUT_DIR can be written");
}

fn stubs() -> String {
    let names: BTreeSet<&str> = TABLE.iter().map(|row| row.elf).collect();
    let mut text = String::from("unsupported! {\n");
    for name in names.iter().filter(|name| group_of(name).is_none()) {
        let _ = writeln!(text, "    {name}");
    }
    text + "}\n"
}

fn bases() -> String {
    let mut bases: BTreeMap<&str, Vec<&Symbol>> = BTreeMap::new();
    for row in TABLE {
        bases.entry(row.base).or_default().push(row);
    }
    let mut text = String::from("pub static BASES: &[Base] = &[\n");
    for (base, rows) in bases {
        let _ = write!(text, "    Base {{ name: \"{base}\", forms: &[");
        for row in rows {
            let _ = write!(
                text,
                "Form {{ version: {}, mode: vgpu_api::symbols::Mode::{:?}, address: {} as *const () }}, ",
                row.version, row.mode, row.elf
            );
        }
        text.push_str("] },\n");
    }
    text + "];\n"
}
