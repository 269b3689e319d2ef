//! From the kernel's first process to a guest that serves its shim.
//!
//! [`run`] is the whole of it, in order: a root that can be left, mounts, the console, the loopback; then the share and the agent stream
//! at the same time, and the services. The rule: a step that fails ends the guest with a line on the console that names the step.

pub mod console;
pub mod mounts;
pub mod network;
pub mod power;
mod rlimits;
mod root;
mod writeback;

use std::{convert::Infallible, sync::Arc, thread};

use idm::xen::xenstore::Client;
use vgpu_agent_api::wire::SHARE_TAG;

use crate::{
    agent::{self, AgentService, service::Guest, streams::StdioStreams, xen},
    error::{During, GuestError, Result},
    gpu::{self, door::Doors, ground::XenGround, proxy::Proxy},
    reaper::Reaper,
    task::{
        gpu::GpuDoors,
        host::{Host, Layout},
        pod::Pod,
        volumes::Room,
    },
};
use console::say;

/// Where containers' files are.
const SHARE: &str = "/run/vgpu/share";

/// PID 1's life. Returns only with why it could not go on.
pub fn run() -> GuestError {
    power::off_at_panic();
    match prepare().and_then(|()| serve()) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn prepare() -> Result<()> {
    root::leave_initramfs()?;
    mounts::all()?;
    root::seal()?;
    console::open()?;
    say("up");
    network::default_hostname()?;
    network::loopback_up()?;
    rlimits::raise()?;
    writeback::bound()?;
    xen::raise_grant_limit()
}

fn serve() -> Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .during(|| "make the event loop".into())?;
    // The share's backend and the shim take their time: both are waited for at once.
    let share = thread::spawn(|| mounts::share(SHARE_TAG, SHARE));
    let xenstore = Client::connect().map_err(xen::refused).during(|| "connect to xenstore".into())?;
    let (frontend, stream) = xen::connect(&xenstore)?;
    share
        .join()
        .map_err(|_| GuestError::Oci { operation: "mount the share", text: "it panicked".into() })??;
    say("the share is mounted, the shim is there");
    runtime.block_on(async {
        let reaper = Reaper::start().during(|| "start the reaper".into())?;
        let streams = Arc::new(StdioStreams::new(Box::new(xen::StreamsTo(frontend.device().backend))));
        let host = Arc::new(Host {
            layout: Layout::guest(),
            reaper,
            streams: Arc::clone(&streams) as _,
            oom: Arc::default(),
            room: Room::of_guest(),
            gpu: gpu_doors(&xenstore),
        });
        let pod = Pod::new(host);
        let service = AgentService::new(streams, Arc::clone(&pod), Arc::new(Guest));
        let stream = xen::greet(stream).await?;
        let _server = agent::serve(stream, pod, service)
            .await
            .map_err(std::io::Error::other)
            .during(|| "serve the shim".into())?;
        say("serving");
        // The shim decides when the guest ends, or destroys it.
        std::future::pending().await
    })
}

/// GPU sockets for the containers, if the shim gave this guest a GPU device. Inside the runtime.
fn gpu_doors(xenstore: &Client) -> Option<Arc<dyn GpuDoors>> {
    let frontend = gpu::stream::find(xenstore)?;
    let ground = Arc::new(XenGround { driver_domain: frontend.device().backend });
    let proxy = Arc::new(Proxy::default());
    tokio::spawn(gpu::stream::keep_up(frontend, Arc::clone(&proxy)));
    Some(Arc::new(Doors { proxy, ground, libraries: gpu::library::LIBRARIES.into() }))
}
