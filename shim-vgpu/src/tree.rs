//! Removing a folder of ours that mounts may appear in: below one are a user's files.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, unlinkat},
    io::Errno,
};
use vgpu_codes::Code;

use crate::error::{OrFail, Result};

/// Removes `dir` and all below it, and never through a mount, a bind of the same file system or one that appears meanwhile included. Nothing
/// there is no error.
///
/// # Errors
/// [`Code::HostFailure`], also if something is mounted at or below it; what is not below a mount may be gone then.
pub fn remove(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let removed = || -> io::Result<()> {
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        remove_at(&File::open(parent)?.into(), Path::new(name))
    };
    match removed() {
        Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => Err(error)
            .or_fail(Code::HostFailure, || {
                format!("cannot remove {}: something is still mounted below", dir.display())
            }),
        removed => removed.or_fail(Code::HostFailure, || format!("cannot remove {}", dir.display())),
    }
}

fn remove_at(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // What is opened lies on the parent's own mount, and stays what it is whatever is mounted over it from now on.
    let held =
        openat2(parent, name, flags, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)?;
    for entry in Dir::read_from(&held)? {
        let entry = entry?;
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        if name == Path::new(".") || name == Path::new("..") {
            continue;
        }
        match entry.file_type() {
            FileType::Directory => remove_at(&held, name)?,
            // A mount point is busy.
            _ => unlinkat(held.as_fd(), name, AtFlags::empty())?,
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::mount;

    #[test]
    fn a_users_files_below_a_mount_of_the_same_file_system_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, users) = (dir.path().join("ours"), dir.path().join("users"));
        fs::create_dir_all(ours.join("a/mounts/0")).unwrap();
        fs::create_dir(&users).unwrap();
        fs::write(users.join("kept"), "x").unwrap();
        fs::write(ours.join("a/mounts/1"), "").unwrap();
        for (from, to) in [(users.clone(), "a/mounts/0"), (users.join("kept"), "a/mounts/1")] {
            mount::bind(&from, &ours.join(to), false).unwrap();
            let refused = remove(&ours).unwrap_err();
            mount::take_away(&ours).unwrap();
            assert_eq!(fs::read(users.join("kept")).unwrap(), b"x", "{to}: {}", refused.report());
            fs::create_dir_all(ours.join("a/mounts")).unwrap();
            fs::write(ours.join("a/mounts/1"), "").unwrap();
        }
        std::os::unix::fs::symlink(&users, ours.join("link")).unwrap();
        remove(&ours).unwrap();
        remove(&ours).unwrap();
        assert!(!ours.exists() && users.join("kept").exists());
    }
}
