//! `cargo xtask bench [NAME] [--json FILE]`: every figure with what a user would use instead, measured in the same run.
//!
//! The benchmark programs of the crates print one flat JSON object a line:
//! `{"name":…,"value":…,"unit":…,"beside":…,"ratio":…,"target":…}`. A carried xtask finds them in `bench/` beside itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::Args;
use crate::dist::cargo;
use crate::error::{Context, Failure, Result};
use crate::json;
use crate::paths;
use crate::progress::{self, Steps};

/// The benchmark programs: their crates; a program has its crate's name.
pub const PROGRAMS: &[&str] = &["idm", "libvgpu"];

/// Runs all, or those of one crate, or only the figures whose names contain NAME.
pub fn main(mut args: Args) -> Result<u8> {
    let json_file = args.value("--json")?;
    let name = args.optional_word()?;
    let json_file = if json_file.is_some() { json_file } else { args.value("--json")? };
    args.end()?;
    let one_crate = name.as_deref().filter(|name| PROGRAMS.contains(name));
    let mut lines = Vec::new();
    for package in PROGRAMS.iter().filter(|package| one_crate.is_none_or(|one| one == **package)) {
        let program = program(package)?;
        let output = progress::output(Command::new(&program).arg("--bench"))?;
        lines.extend(output.lines().filter(|line| line.starts_with('{')).map(String::from));
    }
    if let Some(part) = name.as_deref().filter(|_| one_crate.is_none()) {
        lines.retain(|line| json::field(line, "name").is_some_and(|name| name.contains(part)));
    }
    if lines.is_empty() {
        return Err(Failure::new(format!("no figures; the benchmarks are: {}", PROGRAMS.join(", "))));
    }
    print!("{}", table(&lines));
    if let Some(file) = json_file {
        fs::write(&file, lines.join("\n") + "\n").context(|| format!("cannot write {file}"))?;
    }
    Ok(0)
}

/// The crate's benchmark program, built now or carried along.
fn program(package: &str) -> Result<PathBuf> {
    if let Some(dist) = paths::carried_dist() {
        return Ok(dist.join("bench").join(package));
    }
    build(&mut Steps::quiet()?, &paths::root()?, package)
}

/// Builds a crate's benchmark program; cargo says where it is.
pub fn build(steps: &mut Steps, root: &Path, package: &str) -> Result<PathBuf> {
    let said = steps.step(&format!("Build the benchmark of {package}"), |log| {
        log.run(&mut cargo(root, &["bench", "--no-run", "--package", package, "--bench", package]))?;
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
    const COLUMNS: [(&str, &str); 6] = [
        ("name", "figure"),
        ("value", "here"),
        ("unit", "unit"),
        ("beside", "instead"),
        ("ratio", "ratio"),
        ("target", "target"),
    ];
    let mut rows = vec![COLUMNS.map(|(_, title)| title.to_string())];
    rows.extend(
        lines.iter().map(|line| COLUMNS.map(|(key, _)| json::field(line, key).unwrap_or_else(|| "-".into()))),
    );
    let widths =
        [0, 1, 2, 3, 4, 5].map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(at, (cell, width))| match at {
            1 | 4 => format!("{cell:>width$}"),
            _ => format!("{cell:width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
