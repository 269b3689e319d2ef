//! What part of a device's time each zone and grant has. A container that was given a share has that many thousandths; zones with others
//! have what is left over, each as much. What is granted in all is never more than the device has. Containers with several devices have no
//! part: they are not held back, and what they use is not counted.

use std::collections::{BTreeMap, BTreeSet};

use vgpu_codes::Code;
use vgpu_zone_api::shim::ZoneId;

use super::{ContainerGrant, Zones};
use crate::supervisor::refusal::Refusal;
use crate::supervisor::sharing::{Seen, WHOLE};
use crate::supervisor::worker_id::WorkerId;
use crate::worker::turn::{Ruled, Said};

/// Thousandths of the device's time.
const THOUSAND: u32 = 1000;
/// What is left over where all was given away: who has no share comes last, and comes.
const LEFT_MIN: u64 = WHOLE / 1000;

/// A worker that shares the device's time.
#[derive(Debug)]
pub struct Sharer {
    /// Who.
    pub worker: WorkerId,
    /// Where it says what it uses, and is told what it may.
    pub ruled: Ruled,
    /// Of which device.
    pub device: u32,
    zone: ZoneId,
    grant: u64,
    part: u64,
    zone_part: u64,
}

impl Sharer {
    /// With what it says.
    #[must_use]
    pub fn seen(&self, said: Said) -> Seen {
        let Self { worker, zone, grant, part, zone_part, .. } = *self;
        Seen { worker, grant, zone, part, zone_part, used: said.used, has_work: said.has_work }
    }
}

impl Zones {
    /// Workers of guest processes, with the parts of their grants, device by device.
    #[must_use]
    pub fn sharers(&self) -> Vec<Sharer> {
        (0..self.limits.devices).flat_map(|device| self.sharers_of(device)).collect()
    }

    fn sharers_of(&self, device: u32) -> Vec<Sharer> {
        let left = self.left_for_a_zone(device);
        let mut sharers = Vec::new();
        for (id, zone) in &self.by_id {
            let parts = parts(device, &zone.grants, left);
            let zone_part = parts.values().map(|(_, part)| part).sum();
            for (worker, its) in zone.workers.iter().filter(|(_, worker)| !worker.ahead) {
                // Those of a grant that was taken back are on their way out.
                let granted = zone.grants.get(&its.container).filter(|entry| entry.is_of(&its.grants));
                let Some((grant, part)) = granted.and_then(|_| parts.get(its.container.as_str())) else {
                    continue;
                };
                let (worker, ruled, zone) = (*worker, its.ruled.clone(), *id);
                sharers.push(Sharer { worker, ruled, device, zone, grant: *grant, part: *part, zone_part });
            }
        }
        sharers
    }

    /// The devices for a container: those that it has, if they are so many, else those that the fewest containers have; with a share one
    /// that has so much of its time left.
    ///
    /// # Errors
    /// A share of more than all, or of several devices, or more than others leave.
    pub(super) fn choose(
        &self,
        id: ZoneId,
        container: &str,
        count: usize,
        share: Option<u32>,
    ) -> Result<Vec<u32>, Refusal> {
        let old = self.by_id.get(&id).and_then(|zone| zone.grants.get(container));
        let old = old.map(ContainerGrant::numbers).filter(|numbers| numbers.len() == count);
        let mut chosen = old.unwrap_or_else(|| self.least_granted());
        let Some(share) = share else {
            chosen.truncate(count);
            chosen.sort_unstable();
            return Ok(chosen);
        };
        if !(1..=THOUSAND).contains(&share) {
            return Err(Refusal::new(Code::SpecInvalid, "a share is 1 to 1000 thousandths"));
        }
        if count > 1 {
            let text = format!("a share is of one GPU's time; the container has {count} GPUs");
            return Err(Refusal::new(Code::SpecInvalid, text));
        }
        let left = |device: &u32| {
            let others = self.grants_of(*device).filter(|(zone, name, _)| **zone != id || *name != container);
            let given: u32 = others.filter_map(|(.., grant)| grant.share).sum();
            THOUSAND.saturating_sub(given)
        };
        let most = chosen.iter().map(left).max().unwrap_or(0);
        let fits = chosen.into_iter().find(|device| left(device) >= share);
        fits.map(|device| vec![device]).ok_or_else(|| {
            let text =
                format!("{share} thousandths of the GPU's time asked for, others leave {most} of them");
            Refusal::new(Code::LimitReached, text)
        })
    }

    /// Containers whose only device that is.
    fn grants_of(&self, device: u32) -> impl Iterator<Item = (&ZoneId, &String, &ContainerGrant)> {
        let living = self.by_id.iter().filter(|(_, zone)| !zone.ending);
        let all =
            living.flat_map(|(zone, its)| its.grants.iter().map(move |(name, grant)| (zone, name, grant)));
        all.filter(move |(.., grant)| grant.is_of_device(device))
    }

    /// For each zone that has grants without a share.
    fn left_for_a_zone(&self, device: u32) -> u64 {
        let shares = self.grants_of(device).filter_map(|(.., grant)| grant.share);
        let given = shares.fold(0, |sum, share| sum + u64::from(share) * (WHOLE / u64::from(THOUSAND)));
        let without = self.grants_of(device).filter(|(.., grant)| grant.share.is_none());
        let shared = without.map(|(zone, ..)| zone).collect::<BTreeSet<_>>().len();
        (WHOLE.saturating_sub(given) / (shared as u64).max(1)).max(LEFT_MIN)
    }
}

/// Of each container of a zone that has this device alone: its grant's number and its part.
fn parts(device: u32, grants: &BTreeMap<String, ContainerGrant>, left: u64) -> BTreeMap<&str, (u64, u64)> {
    let of_it = || grants.iter().filter(|(_, grant)| grant.is_of_device(device));
    let without = of_it().filter(|(_, grant)| grant.share.is_none()).count() as u64;
    let part = |share: Option<u32>| match share {
        Some(share) => u64::from(share) * (WHOLE / u64::from(THOUSAND)),
        None => (left / without.max(1)).max(1),
    };
    of_it().map(|(name, grant)| (name.as_str(), (grant.number, part(grant.share)))).collect()
}

#[cfg(test)]
mod tests;
