//! The limits that this program starts with are the kernel's, for a login of long ago: 1024 descriptors, and as few processes as a small
//! guest suggests. A container whose spec names no limits has its runtime's; on a node that is containerd's, whose unit lifts them.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::error::{During, Result};

/// The most that the kernel takes for descriptors (Linux, `fs/file.c`: `sysctl_nr_open`).
const DESCRIPTORS: u64 = 1 << 20;

/// Lifts them, for this program and for containers without limits of their own.
/// # Errors
/// As setrlimit(2).
pub fn raise() -> Result<()> {
    let descriptors = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    setrlimit(Resource::Nofile, descriptors).during(|| "raise the limit of descriptors".into())?;
    let unlimited = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Nproc, unlimited).during(|| "lift the limit of processes".into())
}
