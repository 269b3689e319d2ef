//! The supervisor: knows zones, grants and workers, and no CUDA. Start at [`Supervisor`].
//!
//! Its doors: the shim's (`shim_door.rs`), the guest's over Xen (`xen.rs`), the local socket (`local.rs`). What it knows is plain
//! state in `zones.rs`, what programs may know of it in `facts.rs`, whether the GPU's memory is clean in `canary.rs`; processes are made
//! in `spawn/`, seen to their end in `workers.rs` (what it has in hand: `running.rs`, `process.rs`), started before they are needed in
//! `ahead.rs`, bounded by `cgroup.rs`. Whose turn it is on the device: `sharing/`.
//! The rule: it parses nothing of a guest but the hello and the fixed channel messages, and a guest can make nothing grow
//! beyond a limit of ours.

mod ahead;
mod canary;
pub mod cgroup;
mod code_cache;
pub mod ending;
mod environment;
mod exchange;
pub mod facts;
pub mod foreign;
mod hardware;
pub mod local;
mod nobody;
mod pace;
mod process;
pub mod refusal;
mod running;
pub mod shared;
mod shared_events;
mod shared_pools;
mod sharing;
pub mod shim_door;
pub mod socket;
pub mod spawn;
mod token;
#[expect(unsafe_code, reason = "lends the reactor a descriptor")]
pub mod watched;
pub mod worker_id;
mod worker_log;
pub mod workers;
pub mod xen;
pub mod zone_log;
pub mod zones;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use idm::arena::CHUNK_BYTES;
use idm::xen::PAGE_BYTES;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use vgpu_codes::Code;
use vgpu_config::{Config, DeviceKind as Configured, Proxy, WorkersAhead};
use vgpu_zone_api::guest::wire;
use vgpu_zone_api::shim::{DomainRef, Listing, NodeInfo, ZoneId};

use crate::device::DeviceKind;
use cgroup::Cgroups;
use code_cache::Keeper;
use facts::Description;
use refusal::Refusal;
use running::ArenaKind;
use spawn::{Namespaces, Probed, Spawner};
use worker_id::WorkerId;
use xen::Xen;
use zones::{Limits, Zones};

/// A zone whose guest has ended is kept for so long when no connection of its shim is open.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(60);
/// Looks for such zones in that time.
const ABANDONED_LOOKS: u32 = 4;

/// Where guests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Domains, made known by the shim.
    Xen,
    /// Processes of this machine, over a socket.
    Local,
}

/// The one of a driver domain, or of a local socket.
#[derive(Debug)]
pub struct Supervisor {
    device: DeviceKind,
    device_bytes: u64,
    /// Of each guest process.
    arena: ArenaKind,
    description: Description,
    started: Instant,
    zones: Mutex<Zones>,
    running: Mutex<HashMap<WorkerId, Arc<OwnedFd>>>,
    gaps: Mutex<BTreeSet<String>>,
    /// Workers that wait for a process. Locked before `zones`, where both are.
    ahead: Mutex<ahead::All>,
    /// Whether there are any.
    workers_ahead: bool,
    /// What is to be known of this node and keeps nobody from being served.
    warnings: Mutex<BTreeSet<String>>,
    /// Told when a worker has ended.
    changed: Notify,
    /// Told when a worker begins to have work, and when there are others than before.
    rung: Notify,
    spawner: Spawner,
    namespaces: Namespaces,
    /// `None`: nothing that is compiled is kept.
    code: Option<Keeper>,
    /// `None`: workers have no cgroup, which was found out at the start. Otherwise none is born without.
    cgroups: Option<Cgroups>,
    mode: Mode,
    workers_dir: PathBuf,
    /// Absent in the local mode.
    xen: Option<Arc<Xen>>,
    /// The guests' doors, each with what stops it. Changed with `zones` locked: a door is that of the zone which is there.
    doors: Mutex<HashMap<ZoneId, GuestDoor>>,
}

#[derive(Debug)]
struct GuestDoor {
    stop: watch::Sender<bool>,
    task: AbortHandle,
}

