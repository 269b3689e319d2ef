//! Zones, their grants and their workers, as plain state: no process is touched here. The rule: everything that a guest can make
//! grow has a limit of ours, and what it would exceed is refused.

mod devices;
mod ends;
mod pages;
mod places;
mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use vgpu_codes::Code;
use vgpu_zone_api::guest::facts::DEVICES_MAX;
use vgpu_zone_api::shim::{DomainRef, GrantInfo, WorkerInfo, ZoneId, ZoneInfo, ZoneState};

use super::pace::Pace;
use super::refusal::Refusal;
use super::shared::Shared;
use super::worker_id::WorkerId;
use super::zone_log::ZoneLog;
use crate::shared_page::SharedPage;
use devices::ContainerGrant;
pub use ends::Connection;
pub use pages::pages_of_arenas;
pub use places::Place;
use places::Worker;
pub use shares::Sharer;

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
    /// Of what its workers ask about that.
    exchanges: Arc<Pace>,
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
            exchanges: Arc::new(Pace::of_zone_exchanges()),
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

    /// The zone, if `domain` has it (`None`: the local zone's): the pod's next sandbox may, when the last one's is cleaned up.
    fn had_by(&mut self, id: ZoneId, domain: Option<DomainRef>) -> Option<&mut Zone> {
        self.by_id.get_mut(&id).filter(|zone| zone.domain == domain)
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

fn not_granted(zone: ZoneId, container: &str) -> Refusal {
    Refusal::new(Code::NotGranted, format!("container {container} of zone {zone} has no GPU"))
}

impl Zone {
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

#[cfg(test)]
mod tests;
