//! The arena of a channel over Xen: what its worker needs of it the guest grants, a chunk at a time, inside our limits.
//!
//! ```text
//! worker ── Need ──▶ limits of zone and node ── Want ──▶ guest ── Chunk ──▶ recorded on a gntdev of the arena's own ── Answer ──▶ worker
//! ```
//! Both ends are taken for the guest's: a worker that asks without end is slowed down, a guest that does not answer is waited for so long
//! and no longer, and what nobody asked for is not looked at. A wrong reference is found when the worker maps it, and what was recorded counts
//! until the worker ends: one that says that it could not map it may have.
//!
//! All that was granted ends with the worker and with [`GuestArena`]: the guest is told of neither before both are gone.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use idm::arena::{CHUNK_BYTES, CHUNK_PAGES};
use idm::xen::gntdev::Gntdev;
use idm::xen::{Access, DomId, GrantRef};
use tokio::sync::mpsc;
use vgpu_codes::with_causes;
use vgpu_zone_api::guest::{ChannelId, ToGuest};
use vgpu_zone_api::shim::ZoneId;

use super::blocking;
use crate::supervisor::Supervisor;
use crate::supervisor::foreign::{Foreign, without_descriptors};
use crate::supervisor::pace::Pace;
use crate::supervisor::refusal::Refusal;
use crate::supervisor::watched::watch;
use crate::supervisor::worker_id::WorkerId;
use crate::worker::chunks::{Answer, Need};

/// For the guest's answer to one `Want`.
const GRANT_LIMIT: Duration = Duration::from_secs(5);

/// What the guest answered to a `Want`.
#[derive(Debug)]
pub struct Granted {
    /// Which chunk.
    pub chunk: u32,
    /// Its references; `None`: it lacks what it takes.
    pub refs: Option<Vec<u32>>,
}

/// What a chunk takes of this domain, and how the kernel is told of it. Over a trait so that it is tested without Xen.
pub trait Pages: Send + Sync + 'static {
    /// Counts a chunk.
    ///
    /// # Errors
    /// A limit of the zone or of all is reached, or the worker has ended.
    fn take(&self) -> Result<(), Refusal>;
    /// A chunk that was counted is not there.
    fn give(&self);
    /// Has a chunk's references recorded; where they can be mapped. Blocks.
    ///
    /// # Errors
    /// The kernel's, in words.
    fn record(&self, refs: Vec<u32>) -> Result<u64, String>;
}

/// Our side of a worker's arena. Dropped, nothing of it is recorded any more.
pub struct GuestArena {
    bytes: u64,
    worker: Arc<Foreign>,
    pages: Arc<dyn Pages>,
}

impl GuestArena {
    /// Over the worker's socket.
    pub fn new(bytes: u64, worker: OwnedFd, pages: Arc<dyn Pages>) -> Self {
        Self { bytes, worker: Arc::new(Foreign::new(worker)), pages }
    }

    /// Its length as the guest is told, in MiB.
    pub fn mib(&self) -> u32 {
        u32::try_from(self.bytes >> 20).unwrap_or(u32::MAX)
    }

    /// Serves the worker as long as it is polled.
    pub async fn serve(
        &self,
        channel: ChannelId,
        guest: &mpsc::Sender<ToGuest>,
        granted: &mut mpsc::Receiver<Granted>,
        pace: &Pace,
    ) -> Infallible {
        let mut served = Served { arena: self, channel, guest, granted, recorded: BTreeSet::new() };
        // One that ends, or says what no worker says, gets no more chunks: its own end is somebody else's to see.
        let Err(error) = served.all(pace).await;
        log::debug!("channel {channel}: the arena ends: {error}");
        std::future::pending().await
    }

