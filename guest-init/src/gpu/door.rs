//! The socket of a container with a GPU: `/run/vgpu/gpu.sock` in the container, one session a connection.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{net::UnixListener, task::JoinHandle};
use vgpu_zone_api::guest::ContainerId;

use super::{ground::Ground, library, proxy::Proxy, session};
use crate::{
    boot::console::Bounded,
    error::{During, GuestError, Result},
    task::gpu::{GpuDoors, OpenDoor},
};

/// Where a container finds the socket.
const IN_CONTAINER: &str = "/run/vgpu/gpu.sock";
/// Connections of one container that are open at once. The proxy has limits of its own, this one keeps a program that connects without
/// end from taking PID 1's descriptors.
const SESSIONS_MAX: usize = 128;

/// What all sessions of this guest share.
pub struct Doors {
    /// Reaches gpu-proxy.
    pub proxy: Arc<Proxy>,
    /// Makes shared pages.
    pub ground: Arc<dyn Ground>,
    /// The libraries that are bound into the container.
    pub libraries: PathBuf,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("libraries", &self.libraries).finish_non_exhaustive()
    }
}

/// Ends the listener. Sessions end with their processes.
struct Listening(JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl GpuDoors for Doors {
    fn open(&self, container: &str, directory: &Path, rootfs: &Path) -> Result<OpenDoor> {
        let id = ContainerId::new(container).ok_or_else(|| GuestError::Invalid {
            field: "id",
            why: format!("{container:?} is no container id"),
        })?;
        let socket = directory.join("gpu.sock");
        let listener = UnixListener::bind(&socket).during(|| format!("listen at {}", socket.display()))?;
        // Every user of the container may use its GPU; nobody else sees the file.
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::chmod(&socket, mode).during(|| format!("open {} to all users", socket.display()))?;
        let mut binds = library::binds(&self.libraries, rootfs);
        binds.push((socket, IN_CONTAINER.into()));
        let (proxy, ground) = (Arc::clone(&self.proxy), Arc::clone(&self.ground));
        let keep = Box::new(Listening(tokio::spawn(accept(listener, id, proxy, ground))));
        Ok(OpenDoor { binds, keep })
    }
}

async fn accept(listener: UnixListener, container: ContainerId, proxy: Arc<Proxy>, ground: Arc<dyn Ground>) {
    let open = Arc::new(AtomicUsize::new(0));
    let console = Arc::new(Bounded::default());
    loop {
        let process = match listener.accept().await {
            Ok((process, _)) => process,
            Err(error) => {
                console.say(format_args!("{container}: the GPU socket: {error}"));
                // Descriptors are used up, most likely: some end with their processes.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= SESSIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            // Closed without a word: the process takes it for a proxy that is gone.
            continue;
        }
        let (container, proxy, ground) = (container.clone(), Arc::clone(&proxy), Arc::clone(&ground));
        let (open, console) = (Arc::clone(&open), Arc::clone(&console));
        tokio::spawn(async move {
            match session::run(process, container.clone(), proxy, ground).await {
                Ok(Some(cost)) => console.say(format_args!("{container}: a GPU channel is over: {cost}")),
                Ok(None) => {}
                Err(error) => console.say(format_args!("{container}: a GPU session: {error}")),
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
