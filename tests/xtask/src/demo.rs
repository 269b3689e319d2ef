//! `cargo xtask demo`: from nothing to CUDA programs in Xen pods, in one command, and what happened.

use std::io::stdout;

use crate::args::Args;
use crate::error::Result;
use crate::host::{self, Needs};
use crate::progress::Steps;
use crate::testbed::{self, Boot};

/// What is shown.
pub const SCRIPT: &str = include_str!("../../testbed/demo.sh");

/// Installs what is missing, builds all, boots, runs the script, prints the times of the steps.
pub fn main(args: Args) -> Result<u8> {
    args.end()?;
    let steps = Steps::new()?;
    host::prepare(&steps, Needs::All)?;
    let dom0 = testbed::complete(&steps)?;
    let code = testbed::run(&steps, &dom0, &Boot::new(), SCRIPT.as_bytes(), &[], &mut stdout())?;
    eprintln!("\n{}", steps.table());
    Ok(code)
}
