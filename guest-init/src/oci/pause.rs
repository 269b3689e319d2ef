//! The first process of a pid namespace that containers of a pod share, where the pod has no sandbox container for it. It executes no program,
//! so its container needs no image: it stays this one, without a capability and in an empty root.

use std::{process, thread, time::Duration};

use libcontainer::oci_spec::runtime::Spec;
use rustix::{
    io::Errno,
    process::{WaitOptions, wait},
};
use vgpu_agent_api::pod::PAUSE;

use crate::sys;

/// Behind input, output and errors.
const FIRST_NOT_STANDARD: u32 = 3;

/// While it has no children; those that come meanwhile wait to be reaped for so long.
const REST: Duration = Duration::from_secs(1);

/// Whether this is what a container is to run.
pub fn is_asked(spec: &Spec) -> bool {
    spec.annotations().as_ref().is_some_and(|all| all.contains_key(PAUSE))
}

/// Reaps what is left to it. Only a SIGKILL from outside of the namespace ends it, and containers that share it find nothing open in it.
pub fn run() -> ! {
    if let Err(error) = sys::close_from(FIRST_NOT_STANDARD) {
        eprintln!("closing what the pause process has: {error}");
        process::exit(1);
    }
    loop {
        if let Err(Errno::CHILD) = wait(WaitOptions::empty()) {
            thread::sleep(REST);
        }
    }
}
