//! The fuzz targets of `tests/fuzz`, built and run for a time, on the stable toolchain.
//!
//! LLVM's coverage pass is a code-generation flag that stable rustc takes, and libFuzzer comes as a crate: neither nightly nor
//! cargo-fuzz is needed. What a run has learnt stays in `target/xtask/fuzz/TARGET/corpus`, what it found beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::cargo;
use crate::error::{Context, Result};
use crate::paths;
use crate::progress::{self, Steps};

/// The targets: the binaries of `tests/fuzz`.
pub const TARGETS: &[&str] = &["idm_bytes", "idm_region", "guest_door", "cuda_record", "soft_load"];
/// Each runs so long.
const SECONDS: u32 = 600;
/// A single input that takes longer has found a hang.
const INPUT_SECONDS_MAX: u32 = 10;
/// Counters, their places and compared values are what libFuzzer steers by. Source: LLVM, "SanitizerCoverage".
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds all targets and returns the directory with their programs.
pub fn build(steps: &mut Steps) -> Result<PathBuf> {
    let folder = paths::root()?.join("tests/fuzz");
    // With a target named, cargo builds what runs at build time without these flags.
    let version = progress::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context(|| "rustc does not say what it runs on".into())?;
    let target = paths::target()?.join("fuzz");
    steps.step("Build the fuzz targets", |log| {
        let mut cargo = cargo(&folder, &["build", "--release", "--locked", "--target", host]);
        log.run(cargo.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", &target))
    })?;
    Ok(target.join(host).join("release"))
}

/// Runs one target for its time. It fails with the first input that panics, hangs, or takes too much memory.
pub fn run(steps: &mut Steps, programs: &Path, target: &str) -> Result<()> {
    let dir = paths::scratch()?.join("fuzz").join(target);
    let corpus = dir.join("corpus");
    fs::create_dir_all(&corpus).context(|| format!("cannot make {}", corpus.display()))?;
    steps.step(&format!("Fuzz {target} for {SECONDS} s"), |log| {
        let mut program = Command::new(programs.join(target));
        program.arg(&corpus).args([
            format!("-artifact_prefix={}/", dir.display()),
            format!("-max_total_time={SECONDS}"),
            format!("-timeout={INPUT_SECONDS_MAX}"),
            "-max_len=8192".into(),
        ]);
        log.run(&mut program)
    })
}
