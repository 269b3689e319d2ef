//! The first process of a pid namespace that containers of a pod share, where the pod has no sandbox container for it. It executes no program,
//! so its container needs no image: it stays this one, without a capability and in an empty root.

use std::{thread, time::Duration};

use libcontainer::oci_spec::runtime::Spec;
use rustix::{
    io::Errno,
    process::{WaitOptions, wait},
};
use vgpu_agent_api::pod::PAUSE;

/// While it has no children; those that come meanwhile wait to be reaped for so long.
const REST: Duration = Duration::from_secs(1);

/// Whether this is what a container is to run.
pub fn is_asked(spec: &Spec) -> bool {
    let args = spec.process().as_ref().and_then(|process| process.args().as_deref());
    args.is_some_and(|args| args == [PAUSE])
}

/// Reaps what is left to it. Only a SIGKILL from outside of the namespace ends it.
pub fn run() -> ! {
    loop {
        if let Err(Errno::CHILD) = wait(WaitOptions::empty()) {
            thread::sleep(REST);
        }
    }
}