impl Supervisor {
    /// Prepares all that workers need. Says loudly what this machine cannot give them.
    ///
    /// # Errors
    /// No such device here, or no thread to be had.
    pub fn new(config: &Config, device: DeviceKind, mode: Mode) -> Result<Arc<Self>, Refusal> {
        let proxy = &config.proxy;
        let xen = match mode {
            Mode::Local => None,
            Mode::Xen => Some(Arc::new(Xen::reach(proxy.domain)?)),
        };
        let device_bytes = device_bytes(config, device);
        // Of `cuda` as many as are found, once that is known.
        let devices = if device == DeviceKind::Cuda { 1 } else { proxy.soft_devices };
        let root = rustix::process::geteuid().is_root();
        let mut gaps = BTreeSet::new();
        if !root {
            gaps.insert("workers run as this user, since gpu-proxy is not root".to_owned());
        }
        let memory_max = (proxy.worker_memory_max_mib << 20).saturating_add(match device {
            DeviceKind::Soft => device_bytes.saturating_mul(devices.into()),
            _ => 0,
        });
        let limits = Limits {
            device_bytes,
            devices,
            workers_per_zone: proxy.workers_per_zone_max as usize,
            pages_per_zone: proxy.mapped_per_zone_max_mib << 8,
            pages_max: proxy.mapped_max_mib << 8,
            channel_pages: channel_pages(),
            shared_max: shared_max(),
            uids: root.then_some((proxy.worker_uid_first, proxy.worker_uid_count)),
        };
        let no_worker = |error| {
            let text = format!("workers cannot be started on this machine: {error}");
            Refusal::new(Code::HostResource, text)
        };
        let uid = limits.uids.map(|(first, _)| first);
        let (cgroups, namespaces) = walls(memory_max, uid, &mut gaps).map_err(no_worker)?;
        let (code, no_code) = Keeper::wanted(proxy, device, namespaces);
        let supervisor = Arc::new(Self {
            device,
            device_bytes,
            arena: arena_kind(proxy, device, mode, idm::xen::domain::is_pv()),
            description: Description::default(),
            started: Instant::now(),
            zones: Mutex::new(Zones::new(limits)),
            running: Mutex::default(),
            gaps: Mutex::default(),
            warnings: Mutex::default(),
            ahead: Mutex::default(),
            workers_ahead: match proxy.workers_ahead {
                WorkersAhead::Auto => device == DeviceKind::Cuda,
                WorkersAhead::On => true,
                WorkersAhead::Off => false,
            },
            changed: Notify::new(),
            rung: Notify::new(),
            spawner: Spawner::start(namespaces).map_err(no_worker)?,
            namespaces,
            code,
            cgroups,
            mode,
            workers_dir: proxy.workers_dir.clone(),
            xen,
            doors: Mutex::default(),
        });
        if let Err(refusal) = supervisor.judge(gaps, Code::HostFailure) {
            supervisor.cgroups.iter().for_each(Cgroups::remove_all);
            return Err(refusal);
        }
        supervisor.warn(no_code);
        Ok(supervisor)
    }

