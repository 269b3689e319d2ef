//! Where things are: the repository, its target directory, the cache, and the built files that a carried xtask finds beside
//! itself.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Context, Failure, Result};
use crate::host;

/// The folders with a workspace of their own.
pub const WORKSPACES: &[&str] = &[".", "tests/fuzz"];

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

/// The programs that are played native and through vgpu, and their runner. A carried xtask has them.
pub fn gpu_suite() -> Result<PathBuf> {
    let base = carried_dist().map_or_else(root, Ok)?;
    Ok(base.join("tests/gpu"))
}

/// Scratch and logs of xtask: `target/xtask`; of a carried one a directory of its user's among the temporary ones.
pub fn scratch() -> Result<PathBuf> {
    if carried_dist().is_some() {
        let uid = host::effective_uid()?;
        let dir = env::temp_dir().join(format!("vgpu-xtask-{uid}"));
        own_directory(&dir, uid)?;
        return Ok(dir);
    }
    let dir = target()?.join("xtask");
    fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Makes a directory where everybody may write, or takes the one that this user made. What another one put there is refused:
/// a link, too.
fn own_directory(dir: &Path, uid: u32) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
            return Err(cause).context(|| format!("cannot make {}", dir.display()));
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(dir).context(|| format!("cannot see {}", dir.display()))?;
    if meta.is_dir() && meta.uid() == uid && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("{} is not a directory of user {uid} alone: remove it", dir.display())))
}

/// What is slow to make, shared by all clones: `$XDG_CACHE_HOME/vgpu`.
pub fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        // A relative one is to be ignored. Source: XDG Base Directory Specification, "Environment variables".
        Some(dir) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
        _ => PathBuf::from(env::var_os("HOME").context(|| "HOME is not set".into())?).join(".cache"),
    };
    Ok(base.join("vgpu"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_temporary_directory_of_somebody_else_is_refused() {
        let base = scratch().expect("scratch").join("own-directory-test");
        crate::cache::remove_tree(&base).expect("removed");
        fs::create_dir_all(&base).expect("made");
        let uid = host::effective_uid().expect("a user");
        let dir = base.join("own");
        own_directory(&dir, uid).expect("made");
        own_directory(&dir, uid).expect("taken again");
        assert_eq!(fs::metadata(&dir).expect("there").mode() & 0o777, 0o700);
        assert!(own_directory(&dir, uid + 1).is_err(), "of another owner");
        symlink(&dir, base.join("link")).expect("linked");
        assert!(own_directory(&base.join("link"), uid).is_err(), "a link");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("opened");
        assert!(own_directory(&dir, uid).is_err(), "others may write");
    }
}
