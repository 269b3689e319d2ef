//! Programs of another system, runc's above all, in a root of their own: this machine's C library does not matter to them.

use std::{path::Path, process::Command};

const SCRIPT: &str = include_str!("in-root.sh");

/// Where such a program finds the test's directory.
pub const WORK: &str = "/test";

/// Runs what is added as arguments: a program and its own, in `root`, which has what `in-root.sh` says, with `work` as [`WORK`] and
/// its `run` and `tmp` as the program's, begun in `cwd`. As root; what it mounts goes with the last process that it leaves.
pub fn command(root: &Path, work: &Path, cwd: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount").arg(root.join("busybox")).args(["sh", "-c", SCRIPT, "in-root.sh"]);
    command.arg(root).arg(work).arg(cwd);
    command
}
