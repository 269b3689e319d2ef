//! What the tests of part `contract` ask of their place: what that part gives them, and whether containers can be made there.

use std::path::PathBuf;

/// A path of the environment that part `contract` gives its tests.
///
/// # Panics
/// It is not set.
#[must_use]
pub fn given(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: cargo xtask test contract")).into()
}

/// Whether containers can be made here. Says why not, in the name of `file`.
#[must_use]
pub fn can_be_tried(file: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("NOT TRIED: {file}: only root makes containers without a user namespace");
    }
    root
}
