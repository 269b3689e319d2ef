//! `cargo xtask bench [NAME] [--json FILE]`: every figure with what a user would use instead, measured in the same run.
//!
//! The benchmark programs of the crates print one flat JSON object a line:
//! `{"name":…,"value":…,"unit":…,"beside":…,"what":…,"ratio":…,"target":…}`; `what` names what `beside` is the figure of; `target`, 0 for none, is
//! the most that `value` may be. A carried xtask finds them in `bench/` beside itself. `bench gpu` shows in the same form what
//! `gpu-suite` measures, `bench shim` what a pod's shim costs beside runc's (tests/local), `bench xen` what takes how long in the testbed (tests/stories, `figures.rs`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::Args;
use crate::boots;
use crate::contract;
use crate::dist::cargo;
use crate::error::{Context, Failure, Result};
use crate::gpu_suite;
use crate::host::{self, Needs};
use crate::json;
use crate::paths;
use crate::progress::{self, Steps};
use crate::qemu::Kind;
use crate::stories::Stories;
use crate::tally::Tally;
use crate::testbed;

/// The benchmark programs: their crates; a program has its crate's name.
pub const PROGRAMS: &[&str] = &["idm", "libvgpu"];

/// What NAME is for the figures of a GPU, which a run of all leaves out.
const ON_A_GPU: &str = "gpu";
/// What it is for the shim's, which a run of all leaves out, too: they want root, and runc's shim in a root of Dom0's.
const OF_THE_SHIM: &str = "shim";
/// What it is for those of Xen, which want the testbed.
const ON_XEN: &str = "xen";

