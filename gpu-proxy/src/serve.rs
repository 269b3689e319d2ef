//! From the command line and the configuration to a serving supervisor.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use vgpu_codes::{Code, with_causes};
use vgpu_config::Config;

use crate::args::Serve;
use crate::supervisor::refusal::Refusal;
use crate::supervisor::{ABANDONED_AFTER, Mode, Supervisor, choose_device, local, shim_door, socket::Door};

/// Threads of the supervisor: it is a switchboard, not a worker.
const THREADS: usize = 2;
/// Threads at most for what waits in the kernel, beside one a zone.
const BLOCKING_THREADS: usize = 512;

/// For the end of all zones when told to end: workers that are still there then die with this process.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT. Workers die with this process, however it ends.
///
/// # Errors
/// What keeps it from serving, as one sentence with its code.
pub fn run(how: Serve) -> Result<(), Refusal> {
    crate::logfmt::start(&std::env::var("VGPU_LOG").unwrap_or_default());
    // Sockets and files are for their owner unless said otherwise.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    raise_descriptor_limit();
    let mut config = Config::load(how.config.as_deref())
        .map_err(|error| Refusal::new(error.code(), with_causes(&error)))?;
    if let Some(mib) = how.memory_mib {
        config.proxy.soft_memory_mib = mib;
    }
    if let Some(devices) = how.devices {
        config.proxy.soft_devices = devices;
    }
    let device = choose_device(how.device.unwrap_or(config.proxy.device))?;
    // A zone whose guest has not come yet has one that waits for it: those of all zones leave room for others' work.
    let waiting = BLOCKING_THREADS + config.proxy.worker_uid_count as usize;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(waiting)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Refusal::new(Code::HostFailure, format!("no threads: {error}")))?;
    let result = runtime.block_on(async {
        // Before there is a socket: who finds one may end us in order.
        let mut told = std::pin::pin!(until_told());
        let mode = if how.local.is_empty() { Mode::Xen } else { Mode::Local };
        let supervisor = Supervisor::new(&config, device, mode)?;
        log::info!("gpu-proxy {} with device {device}, guests come from {mode:?}", env!("CARGO_PKG_VERSION"));
        // Before anybody comes. Without it programs get what they ask for, and monitoring tools an error.
        tokio::select! {
            described = supervisor.description() => if let Err(refusal) = described {
                log::warn!("what the device is cannot be told: {refusal}");
            },
            () = &mut told => {
                supervisor.release_all(RELEASE_LIMIT).await;
                return Ok(());
            }
        }
        let clean = tokio::select! {
            clean = supervisor.canary(config.proxy.scrub_canary) => clean.map(|()| true),
            () = &mut told => Ok(false),
        };
        if !matches!(clean, Ok(true)) {
            supervisor.release_all(RELEASE_LIMIT).await;
            return clean.map(drop);
        }
        let mut doors = vec![tokio::spawn(Arc::clone(&supervisor).share_time())];
        if how.local.is_empty() || how.socket.is_some() {
            let door = Door::bind(how.socket.as_ref().unwrap_or(&config.proxy.socket), 0o600)?;
            doors.push(tokio::spawn(shim_door::serve(Arc::clone(&supervisor), door)));
            doors.push(tokio::spawn(Arc::clone(&supervisor).release_abandoned(ABANDONED_AFTER)));
        }
        for (number, zone) in how.local.iter().enumerate() {
            // Whoever may reach the folder may connect: a container's user is not ours.
            let (door, devices) = (Door::bind(&zone.socket, 0o666)?, how.devices.unwrap_or(1));
            let served = local::serve(Arc::clone(&supervisor), door, number, devices, zone.share)?;
            doors.push(tokio::spawn(served));
        }
        told.await;
        // The doors first, so that nobody comes any more; their files go with them.
        for door in doors {
            door.abort();
            let _ = door.await;
        }
        supervisor.release_all(RELEASE_LIMIT).await;
        Ok(())
    });
    // Tasks that still wait for others' processes are not waited for.
    runtime.shutdown_background();
    result
}

/// Each worker costs the supervisor some descriptors, and the usual limit of 1024 is for programs that use `select`.
fn raise_descriptor_limit() {
    let limit = Rlimit { current: getrlimit(Resource::Nofile).maximum, ..getrlimit(Resource::Nofile) };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!("the limit of descriptors stays as it is: {error}");
    }
}

/// Its handlers are there when it returns, before it is waited for.
fn until_told() -> impl Future<Output = ()> {
    let handlers = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = handlers else {
            // Without handlers the signals do what they always do.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        log::info!("told to end");
    }
}