    /// The node and its zones.
    #[must_use]
    pub fn listing(&self) -> Listing {
        let node = NodeInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            mode: if self.mode == Mode::Xen { "xen" } else { "local" }.into(),
            device: self.device.to_string(),
            devices: self.zones().devices(),
            device_bytes: self.device_bytes,
            wire_hash: format!("{:016x}", vgpu_api::WIRE_HASH),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            sandbox_gaps: lock(&self.gaps).iter().cloned().collect(),
            warnings: lock(&self.warnings).iter().cloned().collect(),
        };
        Listing { node, zones: self.zones().list() }
    }

    /// Takes a container's grant back and ends its workers, if `domain` has the zone.
    pub async fn revoke(&self, zone: ZoneId, domain: Option<DomainRef>, container: &str) {
        let revoked = self.zones().revoke(zone, domain, container);
        let Some(workers) = revoked else { return };
        self.end_until(&workers, || !self.zones().has_workers(zone, container)).await;
    }

    /// Ends a zone, if `domain` has it. Returns when its workers are reaped, so that its pages are unmapped.
    ///
    /// Several may come for one zone: whoever sees its end first forgets it, and the others leave what has its id by then alone.
    pub async fn release(&self, zone: ZoneId, domain: Option<DomainRef>) {
        let (workers, door) = {
            let mut zones = self.zones();
            let Some(workers) = zones.begin_release(zone, domain) else { return };
            let stop = |door: &GuestDoor| {
                door.stop.send_replace(true);
                door.task.clone()
            };
            (workers, lock(&self.doors).get(&zone).map(stop))
        };
        // The stream's pages are unmapped with its door.
        let closed = || door.as_ref().is_none_or(AbortHandle::is_finished);
        self.end_until(&workers, || closed() && self.zones().is_idle(zone)).await;
        let pod_uid = {
            let mut zones = self.zones();
            let pod_uid = zones.finish_release(zone);
            if pod_uid.is_some() {
                lock(&self.doors).remove(&zone);
            }
            pod_uid
        };
        if let (Some(pod_uid), Some(cgroups)) = (pod_uid, &self.cgroups) {
            cgroups.remove_pod(&pod_uid);
            log::info!("zone {zone}: released");
        }
    }

    /// Releases, for ever, zones whose guest has ended and whose shim has been away for as long as `after`: a shim that died before it
    /// said `Release`, or whose `Release` was lost, would otherwise keep their users and cgroups.
    pub async fn release_abandoned(self: Arc<Self>, after: Duration) {
        loop {
            tokio::time::sleep(after / ABANDONED_LOOKS).await;
            let abandoned = self.zones().begin_release_of_abandoned(after);
            for (zone, domain) in abandoned {
                log::warn!("zone {zone}: its guest has ended and its shim is gone");
                // Each by itself: one that cannot be released, since a worker of it hangs in the kernel, keeps nobody else's place.
                let supervisor = Arc::clone(&self);
                tokio::spawn(async move { supervisor.release(zone, domain).await });
            }
        }
    }

    /// Ends all zones, and what was made for them, as far as that can be done `within` so long.
    pub async fn release_all(self: &Arc<Self>, within: Duration) {
        let mut releases = JoinSet::new();
        for zone in self.zones().list() {
            let supervisor = Arc::clone(self);
            releases.spawn(async move { supervisor.release(zone.zone, zone.domain).await });
        }
        let all = async { while releases.join_next().await.is_some() {} };
        if tokio::time::timeout(within, all).await.is_err() {
            log::warn!("{} zones are not released within {} s", releases.len(), within.as_secs());
        }
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove_all();
        }
    }

    /// Makes a zone known; over Xen its guest's door is opened.
    fn register(self: &Arc<Self>, zone: ZoneId, pod_uid: &str, domain: DomainRef) -> Result<(), Refusal> {
        let mut zones = self.zones();
        if zones.register(zone, pod_uid, Some(domain))? {
            log::info!("zone {zone}: registered for domain {} ({})", domain.domid, domain.uuid);
            if let Some(xen) = &self.xen {
                let (stop, stopped) = watch::channel(false);
                let serving = xen::serve(Arc::clone(self), Arc::clone(xen), zone, domain, stopped);
                let task = tokio::spawn(serving).abort_handle();
                lock(&self.doors).insert(zone, GuestDoor { stop, task });
            }
        }
        Ok(())
    }

    /// Ends workers until `done`. A worker that was just being born is found in the next round.
    async fn end_until(&self, workers: &[WorkerId], done: impl Fn() -> bool) {
        const ROUND: Duration = Duration::from_millis(20);
        loop {
            let changed = self.changed.notified();
            if done() {
                return;
            }
            self.end_workers(workers).await;
            let _ = tokio::time::timeout(ROUND, changed).await;
        }
    }

    fn zones(&self) -> MutexGuard<'_, Zones> {
        lock(&self.zones)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<WorkerId, Arc<OwnedFd>>> {
        lock(&self.running)
    }

    /// What the sandbox of workers lacks: locally it is said, once each. Over Xen, where guests are strangers, nothing is served then.
    fn judge(&self, gaps: impl IntoIterator<Item = String>, code: Code) -> Result<(), Refusal> {
        let gaps: Vec<String> = gaps.into_iter().collect();
        if self.mode == Mode::Xen && !gaps.is_empty() {
            let text = format!("the sandbox has a gap, which only --local may have: {}", gaps.join("; "));
            return Err(Refusal::new(code, text));
        }
        for gap in gaps {
            if lock(&self.gaps).insert(gap.clone()) {
                log::warn!("the sandbox has a gap: {gap}");
            }
        }
        Ok(())
    }

    /// Says loudly, once each, what is to be known.
    fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            if lock(&self.warnings).insert(warning.clone()) {
                log::warn!("{warning}");
            }
        }
    }
}

