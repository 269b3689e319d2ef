//! `cargo xtask gpu-suite`: the programs of `tests/gpu` native and through vgpu, on this machine's GPU, in one run.
//!
//! What is played, compared and told is the runner's, `tests/gpu/suite.py`; here it gets a gpu-proxy. It is Python so that a machine
//! with a GPU and the frameworks needs nothing else of ours but a carried xtask.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::args::Args;
use crate::cuda_programs;
use crate::error::{Context, Failure, Result};
use crate::gpu::{self, LISTENING, Programs, Served, code_of};
use crate::paths;
use crate::progress::{Log, Steps};
use crate::tally::Tally;

/// Options that are the runner's, with a value and without.
const WITH_VALUES: &[&str] =
    &["--jobs", "--json", "--kinds", "--logs", "--only", "--programs", "--repeats", "--time-limit"];
const WITHOUT: &[&str] = &["--brief"];
/// Where NVIDIA's driver is loaded and has a device.
const NVIDIA: &str = "/dev/nvidiactl";
/// What runs on the software GPU without a framework; beside itself it has to pass.
const PLAIN: &str =
    "plain/,footprint/,programs/vector_add,programs/reduce,programs/oob_store,programs/driver_speed";

/// `gpu-suite [OPTION...]`.
pub fn main(mut args: Args) -> Result<u8> {
    let device = gpu::device(&mut args)?;
    let beside = args.value("--beside")?.unwrap_or_else(|| "native".into());
    let log = args.value("--log")?;
    let devices = args.value("--devices")?.unwrap_or_else(|| "1".into());
    let listed = args.flag("--list");
    let mut words = Vec::new();
    for option in WITH_VALUES {
        if let Some(value) = args.value(option)? {
            words.extend([(*option).to_string(), value]);
        }
    }
    words.extend(WITHOUT.iter().filter(|flag| args.flag(flag)).map(|flag| (*flag).to_string()));
    args.end()?;
    if listed {
        let status = runner()?.args(words).arg("--list").status();
        return status.map(code_of).context(|| "cannot run python3".into());
    }
    let programs = Programs::find()?;
    gpu::ignore_interrupts()?;
    let mut sides = Sides::start(&programs, &device, &beside, &devices)?;
    sides.vgpu.keep_log_as = log.map(Into::into);
    let status = sides.runner()?.args(words).status();
    status.map(code_of).context(|| "cannot run python3".into())
}

/// What is measured, in the form of [`crate::bench`]: a flat JSON object a line.
pub fn figures() -> Result<Vec<String>> {
    let programs = Programs::find()?;
    gpu::ignore_interrupts()?;
    let sides = Sides::start(&programs, "cuda", "native", "1")?;
    let mut runner = sides.runner()?;
    runner.args(["--kinds", "speed,figure,program", "--bench-lines"]).stderr(Stdio::inherit());
    // A figure that is too large is in the table; that is no reason to show none.
    let output = runner.output().context(|| "cannot run python3".into())?;
    let lines = String::from_utf8(output.stdout).context(|| "the runner wrote no text".into())?;
    if lines.is_empty() {
        return Err(Failure::new("nothing was measured"));
    }
    Ok(lines.lines().map(String::from).collect())
}

/// What the runner says of the cases `only`, with the frameworks in `packages` and what they load from `libraries`, on a device that
/// computes nothing.
pub fn on_null(only: &str, packages: &Path, libraries: &OsStr) -> Result<String> {
    let sides = Sides::start(&Programs::find()?, "null", "null", "1")?;
    let mut runner = sides.runner()?;
    runner.args(["--only", only]).env("PYTHONPATH", packages).env("LD_LIBRARY_PATH", libraries);
    let output = runner.output();
    let output = output.context(|| "cannot run python3".into())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the runner compares: vgpu on a device, and this machine's driver or, where the runner itself is tried, vgpu on another one.
struct Sides {
    vgpu: Served,
    native: Option<Served>,
    /// For `CUDA_VISIBLE_DEVICES` of both.
    visible: String,
}

impl Sides {
    fn start(programs: &Programs, device: &str, beside: &str, devices: &str) -> Result<Self> {
        let count: u8 = devices.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
            Failure::new(format!("--devices is a number of devices, 1 or more, not {devices}"))
        })?;
        let native = match beside {
            "native" if !has_gpu() => {
                return Err(Failure::new(format!("no GPU on this machine: there is no {NVIDIA}")));
            }
            "native" => None,
            "soft" | "null" => Some(Served::start(programs, beside, devices)?),
            other => return Err(Failure::new(format!("--beside is native, soft or null, not {other}"))),
        };
        let visible = (0..count).map(|device| device.to_string()).collect::<Vec<_>>().join(",");
        Ok(Self { vgpu: Served::start(programs, device, devices)?, native, visible })
    }

    fn runner(&self) -> Result<Command> {
        let mut runner = runner()?;
        runner.arg("--vgpu").arg(self.vgpu.parts().join(","));
        runner.env("CUDA_VISIBLE_DEVICES", &self.visible);
        if let Some(native) = &self.native {
            runner.arg("--native").arg(native.parts().join(","));
        }
        Ok(runner)
    }
}

fn has_gpu() -> bool {
    Path::new(NVIDIA).exists()
}

/// `suite.py`, which hears ^C. It leaves no compiled files where it lies.
fn runner() -> Result<Command> {
    let mut python = Command::new("env");
    python.args([LISTENING, "python3", "-B"]).arg(paths::gpu_suite()?.join("suite.py"));
    Ok(python)
}

/// The part `gpu` of `cargo xtask test`: the runner is tried without a GPU, and runs where there is one.
pub fn part(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let (compiled, programs) = (cuda_programs::build(steps)?, Programs::find()?);
    steps.step("The runner of tests/gpu", |log| {
        let mut own = Command::new("python3");
        own.arg("-B").arg(paths::gpu_suite()?.join("test_runner.py"));
        tally.check("gpu-suite: the runner's own tests", log.run(&mut own));
        tally.check("gpu-suite: soft is as soft", as_itself(log, &programs, &compiled));
        tally.check("gpu-suite: null is not as soft", is_noticed(&programs));
        Ok(())
    })?;
    if !has_gpu() {
        tally.skip("gpu-suite", &format!("no GPU on this machine: there is no {NVIDIA}"));
        return Ok(());
    }
    let outcome = steps.step("Programs native and through vgpu", |log| {
        let sides = Sides::start(&programs, "cuda", "native", "1")?;
        log.run(sides.runner()?.arg("--programs").arg(&compiled))
    });
    tally.check("gpu-suite", outcome);
    Ok(())
}

fn as_itself(log: &Log, programs: &Programs, compiled: &Path) -> Result<()> {
    let sides = Sides::start(programs, "soft", "soft", "1")?;
    let mut runner = sides.runner()?;
    runner.args(["--only", PLAIN, "--repeats", "1", "--programs"]).arg(compiled);
    log.run(&mut runner)
}

/// The null device computes nothing: a runner that does not see that sees nothing.
fn is_noticed(programs: &Programs) -> Result<()> {
    let sides = Sides::start(programs, "null", "soft", "1")?;
    let output = sides.runner()?.args(["--only", "plain/vector_add", "--kinds", "case"]).output();
    let output = output.context(|| "cannot run python3".into())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let noticed = said.lines().any(|line| line.starts_with("failed: plain/vector_add: result: other bytes"));
    if noticed && !output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("a device that computes nothing passed; the runner said:\n{said}")))
}
