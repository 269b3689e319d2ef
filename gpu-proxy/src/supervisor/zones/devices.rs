//! Which devices of the node a container has, and what it uses of each.

use std::sync::Arc;

use vgpu_zone_api::shim::ZoneId;

use super::{Usage, Zones, not_granted, page};
use crate::shared_page::SharedPage;
use crate::supervisor::code_cache::CodeCache;
use crate::supervisor::refusal::Refusal;
use crate::supervisor::worker_id::WorkerId;
use crate::worker::quota::{Grant, SLOTS};

/// What a container was given.
#[derive(Debug)]
pub(super) struct ContainerGrant {
    /// Never given twice.
    pub number: u64,
    /// One at least, in the order in which its programs see them.
    pub devices: Vec<DeviceGrant>,
    /// Of each; `None`: all.
    pub bytes: Option<u64>,
    pub share: Option<u32>,
    /// Those of its workers, in each page.
    pub slots: Vec<bool>,
    /// What was compiled for its processes.
    code: Arc<CodeCache>,
}

/// Of one device.
#[derive(Debug)]
pub(super) struct DeviceGrant {
    /// On the node.
    number: u32,
    page: Arc<SharedPage>,
    pub grant: Grant,
}

impl DeviceGrant {
    /// What its workers get of it.
    pub fn shared(&self) -> (u32, Arc<SharedPage>) {
        (self.number, Arc::clone(&self.page))
    }
}

impl ContainerGrant {
    /// Of `numbers`, with `limit` bytes of each.
    pub fn new(
        number: u64,
        numbers: &[u32],
        limit: u64,
        bytes: Option<u64>,
        share: Option<u32>,
    ) -> Result<Self, Refusal> {
        let device = |number: &u32| {
            let page = page("a grant")?;
            Ok(DeviceGrant { number: *number, grant: Grant::new(Arc::clone(&page), limit), page })
        };
        let devices = numbers.iter().map(device).collect::<Result<_, Refusal>>()?;
        let code = Arc::default();
        Ok(Self { number, devices, bytes, share, slots: vec![false; SLOTS], code })
    }

    pub fn grants(&self) -> Vec<Grant> {
        self.devices.iter().map(|device| device.grant.clone()).collect()
    }

    /// Of memory that counts beside its workers' own.
    pub fn left_bytes(&self) -> u64 {
        self.devices.iter().map(|device| device.grant.left_bytes()).sum()
    }

    /// Whether a worker's grants are of this one.
    pub fn is_of(&self, grants: &[Grant]) -> bool {
        grants.first().zip(self.devices.first()).is_some_and(|(one, device)| device.grant.is_of(one))
    }

    /// Its devices, on the node.
    pub fn numbers(&self) -> Vec<u32> {
        self.devices.iter().map(|device| device.number).collect()
    }

    /// Whether that device is its only one.
    pub fn is_of_device(&self, number: u32) -> bool {
        self.numbers() == [number]
    }
}

impl Zones {
    /// What was compiled for the processes of a worker's container, and the user that its workers run as; `None` where that is ours, or where
    /// its grant was taken back.
    pub(in crate::supervisor) fn code_of(&self, id: WorkerId) -> Option<(Arc<CodeCache>, u32)> {
        self.by_id.values().find_map(|zone| {
            let worker = zone.workers.get(&id)?;
            let entry = zone.grants.get(&worker.container).filter(|entry| entry.is_of(&worker.grants))?;
            Some((Arc::clone(&entry.code), zone.uid?))
        })
    }

    /// The devices of the node, those first that the fewest containers have.
    pub(super) fn least_granted(&self) -> Vec<u32> {
        let all = self.by_id.values().flat_map(|zone| zone.grants.values()).flat_map(|grant| &grant.devices);
        let mut granted = vec![0_usize; self.limits.devices as usize];
        for device in all {
            granted.get_mut(device.number as usize).into_iter().for_each(|count| *count += 1);
        }
        let mut numbers: Vec<u32> = (0..self.limits.devices).collect();
        // Stable: of those that as many have, the first.
        numbers.sort_by_key(|number| granted[*number as usize]);
        numbers
    }

    /// What `container` may use and uses of each of its devices, in their order.
    ///
    /// # Errors
    /// No such zone, or no grant.
    pub fn usage(&mut self, id: ZoneId, container: &str) -> Result<Vec<Usage>, Refusal> {
        let device_bytes = self.limits.device_bytes;
        let zone = self.living(id)?;
        let entry = zone.grants.get(container).ok_or_else(|| not_granted(id, container))?;
        let limit_bytes = entry.bytes.unwrap_or(device_bytes);
        let of = |(place, device): (usize, &DeviceGrant)| {
            let (mut used_bytes, mut processes) = (device.grant.left_bytes(), Vec::new());
            // Workers of a grant that was revoked are on their way out, and not of this one.
            for worker in zone.workers.values().filter(|worker| entry.is_of(&worker.grants)) {
                let Some(grant) = worker.grants.get(place) else { continue };
                let bytes = grant.used_bytes(worker.slot);
                used_bytes = used_bytes.saturating_add(bytes);
                // Its context is there; a process that has it is not.
                if !worker.ahead {
                    processes.push((worker.guest_pid, bytes));
                }
            }
            Usage { device: device.number, limit_bytes, used_bytes, processes }
        };
        Ok(entry.devices.iter().enumerate().map(of).collect())
    }
}
