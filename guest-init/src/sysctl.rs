//! Sysctls of the guest's own namespaces, which are the pod's network and, where it has no sandbox container, all that it shares.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use crate::error::{During, GuestError, Result};

/// The file of a sysctl, below /proc/sys. `a.b` and `a/b` are the same; in the second form a dot belongs to a name (`eth0.1`).
/// # Errors
/// It would be a file elsewhere.
pub fn file(key: &str) -> Result<PathBuf> {
    let path = PathBuf::from(if key.contains('/') { key.to_owned() } else { key.replace('.', "/") });
    if path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(path);
    }
    Err(GuestError::Invalid { field: "linux.sysctl", why: format!("{key:?} is no name of a sysctl") })
}

/// Writes one, by its file.
/// # Errors
/// The kernel has no such file, or does not take the value.
pub fn set(file: &Path, value: &str) -> Result<()> {
    let file = Path::new("/proc/sys").join(file);
    fs::write(&file, value).during(|| format!("set {} to {value:?}", file.display()))
}
