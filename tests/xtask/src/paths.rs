//! Where things are: the repository, its target directory, the cache, and the built files that a carried xtask finds beside
//! itself.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{Context, Failure, Result};

/// The repository, found from the working directory upwards.
pub fn root() -> Result<PathBuf> {
    let here = env::current_dir().context(|| "cannot read the working directory".into())?;
    here.ancestors()
        .find(|dir| dir.join("tests/xtask/Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .ok_or_else(|| Failure::new(format!("{} is not inside a checkout of vgpu", here.display())))
}

/// Cargo's target directory: the one this program was built in, else `target` of the repository.
pub fn target() -> Result<PathBuf> {
    let exe = env::current_exe().context(|| "cannot find the running program".into())?;
    let profile = exe.parent().unwrap_or(Path::new("/"));
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug" | "release") => Ok(profile.parent().unwrap_or(profile).to_path_buf()),
        _ => Ok(root()?.join("target")),
    }
}

/// What a node installs. A carried xtask lies in it: then no repository is needed.
pub fn dist() -> Result<PathBuf> {
    if let Some(beside) = carried_dist() {
        return Ok(beside);
    }
    Ok(target()?.join("dist"))
}

/// The `dist` directory this program lies in, when it was carried to a machine without sources.
pub fn carried_dist() -> Option<PathBuf> {
    let exe = env::current_exe().ok()?;
    let dir = exe.parent()?;
    dir.join("usr/lib/vgpu").is_dir().then(|| dir.to_path_buf())
}

/// Scratch and logs of xtask: `target/xtask`.
pub fn scratch() -> Result<PathBuf> {
    let dir =
        if carried_dist().is_some() { env::temp_dir().join("vgpu-xtask") } else { target()?.join("xtask") };
    std::fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// What is slow to make, shared by all clones: `$XDG_CACHE_HOME/vgpu`.
pub fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(env::var_os("HOME").context(|| "HOME is not set".into())?).join(".cache"),
    };
    Ok(base.join("vgpu"))
}
