//! How many pages of guests are mapped: of each zone, and of all together.

use vgpu_codes::Code;
use vgpu_zone_api::shim::ZoneId;

use super::{Zone, Zones};
use crate::supervisor::refusal::Refusal;
use crate::supervisor::worker_id::WorkerId;

/// Of the pages that a zone may map, those for arenas: half. Its processes that are still to come need channels.
#[must_use]
pub fn pages_of_arenas(pages_per_zone: u64) -> u64 {
    pages_per_zone / 2
}

impl Zones {
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
    pub(super) fn check_pages(&mut self, id: ZoneId, pages: u64) -> Result<(), Refusal> {
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
}

impl Zone {
    fn has_no_channel(&self) -> bool {
        self.workers.values().all(|worker| worker.ahead)
    }

    pub(super) fn mapped_pages(&self) -> u64 {
        self.workers.values().map(|worker| worker.pages + worker.chunk_pages).sum()
    }
}
