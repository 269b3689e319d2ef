//! A container's GPU socket, opened where its spec says that it was granted a GPU.

use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::Spec;

use super::host::Host;
use crate::error::{GuestError, Result};

/// Opens a GPU socket for a container that was granted a GPU (`gpu/door.rs`).
pub trait GpuDoors: Send + Sync {
    /// Listens in `directory`; gives what to bind into the container whose root file system is `rootfs`, and the door, which closes when it
    /// is dropped.
    /// # Errors
    /// The socket cannot be made.
    fn open(&self, container: &str, directory: &Path, rootfs: &Path) -> Result<OpenDoor>;
}

/// An open door and what belongs to it.
pub struct OpenDoor {
    /// (source, destination) of bind mounts.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Closes the door when dropped.
    pub keep: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for OpenDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenDoor").field("binds", &self.binds).finish_non_exhaustive()
    }
}

/// The shim leaves the annotation only where a grant was made; without the GPU stream it is an error to have it.
pub fn open_door(
    host: &Host,
    id: &str,
    directory: &Path,
    rootfs: &Path,
    spec: &Spec,
) -> Result<Option<OpenDoor>> {
    match annotation(spec, "vgpu.dev/gpu") {
        None | Some("" | "0") => Ok(None),
        Some(_) => match &host.gpu {
            Some(doors) => doors.open(id, directory, rootfs).map(Some),
            None => Err(GuestError::Invalid {
                field: "annotation vgpu.dev/gpu",
                why: "this guest has no stream to gpu-proxy".into(),
            }),
        },
    }
}

fn annotation<'a>(spec: &'a Spec, key: &str) -> Option<&'a str> {
    spec.annotations().as_ref()?.get(key).map(String::as_str)
}
