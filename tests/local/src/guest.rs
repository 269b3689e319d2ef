//! The process of a domain. [`start`] is its first life: it waits for the word to begin and executes `unshare` (util-linux), which has
//! namespaces made and [`init`] run in them as PID 1. There guest-init's own services run, as `guest_init::boot` has them run in a domain.
//!
//! What differs from a domain: the kernel is this machine's, so is the clock, and the root is its root, with mounts that stay in here.

use std::{
    convert::Infallible,
    error::Error,
    fs,
    io::Read,
    os::unix::{net::UnixListener, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use guest_init::{
    agent::{
        self, AgentService,
        service::{Guest, Machine},
        streams::StdioStreams,
    },
    boot::{network, power},
    cgroup,
    reaper::Reaper,
    task::{
        host::{Host, Layout},
        pod::Pod,
        volumes::Room,
    },
};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change, mount_move,
};

use vgpu_agent_api::network::Network;

use crate::{handover::FarEnds, node::Node};

/// Why a guest could not go on.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// Mounts stay in the guest, and what the shim mounts into the share later comes in.
const NAMESPACES: [&str; 11] = [
    "--mount",
    "--propagation",
    "slave",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--uts",
    "--ipc",
    "--net",
    "--cgroup",
];

/// Waits for the word to begin, which comes once this process is in its cgroup. Returns only with why it could not go on.
pub fn start(node: &Node, domid: u16) -> AnyError {
    let mut word = Vec::new();
    match std::io::stdin().read_to_end(&mut word) {
        Err(error) => return error.into(),
        Ok(0) => return "the shim ended before the domain was made".into(),
        Ok(_) => {}
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error.into(),
    };
    let mut unshare = Command::new("unshare");
    unshare.args(NAMESPACES).arg(program).arg("init").arg(node.dir()).arg(domid.to_string());
    unshare.stdin(Stdio::null()).exec().into()
}

/// PID 1's life. Returns only with why it could not go on.
pub fn init(node: &Node, domid: u16) -> AnyError {
    power::off_at_panic();
    match serve(node, domid) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn serve(node: &Node, domid: u16) -> Result<Infallible, AnyError> {
    // Before the mounts, which may hide the node's folder.
    let agent = UnixListener::bind(node.agent(domid))?;
    agent.set_nonblocking(true)?;
    let far_ends = FarEnds::default();
    let (served, listener) = (far_ends.clone(), UnixListener::bind(node.streams(domid))?);
    thread::Builder::new().name("streams".into()).spawn(move || served.serve(&listener))?;
    let layout = Layout::guest();
    mounts(node, domid, &layout)?;
    network::default_hostname()?;
    network::loopback_up()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let streams = Arc::new(StdioStreams::new(Box::new(far_ends)));
        let host = Arc::new(Host {
            layout,
            reaper: Reaper::start()?,
            streams: Arc::clone(&streams) as _,
            oom: Arc::default(),
            room: Room::of_guest(),
            gpu: None,
        });
        let pod = Pod::new(host);
        let service = AgentService::new(streams, Arc::clone(&pod), Arc::new(Here));
        let (stream, _) = tokio::net::UnixListener::from_std(agent)?.accept().await?;
        let _server = agent::serve(stream, pod, service).await?;
        // The shim destroys the domain.
        std::future::pending().await
    })
}

/// What a guest has of its own: /sys with its network, its cgroups as all there are, and /run with the share.
fn mounts(node: &Node, domid: u16, layout: &Layout) -> Result<(), AnyError> {
    let none = MountFlags::empty();
    mount("none", "/sys", "sysfs", none, None)?;
    mount("none", cgroup::MOUNT, "cgroup2", none, None)?;
    let run = node.domain(domid).join("run");
    let share = run.join(layout.share.strip_prefix("/run")?);
    fs::create_dir(&run)?;
    mount("none", &run, "tmpfs", none, None)?;
    fs::create_dir_all(&share)?;
    mount_bind_recursive(fs::canonicalize(node.share(domid))?, &share)?;
    mount_change(&share, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount_move(&run, Path::new("/run"))?;
    Ok(())
}

/// This machine as a guest.
#[derive(Debug, Clone, Copy)]
struct Here;

impl Machine for Here {
    fn set_hostname(&self, name: &str) -> guest_init::error::Result<()> {
        Guest.set_hostname(name)
    }

    fn set_clock(&self, _: u64) -> guest_init::error::Result<()> {
        // The shim's own: it is right.
        Ok(())
    }

    fn seed(&self, _: &[u8]) -> guest_init::error::Result<()> {
        // This machine has a source of its own.
        Ok(())
    }

    fn set_network(&self, network: &Network) -> guest_init::error::Result<()> {
        Guest.set_network(network)
    }

    fn set_cpus(&self, _: u32) -> guest_init::error::Result<()> {
        // The machine's are everybody's.
        Ok(())
    }

    fn power_off(&self) {
        power::off()
    }
}