/// What arena a guest process gets. Over Xen it is no longer than what the arenas of a zone may have together: a program that asks for more is
/// told so before it has touched any of it. NVIDIA's driver pins the pages of an arena, which in a PV domain must not be a guest's: its
/// processes have none there. The other devices pin nothing.
fn arena_kind(proxy: &Proxy, device: DeviceKind, mode: Mode, is_pv: bool) -> ArenaKind {
    let bytes = proxy.arena_max_mib << 20;
    let of_zone = zones::pages_of_arenas(proxy.mapped_per_zone_max_mib << 8) * PAGE_BYTES as u64;
    let granted = bytes.min(of_zone) / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
    match mode {
        Mode::Local if bytes > 0 => ArenaKind::Memory(bytes),
        Mode::Xen if granted > 0 && !(is_pv && device == DeviceKind::Cuda) => ArenaKind::Granted(granted),
        Mode::Local | Mode::Xen => ArenaKind::Nothing,
    }
}

/// Finds out what this machine gives to workers. What is missing is added to `gaps`.
fn walls(
    memory_max_bytes: u64,
    uid: Option<u32>,
    gaps: &mut BTreeSet<String>,
) -> io::Result<(Option<Cgroups>, Namespaces)> {
    /// The pod of a worker that is made to try it out.
    const PROBE: &str = "probe";
    let prepared = Cgroups::prepare(memory_max_bytes).and_then(|(cgroups, missing)| {
        let worker = cgroups.worker(PROBE, 0)?;
        Ok((cgroups, worker, missing))
    });
    let prepared = prepared.map_err(|error| gaps.insert(format!("workers have no cgroup: {error}"))).ok();
    let folder = prepared.as_ref().map(|(_, worker, _)| worker.open()).transpose()?;
    let Probed { namespaces, cgroup, gaps: lacks } = spawn::probe(uid, folder)?;
    gaps.extend(lacks);
    let Some((cgroups, worker, missing)) = prepared else { return Ok((None, namespaces)) };
    drop(worker);
    cgroups.remove_pod(PROBE);
    if !cgroup {
        cgroups.remove_all();
        return Ok((None, namespaces));
    }
    gaps.extend(missing);
    Ok((Some(cgroups), namespaces))
}

/// A lock whose holder panicked is taken all the same: no state here is left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `auto` means here, and whether the chosen device can be.
///
/// # Errors
/// NVIDIA's driver was asked for and is not here.
pub fn choose_device(configured: Configured) -> Result<DeviceKind, Refusal> {
    /// Made by NVIDIA's kernel driver when it is loaded.
    const DRIVER: &str = "/proc/driver/nvidia/version";
    choose(configured, Path::new(DRIVER))
}

fn choose(configured: Configured, sign_of_driver: &Path) -> Result<DeviceKind, Refusal> {
    let driver = sign_of_driver.exists();
    match configured {
        Configured::Cuda if !driver => Err(Refusal::new(
            Code::NoDevice,
            format!(
                "NVIDIA's driver is not loaded ({} is missing): load it, or use --device soft",
                sign_of_driver.display()
            ),
        )),
        Configured::Cuda => Ok(DeviceKind::Cuda),
        Configured::Auto if driver => Ok(DeviceKind::Cuda),
        Configured::Auto | Configured::Soft => Ok(DeviceKind::Soft),
        Configured::Null => Ok(DeviceKind::Null),
    }
}

/// Descriptors for what workers of all zones share: a part of ours, and no more than many zones need.
fn shared_max() -> usize {
    let ours = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(ours / 4).unwrap_or(usize::MAX).min(8 * shared::PER_ZONE_MAX)
}

/// Pages (4 KiB) of every channel's region.
fn channel_pages() -> u64 {
    // The sizes are constants, which a test of idm's holds.
    wire::region().region_bytes().expect("the default sizes make a channel").div_ceil(PAGE_BYTES) as u64
}

/// What one zone may get at most. The supervisor holds no driver: what the hardware has, a worker finds out and shows.
fn device_bytes(config: &Config, device: DeviceKind) -> u64 {
    match device {
        DeviceKind::Soft | DeviceKind::Null => config.proxy.soft_memory_mib << 20,
        DeviceKind::Cuda => 1 << 47,
    }
}

#[cfg(test)]
mod tests;
