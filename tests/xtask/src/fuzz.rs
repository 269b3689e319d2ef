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
use crate::progress::{self, Log, Steps};

/// The targets: the binaries of `tests/fuzz`.
pub const TARGETS: &[&str] = &[
    "idm_bytes",
    "idm_region",
    "guest_door",
    "cuda_record",
    "cuda_session",
    "p9_message",
    "p9_session",
    "soft_load",
];
/// Each runs so long.
const SECONDS: u32 = 600;
/// A single input that takes longer has found a hang.
const INPUT_SECONDS_MAX: u32 = 10;
/// Counters, their places and compared values are what libFuzzer steers by. Source: LLVM, "SanitizerCoverage".
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Lints the targets, which no short run builds. Nothing is linked: libFuzzer, named as if it were there, isn't compiled.
pub fn lint(log: &Log) -> Result<()> {
    let mut clippy =
        cargo(&paths::root()?.join("tests/fuzz"), &["clippy", "--locked", "--", "-D", "warnings"]);
    clippy.env("RUSTFLAGS", "--cfg fuzzing").env("CARGO_TARGET_DIR", paths::target()?.join("fuzz"));
    log.run(clippy.env("CUSTOM_LIBFUZZER_PATH", "not-linked/libFuzzer.a"))
}

/// Builds all targets and returns the directory with their programs.
pub fn build(steps: &Steps) -> Result<PathBuf> {
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
pub fn run(steps: &Steps, programs: &Path, target: &str) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_of_the_folder_is_a_target_of_the_stage() {
        let manifest = include_str!("../../fuzz/Cargo.toml");
        let bins = manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|bin| bin.split('"').next());
        let mut targets = TARGETS.to_vec();
        targets.sort_unstable();
        assert_eq!(bins.collect::<Vec<_>>(), targets);
        let sources = crate::cache::sorted_entries(&paths::root().expect("here").join("tests/fuzz/src"));
        let sources = sources.expect("listed");
        let stems = sources.iter().filter_map(|source| source.file_stem()?.to_str());
        assert_eq!(stems.collect::<Vec<_>>(), targets, "each is one file");
    }
}
