//! `cargo xtask test [NAME]`: everything that must hold, roughly the cheapest first, to one last line with counts.
//!
//! A part that fails does not stop the others. NAME chooses parts by name, or else stories by name.
//! `test --long STAGE` plays what takes longer; it goes on where it was stopped.

use std::fs;
use std::process::Command;

use crate::args::Args;
use crate::beforehand;
use crate::boots;
use crate::contract;
use crate::deny;
use crate::dist;
use crate::docs;
use crate::dom0;
use crate::error::{Context, Failure, Result};
use crate::fuzz;
use crate::gen_cuda;
use crate::gpu_suite;
use crate::host::{self, Needs, succeeds};
use crate::lock::Lock;
use crate::long;
use crate::map;
use crate::paths;
use crate::programs;
use crate::progress::Steps;
use crate::qemu::Kind;
use crate::stories::{self, Stories};
use crate::tally::Tally;
use crate::testbed;
use crate::verbs;

/// Its name, what it needs of this machine when it runs alone, and what it does.
type Part = (&'static str, Needs, fn(&Steps, &mut Tally) -> Result<()>);

/// The parts in the order in which they run.
const PARTS: &[Part] = &[
    ("format", Needs::Cargo, format),
    ("lints", Needs::Cargo, lints),
    ("docs", Needs::Build, documents),
    ("licences", Needs::Cargo, licences),
    ("unit", Needs::Build, unit_tests),
    ("loom", Needs::Cargo, loom),
    // While the guest kernel is still being built.
    ("programs", Needs::Build, programs::part),
    ("installed", Needs::Build, installed),
    ("verbs", Needs::Build, verbs::part),
    ("contract", Needs::All, contract),
    ("gpu", Needs::Build, gpu_suite::part),
    ("stories", Needs::All, boots::part),
];
/// How the names of stories are found.
const OF_STORIES: &str = "stories, by a part of their names: cargo run --package vgpu-stories -- --list";
/// Their tests mount, make containers, give workers users and cgroups of their own: a user plays them with sudo, the others without.
const TESTED_AS_ROOT: &[&str] =
    &["gpu-proxy", "guest-init", "shim-vgpu", "vgpu-forward", "vgpu-local", "vgpu-netlink", "vgpu-share"];
/// What cargo and nextest start a test's program with. Source: The Cargo Book, "Configuration", `target.<triple>.runner`.
const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
const SUDO: &str = "sudo --preserve-env";
/// nextest ends a test that hangs (`.config/nextest.toml`), but a user's ends nothing that sudo has begun: that has the same time from this.
const SUDO_FOR_A_TIME: &str = "sudo --preserve-env timeout --verbose --kill-after 10 600";

/// `test [NAME]`, `test --long STAGE`, `test --list`.
pub fn main(mut args: Args) -> Result<u8> {
    if args.flag("--list") {
        println!("{}", names());
        return Ok(0);
    }
    let _lock = Lock::take(&paths::scratch()?, |holder| {
        eprintln!("waits for process {holder}, which runs tests in this checkout, too");
    })?;
    let steps = Steps::new()?;
    let mut tally = Tally::default();
    if let Some(stage) = args.value("--long")? {
        args.end()?;
        long::run(&stage, &steps, &mut tally)?;
        return Ok(finish(&steps, &tally));
    }
    let name = args.optional_word()?;
    args.end()?;
    let part = PARTS.iter().find(|(part, ..)| name.as_deref() == Some(part));
    host::prepare(&steps, part.map_or(Needs::All, |(_, needs, _)| *needs))?;
    match (part, name) {
        (Some(part), _) => play(std::slice::from_ref(part), &steps, &mut tally),
        (None, Some(name)) => some_stories(&steps, &mut tally, &name)?,
        (None, None) => {
            // What fails here is missed by some parts; the others go on.
            failed(&mut tally, "sudo, for Dom0's tree", dom0::may_be_made(&steps));
            let made = beforehand::beside(&steps, beforehand::ALL, || {
                play(PARTS, &steps, &mut tally);
                Ok(())
            });
            failed(&mut tally, "what is made beforehand", made);
        }
    }
    Ok(finish(&steps, &tally))
}

/// What may stand behind `test`.
fn names() -> String {
    let parts: Vec<&str> = PARTS.iter().map(|(name, ..)| *name).collect();
    let stages: Vec<&str> = long::names().collect();
    format!("parts: {}\n--long: {}\n{OF_STORIES}", parts.join(", "), stages.join(", "))
}

fn play(parts: &[Part], steps: &Steps, tally: &mut Tally) {
    for (name, _, run) in parts {
        let outcome = run(steps, tally);
        failed(tally, name, outcome);
    }
    let names: Vec<&str> = parts.iter().map(|(name, ..)| *name).collect();
    if names.contains(&"unit") {
        let outcome = count_ignored(tally, &names);
        failed(tally, "ignored tests", outcome);
    }
}

/// Counts the tests that nobody plays in a run of these parts.
fn count_ignored(tally: &mut Tally, parts: &[&str]) -> Result<()> {
    let ignored = docs::ignored_tests(&paths::root()?)?;
    for (place, reason) in ignored.iter().filter(|(_, reason)| !is_played(reason, parts)) {
        tally.skip(place, reason);
    }
    Ok(())
}

/// Whether an ignored test is run all the same: by a part of the run, or by the tests of its own file as their child.
fn is_played(reason: &str, parts: &[&str]) -> bool {
    let by = |who: &str| reason.starts_with(&format!("played by {who}"));
    by("the tests here") || parts.iter().any(|part| by(&format!("part {part} ")))
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
    let outcome = steps.step("Format", |log| {
        let mut folders = paths::WORKSPACES.iter().map(|folder| root.join(folder));
        folders.try_for_each(|folder| log.run(&mut dist::cargo(&folder, &["fmt", "--all", "--check"])))
    });
    tally.check("format", outcome);
    Ok(())
}

fn lints(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let root = paths::root()?;
    let line = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    let outcome = steps.step("Lints", |log| log.run(&mut dist::cargo(&root, &line)));
    tally.check("lints", outcome);
    tally.check("lints of the fuzz targets", steps.step("Lints of the fuzz targets", fuzz::lint));
    Ok(())
}

fn documents(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let root = paths::root()?;
    tally.check("links in documents", steps.step("Links in documents", |_| docs::check(&root)));
    tally.check(
        "the map's table of crates",
        steps.step("The map's table of crates", |_| map::check_table(&root)),
    );
    tally.check("where tokio is not", steps.step("Where tokio is not", |log| map::check_tokio(log, &root)));
    tally.check("symbols of CUDA and NVML", steps.step("Symbols of CUDA and NVML", |_| gen_cuda::check()));
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
    // What passed tests say is shown, too: that one could not be tried, and why.
    let (line, last): (&[&str], &[&str]) = if nextest {
        (&["nextest", "run", "--locked", "--no-fail-fast", "--success-output", "immediate"], &[])
    } else {
        (&["test", "--locked", "--no-fail-fast"], &["--", "--show-output"])
    };
    let tests_of = |packages: &[&str]| {
        let mut tests = dist::cargo(&root, line);
        tests.args(packages).args(last);
        tests
    };
    let roots = |option| TESTED_AS_ROOT.iter().flat_map(|package| [option, *package]).collect::<Vec<&str>>();
    if host::is_root() {
        runner(steps, tally, "Unit tests", &mut tests_of(&["--workspace"]))?;
    } else {
        let others = [vec!["--workspace"], roots("--exclude")].concat();
        runner(steps, tally, "Unit tests", &mut tests_of(&others))?;
        // A password is asked for here if at all: the tests run beside each other, and some look at their terminal.
        steps.step("sudo, for the unit tests that need root", |log| {
            log.run(&mut host::as_root("true", &[]))
        })?;
        let mut tests = tests_of(&roots("--package"));
        runner(
            steps,
            tally,
            "Unit tests as root",
            tests.env(RUNNER, if nextest { SUDO_FOR_A_TIME } else { SUDO }),
        )?;
    }
    if nextest {
        // nextest runs no examples of documents. There may be none.
        let mut examples = dist::cargo(&root, &["test", "--workspace", "--doc", "--locked"]);
        counted(steps, tally, "Examples in documents", &mut examples)?;
    }
    Ok(())
}

/// The interleavings of idm's protocols up to a few preemptions, with loom's atomics in the place of the real ones.
fn loom(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let root = paths::root()?;
    // Without the flag there would be no models.
    let line = ["test", "--package", "idm", "--lib", "--release", "--locked", "--", "model::"];
    let mut cargo = dist::cargo(&root, &line);
    // Other flags mean other artifacts: in a directory of their own they do not throw out the usual ones.
    cargo.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", paths::target()?.join("loom"));
    runner(steps, tally, "Interleavings (loom)", &mut cargo)
}

/// Runs a test runner and takes over its counts. One that ran no test proves nothing: what it should have run has another name now,
/// or was not compiled.
fn runner(steps: &Steps, tally: &mut Tally, name: &str, command: &mut Command) -> Result<()> {
    match counted(steps, tally, name, command)? {
        Some(0) => Err(Failure::new(format!("{name}: no test ran"))),
        _ => Ok(()),
    }
}

/// Runs a test runner, takes over its counts and says how many tests ran. A runner that fails has none: its failures are counted, or
/// one if it could not even start its tests.
fn counted(steps: &Steps, tally: &mut Tally, name: &str, command: &mut Command) -> Result<Option<u32>> {
    let mut text = String::new();
    let outcome = steps.step(name, |log| {
        let outcome = log.run(command);
        text = fs::read_to_string(log.path()).context(|| format!("cannot read {}", log.path().display()))?;
        outcome
    });
    let failed_before = tally.failed;
    let ran = tally.add_runner(name, &text);
    if let Err(failure) = outcome {
        eprintln!("{failure}");
        if tally.failed == failed_before {
            tally.fail(name);
        }
        return Ok(None);
    }
    ran.context(|| format!("{name}: the runner reported no counts")).map(Some)
}

/// What only the installed files can show: the guest's sizes, what its kernel was built with, and the versions of glibc that its
/// libraries need.
fn installed(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let dist = dist::build(steps)?;
    let sizes = steps.step("Sizes of the guest", |_| dist::guest_sizes(&dist));
    if let Ok(sizes) = &sizes {
        eprintln!("           {sizes}");
    }
    tally.check("sizes of the guest", sizes.map(drop));
    // Of the whole workspace: root's unit tests were built with the same features, so little is built again. A user's are built
    // in two halves, with the features of each.
    let line =
        ["test", "--workspace", "--test", "exports", "--test", "guest_kernel", "--locked", "--", "--ignored"];
    let mut cargo = dist::cargo(&paths::root()?, &line);
    cargo.env("VGPU_LIBCUDA", dist.join("guest/libcuda.so.1"));
    cargo.env("VGPU_LIBNVML", dist.join("guest/libnvidia-ml.so.1"));
    cargo.env("VGPU_GUEST_CONFIG", dist::guest_kernel(steps)?.join("config"));
    runner(steps, tally, "The installed libraries and the guest's kernel", &mut cargo)
}

/// Containers of runc and of the local shim: what is seen inside is what the same specs asked for, and the shims answer alike, called by
/// themselves and below real containerds.
fn contract(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let mut cargo = contract::cargo(steps, &["runc", "pods", "table", "cri"])?;
    cargo.args(["--skip", contract::MORE]);
    runner(steps, tally, "Containers of runc and of the local shim", &mut cargo)
}

/// More of the last two, which takes longer.
pub fn more_of_contract(steps: &Steps, tally: &mut Tally) -> Result<()> {
    // With the local shim's own tests, so that it is built.
    let mut cargo = contract::cargo(steps, &["pods", "table", "cri"])?;
    cargo.arg(contract::MORE);
    runner(steps, tally, "More containers of runc and of the local shim", &mut cargo)
}

fn some_stories(steps: &Steps, tally: &mut Tally, name: &str) -> Result<()> {
    if stories::names(steps, name)?.is_empty() {
        return Err(Failure::new(format!("no part and no story is called {name}\n{}", names())));
    }
    let dom0 = testbed::complete(steps)?;
    Stories::build(steps)?.play(steps, &dom0, Kind::Pv, &[name], "last", tally).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(said: &str) -> (Result<()>, Tally) {
        let mut tally = Tally::default();
        let steps = Steps::quiet().expect("scratch");
        let name = format!("Test of a runner that says {}", said.len());
        let outcome = runner(&steps, &mut tally, &name, Command::new("sh").args(["-c", said]));
        (outcome, tally)
    }

    #[test]
    fn a_runner_that_runs_no_test_or_says_nothing_is_no_success() {
        let (outcome, tally) = run_of("echo 'test result: ok. 1 passed; 0 failed; 7 filtered out'");
        assert!(outcome.is_ok() && tally.passed == 1);
        let (outcome, _) = run_of("echo 'test result: ok. 0 passed; 0 failed; 8 filtered out'");
        assert!(outcome.expect_err("nothing ran").to_string().ends_with("no test ran"));
        assert!(run_of("true").0.is_err());
    }

    #[test]
    fn a_test_that_hangs_has_an_end_as_root_and_as_a_user() {
        let file = paths::root().expect("this is its checkout").join(".config/nextest.toml");
        let text = fs::read_to_string(file).expect("nextest's configuration");
        let line = text.lines().find(|line| line.starts_with("slow-timeout = ")).expect("it has an end");
        let numbers =
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u32>().ok());
        let limit_s: u32 = numbers.product();
        assert!(line.contains("s\", terminate-after = ") && limit_s >= 300, "{line}");
        assert_eq!(
            SUDO_FOR_A_TIME.strip_prefix(SUDO),
            Some(&*format!(" timeout --verbose --kill-after 10 {limit_s}"))
        );
    }

    #[test]
    fn a_runner_that_fails_is_counted_once() {
        let (outcome, tally) = run_of("echo error: could not compile; exit 101");
        assert!(outcome.is_ok() && tally.failed == 1);
        let (outcome, tally) = run_of("echo 'test result: FAILED. 0 passed; 2 failed'; exit 101");
        assert!(outcome.is_ok() && tally.failed == 2);
    }

    #[test]
    fn an_ignored_test_counts_as_skipped_unless_this_run_plays_it() {
        let reason = "played by part installed with VGPU_LIBCUDA";
        assert!(is_played(reason, &["unit", "installed"]));
        assert!(!is_played(reason, &["unit"]));
        assert!(is_played("played by the tests here as their child", &["unit"]));
        assert!(!is_played("needs a GPU", &["unit", "installed"]));
    }
}
