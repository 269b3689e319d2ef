//! Places for workers: taken before one is born, given back when it is reaped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use vgpu_api::{CuError, CuResult};
use vgpu_codes::Code;
use vgpu_zone_api::shim::{WorkerInfo, ZoneId, ZoneState};

use super::devices::{ContainerGrant, DeviceGrant};
use super::{Limits, Zone, Zones, not_granted, page};
use crate::device::DeviceKind;
use crate::exchange::{Answer, Question};
use crate::shared_page::SharedPage;
use crate::supervisor::ending::Ending;
use crate::supervisor::foreign::Foreign;
use crate::supervisor::pace::Pace;
use crate::supervisor::refusal::Refusal;
use crate::supervisor::shared::Given;
use crate::supervisor::worker_id::WorkerId;
use crate::supervisor::zone_log::ZoneLog;
use crate::worker::quota::{Grant, SLOTS};
use crate::worker::turn::{Ruled, now_ns};

#[derive(Debug)]
pub(super) struct Worker {
    pub pid: Option<u32>,
    pub container: String,
    pub guest_pid: u32,
    /// Of its channel.
    pub pages: u64,
    /// Of its arena.
    pub chunk_pages: u64,
    pub slot: usize,
    /// Of each of its devices, whose numbers on the node these are.
    pub grants: Vec<Grant>,
    pub numbers: Vec<u32>,
    pub ruled: Ruled,
    pub since: Instant,
    /// Nobody's yet: it waits for the container's next process.
    pub ahead: bool,
    pub ending: Ending,
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

impl Zones {
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

    /// The worker's process is reaped, and shares nothing any more: its memory, slot and pages are free again.
    pub fn worker_ended(&mut self, id: ZoneId, worker: WorkerId) {
        let Some(zone) = self.by_id.get_mut(&id) else { return };
        let Some(ended) = zone.workers.remove(&worker) else { return };
        ended.grants.iter().for_each(|grant| grant.clear(ended.slot));
        // A grant that was revoked and given anew has pages and slots of its own: the old slot means nothing there.
        let same = |entry: &&mut ContainerGrant| entry.is_of(&ended.grants);
        if let Some(entry) = zone.grants.get_mut(&ended.container).filter(|entry| same(entry)) {
            entry.slots[ended.slot] = false;
        }
    }

    /// At what pace workers of a zone are answered, if there is such a zone.
    #[must_use]
    pub fn pace_of_exchanges(&self, id: ZoneId) -> Option<Arc<Pace>> {
        self.by_id.get(&id).map(|zone| Arc::clone(&zone.exchanges))
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
        asked: (Question, Option<Given>),
    ) -> CuResult<(Answer, Option<Foreign>)> {
        let Limits { device_bytes, shared_max, .. } = self.limits;
        let there: usize = self.by_id.values().map(|zone| zone.shared.descriptors()).sum();
        let zone = self.by_id.get_mut(&id).ok_or(CuError::DEVICE_UNAVAILABLE)?;
        let Zone { workers, shared, .. } = zone;
        let devices = &workers.get(&worker).ok_or(CuError::DEVICE_UNAVAILABLE)?.numbers[..];
        let bounds = ((kind, devices), device_bytes, shared_max.saturating_sub(there));
        shared.answer(worker, asked, bounds, |user, device| workers.get(&user)?.grant(device))
    }

    /// A worker's process is reaped, and shares nothing any more. It goes on counting until [`Zones::worker_ended`], so that what others
    /// still have of it counts before its slots say nothing any more.
    pub fn ended_sharing(&mut self, id: ZoneId, worker: WorkerId) {
        let Some(Zone { workers, shared, .. }) = self.by_id.get_mut(&id) else { return };
        shared.ended(worker, |user, device| workers.get(&user)?.grant(device));
    }

    /// Descriptors of what the zone shares no more: to be closed once this is unlocked.
    pub fn take_gone(&mut self, id: ZoneId) -> Vec<Foreign> {
        self.by_id.get_mut(&id).map(|zone| zone.shared.take_gone()).unwrap_or_default()
    }
}

impl Worker {
    /// That of a device of the node; `None` where it has no such.
    pub fn grant(&self, device: u32) -> Option<Grant> {
        let place = self.numbers.iter().position(|number| *number == device)?;
        self.grants.get(place).cloned()
    }

    /// Of all its devices.
    pub fn used_bytes(&self) -> u64 {
        self.grants.iter().fold(0, |sum, grant| sum.saturating_add(grant.used_bytes(self.slot)))
    }

    pub fn info(&self) -> WorkerInfo {
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
