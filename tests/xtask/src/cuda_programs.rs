//! The CUDA programs of `tests/cuda`, compiled by NVIDIA's own nvcc from PyPI: no CUDA installation, no GPU.
//!
//! Each `*.cu` becomes a program with CUDA 13's static cudart and PTX only, which the software GPU executes and a driver
//! compiles. Each `*.cpp` is host code that speaks to the shared cudart, built once for CUDA 12's and once for 13's
//! (`NAME_12`, `NAME_13`); the libraries lie beside the programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::Args;
use crate::cache::{self, Inputs, Once, sorted_entries};
use crate::error::{Context, Result};
use crate::host::{self, Needs};
use crate::paths;
use crate::progress::{Log, Steps};
use crate::wheels;

/// nvcc, its compiler parts, headers and cudart of CUDA 13.0.
const CUDA_13: &[&str] = &[
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
];
/// cudart of CUDA 12, as today's PyTorch brings it.
const CUDART_12: &[&str] = &["nvidia-cuda-runtime-cu12==12.8.90"];
/// PTX for the oldest architecture of CUDA 13, and no machine code.
const PTX_ONLY: &[&str] = &["-gencode", "arch=compute_75,code=compute_75", "-cudadevrt", "none", "-O2"];
/// Of a program of [`BUILT_TWICE`]: machine code of an H100, too.
const WITH_CODE: &[&str] = &["-gencode", "arch=compute_90,code=sm_90"];
/// What a device does with machine code is no matter of the PTX beside it: `NAME` has PTX only, `NAME_90` both.
const BUILT_TWICE: &[&str] = &["managed_variables"];
/// Where the image and `xtask gpu` look for the shared libraries.
pub const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// `cargo xtask cuda-programs`.
pub fn main(args: Args) -> Result<u8> {
    args.end()?;
    let steps = Steps::new()?;
    host::prepare(&steps, Needs::Build)?;
    println!("{}", build(&steps)?.display());
    Ok(0)
}

/// The programs in a directory that is the image's root: programs in `/`, libraries in [`LIBRARIES`].
pub fn build(steps: &Steps) -> Result<PathBuf> {
    static PROGRAMS: Once = Once::new();
    PROGRAMS.get(|| find_or_build(steps))
}

fn find_or_build(steps: &Steps) -> Result<PathBuf> {
    let sources = paths::root()?.join("tests/cuda");
    let inputs = || {
        let pinned = Inputs::new()
            .add("wheels", [CUDA_13, CUDART_12].concat().join(" "))
            .add("flags", PTX_ONLY.join(" "));
        pinned.add("builder", include_str!("cuda_programs.rs")).add_path(&sources)
    };
    if let Some(made) = cache::find("cuda-programs", inputs()?)? {
        return Ok(made);
    }
    steps.step("CUDA programs: compilers from PyPI (300 MB), then nvcc", |log| {
        let toolkit = wheels::unpacked(log, "cuda-13", CUDA_13)?.join("nvidia/cu13");
        let cudart_12 = wheels::unpacked(log, "cudart-12", CUDART_12)?.join("nvidia/cuda_runtime");
        cache::get("cuda-programs", inputs()?, |dir| compile_all(log, &sources, dir, &toolkit, &cudart_12))
    })
}

fn compile_all(log: &Log, sources: &Path, dir: &Path, toolkit: &Path, cudart_12: &Path) -> Result<()> {
    let libraries = dir.join(LIBRARIES);
    fs::create_dir_all(&libraries).context(|| format!("cannot make {}", libraries.display()))?;
    for source in sorted_entries(sources)? {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match source.extension().and_then(|extension| extension.to_str()) {
            Some("cu") => {
                let compile = |name: &str, more: &[&str]| {
                    let mut nvcc = Command::new(toolkit.join("bin/nvcc"));
                    nvcc.args(more)
                        .args(PTX_ONLY)
                        .args(["-cudart", "static"])
                        .arg("-L")
                        .arg(toolkit.join("lib"));
                    log.run(nvcc.arg("-o").arg(dir.join(name)).arg(&source))
                };
                compile(&name, &[])?;
                if BUILT_TWICE.contains(&name.as_str()) {
                    compile(&format!("{name}_90"), WITH_CODE)?;
                }
            }
            Some("cpp") => {
                for (version, home) in [("12", cudart_12), ("13", toolkit)] {
                    link_shared(
                        log,
                        &source,
                        &dir.join(format!("{name}_{version}")),
                        home,
                        version,
                        toolkit,
                    )?;
                }
            }
            _ => {}
        }
    }
    for (version, home) in [("12", cudart_12), ("13", toolkit)] {
        let library = format!("libcudart.so.{version}");
        let from = home.join("lib").join(&library);
        fs::copy(&from, libraries.join(&library)).context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Host code with one version's headers and its libcudart.so. CUDA 12's wheel lacks the folder `crt`; 13's has what it needs.
fn link_shared(
    log: &Log,
    source: &Path,
    program: &Path,
    home: &Path,
    version: &str,
    toolkit: &Path,
) -> Result<()> {
    let mut compiler = Command::new("g++");
    compiler
        .args(["-O2", "-std=c++17", "-isystem"])
        .arg(home.join("include"))
        .arg("-idirafter")
        .arg(toolkit.join("include"))
        .arg("-o")
        .arg(program)
        .arg(source);
    log.run(compiler.arg(home.join("lib").join(format!("libcudart.so.{version}"))))
}
