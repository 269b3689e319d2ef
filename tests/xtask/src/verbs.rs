//! xtask's own verbs on this machine, as a user calls them: `gpu`, from here and carried, `gpu-suite` carried, and `bench`.

use std::io::{Write as _, pipe};
use std::path::Path;
use std::process::Command;

use crate::bench;
use crate::cuda_programs;
use crate::dist;
use crate::error::{Context, Failure, Result};
use crate::gpu::code_of;
use crate::progress::Steps;
use crate::tally::Tally;

/// The part `verbs` of `cargo xtask test`.
pub fn part(steps: &Steps, tally: &mut Tally) -> Result<()> {
    // Before the rest: a build that takes long says so on what is compared below.
    let (dist, programs) = (dist::build(steps)?, cuda_programs::build(steps)?);
    let own = std::env::current_exe().context(|| "cannot find the running program".into())?;
    steps.step("xtask gpu", |_| {
        tally.check("gpu: a command's streams and exit code are its own", streams(&own));
        tally.check("gpu: a killed command is 128 and the signal", killed(&own));
        let carried = carried(&dist.join("xtask"), &programs);
        tally.check("gpu: a carried xtask needs nothing of its builder", carried);
        tally.check("gpu-suite: a carried xtask has what it plays", suite(&dist.join("xtask")));
        Ok(())
    })?;
    tally.check("bench idm: its figures are there", bench::check(steps));
    Ok(())
}

fn gpu(xtask: &Path) -> Command {
    let mut gpu = Command::new(xtask);
    gpu.args(["gpu", "--device", "soft", "--"]);
    gpu
}

fn streams(xtask: &Path) -> Result<()> {
    let (input, mut writer) = pipe().context(|| "cannot make a pipe".into())?;
    writer.write_all(b"to the command").context(|| "cannot write into a pipe".into())?;
    drop(writer);
    let command = ["sh", "-c", "cat; echo of the command >&2; exit 7"];
    ends(gpu(xtask).args(command).stdin(input), (7, "to the command", "of the command\n"))
}

fn killed(xtask: &Path) -> Result<()> {
    ends(gpu(xtask).args(["sh", "-c", "kill -KILL $$"]), (137, "", ""))
}

/// Without cargo in its path, without a home, and from where there is no source.
fn carried(xtask: &Path, programs: &Path) -> Result<()> {
    let mut command = gpu(xtask);
    command.arg(programs.join("vector_add")).current_dir("/").env_clear().env("PATH", "/usr/bin:/bin");
    ends(&mut command, (0, "vector_add: ok, 65536 sums as the CPU's\n", ""))
}

/// From where there is no source. Python comes by the caller's PATH.
fn suite(xtask: &Path) -> Result<()> {
    let line = ["gpu-suite", "--device", "soft", "--beside", "soft", "--only", "plain/vector_add", "--brief"];
    let output = Command::new(xtask).args(line).current_dir("/").output();
    let output = output.context(|| "cannot run xtask".into())?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && said.ends_with("\n2 passed, 0 failed, 0 skipped\n") {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{}: {said}{errors}", output.status)))
}

/// Compares exit code, standard output and standard error.
fn ends(command: &mut Command, expected: (u8, &str, &str)) -> Result<()> {
    let output = command.output().context(|| "cannot run xtask".into())?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let seen = (code_of(output.status), &*said, &*errors);
    if seen == expected { Ok(()) } else { Err(Failure::new(format!("{seen:?}, not {expected:?}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_code_output_and_errors_is_compared() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo a; echo b >&2; exit 7"]);
        ends(&mut command, (7, "a\n", "b\n")).expect("as it is");
        for wrong in [(0, "a\n", "b\n"), (7, "", "b\n"), (7, "a\n", "")] {
            assert!(ends(&mut command, wrong).is_err(), "{wrong:?}");
        }
    }
}