    /// Returns when nothing of it is recorded any more. What was being recorded when its worker ended is waited for: in a PVH domain all that
    /// a gntdev has mapped is mapped until its last descriptor is closed.
    pub async fn end(self) {
        while Arc::strong_count(&self.pages) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

struct Served<'a> {
    arena: &'a GuestArena,
    channel: ChannelId,
    guest: &'a mpsc::Sender<ToGuest>,
    granted: &'a mut mpsc::Receiver<Granted>,
    /// Chunks that the worker was told of.
    recorded: BTreeSet<u32>,
}

impl Served<'_> {
    async fn all(&mut self, pace: &Pace) -> io::Result<Infallible> {
        rustix::io::ioctl_fionbio(&*self.arena.worker, true)?;
        let socket = watch(Arc::clone(&self.arena.worker))?;
        loop {
            // One more than there is in a message: a longer one is seen.
            let mut bytes = [0; Need::BYTES + 1];
            let mut ready = socket.readable().await?;
            let read = ready.try_io(|socket| {
                without_descriptors(&**socket.get_ref())?;
                Ok(rustix::io::read(&**socket.get_ref(), &mut bytes)?)
            });
            let Ok(read) = read else { continue };
            let need = (read? == Need::BYTES).then(|| bytes.first_chunk()).flatten();
            let Need(chunk) = need.copied().map(Need::decode).ok_or(io::ErrorKind::InvalidData)?;
            pace.wait().await;
            let index = self.need(chunk).await;
            // It reads before it asks again; one that does not is no worker.
            rustix::io::write(&*self.arena.worker, &Answer { chunk, index }.encode())?;
        }
    }

    /// Where a chunk is to be mapped; `None`: it cannot be had.
    async fn need(&mut self, chunk: u32) -> Option<u64> {
        let is_inside = u64::from(chunk) < self.arena.bytes / CHUNK_BYTES as u64;
        if !is_inside || self.recorded.contains(&chunk) {
            return None;
        }
        self.arena.pages.take().inspect_err(|refusal| log::debug!("{refusal}")).ok()?;
        let counted = Counted(Some(&*self.arena.pages));
        let refs = tokio::time::timeout(GRANT_LIMIT, self.grant(chunk)).await.ok().flatten()?;
        let pages = Arc::clone(&self.arena.pages);
        let index = blocking(move || pages.record(refs)).await.and_then(|recorded| recorded);
        let index = index.inspect_err(|why| log::info!("a chunk cannot be recorded: {why}")).ok()?;
        counted.keep();
        self.recorded.insert(chunk);
        Some(index)
    }

    async fn grant(&mut self, chunk: u32) -> Option<Vec<u32>> {
        // Answers that came too late for their own question.
        while self.granted.try_recv().is_ok() {}
        self.guest.send(ToGuest::Want { channel: self.channel, chunk }).await.ok()?;
        loop {
            let granted = self.granted.recv().await?;
            if granted.chunk == chunk {
                return granted.refs;
            }
        }
    }
}

/// A chunk that is counted, and given back unless it is kept.
struct Counted<'a>(Option<&'a dyn Pages>);

impl Counted<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|pages| pages.give());
    }
}

/// Those of a guest's domain.
pub struct DomainPages {
    /// Counts them.
    pub supervisor: Arc<Supervisor>,
    /// Whose they are.
    pub zone: ZoneId,
    /// Who maps them.
    pub worker: WorkerId,
    /// The granting domain.
    pub guest: DomId,
    /// The worker has it, too.
    pub gntdev: Gntdev,
}

impl Pages for DomainPages {
    fn take(&self) -> Result<(), Refusal> {
        self.supervisor.zones().take_chunk(self.zone, self.worker, CHUNK_PAGES as u64)
    }

    fn give(&self) {
        self.supervisor.zones().give_chunk(self.zone, self.worker, CHUNK_PAGES as u64);
    }

    fn record(&self, refs: Vec<u32>) -> Result<u64, String> {
        let refs: Vec<GrantRef> = refs.into_iter().map(GrantRef).collect();
        let recorded = self.gntdev.record(self.guest, &[(&refs, Access::ReadWrite)]);
        let recorded = recorded.map_err(|error| with_causes(&error))?;
        recorded.parts.first().map(|part| part.index).ok_or_else(|| "nothing was recorded".into())
    }
}

#[cfg(test)]
mod tests;
