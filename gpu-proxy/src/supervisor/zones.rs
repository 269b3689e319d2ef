//! Zones, their grants and their workers, as plain state: no process is touched here. The rule: everything that a guest can make
//! grow has a limit of ours, and what it would exceed is refused.

mod devices;
mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use vgpu_api::{CuError, CuResult};
use vgpu_codes::Code;
use vgpu_zone_api::guest::facts::DEVICES_MAX;
use vgpu_zone_api::shim::{DomainRef, GrantInfo, WorkerInfo, ZoneId, ZoneInfo, ZoneState};

use super::shared::Shared;
use super::zone_log::ZoneLog;
use crate::device::DeviceKind;
use crate::exchange::{Answer, Question};
use crate::shared_page::SharedPage;
use crate::worker::quota::{Grant, SLOTS};
use crate::worker::turn::{Ruled, now_ns};
use devices::{ContainerGrant, DeviceGrant};
pub use shares::Sharer;

/// Why something was not done: a code for machines, a sentence for people.
#[derive(Debug, thiserror::Error)]
#[error("{text} ({code})")]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// The sentence.
    pub text: String,
}

impl Refusal {
    /// With its sentence.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// A worker's number: never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// What limits all zones; from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A device's memory in bytes: the grant of who is given all.
    pub device_bytes: u64,
    /// How many devices there are.
    pub devices: u32,
    /// Workers of a zone at once.
    pub workers_per_zone: usize,
    /// Pages (4 KiB) of a guest mapped at once.
    pub pages_per_zone: u64,
    /// Of all guests: what the domain can map is one for all of them.
    pub pages_max: u64,
    /// Things that workers of all zones share, each of which costs a descriptor.
    pub shared_max: usize,
    /// Pages of a channel: so much is kept for each zone that has none yet.
    pub channel_pages: u64,
    /// Users that workers run as, one a zone: first and number. `None` where the supervisor is not root.
    pub uids: Option<(u32, u32)>,
}

/// An open connection at the shim's door.
#[derive(Debug, Default)]
pub struct Connection {
    /// Told when a zone that was registered on it was ended by somebody else.
    pub lost: Notify,
}

/// All zones.
#[derive(Debug)]
pub struct Zones {
    limits: Limits,
    by_id: BTreeMap<ZoneId, Zone>,
    /// Users of workers of no zone.
    lent_uids: BTreeSet<u32>,
    next_worker: u64,
    next_grant: u64,
}

#[derive(Debug)]
struct Zone {
    pod_uid: String,
    domain: Option<DomainRef>,
    state: ZoneState,
    uid: Option<u32>,
    log: Arc<ZoneLog>,
    /// Being released: nothing starts in it any more.
    ending: bool,
    /// Connections on which its shim registered it.
    shims: Vec<Weak<Connection>>,
    /// When its guest was first seen to have ended with no such connection open.
    abandoned: Option<Instant>,
    grants: BTreeMap<String, ContainerGrant>,
    workers: BTreeMap<WorkerId, Worker>,
    shared: Shared,
}

#[derive(Debug)]
struct Worker {
    pid: Option<u32>,
    container: String,
    guest_pid: u32,
    /// Of its channel.
    pages: u64,
    /// Of its arena.
    chunk_pages: u64,
    slot: usize,
    /// Of each of its devices, whose numbers on the node these are.
    grants: Vec<Grant>,
    numbers: Vec<u32>,
    ruled: Ruled,
    since: Instant,
    /// Nobody's yet: it waits for the container's next process.
    ahead: bool,
    ending: Ending,
}

/// Whether a worker was told to end: it still has its memory and its place until it is reaped.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// It was told to.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A place for a worker that is about to be born. Give it back with [`Zones::worker_ended`].
#[derive(Debug)]
pub struct Place {
    /// Its number.
    pub worker: WorkerId,
    /// The user it runs as.
    pub uid: Option<u32>,
    /// Names its cgroup.
    pub pod_uid: String,
    /// Where lines of it go.
    pub log: Arc<ZoneLog>,
    /// Its devices, by their numbers on the node, each with the page of the container's grant. One at least.
    pub devices: Vec<(u32, Arc<SharedPage>)>,
    /// Its slot in all of these pages.
    pub slot: usize,
    /// Its page of turns.
    pub turns: Arc<SharedPage>,
    /// The grant of each in bytes.
    pub bytes: u64,
    /// For who tells it to end.
    pub ending: Ending,
}

