//! From the assignment's descriptors to what a worker shares with others: its channel, its arena, its grant.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use idm::arena::Arena;
use idm::record::{CONSUMER_LIFE, ChannelParts};
use idm::xen::gntdev::{Recorded, RecordedPart};
use idm::xen::offer::AcceptedChannel;
use idm::xen::{Access, DomId};
use idm::{Doorbell, Fault, Liveness, Peer, Region, Waiter};
use vgpu_codes::{Code, with_causes};
use vgpu_zone_api::guest::wire::region;

use super::Failed;
use super::assignment::{Assignment, ChannelKind};
use super::quota::Quota;
use crate::shared_page::SharedPage;

/// What came of it.
#[derive(Debug)]
pub struct Attached {
    /// The channel, whose peer nobody has consumed from.
    pub parts: ChannelParts,
    /// The grant.
    pub quota: Quota,
    /// The guest's pages for pinned memory, at the addresses that it has them at.
    pub arena: Option<Region>,
}

/// Maps the pages.
///
/// # Errors
/// A descriptor is missing or is not what it should be; the guest's grant references are wrong.
pub fn attach(task: &Assignment, fds: Vec<OwnedFd>) -> Result<Attached, Failed> {
    let ours = |error: std::io::Error| {
        Failed::new(Code::WorkerFailed, format!("the channel cannot be mapped: {error}"))
    };
    let missing = || Failed::new(Code::WorkerFailed, "the assignment lacks a descriptor");
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(missing);
    let page = SharedPage::map(next()?.as_fd()).map_err(ours)?;
    let quota = Quota::new(page, task.slot).ok_or_else(|| Failed::new(Code::WorkerFailed, "no such slot"))?;
    let spec = region();
    let bytes = spec.region_bytes().map_err(|error| Failed::new(Code::WorkerFailed, with_causes(&error)))?;
    // The end of the supervisor is the worker's own. The peer's end is told by the supervisor, who ends this worker.
    let supervisor = rustix::stdio::stdin().try_clone_to_owned().map_err(ours)?;
    let liveness = Some(Liveness::socket(supervisor));
    let mut arena = None;
    let (region, waiter, doorbell, peer) = match &task.channel {
        ChannelKind::Local { pid, arena_bytes } => {
            let region = Region::map(next()?, bytes).map_err(ours)?;
            let (waiter, doorbell) = (Waiter::EventFd(next()?), Doorbell::EventFd(next()?));
            if *arena_bytes > 0 {
                arena = map_arena(next()?, *arena_bytes);
            }
            (region, waiter, doorbell, Peer::Process(*pid))
        }
        // Such a worker does not come here.
        ChannelKind::None(_) => return Err(Failed::new(Code::WorkerFailed, "the assignment has no channel")),
        ChannelKind::Xen { domid, parts, port } => {
            let from = DomId::new(*domid).ok_or_else(|| Failed::new(Code::WorkerFailed, "no such domain"))?;
            let part =
                |&(index, pages): &(u64, u32)| RecordedPart { index, pages, access: Access::ReadWrite };
            let recorded = Recorded { from, parts: parts.iter().map(part).collect() };
            let channel = AcceptedChannel { gntdev: next()?, recorded, evtchn: next()?, port: *port };
            let attached = channel.attach(None, CONSUMER_LIFE);
            let (region, waiter, doorbell) = attached.map_err(|error| {
                let code = match error.fault() {
                    Fault::Ours => Code::WorkerFailed,
                    Fault::Peer => Code::ProtocolBroken,
                    Fault::Gone => Code::PeerGone,
                };
                Failed::new(code, with_causes(&error))
            })?;
            (region, waiter, doorbell, Peer::Domain(*domid))
        }
    };
    let parts = ChannelParts { region: Arc::new(region), spec, peer, waiter, doorbell, liveness };
    Ok(Attached { parts, quota, arena })
}

/// Before the device is opened: a driver that comes later finds the window taken and goes elsewhere. Without it programs have pinned
/// memory of their own and staged copies, and are told so.
fn map_arena(memory: OwnedFd, bytes: u64) -> Option<Region> {
    let mapped = Arena::received(memory, bytes, Peer::Server).and_then(|arena| arena.map());
    mapped.inspect_err(|error| log::warn!("no arena: {}", with_causes(error))).ok()
}
