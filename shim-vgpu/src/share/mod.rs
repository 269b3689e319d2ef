//! The folder that a pod's guest sees: `<shared_dir>/<namespace>+<sandbox>+<domain UUID>/{rw,export,stage}`.
//!
//! `rw` is a small tmpfs in which each container has `config.json`, `rootfs` and `mounts/<n>`, bound there from the host. `export` is a
//! slave view of it, and what the backend serves: mounts in `rw` appear there, and nothing comes back. It is read-only: the guest is
//! hostile and root in its share, and the shim, root in Dom0, mounts and writes in `rw` by path. So nothing of that skeleton is ever a
//! guest's; only what is mounted on it is. Below `rw` each folder and file is made anew or not at all, so no link is followed.
//! At `stage` a mount gets its flags before the guest can see it.
//! [`Backend`] is who serves it, our own server ([`server`]).

pub mod server;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::mount::MountFlags;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vgpu_codes::Code;

use crate::{
    error::{OrFail, Result},
    mount,
    persist::private_folder,
    spec::guest::Bind,
    tree,
};

/// For the folders and config.json files of a pod.
const SHARE_BYTES_MAX: u64 = 8 << 20;
/// A container takes 4 of them and one a volume: 20 containers with 200 volumes each.
const SHARE_INODES_MAX: u64 = 4096;

/// For the files of /etc that a pod's containers have in common.
const FILES_BYTES_MAX: u64 = 1 << 20;

/// Who serves a share to a guest.
pub trait Backend: Send + Sync {
    /// Makes `export` the guest's share: before the domain first runs. Returns when the backend waits for the guest.
    ///
    /// # Errors
    /// [`Code::ShareFailed`].
    fn attach(&self, domid: u16, uuid: Uuid, export: &Path) -> Result<Process>;

    /// Kills the backend: from here on the guest writes to no file of the host, but what a file system that does not answer already has.
    /// `process` is none if the shim died before it knew. Nothing there is no error.
    ///
    /// # Errors
    /// [`Code::HostFailure`] if it can't be killed.
    fn end(&self, uuid: Uuid, process: Option<Process>) -> Result<()>;

    /// Removes the nodes of a backend that has ended. Nothing there is no error.
    ///
    /// # Errors
    /// [`Code::HostFailure`] if something is left.
    fn detach(&self, domid: u16, uuid: Uuid) -> Result<()>;
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

    fn stage(&self) -> PathBuf {
        self.0.join("stage")
    }

    /// Makes the share.
    ///
    /// # Errors
    /// [`Code::HostFailure`]. What was made stays, for cleaning up.
    pub fn make(&self) -> Result<()> {
        let what = || format!("cannot make the share {}", self.0.display());
        let (rw, export, stage) = (self.0.join("rw"), self.export(), self.stage());
        private_folder(&self.0)?;
        let make = || -> io::Result<()> {
            for dir in [&rw, &export, &stage] {
                fs::create_dir_all(dir)?;
            }
            mount::bind(&stage, &stage, false)?;
            mount::make_private(&stage)?;
            mount::small_tmpfs(&rw, SHARE_BYTES_MAX, SHARE_INODES_MAX)?;
            mount::make_shared(&rw)?;
            mount::bind(&rw, &export, false)?;
            mount::make_slave(&export)?;
            mount::restrict(&export, MountFlags::RDONLY)
        };
        make().or_fail(Code::HostFailure, what)
    }

    /// Where files are that all containers of a pod have ([`ShareDir::make_files`]).
    pub fn files(&self) -> PathBuf {
        self.0.join("files")
    }

    /// Makes such files beside the share, in a small file system of their own: the guest writes to them by its containers' mounts.
    ///
    /// # Errors
    /// [`Code::HostFailure`]. What was made stays, for cleaning up.
    pub fn make_files(&self, files: &[(&str, String)]) -> Result<()> {
        let dir = self.files();
        let make = || -> io::Result<()> {
            fs::create_dir(&dir)?;
            mount::small_tmpfs(&dir, FILES_BYTES_MAX, SHARE_INODES_MAX)?;
            files
                .iter()
                .try_for_each(|(name, text)| File::create_new(dir.join(name))?.write_all(text.as_bytes()))
        };
        make().or_fail(Code::HostFailure, || format!("cannot make the pod's files in {}", dir.display()))
    }

    /// Puts a container into the share: its root, its volumes, its spec.
    ///
    /// # Errors
    /// [`Code::HostFailure`]. What was made stays, for cleaning up.
    pub fn add(&self, id: &str, root: &Path, binds: &[Bind], config: &[u8]) -> Result<()> {
        let dir = self.container(id);
        let stage = self.stage().join(id);
        let what = || format!("cannot put {} into the share", root.display());
        let make = || -> io::Result<()> {
            for dir in [&stage, &stage.join("mounts"), &dir, &dir.join("mounts")] {
                fs::create_dir(dir)?;
            }
            expose(root, &stage.join("rootfs"), &dir.join("rootfs"), true, false)
        };
        make().or_fail(Code::HostFailure, what)?;
        for wanted in binds {
            let (stage, target) = (stage.join(&wanted.target), dir.join(&wanted.target));
            expose(&wanted.source, &stage, &target, wanted.recursive, wanted.readonly)
                .or_fail(Code::HostFailure, || {
                    format!("the volume {} cannot be mounted", wanted.source.display())
                })?;
        }
        let write = || File::create_new(dir.join("config.json"))?.write_all(config);
        write().or_fail(Code::HostFailure, what)
    }

    /// Takes a container out again. Nothing there is no error.
    ///
    /// # Errors
    /// [`Code::HostFailure`] if something is left.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        self.cut_stage_off()?;
        for dir in [self.container(id), self.stage().join(id)] {
            mount::take_away(&dir)?;
            tree::remove(&dir)?;
        }
        Ok(())
    }

    /// Takes the whole share away. Nothing there is no error.
    ///
    /// # Errors
    /// [`Code::HostFailure`] if something is left.
    pub fn remove(&self) -> Result<()> {
        self.cut_stage_off()?;
        mount::take_away(&self.0)?;
        tree::remove(&self.0)
    }

    /// A shim that was killed in [`mount::expose`] may have left a mount there that is tied to the host's.
    fn cut_stage_off(&self) -> Result<()> {
        let stage = self.stage();
        let cut = || {
            let made = !mount::below(&stage)?.is_empty();
            if made { mount::make_private(&stage) } else { Ok(()) }
        };
        cut().or_fail(Code::HostFailure, || format!("cannot make {} private", stage.display()))
    }
}

/// [`mount::expose`], with `stage` and `target` made for it.
fn expose(source: &Path, stage: &Path, target: &Path, recursive: bool, readonly: bool) -> io::Result<()> {
    for place in [stage, target] {
        if source.is_dir() { fs::create_dir(place)? } else { File::create_new(place).map(drop)? }
    }
    mount::expose(source, stage, target, recursive, readonly)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