/// What a container may use of one of its devices, and uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The device's number on the node.
    pub device: u32,
    /// The grant in bytes; the limit of all where none was set.
    pub limit_bytes: u64,
    /// What its workers say they use, together.
    pub used_bytes: u64,
    /// Each worker's guest process, as the guest calls it, and its bytes.
    pub processes: Vec<(u32, u64)>,
}

impl Zones {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, by_id: BTreeMap::new(), lent_uids: BTreeSet::new(), next_worker: 1, next_grant: 1 }
    }

    /// Makes a zone known. Whether it is new.
    ///
    /// # Errors
    /// Another domain has it, its uid is no uid, or there is no user left for it.
    pub fn register(
        &mut self,
        id: ZoneId,
        pod_uid: &str,
        domain: Option<DomainRef>,
    ) -> Result<bool, Refusal> {
        if let Some(zone) = self.by_id.get_mut(&id) {
            if zone.ending {
                return Err(Refusal::new(Code::ZoneConflict, format!("zone {id} is being released")));
            }
            if zone.domain == domain {
                zone.abandoned = None;
                return Ok(false);
            }
            return Err(Refusal::new(
                Code::ZoneConflict,
                format!("zone {id} is registered for another domain"),
            ));
        }
        let taken = domain.and_then(|domain| {
            self.by_id.iter().find(|(_, zone)| zone.domain.is_some_and(|other| other.domid == domain.domid))
        });
        if let Some((other, _)) = taken {
            let text = format!("the domain of zone {id} is registered for zone {other}");
            return Err(Refusal::new(Code::ZoneConflict, text));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !(1..=64).contains(&pod_uid.len()) || !pod_uid.bytes().all(plain) {
            return Err(Refusal::new(
                Code::SpecInvalid,
                "the pod's uid is not 1 to 64 letters, digits or `-`",
            ));
        }
        let uid = self.free_uid()?;
        let zone = Zone {
            pod_uid: pod_uid.to_owned(),
            domain,
            state: ZoneState::Waiting,
            uid,
            log: Arc::new(ZoneLog::new(id)),
            ending: false,
            shims: Vec::new(),
            abandoned: None,
            grants: BTreeMap::new(),
            workers: BTreeMap::new(),
            shared: Shared::default(),
        };
        self.by_id.insert(id, zone);
        Ok(true)
    }

    /// A user for a worker of no zone: no zone gets it until [`Zones::give_uid_back`]. `None` where all run as we do.
    ///
    /// # Errors
    /// There is none left.
    pub fn lend_uid(&mut self) -> Result<Option<u32>, Refusal> {
        let uid = self.free_uid()?;
        self.lent_uids.extend(uid);
        Ok(uid)
    }

    /// Its worker has ended.
    pub fn give_uid_back(&mut self, uid: Option<u32>) {
        uid.iter().for_each(|uid| {
            self.lent_uids.remove(uid);
        });
    }

    fn free_uid(&self) -> Result<Option<u32>, Refusal> {
        let Some((first, count)) = self.limits.uids else { return Ok(None) };
        let used = |uid: &u32| {
            self.lent_uids.contains(uid) || self.by_id.values().any(|zone| zone.uid == Some(*uid))
        };
        let free = (first..first.saturating_add(count)).find(|uid| !used(uid));
        free.map(Some)
            .ok_or_else(|| Refusal::new(Code::LimitReached, "all proxy.worker_uid_count users are in use"))
    }

    /// Gives a container so many devices, memory and share of each, or changes what it was given.
    ///
    /// # Errors
    /// No such zone, more than there is, or another number of devices while it has a worker.
    pub fn grant(
        &mut self,
        id: ZoneId,
        container: &str,
        devices: u32,
        bytes: Option<u64>,
        share: Option<u32>,
    ) -> Result<(), Refusal> {
        let limit = self.limits.device_bytes;
        if !(1..=self.limits.devices).contains(&devices) {
            let text = format!("{devices} devices asked for, the node has {}", self.limits.devices);
            return Err(Refusal::new(Code::NoDevice, text));
        }
        if bytes.is_some_and(|bytes| bytes > limit) {
            let text = format!("{} bytes asked for, the device has {limit}", bytes.unwrap_or_default());
            return Err(Refusal::new(Code::NoDevice, text));
        }
        let chosen = self.choose(id, container, devices as usize, share)?;
        let has_workers = self.has_workers(id, container);
        let number = self.next_grant;
        let zone = self.living(id)?;
        let limit = bytes.unwrap_or(limit);
        if let Some(old) = zone.grants.get_mut(container) {
            if old.devices.len() == chosen.len() {
                old.devices.iter().for_each(|device| device.grant.set_limit(limit));
                (old.bytes, old.share) = (bytes, share);
                return Ok(());
            }
            if has_workers {
                let text = format!("container {container} has a worker with {} devices", old.devices.len());
                return Err(Refusal::new(Code::ZoneConflict, text));
            }
        }
        let entry = ContainerGrant::new(number, &chosen, limit, bytes, share)?;
        zone.grants.insert(container.to_owned(), entry);
        self.next_grant += 1;
        Ok(())
    }

    /// How many devices there are.
    #[must_use]
    pub fn devices(&self) -> u32 {
        self.limits.devices
    }

    /// How many there are, once that is known.
    pub fn set_devices(&mut self, devices: usize) {
        // As many as a container can be told of.
        self.limits.devices = u32::try_from(devices.clamp(1, DEVICES_MAX)).unwrap_or(1);
    }

    /// Takes a container's grant back. Its workers, which are to be ended; `None` if `domain` does not have the zone.
    pub fn revoke(
        &mut self,
        id: ZoneId,
        domain: Option<DomainRef>,
        container: &str,
    ) -> Option<Vec<WorkerId>> {
        let zone = self.had_by(id, domain)?;
        zone.grants.remove(container);
        let its_own = |(id, worker): (&WorkerId, &Worker)| (worker.container == container).then_some(*id);
        Some(zone.workers.iter().filter_map(its_own).collect())
    }

    /// Lets nothing start in the zone any more. Its workers, which are to be ended; `None` if `domain` does not have the zone.
    pub fn begin_release(&mut self, id: ZoneId, domain: Option<DomainRef>) -> Option<Vec<WorkerId>> {
        let zone = self.had_by(id, domain)?;
        zone.ending = true;
        Some(zone.workers.keys().copied().collect())
    }

    /// The zone, if `domain` has it (`None`: the local zone's): the pod's next sandbox may, when the last one's is cleaned up.
    fn had_by(&mut self, id: ZoneId, domain: Option<DomainRef>) -> Option<&mut Zone> {
        self.by_id.get_mut(&id).filter(|zone| zone.domain == domain)
    }

    /// The zone's shim is there as long as `connection` is.
    pub fn hold(&mut self, id: ZoneId, connection: &Arc<Connection>) {
        let Some(zone) = self.by_id.get_mut(&id) else { return };
        zone.shims.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&Arc::downgrade(connection)));
        zone.shims.push(Arc::downgrade(connection));
    }

    /// The zone's end is nothing that `connection` has to be told.
    pub fn let_go(&mut self, id: ZoneId, connection: &Arc<Connection>) {
        let Some(zone) = self.by_id.get_mut(&id) else { return };
        zone.shims.retain(|other| !other.ptr_eq(&Arc::downgrade(connection)));
    }

    /// Lets nothing start any more in zones whose guest has ended and whose shim was not there in any look since `after`. Those zones,
    /// and whose they are.
    pub fn begin_release_of_abandoned(&mut self, after: Duration) -> Vec<(ZoneId, Option<DomainRef>)> {
        let mut abandoned = Vec::new();
        for (id, zone) in &mut self.by_id {
            let held = zone.shims.iter().any(|shim| shim.strong_count() > 0);
            if zone.state != ZoneState::Ended || held || zone.ending {
                zone.abandoned = None;
            } else if zone.abandoned.get_or_insert_with(Instant::now).elapsed() >= after {
                zone.ending = true;
                abandoned.push((*id, zone.domain));
            }
        }
        abandoned
    }

    /// Forgets a zone that is being released and has no workers left. Its pod's uid; `None` while there are some, or if there is no such
    /// zone (any more).
    pub fn finish_release(&mut self, id: ZoneId) -> Option<String> {
        let zone = self.by_id.get(&id)?;
        if !zone.ending || !zone.workers.is_empty() {
            return None;
        }
        let zone = self.by_id.remove(&id)?;
        zone.shims.iter().filter_map(Weak::upgrade).for_each(|shim| shim.lost.notify_one());
        Some(zone.pod_uid)
    }

    /// Whether the zone that is being released has no workers, or is not there any more: one that is not being released came after it.
    #[must_use]
    pub fn is_idle(&self, id: ZoneId) -> bool {
        self.by_id.get(&id).is_none_or(|zone| !zone.ending || zone.workers.is_empty())
    }

    /// Whether a container (or the whole zone for `None`) has no workers.
    #[must_use]
    pub fn has_workers(&self, id: ZoneId, container: &str) -> bool {
        self.by_id
            .get(&id)
            .is_some_and(|zone| zone.workers.values().any(|worker| worker.container == container))
    }

    /// The zone's log, if there is such a zone.
    #[must_use]
    pub fn log(&self, id: ZoneId) -> Option<Arc<ZoneLog>> {
        self.by_id.get(&id).map(|zone| Arc::clone(&zone.log))
    }

    /// Notes where the zone's guest stands.
    pub fn set_state(&mut self, id: ZoneId, state: ZoneState) {
        if let Some(zone) = self.by_id.get_mut(&id) {
            zone.state = state;
        }
    }

    /// A place for a worker of `container` that will map `pages` pages of the guest.
    ///
    /// # Errors
    /// No grant, or a limit of the zone is reached.
    pub fn reserve(
        &mut self,
        id: ZoneId,
        container: &str,
        guest_pid: u32,
        pages: u64,
    ) -> Result<Place, Refusal> {
        let Limits { workers_per_zone, device_bytes, .. } = self.limits;
        let worker = WorkerId(self.next_worker);
        let zone = self.living(id)?;
        let limit = |text: String| Refusal::new(Code::LimitReached, text);
        if zone.workers.len() >= workers_per_zone {
            return Err(limit(format!(
                "zone {id} has {workers_per_zone} workers, which is proxy.workers_per_zone_max"
            )));
        }
        self.check_pages(id, pages)?;
        let turns = page("turns")?;
        let ruled = Ruled::new(Arc::clone(&turns));
        let zone = self.living(id)?;
        let entry = zone.grants.get_mut(container).ok_or_else(|| not_granted(id, container))?;
        let slot = entry.slots.iter().position(|used| !used);
        let slot = slot.ok_or_else(|| limit(format!("container {container} has {SLOTS} workers")))?;
        entry.slots[slot] = true;
        let place = Place {
            worker,
            uid: zone.uid,
            pod_uid: zone.pod_uid.clone(),
            log: Arc::clone(&zone.log),
            devices: entry.devices.iter().map(DeviceGrant::shared).collect(),
            slot,
            turns,
            bytes: entry.bytes.unwrap_or(device_bytes),
            ending: Ending::default(),
        };
        let ending = place.ending.clone();
        let (grants, numbers, since) = (entry.grants(), entry.numbers(), Instant::now());
        let container = container.to_owned();
        let (pid, ahead, chunk_pages) = (None, false, 0);
        let new = Worker {
            pid,
            container,
            guest_pid,
            pages,
            chunk_pages,
            slot,
            grants,
            numbers,
            ruled,
            since,
            ahead,
            ending,
        };
        zone.workers.insert(worker, new);
        self.next_worker += 1;
        Ok(place)
    }

    /// A place for a worker that no process of `container` has asked for yet, and that maps nothing. None beside another worker of the
    /// container: its context would take of the grant what they are told that they have. None where a process could not be served, or
    /// will not come.
    pub fn reserve_ahead(&mut self, id: ZoneId, container: &str) -> Option<Place> {
        let ended = self.by_id.get(&id).is_none_or(|zone| zone.state == ZoneState::Ended);
        if ended || self.has_workers(id, container) {
            return None;
        }
        let place = self.reserve(id, container, 0, 0).ok()?;
        let placed = self.by_id.get_mut(&id).and_then(|zone| zone.workers.get_mut(&place.worker));
        placed.into_iter().for_each(|worker| worker.ahead = true);
        Some(place)
    }

    /// The worker that was started ahead is `guest_pid`'s from now on, and will map `pages` pages of the guest.
    ///
    /// # Errors
    /// It has ended, its grant was taken back, or a limit is reached.
    pub fn adopt(&mut self, id: ZoneId, worker: WorkerId, guest_pid: u32, pages: u64) -> Result<(), Refusal> {
        self.check_pages(id, pages)?;
        let zone = self.living(id)?;
        let waiting = zone.workers.get_mut(&worker).filter(|worker| worker.ahead);
        let waiting =
            waiting.ok_or_else(|| Refusal::new(Code::WorkerFailed, "a worker that waited has ended"))?;
        // Else it was taken back meanwhile.
        let granted = zone.grants.get(&waiting.container).is_some_and(|entry| entry.is_of(&waiting.grants));
        if !granted {
            return Err(not_granted(id, &waiting.container));
        }
        (waiting.ahead, waiting.guest_pid, waiting.pages) = (false, guest_pid, pages);
        Ok(())
    }

    /// Whether the zone has as many workers as it may have.
    #[must_use]
    pub fn is_full(&self, id: ZoneId) -> bool {
        self.by_id.get(&id).is_some_and(|zone| zone.workers.len() >= self.limits.workers_per_zone)
    }

    /// The zone's workers that were told to end and are not reaped yet.
    #[must_use]
    pub fn ending(&self, id: ZoneId) -> BTreeSet<WorkerId> {
        let workers = self.by_id.get(&id).into_iter().flat_map(|zone| &zone.workers);
        workers.filter(|(_, worker)| worker.ending.has_begun()).map(|(id, _)| *id).collect()
    }

    /// The worker will map so many pages more, of its arena.
    ///
    /// # Errors
    /// It has ended, or a limit is reached.
    pub fn take_chunk(&mut self, id: ZoneId, worker: WorkerId, pages: u64) -> Result<(), Refusal> {
        self.check_pages(id, pages)?;
        let most = pages_of_arenas(self.limits.pages_per_zone);
        let zone = self.living(id)?;
        let mapped: u64 = zone.workers.values().map(|worker| worker.chunk_pages).sum();
        if mapped.saturating_add(pages) > most {
            let text =
                format!("arenas of zone {id} would be more than half of proxy.mapped_per_zone_max_mib");
            return Err(Refusal::new(Code::LimitReached, text));
        }
        let ended = || Refusal::new(Code::WorkerFailed, "the worker of an arena has ended");
        zone.workers.get_mut(&worker).ok_or_else(ended)?.chunk_pages += pages;
        Ok(())
    }

    /// What [`Zones::take_chunk`] counted is not mapped.
    pub fn give_chunk(&mut self, id: ZoneId, worker: WorkerId, pages: u64) {
        if let Some(worker) = self.by_id.get_mut(&id).and_then(|zone| zone.workers.get_mut(&worker)) {
            worker.chunk_pages = worker.chunk_pages.saturating_sub(pages);
        }
    }

    /// Whether the zone may map so many pages more.
    fn check_pages(&mut self, id: ZoneId, pages: u64) -> Result<(), Refusal> {
        let (room, pages_per_zone) = (self.room_for(id), self.limits.pages_per_zone);
        let limit = |text: String| Refusal::new(Code::LimitReached, text);
        if self.living(id)?.mapped_pages().saturating_add(pages) > pages_per_zone {
            return Err(limit(format!("zone {id} would map more than proxy.mapped_per_zone_max_mib")));
        }
        if pages > room {
            let text = "all zones would map more than proxy.mapped_max_mib, room for each one's first process included";
            return Err(limit(text.into()));
        }
        Ok(())
    }

    /// Pages that may be mapped for the zone beside what is mapped for all. From its second channel on it leaves room for the first one
    /// of each other zone.
    fn room_for(&self, id: ZoneId) -> u64 {
        let is_first = self.by_id.get(&id).is_none_or(Zone::has_no_channel);
        let waits = |(other, zone): &(&ZoneId, &Zone)| **other != id && !zone.ending && zone.has_no_channel();
        let waiting = if is_first { 0 } else { self.by_id.iter().filter(waits).count() as u64 };
        let mapped: u64 = self.by_id.values().map(Zone::mapped_pages).sum();
        let kept = waiting.saturating_mul(self.limits.channel_pages);
        self.limits.pages_max.saturating_sub(mapped).saturating_sub(kept)
    }

    /// Notes the process of a worker.
    pub fn worker_born(&mut self, id: ZoneId, worker: WorkerId, pid: u32) {
        if let Some(worker) = self.by_id.get_mut(&id).and_then(|zone| zone.workers.get_mut(&worker)) {
            worker.pid = Some(pid);
        }
    }

    /// The container whose process the worker still waits for.
    #[must_use]
    pub fn is_ahead_of(&self, id: ZoneId, worker: WorkerId) -> Option<&str> {
        let worker = self.by_id.get(&id)?.workers.get(&worker)?;
        worker.ahead.then_some(&worker.container)
    }

    /// The worker's process is reaped: its memory, slot and pages are free again.
    pub fn worker_ended(&mut self, id: ZoneId, worker: WorkerId) {
        let Some(zone) = self.by_id.get_mut(&id) else { return };
        let Some(ended) = zone.workers.remove(&worker) else { return };
        // What others still have of it counts before its slots say nothing any more.
        let Zone { workers, shared, .. } = zone;
        shared.ended(worker, |user, device| workers.get(&user)?.grant(device));
        ended.grants.iter().for_each(|grant| grant.clear(ended.slot));
        // A grant that was revoked and given anew has pages and slots of its own: the old slot means nothing there.
        let same = |entry: &&mut ContainerGrant| entry.is_of(&ended.grants);
        if let Some(entry) = zone.grants.get_mut(&ended.container).filter(|entry| same(entry)) {
            entry.slots[ended.slot] = false;
        }
    }

    /// Answers what a worker asks about memory that its zone shares. `kind`: what it drives.
    ///
    /// # Errors
    /// As [`Shared::answer`]; 46 for a worker that has ended.
    pub fn exchange(
        &mut self,
        id: ZoneId,
        worker: WorkerId,
        kind: DeviceKind,
        asked: (Question, Option<OwnedFd>),
    ) -> CuResult<(Answer, Option<OwnedFd>)> {
        let Limits { device_bytes, shared_max, .. } = self.limits;
        let there: usize = self.by_id.values().map(|zone| zone.shared.descriptors()).sum();
        let zone = self.by_id.get_mut(&id).ok_or(CuError::DEVICE_UNAVAILABLE)?;
        let Zone { workers, shared, .. } = zone;
        let devices = &workers.get(&worker).ok_or(CuError::DEVICE_UNAVAILABLE)?.numbers[..];
        let bounds = ((kind, devices), device_bytes, shared_max.saturating_sub(there));
        shared.answer(worker, asked, bounds, |user, device| workers.get(&user)?.grant(device))
    }

    /// A worker's process is reaped, and shares nothing any more. It goes on counting.
    pub fn ended_sharing(&mut self, id: ZoneId, worker: WorkerId) {
        let Some(Zone { workers, shared, .. }) = self.by_id.get_mut(&id) else { return };
        shared.ended(worker, |user, device| workers.get(&user)?.grant(device));
    }

    /// Descriptors of what the zone shares no more: to be closed once this is unlocked.
    pub fn take_gone(&mut self, id: ZoneId) -> Vec<OwnedFd> {
        self.by_id.get_mut(&id).map(|zone| zone.shared.take_gone()).unwrap_or_default()
    }

    /// What there is.
    #[must_use]
    pub fn list(&self) -> Vec<ZoneInfo> {
        self.by_id.iter().map(|(id, zone)| zone.info(*id)).collect()
    }

    /// The zone, if anything may be started in it.
    fn living(&mut self, id: ZoneId) -> Result<&mut Zone, Refusal> {
        match self.by_id.get_mut(&id) {
            Some(zone) if !zone.ending => Ok(zone),
            Some(_) => Err(Refusal::new(Code::PeerGone, format!("zone {id} is being released"))),
            None => Err(Refusal::new(Code::NoSuchTask, format!("zone {id} is not registered"))),
        }
    }
}

