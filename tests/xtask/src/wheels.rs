//! Build tools that Debian lacks, from PyPI: unpacked into the cache, apart from the system's Python.

use std::path::PathBuf;
use std::process::Command;

use crate::cache::{self, Inputs};
use crate::error::Result;
use crate::progress::Log;

/// zig as a linker for an old glibc, and the cargo subcommand that uses it.
pub const ZIGBUILD: &[&str] = &["cargo-zigbuild==0.24.0", "ziglang==0.15.2"];

/// The directory into which the pinned wheels are unpacked; their programs are in `bin`. No dependencies come along.
pub fn unpacked(log: &Log, name: &str, wheels: &[&str]) -> Result<PathBuf> {
    install(log, name, &["--no-deps"], wheels)
}

/// The same with what they need, in the versions that they name.
pub fn with_dependencies(log: &Log, name: &str, wheels: &[&str]) -> Result<PathBuf> {
    install(log, name, &[], wheels)
}

fn install(log: &Log, name: &str, options: &[&str], wheels: &[&str]) -> Result<PathBuf> {
    let inputs = Inputs::new().add("wheels", wheels.join(" "));
    cache::get(name, inputs, |dir| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--no-cache-dir", "--root-user-action=ignore"]);
        log.run(pip.args(options).arg("--target").arg(dir).args(wheels))
    })
}
