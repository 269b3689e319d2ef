//! `cargo xtask gen-cuda [--check]`: the facts of NVIDIA's headers as Rust, `libvgpu/api/src/symbols/table.rs` and, of NVML,
//! `libvgpu/nvml/src/names.rs`.
//!
//! The headers come from PyPI wheels and stay in the cache: their text isn't committed, the names, versions and
//! parameter shapes are. Run by hand when a CUDA version is added; `--check` only compares.
//!
//! `header.rs` reads the declarations, `rule.rs` finds the ELF name of each; `nvml.rs` has NVML's.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::Args;
use crate::cache;
use crate::error::{Context, Failure, Result};
use crate::paths;

mod header;
mod nvml;
mod rule;

/// The wheel whose headers are read. Pinned: another version is another table.
const WHEEL: &str = "nvidia-cuda-runtime==13.0.96";
const INCLUDE: &str = "nvidia/cu13/include";
const TYPEDEF_HEADERS: [&str; 5] = [
    "cudaTypedefs.h",
    "cudaProfilerTypedefs.h",
    "cudaGLTypedefs.h",
    "cudaEGLTypedefs.h",
    "cudaVDPAUTypedefs.h",
];
const TABLE: &str = "libvgpu/api/src/symbols/table.rs";

/// The verb.
pub fn main(mut args: Args) -> Result<u8> {
    let only_check = args.flag("--check");
    args.end()?;
    if only_check {
        check()?;
        let committed = paths::root()?.join(TABLE);
        let table =
            fs::read_to_string(&committed).context(|| format!("cannot read {}", committed.display()))?;
        println!("{TABLE} is what {WHEEL} gives: {}", Counts::of(&table));
        println!("{} is what {} gives", nvml::TABLE, nvml::WHEEL);
        return Ok(0);
    }
    let table = generate(&wheel()?.join(INCLUDE))?;
    write(TABLE, &table)?;
    println!("{TABLE}: {} from {WHEEL}", Counts::of(&table));
    write(nvml::TABLE, &nvml::generate()?)?;
    println!("{}: from {}", nvml::TABLE, nvml::WHEEL);
    Ok(0)
}

fn write(file: &str, text: &str) -> Result<()> {
    let place = paths::root()?.join(file);
    fs::write(&place, text).context(|| format!("cannot write {}", place.display()))
}

/// How much there is: names that are exported, calls (what `cuGetProcAddress` is asked for), forms of them.
struct Counts {
    names: usize,
    calls: usize,
    rows: usize,
}

impl Counts {
    fn of(table: &str) -> Self {
        let rows: Vec<_> = table.lines().filter_map(|line| line.trim_start().strip_prefix("s(\"")).collect();
        let column = |number: usize| {
            rows.iter().filter_map(|row| row.split("\", \"").nth(number)).collect::<BTreeSet<_>>()
        };
        // The second column ends in its quote and what follows.
        let calls = column(1).iter().map(|rest| rest.split('"').next()).collect::<BTreeSet<_>>().len();
        Self { names: column(0).len(), calls, rows: rows.len() }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} names of {} calls in {} rows", self.names, self.calls, self.rows)
    }
}

/// That the committed tables are what the headers give.
pub fn check() -> Result<()> {
    check_one(TABLE, WHEEL, &generate(&wheel()?.join(INCLUDE))?)?;
    check_one(nvml::TABLE, nvml::WHEEL, &nvml::generate()?)
}

fn check_one(file: &str, wheel: &str, made: &str) -> Result<()> {
    let place = paths::root()?.join(file);
    let committed = fs::read_to_string(&place).context(|| format!("cannot read {}", place.display()))?;
    if committed == made {
        return Ok(());
    }
    Err(Failure::new(format!("{file} is not what {wheel} gives: run cargo xtask gen-cuda")))
}

fn wheel() -> Result<PathBuf> {
    unpacked("cuda-headers", WHEEL)
}

/// A wheel, unpacked in the cache.
fn unpacked(name: &str, wheel_name: &str) -> Result<PathBuf> {
    cache::get(name, cache::Inputs::new().add("wheel", wheel_name), |dir| {
        run(Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d"])
            .arg(dir)
            .arg(wheel_name))?;
        let wheel =
            cache::sorted_entries(dir)?.pop().context(|| format!("pip got no file for {wheel_name}"))?;
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(dir))?;
        fs::remove_file(&wheel).context(|| format!("cannot remove {}", wheel.display()))
    })
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context(|| format!("cannot run {command:?}"))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{command:?} ended with {status}"))) }
}

fn generate(include: &Path) -> Result<String> {
    let read = |name: &str| {
        fs::read_to_string(include.join(name)).context(|| format!("cannot read {name} of {WHEEL}"))
    };
    let cuda = header::without_comments(&read("cuda.h")?);
    let types = header::Types::of(&cuda);
    let mut declarations = Vec::new();
    for name in TYPEDEF_HEADERS {
        declarations.extend(header::declarations(&header::without_comments(&read(name)?), &types)?);
    }
    let mut rows = rule::rows(declarations)?;
    rule::add_macro_targets(&mut rows, &header::renames(&cuda));
    let missing: Vec<_> =
        header::functions(&cuda).into_iter().filter(|f| !rows.iter().any(|r| &r.elf == f)).collect();
    if !missing.is_empty() {
        return Err(Failure::new(format!("cuda.h declares what no row exports: {missing:?}")));
    }
    rows.sort_by(|a, b| (&a.elf, &a.base, a.version).cmp(&(&b.elf, &b.base, b.version)));
    Ok(text(&rows))
}

fn text(rows: &[rule::Row]) -> String {
    let mut out = format!(
        "//! Generated by `cargo xtask gen-cuda` from the headers of the PyPI wheel `{WHEEL}`. Don't edit.\n\n\
         use super::Mode::{{Legacy, PerThread}};\nuse super::{{Symbol, s}};\n\n\
         /// By ELF name.\n#[rustfmt::skip]\npub const TABLE: &[Symbol] = &[\n"
    );
    for row in rows {
        let mode = if row.per_thread() { "PerThread" } else { "Legacy" };
        let _ = writeln!(
            out,
            "    s(\"{}\", \"{}\", {}, {mode}, \"{}\"),",
            row.elf, row.base, row.version, row.shape
        );
    }
    out.push_str("];\n");
    out
}
