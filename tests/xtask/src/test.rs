//! `cargo xtask test [NAME]`: everything that must hold, cheapest first, to one last line with counts.
//!
//! A part that fails does not stop the others. NAME chooses parts by name, or else stories by name.
//! `test --long STAGE` plays what takes longer; it goes on where it was stopped.

use std::fs;
use std::process::Command;

use crate::args::Args;
use crate::beforehand;
use crate::boots;
use crate::deny;
use crate::dist;
use crate::docs;
use crate::dom0;
use crate::error::{Context, Failure, Result};
use crate::gen_cuda;
use crate::host::{self, Needs, succeeds};
use crate::long;
use crate::paths;
use crate::programs;
use crate::progress::Steps;
use crate::qemu::Kind;
use crate::stories::{self, Stories};
use crate::tally::Tally;
use crate::testbed;

type Part = fn(&Steps, &mut Tally) -> Result<()>;

/// The parts in the order in which they run.
const PARTS: &[(&str, Part)] = &[
    ("format", format),
    ("lints", lints),
    ("docs", documents),
    ("licences", licences),
    ("unit", unit_tests),
    ("loom", loom),
    ("installed", installed),
    ("programs", programs::part),
    ("stories", boots::part),
];
/// Their tests mount, make containers, give workers users and cgroups of their own: a user plays them with sudo, the others without.
const TESTED_AS_ROOT: &[&str] = &["gpu-proxy", "guest-init", "shim-vgpu"];
/// What cargo and nextest start a test's program with. Source: The Cargo Book, "Configuration", `target.<triple>.runner`.
const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";

/// `test [NAME]`, `test --long STAGE`, `test --list`.
pub fn main(mut args: Args) -> Result<u8> {
    if args.flag("--list") {
        PARTS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(0);
    }
    let steps = Steps::new()?;
    let mut tally = Tally::default();
    if let Some(stage) = args.value("--long")? {
        args.end()?;
        long::run(&stage, &steps, &mut tally)?;
        return Ok(finish(&steps, &tally));
    }
    let name = args.optional_word()?;
    args.end()?;
    host::prepare(&steps, Needs::All)?;
    let chosen: Vec<_> =
        PARTS.iter().filter(|(part, _)| name.as_deref().is_none_or(|n| part == &n)).collect();
    match name {
        Some(name) if chosen.is_empty() => some_stories(&steps, &mut tally, &name)?,
        Some(_) => play(&chosen, &steps, &mut tally),
        None => {
            // What fails here is missed by some parts; the others go on.
            failed(&mut tally, "sudo, for Dom0's tree", dom0::may_be_made(&steps));
            let made = beforehand::beside(&steps, beforehand::ALL, || {
                play(&chosen, &steps, &mut tally);
                Ok(())
            });
            failed(&mut tally, "what is made beforehand", made);
        }
    }
    Ok(finish(&steps, &tally))
}

fn play(parts: &[&(&str, Part)], steps: &Steps, tally: &mut Tally) {
    for (name, run) in parts {
        let outcome = run(steps, tally);
        failed(tally, name, outcome);
    }
}

/// Counts a failure of what is no check of its own.
fn failed(tally: &mut Tally, name: &str, outcome: Result<()>) {
    if outcome.is_err() {
        tally.check(name, outcome);
    }
}

fn finish(steps: &Steps, tally: &Tally) -> u8 {
    eprintln!("{}", steps.table());
    println!("{}", tally.report());
    u8::from(tally.failed > 0)
}

fn format(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let root = paths::root()?;
    let outcome = steps.step("Format", |log| log.run(&mut dist::cargo(&root, &["fmt", "--all", "--check"])));
    tally.check("format", outcome);
    Ok(())
}

fn lints(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let root = paths::root()?;
    let line = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    let outcome = steps.step("Lints", |log| log.run(&mut dist::cargo(&root, &line)));
    tally.check("lints", outcome);
    Ok(())
}

fn documents(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let root = paths::root()?;
    tally.check("links in documents", steps.step("Links in documents", |_| docs::check(&root)));
    tally.check("symbols of libcuda", steps.step("Symbols of libcuda", |_| gen_cuda::check()));
    Ok(())
}