/// The figures of a program whose names contain one of these parts.
type Figures = (&'static str, Vec<String>);

/// `bench idm` shows a call's whole way: what libvgpu answers itself, and what it costs until the record lies in the ring.
const OF_LIBVGPU_IN_IDM: &[&str] = &["answered in the guest", "queued launch", "that waits"];

/// What SPECIFICATION.md says of calls: a figure of each has to be among those of `bench idm`.
const PROMISED: &[&str] =
    &["call answered in the guest", "queued launch", "sync call, polling", "sync call, parked"];

/// Runs all, or those of one crate, or only the figures whose names contain NAME.
pub fn main(args: Args) -> Result<u8> {
    let (name, json_file) = options(args)?;
    let measured = |package: &str| {
        let mut program = Command::new(program(package)?);
        program.arg("--bench");
        Ok(program)
    };
    let lines = match name.as_deref() {
        Some(ON_A_GPU) => gpu_suite::figures()?,
        Some(OF_THE_SHIM) => shim()?,
        Some(ON_XEN) => xen()?,
        name => figures(name, measured)?,
    };
    print!("{}", table(&lines));
    if let Some(file) = json_file {
        save(&lines, &file)?;
    }
    Ok(0)
}

/// NAME, and the file for the figures; in any order.
fn options(mut args: Args) -> Result<(Option<String>, Option<String>)> {
    let before = args.value("--json")?;
    let name = args.optional_word()?;
    let json_file = if before.is_some() { before } else { args.value("--json")? };
    args.end()?;
    Ok((name, json_file))
}

fn save(lines: &[String], file: &str) -> Result<()> {
    fs::write(file, lines.join("\n") + "\n").context(|| format!("cannot write {file}"))
}

/// The local shim beside runc's.
fn shim() -> Result<Vec<String>> {
    let (steps, root) = (Steps::quiet()?, paths::root()?);
    let runc = contract::runc(&steps)?;
    let program = build(&steps, &root, "vgpu-local")?;
    let said = progress::output(
        host::as_root("env", &[]).arg(format!("VGPU_RUNC={}", runc.display())).arg(program),
    )?;
    Ok(said.lines().map(String::from).collect())
}

/// What stories tell in the testbed.
fn xen() -> Result<Vec<String>> {
    let (steps, mut tally) = (Steps::quiet()?, Tally::default());
    host::prepare(&steps, Needs::All)?;
    let dom0 = testbed::complete(&steps)?;
    let stories = Stories::build(&steps)?;
    let said = stories.play(&steps, &dom0, Kind::Pv, boots::FIGURES, "last-bench", &mut tally)?;
    if tally.failed > 0 {
        return Err(Failure::new("a story failed: there are no figures"));
    }
    Ok(said.lines().map(str::trim).filter(|line| line.starts_with('{')).map(String::from).collect())
}

/// Runs the programs for NAME and returns their lines.
fn figures(name: Option<&str>, program: impl Fn(&str) -> Result<Command>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (package, parts) in wanted(name) {
        let output = progress::output(&mut program(package)?)?;
        lines.extend(output.lines().filter(|line| shown(line, &parts)).map(String::from));
    }
    if lines.is_empty() {
        let names = PROGRAMS.join(", ");
        return Err(Failure::new(format!(
            "no figures; the benchmarks are: {names}, {ON_A_GPU}, {OF_THE_SHIM}, {ON_XEN}"
        )));
    }
    Ok(lines)
}

/// Whether `bench idm` still gives the figures of SPECIFICATION.md, "Calls". The programs are built as the unit tests are, and only
/// tried, in seconds: how fast they are means nothing.
pub fn check(steps: &Steps) -> Result<()> {
    let root = paths::root()?;
    let as_tests = |package: &str| {
        let line = ["test", "--workspace", "--no-run", "--locked", "--bench", package];
        build_by(steps, &root, package, &line).map(Command::new)
    };
    all_promised(&figures(Some("idm"), as_tests)?)
}

fn all_promised(lines: &[String]) -> Result<()> {
    let has_value = |line: &str| {
        json::field(line, "value").and_then(|text| text.parse().ok()).is_some_and(|value: f64| value > 0.0)
    };
    let is_there =
        |promised: &&str| lines.iter().any(|line| shown(line, &[(*promised).to_string()]) && has_value(line));
    let missing: Vec<_> = PROMISED.iter().filter(|promised| !is_there(promised)).collect();
    if missing.is_empty() { Ok(()) } else { Err(Failure::new(format!("no figure of {missing:?}"))) }
}

/// Which programs to run for NAME, and what of each is shown.
fn wanted(name: Option<&str>) -> Vec<Figures> {
    let all = || vec![String::new()];
    match name {
        None => PROGRAMS.iter().map(|program| (*program, all())).collect(),
        Some("idm") => {
            let calls = OF_LIBVGPU_IN_IDM.iter().map(|part| (*part).to_string()).collect();
            vec![("libvgpu", calls), ("idm", all())]
        }
        Some(name) => match PROGRAMS.iter().find(|program| **program == name) {
            Some(program) => vec![(*program, all())],
            None => PROGRAMS.iter().map(|program| (*program, vec![name.to_string()])).collect(),
        },
    }
}

fn shown(line: &str, parts: &[String]) -> bool {
    json::field(line, "name").is_some_and(|name| parts.iter().any(|part| name.contains(part)))
}

/// The crate's benchmark program, built now or carried along.
fn program(package: &str) -> Result<PathBuf> {
    if let Some(dist) = paths::carried_dist() {
        return Ok(dist.join("bench").join(package));
    }
    build(&Steps::quiet()?, &paths::root()?, package)
}

/// Builds a crate's benchmark program; cargo says where it is.
pub fn build(steps: &Steps, root: &Path, package: &str) -> Result<PathBuf> {
    let line = ["bench", "--no-run", "--locked", "--package", package, "--bench", package];
    build_by(steps, root, package, &line)
}

fn build_by(steps: &Steps, root: &Path, package: &str, line: &[&str]) -> Result<PathBuf> {
    let said = steps.step(&format!("Build the benchmark of {package}"), |log| {
        log.run(&mut cargo(root, line))?;
        fs::read_to_string(log.path()).context(|| format!("cannot read {}", log.path().display()))
    })?;
    let path = said
        .lines()
        .rev()
        .find_map(|line| line.trim_start().strip_prefix("Executable")?.split(['(', ')']).nth(1));
    let path = path.context(|| format!("cargo did not say where the benchmark of {package} is"))?;
    Ok(root.join(path))
}

fn table(lines: &[String]) -> String {
    const TITLES: [&str; 7] = ["figure", "here", "unit", "beside", "instead", "ratio", "target"];
    let mut rows = vec![TITLES.map(String::from)];
    rows.extend(lines.iter().map(|line| {
        let field =
            |key| json::field(line, key).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
        [
            field("name"),
            field("value"),
            field("unit"),
            field("beside"),
            field("what"),
            field("ratio"),
            target(&field("value"), &field("target")),
        ]
    }));
    let widths = std::array::from_fn::<_, { TITLES.len() }, _>(|at| {
        rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(at, (cell, width))| match at {
            1 | 3 | 5 => format!("{cell:>width$}"),
            _ => format!("{cell:width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The target, and whether this figure keeps it.
fn target(value: &str, most: &str) -> String {
    match (value.parse::<f64>(), most.parse::<f64>()) {
        (Ok(value), Ok(most)) if most > 0.0 => {
            format!("<= {most}, {}", if value <= most { "met" } else { "MISSED" })
        }
        _ => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, value: &str, target: &str) -> String {
        format!(
            r#"{{"name":"{name}","value":{value},"unit":"ns","beside":9.0,"what":"a pipe","ratio":0.5,"target":{target}}}"#
        )
    }

    #[test]
    fn a_figure_stands_beside_its_target() {
        let text = table(&[line("quick", "4.5", "20"), line("slow", "20.1", "20"), line("free", "7", "0")]);
        let ends: Vec<&str> = text.lines().map(|line| line.rsplit("  ").next().unwrap_or_default()).collect();
        assert_eq!(ends, ["target", "<= 20, met", "<= 20, MISSED", "-"]);
        assert!(text.lines().nth(1).is_some_and(|line| line.contains("a pipe")), "{text}");
    }

    #[test]
    fn the_file_for_the_figures_may_be_named_before_or_after_the_benchmark() {
        let asked = |line: &str| options(Args::new(line.split_whitespace().map(String::from)));
        let both = (Some("idm".to_string()), Some("f".to_string()));
        assert_eq!(asked("idm --json f").expect("after"), both);
        assert_eq!(asked("--json f idm").expect("before"), both);
        assert_eq!(asked("").expect("all, to the terminal"), (None, None));
        for wrong in ["idm --json", "idm f", "--json f idm --json g", "idm --jason f"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_file_holds_a_line_a_figure() {
        let file = paths::scratch().expect("scratch").join("figures-test.json");
        save(&["{1}".into(), "{2}".into()], &file.to_string_lossy()).expect("written");
        assert_eq!(fs::read_to_string(file).expect("read"), "{1}\n{2}\n");
        assert!(save(&[], "/none/of/these").is_err());
    }

    #[test]
    fn a_promised_figure_that_is_missing_or_has_no_value_is_missed() {
        let named = |value: &'static str| PROMISED.iter().map(move |name| line(name, value, "0"));
        let mut lines: Vec<String> = named("1.5").collect();
        all_promised(&lines).expect("all are there");
        lines.pop();
        let missed = all_promised(&lines).expect_err("one is gone").to_string();
        assert!(missed.contains("[\"sync call, parked\"]"), "{missed}");
        assert!(all_promised(&named("null").collect::<Vec<_>>()).is_err());
    }

    #[test]
    fn idm_shows_the_whole_way_of_a_call() {
        let shown_of = |package: &str, name: &str| {
            let figures = wanted(Some("idm"));
            figures.iter().any(|(program, parts)| *program == package && shown(&line(name, "1", "2"), parts))
        };
        assert!(shown_of("libvgpu", "call answered in the guest (cuCtxGetCurrent)"));
        assert!(!shown_of("libvgpu", "device attribute"));
        assert!(shown_of("idm", "sync call, parked"));
    }
}
