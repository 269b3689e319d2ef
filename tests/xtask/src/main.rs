//! The project's tasks: `cargo xtask help`.
//!
//! One module a verb. xtask also runs as one carried binary where there is no cargo and no source (`cargo xtask dist` puts it
//! beside what a node installs): the verbs that need only built files then take them from beside themselves.
#![forbid(unsafe_code)]

use std::process::ExitCode;

mod args;
mod beforehand;
mod bench;
mod boots;
mod cache;
mod clean;
mod contract;
mod cpio;
mod cuda_programs;
mod demo;
mod deny;
mod dist;
mod docs;
mod dom0;
mod error;
mod faults;
mod frameworks;
mod fuzz;
mod gen_cuda;
mod gpu;
mod gpu_suite;
mod host;
mod images;
mod json;
mod lock;
mod long;
mod map;
mod oci;
mod paths;
mod programs;
mod progress;
mod qemu;
mod stories;
mod tally;
mod tar;
mod test;
mod testbed;
mod verbs;
mod wheels;

use args::Args;
use error::{Failure, Result};

const HELP: &str = "\
cargo xtask VERB

  demo           installs what is missing, builds all, runs CUDA programs in Xen pods in QEMU, shows what happened
  test [NAME]    everything that must hold, or one part (test --list), or the stories whose names contain NAME
  test --long STAGE
                 what takes longer; goes on where it was stopped
  testbed run [--dom0 pv|pvh] [--share DIR] [--memory MIB] [--limit SECONDS] [--bare] SCRIPT [ARG...]
                 boots Xen in QEMU with vgpu installed (--bare: without) and runs SCRIPT as root in Dom0; DIR is
                 /mnt/share there, writable; the output is streamed, the exit code is the script's
  testbed shell  the same options; a prompt instead of a script
  gpu [--device auto|soft|null|cuda] [--log FILE] -- CMD...
                 runs CMD here with our libcuda, libnvidia-ml and a gpu-proxy of its own, whose log goes to FILE; no Xen
  gpu-suite [--only PARTS] [--kinds case,speed,figure,program] [--json FILE] [--time-limit SECONDS] [--repeats N] [--jobs N]
            [--programs DIR] [--logs DIR] [--brief] [--list] [--device auto|soft|null|cuda] [--devices N] [--beside native|soft|null]
            [--log FILE]
                 runs the programs of tests/gpu native and through libvgpu on this machine's GPU, compares, prints ratios;
                 PARTS, with commas, are parts of FILE/CASE; --beside takes another gpu-proxy in the place of the driver
  cuda-programs  compiles the programs of tests/cuda and prints their directory, for gpu
  bench [NAME] [--json FILE]
                 figures, each beside what a user would use instead; `bench gpu` (where there is one): beside native;
                 `bench shim`: a pod's shim beside runc's; `bench xen`: an exec in the testbed
  gen-cuda [--check]
                 writes the tables of CUDA's and NVML's symbols from NVIDIA's headers
  clean --cache  removes the cache
  dist           builds what a node installs into target/dist

Slow things are kept in $XDG_CACHE_HOME/vgpu, logs in target/xtask.";

fn main() -> ExitCode {
    match task(Args::new(std::env::args().skip(1))) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn task(mut args: Args) -> Result<u8> {
    match args.word("a verb")?.as_str() {
        "bench" => bench::main(args),
        "clean" => clean::main(args),
        "cuda-programs" => cuda_programs::main(args),
        "demo" => demo::main(args),
        "dist" => dist::main(args),
        "test" => test::main(args),
        "gen-cuda" => gen_cuda::main(args),
        "gpu" => gpu::main(args),
        "gpu-suite" => gpu_suite::main(args),
        "testbed" => testbed::main(args),
        "help" => {
            println!("{HELP}");
            Ok(0)
        }
        verb => Err(Failure::new(format!("unknown verb {verb}\n\n{HELP}"))),
    }
}