fn licences(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let root = paths::root()?;
    tally.check("licences", steps.step("Licences and origins", |log| deny::check(log, &root)));
    if succeeds("cargo-deny", &["--version"]) {
        let mut cargo = dist::cargo(&root, &["deny", "check", "advisories", "bans", "licenses", "sources"]);
        tally.check("cargo deny", steps.step("cargo deny", |log| log.run(&mut cargo)));
    } else {
        tally.skip("advisories", "cargo-deny is not installed (cargo install cargo-deny)");
    }
    Ok(())
}

fn unit_tests(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let root = paths::root()?;
    let nextest = succeeds("cargo-nextest", &["--version"]);
    let line: &[&str] = if nextest {
        &["nextest", "run", "--locked", "--no-fail-fast", "--no-tests", "pass"]
    } else {
        &["test", "--locked", "--no-fail-fast"]
    };
    let mut tests = dist::cargo(&root, line);
    tests.arg("--workspace");
    if host::is_root() {
        runner(steps, tally, "Unit tests", &mut tests)?;
    } else {
        tests.args(TESTED_AS_ROOT.iter().flat_map(|package| ["--exclude", package]));
        runner(steps, tally, "Unit tests", &mut tests)?;
        // A password is asked for here if at all: the tests run beside each other, and some look at their terminal.
        steps.step("sudo, for the unit tests that need root", |log| {
            log.run(&mut host::as_root("true", &[]))
        })?;
        let mut tests = dist::cargo(&root, line);
        tests.args(TESTED_AS_ROOT.iter().flat_map(|package| ["--package", package]));
        runner(steps, tally, "Unit tests as root", tests.env(RUNNER, "sudo --preserve-env"))?;
    }
    if nextest {
        // nextest runs no examples of documents.
        runner(
            steps,
            tally,
            "Examples in documents",
            &mut dist::cargo(&root, &["test", "--workspace", "--doc"]),
        )?;
    }
    for (place, reason) in docs::ignored_tests(&root)? {
        tally.skip(&place, &reason);
    }
    Ok(())
}

/// The interleavings of idm's protocols up to a few preemptions, with loom's atomics in the place of the real ones.
fn loom(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let root = paths::root()?;
    let mut cargo = dist::cargo(&root, &["test", "--package", "idm", "--lib", "--release", "--locked"]);
    // Other flags mean other artifacts: in a directory of their own they do not throw out the usual ones.
    cargo.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", paths::target()?.join("loom"));
    runner(steps, tally, "Interleavings (loom)", &mut cargo)
}

/// Runs a test runner and takes over its counts; a runner that could not even start its tests is one failure.
fn runner(steps: &Steps, tally: &mut Tally, name: &str, command: &mut Command) -> Result<()> {
    let mut text = String::new();
    let outcome = steps.step(name, |log| {
        let outcome = log.run(command);
        text = fs::read_to_string(log.path()).context(|| format!("cannot read {}", log.path().display()))?;
        outcome
    });
    let failed_before = tally.failed;
    let counted = tally.add_runner(name, &text);
    match outcome {
        Ok(()) if counted => {}
        Ok(()) => return Err(Failure::new(format!("{name}: the runner reported no counts"))),
        Err(failure) => {
            eprintln!("{failure}");
            if tally.failed == failed_before {
                tally.fail(name);
            }
        }
    }
    Ok(())
}

/// What only the installed files can show: the guest's sizes, and the versions of glibc that its libcuda needs.
fn installed(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let dist = dist::build(steps)?;
    let sizes = steps.step("Sizes of the guest", |_| dist::guest_sizes(&dist));
    if let Ok(sizes) = &sizes {
        eprintln!("           {sizes}");
    }
    tally.check("sizes of the guest", sizes.map(drop));
    let library = dist.join("guest/libcuda.so.1");
    // Of the whole workspace: root's unit tests were built with the same features, so little is built again. A user's are built
    // in two halves, with the features of each.
    let line = ["test", "--workspace", "--test", "exports", "--locked", "--", "--ignored"];
    let mut cargo = dist::cargo(&paths::root()?, &line);
    cargo.env("VGPU_LIBCUDA", library);
    runner(steps, tally, "The installed libcuda", &mut cargo)
}

fn some_stories(steps: &Steps, tally: &mut Tally, name: &str) -> Result<()> {
    if stories::names(steps, name)?.is_empty() {
        let parts: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        return Err(Failure::new(format!(
            "no part and no story is called {name}; parts: {}",
            parts.join(", ")
        )));
    }
    let dom0 = testbed::complete(steps)?;
    Stories::build(steps)?.play(steps, &dom0, Kind::Pv, &[name], "last", tally)
}