fn page(what: &str) -> Result<Arc<SharedPage>, Refusal> {
    let failed = |error: io::Error| Refusal::new(Code::HostResource, format!("no page for {what}: {error}"));
    SharedPage::create().map(Arc::new).map_err(failed)
}

/// Of the pages that a zone may map, those for arenas: half. Its processes that are still to come need channels.
#[must_use]
pub fn pages_of_arenas(pages_per_zone: u64) -> u64 {
    pages_per_zone / 2
}

fn not_granted(zone: ZoneId, container: &str) -> Refusal {
    Refusal::new(Code::NotGranted, format!("container {container} of zone {zone} has no GPU"))
}

impl Zone {
    fn has_no_channel(&self) -> bool {
        self.workers.values().all(|worker| worker.ahead)
    }

    fn mapped_pages(&self) -> u64 {
        self.workers.values().map(|worker| worker.pages + worker.chunk_pages).sum()
    }

    fn info(&self, id: ZoneId) -> ZoneInfo {
        let workers: Vec<WorkerInfo> = self.workers.values().map(Worker::info).collect();
        let left_bytes = self.grants.values().map(ContainerGrant::left_bytes).sum();
        ZoneInfo {
            zone: id,
            pod_uid: self.pod_uid.clone(),
            domain: self.domain,
            state: self.state,
            grants: self
                .grants
                .iter()
                .map(|(container, grant)| GrantInfo {
                    container: container.clone(),
                    device: grant.numbers().iter().map(u32::to_string).collect::<Vec<_>>().join(","),
                    bytes: grant.bytes,
                    share: grant.share,
                })
                .collect(),
            device_bytes: workers
                .iter()
                .fold(left_bytes, |sum, worker| worker.device_bytes.saturating_add(sum)),
            mapped_pages: self.mapped_pages(),
            workers,
        }
    }
}

impl Worker {
    /// That of a device of the node; `None` where it has no such.
    fn grant(&self, device: u32) -> Option<Grant> {
        let place = self.numbers.iter().position(|number| *number == device)?;
        self.grants.get(place).cloned()
    }

    /// Of all its devices.
    fn used_bytes(&self) -> u64 {
        self.grants.iter().fold(0, |sum, grant| sum.saturating_add(grant.used_bytes(self.slot)))
    }

    fn info(&self) -> WorkerInfo {
        WorkerInfo {
            pid: self.pid.unwrap_or(0),
            container: self.container.clone(),
            guest_pid: self.guest_pid,
            device_bytes: self.used_bytes(),
            uptime_seconds: self.since.elapsed().as_secs(),
            ahead: self.ahead,
            used: self.ruled.said(false, now_ns()).used,
        }
    }
}

#[cfg(test)]
mod tests;
