//! Makes the exports of what is not answered, and says how the library is linked.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

#[path = "src/answered.rs"]
#[allow(dead_code, reason = "a part of it is the tests'")]
mod answered;
#[path = "src/names.rs"]
mod names;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/answered.rs");
    println!("cargo:rerun-if-changed=src/names.rs");
    // Programs look for this name; the library stays loaded when a program closes it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    let missing = |on_device: bool| {
        let names = names::NAMES.iter().filter(|name| name.on_device == on_device);
        let names = names.filter(|name| answered::subject_of(name.name).is_none());
        names.fold(String::new(), |mut text, name| {
            let _ = writeln!(text, "    {}", name.name);
            text
        })
    };
    let text =
        format!("unsupported! {{\n{}}}\nunsupported_of_device! {{\n{}}}\n", missing(false), missing(true));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("unsupported.rs");
    fs::write(&out, text).expect("OUT_DIR can be written");
}
