//! Sysctls of the guest's own namespaces, which are the pod's network and, where it has no sandbox container, all that it shares.

use std::{fs, path::Path};

use vgpu_agent_api::sysctl::{BadSysctl, Sysctl};

use crate::error::{During, GuestError, Result};

/// The sysctl of this name.
/// # Errors
/// No pod sets it.
pub fn parse(name: &str) -> Result<Sysctl> {
    let refused = |why: BadSysctl| GuestError::Invalid { field: "linux.sysctl", why: why.to_string() };
    Sysctl::parse(name).map_err(refused)
}

/// Writes one.
/// # Errors
/// The kernel has no such file, or does not take the value.
pub fn set(sysctl: &Sysctl, value: &str) -> Result<()> {
    let file = Path::new("/proc/sys").join(sysctl.file());
    fs::write(&file, value).during(|| format!("set {} to {value:?}", file.display()))
}
