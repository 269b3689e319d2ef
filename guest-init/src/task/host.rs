//! What is around a container: where things are in the guest, and the parts of the program that a container is made with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{gpu::GpuDoors, oom::OomQueue, volumes::Room};
use crate::{reaper::Reaper, stdio::StreamSource};

/// For the OCI helper, of which a start takes some tenths of a second. What holds it longer is a share that does not answer, or a file
/// of the image that blocks who opens it.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// Where things are in the guest.
#[derive(Clone, Debug)]
pub struct Layout {
    /// This program, to be executed as the OCI helper.
    pub program: PathBuf,
    /// The share: `<container>/{config.json,rootfs}`.
    pub share: PathBuf,
    /// Our own directory, on a tmpfs.
    pub run: PathBuf,
    /// How long the OCI helper may take.
    pub helper_limit: Duration,
}

impl Layout {
    /// The guest's.
    pub fn guest() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            share: "/run/vgpu/share".into(),
            run: "/run/vgpu".into(),
            helper_limit: HELPER_LIMIT,
        }
    }

    /// What is kept of one container.
    pub fn container(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// Where the memories are that containers share.
    pub fn memories(&self) -> PathBuf {
        self.run.join("memories")
    }

    /// The OCI library's state directory.
    pub fn oci_state(&self) -> PathBuf {
        self.run.join("oci")
    }
}

/// What a container needs of the program around it.
pub struct Host {
    /// Where things are.
    pub layout: Layout,
    /// Tells exits.
    pub reaper: Arc<Reaper>,
    /// Opens stdio.
    pub streams: Arc<dyn StreamSource>,
    /// Takes OOM kills.
    pub oom: Arc<OomQueue>,
    /// For copies of volumes.
    pub room: Room,
    /// Gives containers their GPU socket. None: no container of this guest can have a GPU.
    pub gpu: Option<Arc<dyn GpuDoors>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("layout", &self.layout).finish_non_exhaustive()
    }
}
