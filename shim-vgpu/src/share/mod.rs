//! The folder that a pod's guest sees: `<shared_dir>/<namespace>+<sandbox>/{rw,export}`.
//!
//! `rw` is a small tmpfs in which each container has `config.json`, `rootfs` and `mounts/<n>`, bound there from the host. `export` is a
//! slave view of it, and what the backend serves: mounts in `rw` appear there, and nothing comes back. A guest that writes into the root
//! of its share fills that tmpfs and nothing else.
//! [`Backend`] is who serves it, QEMU for now ([`qemu`]).

pub mod qemu;

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vgpu_codes::Code;

use crate::{
    error::{Error, OrFail, Result},
    mount,
    persist::private_folder,
    spec::guest::Bind,
};

/// For the folders and config.json files of a pod, and what a guest writes beside them.
const SHARE_BYTES_MAX: u64 = 8 << 20;

/// Who serves a share to a guest.
pub trait Backend: Send + Sync {
    /// Makes `export` the guest's tag `share0`: before the domain first runs. Returns when the backend waits for the guest.
    ///
    /// # Errors
    /// [`Code::ShareFailed`].
    fn attach(&self, domid: u16, uuid: Uuid, export: &Path) -> Result<Process>;

    /// Ends the backend and removes its nodes; `process` is none if the shim died before it knew. Nothing there is no error.
    ///
    /// # Errors
    /// [`Code::HostFailure`] if something is left.
    fn detach(&self, domid: Option<u16>, uuid: Uuid, process: Option<Process>) -> Result<()>;
}

/// A process that can be told from a later one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Ticks from the boot to its start. Source: `proc_pid_stat(5)`, field 22.
    pub start_ticks: u64,
}

/// One pod's share.
#[derive(Debug, Clone)]
pub struct ShareDir(PathBuf);

impl ShareDir {
    /// The share in `dir`, made or not.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        ShareDir(dir.into())
    }

    /// What the backend serves.
    pub fn export(&self) -> PathBuf {
        self.0.join("export")
    }

    /// A container's folder.
    pub fn container(&self, id: &str) -> PathBuf {
        self.0.join("rw").join(id)
    }

    /// Makes the share.
    ///
    /// # Errors
    /// [`Code::HostFailure`]. What was made stays, for cleaning up.
    pub fn make(&self) -> Result<()> {
        let what = || format!("cannot make the share {}", self.0.display());
        let (rw, export) = (self.0.join("rw"), self.export());
        private_folder(&self.0)?;
        let make = || -> io::Result<()> {
            fs::create_dir_all(&rw)?;
            fs::create_dir_all(&export)?;
            mount::small_tmpfs(&rw, SHARE_BYTES_MAX)?;
            mount::make_shared(&rw)?;
            mount::bind(&rw, &export, true, false)?;
            mount::make_slave(&export)
        };
        make().or_fail(Code::HostFailure, what)
    }

    /// Puts a container into the share: its root, its volumes, its spec.
    ///
    /// # Errors
    /// [`Code::SpecRefused`] for a volume that no share can carry, [`Code::SpecInvalid`] for one that is not there, else
    /// [`Code::HostFailure`].
    pub fn add(&self, id: &str, root: &Path, binds: &[Bind], config: &[u8]) -> Result<()> {
        let dir = self.container(id);
        let what = || format!("cannot put {} into the share", root.display());
        fs::create_dir_all(dir.join("rootfs")).or_fail(Code::HostFailure, what)?;
        fs::create_dir_all(dir.join("mounts")).or_fail(Code::HostFailure, what)?;
        mount::bind(root, &dir.join("rootfs"), true, false).or_fail(Code::HostFailure, what)?;
        for wanted in binds {
            add_bind(wanted, &dir.join(&wanted.target))?;
        }
        fs::write(dir.join("config.json"), config).or_fail(Code::HostFailure, what)
    }

    /// Takes a container out again. Nothing there is no error.
    ///
    /// # Errors
    /// [`Code::HostFailure`] if something is left.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        let dir = self.container(id);
        mount::take_away(&dir)?;
        remove_unmounted(&dir)
    }

    /// Takes the whole share away. Nothing there is no error.
    ///
    /// # Errors
    /// [`Code::HostFailure`] if something is left.
    pub fn remove(&self) -> Result<()> {
        mount::take_away(&self.0)?;
        remove_unmounted(&self.0)
    }
}

fn add_bind(wanted: &Bind, target: &Path) -> Result<()> {
    let source = wanted.source.display();
    let what = || format!("the volume {source} cannot be mounted");
    let kind = fs::metadata(&wanted.source).or_fail(Code::SpecInvalid, what)?.file_type();
    if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
        return Err(Error::new(
            Code::SpecRefused,
            format!("the volume {source} is a socket, pipe or device: these do not cross into a domain"),
        ));
    }
    let made = if kind.is_dir() { fs::create_dir(target) } else { fs::write(target, "") };
    made.and_then(|()| mount::bind(&wanted.source, target, wanted.recursive, wanted.readonly))
        .or_fail(Code::HostFailure, what)
}

/// Removes a folder of ours, but never through a mount: below one are a user's files.
fn remove_unmounted(dir: &Path) -> Result<()> {
    let what = || format!("cannot remove {}", dir.display());
    if !mount::below(dir).or_fail(Code::HostFailure, what)?.is_empty() {
        return Err(Error::new(Code::HostFailure, format!("{}: something is still mounted below", what())));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).or_fail(Code::HostFailure, what),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_appears_in_the_export_and_goes_without_touching_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::create_dir_all(&image).unwrap();
        fs::write(image.join("hello"), "x").unwrap();
        let volume = dir.path().join("volume");
        fs::write(&volume, "v").unwrap();
        let share = ShareDir::at(dir.path().join("share"));
        share.make().unwrap();
        let bind =
            Bind { source: volume.clone(), target: "mounts/0".into(), recursive: false, readonly: true };
        share.add("c", &image, &[bind], b"{}").unwrap();
        assert_eq!(fs::read(share.export().join("c/rootfs/hello")).unwrap(), b"x");
        assert_eq!(fs::read(share.export().join("c/mounts/0")).unwrap(), b"v");
        share.remove_container("c").unwrap();
        assert!(!share.export().join("c").exists());
        share.add("c", &image, &[], b"{}").unwrap();
        share.remove().unwrap();
        share.remove().unwrap();
        assert!(!dir.path().join("share").exists());
        assert!(image.join("hello").exists() && volume.exists());
    }

    #[test]
    fn a_hosts_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&source).unwrap();
        let bind = Bind { source, target: "t".into(), recursive: false, readonly: false };
        let error = add_bind(&bind, &dir.path().join("t")).unwrap_err();
        assert_eq!(error.code(), Some(Code::SpecRefused));
    }
}
