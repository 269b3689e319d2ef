//! How zones end: on their shim's word, or when their guest has ended and no shim is there.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use vgpu_zone_api::shim::{DomainRef, ZoneId, ZoneState};

use super::Zones;
use crate::supervisor::worker_id::WorkerId;

/// An open connection at the shim's door.
#[derive(Debug, Default)]
pub struct Connection {
    /// Told when a zone that was registered on it was ended by somebody else.
    pub lost: Notify,
}

impl Zones {
    /// Lets nothing start in the zone any more. Its workers, which are to be ended; `None` if `domain` does not have the zone.
    pub fn begin_release(&mut self, id: ZoneId, domain: Option<DomainRef>) -> Option<Vec<WorkerId>> {
        let zone = self.had_by(id, domain)?;
        zone.ending = true;
        Some(zone.workers.keys().copied().collect())
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
}
