//! From the assignment's descriptors to what a worker shares with others: its channel, its arena, its grant.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use idm::arena::Arena;
use idm::record::{CONSUMER_LIFE, ChannelParts};
use idm::xen::chunks::ChunkWindow;
use idm::xen::gntdev::{Recorded, RecordedPart};
use idm::xen::offer::AcceptedChannel;
use idm::xen::{Access, DomId};
use idm::{Doorbell, Fault, Liveness, Peer, Region, Waiter};
use vgpu_codes::{Code, with_causes};
use vgpu_zone_api::guest::wire::region;

use super::Failed;
use super::assignment::{Assignment, ChannelKind};
use super::quota::Quota;
use super::quotas::Quotas;
use super::turn::Turn;
use crate::shared_page::SharedPage;

/// What a worker has before its guest process is known.
#[derive(Debug)]
pub struct Ground {
    /// The grant of each device.
    pub quotas: Quotas,
    /// Whose turn it is, where that is ruled.
    pub turn: Option<Turn>,
    /// Whom it asks for memory of others of its zone.
    pub exchange: Option<OwnedFd>,
    /// Where the guest's pages for pinned memory are, or will be: at the addresses that it has them at.
    pub arena: Option<Window>,
}

/// The addresses of an arena.
#[derive(Debug)]
pub enum Window {
    /// All its pages are there.
    Whole(Region),
    /// They come by chunks.
    Kept(Arc<ChunkWindow>),
}

/// What comes with a guest process.
#[derive(Debug)]
pub struct Attached {
    /// Its channel, whose peer nobody has consumed from.
    pub parts: ChannelParts,
    /// The gntdev of its arena, and the socket over which chunks are asked for.
    pub chunks: Option<(OwnedFd, OwnedFd)>,
}

/// Maps what a worker needs before it opens its device, and takes the descriptors of it out of `fds`: the first ones, and the arena's,
/// which is the last.
///
/// # Errors
/// A descriptor is missing or is not what it should be.
pub fn ground(task: &Assignment, fds: &mut Vec<OwnedFd>) -> Result<Ground, Failed> {
    let pages = task.devices.max(1) as usize + usize::from(task.turns);
    if fds.len() < pages {
        return Err(missing());
    }
    let page = |fd: OwnedFd| SharedPage::map(fd.as_fd()).map_err(ours);
    let mut pages = fds.drain(..pages).map(page).collect::<Result<Vec<_>, _>>()?;
    let turn = task.turns.then(|| pages.pop()).flatten().map(Turn::new);
    let quota =
        |page| Quota::new(page, task.slot).ok_or_else(|| Failed::new(Code::WorkerFailed, "no such slot"));
    let quotas = pages.into_iter().map(quota).collect::<Result<Vec<_>, _>>()?.into();
    let exchange = if task.exchange && fds.is_empty() {
        return Err(missing());
    } else {
        task.exchange.then(|| fds.remove(0))
    };
    let arena = match task.channel {
        ChannelKind::Xen { arena_bytes, .. } | ChannelKind::Ahead { arena_bytes, granted: true }
            if arena_bytes > 0 =>
        {
            keep_free(arena_bytes)
        }
        ChannelKind::Local { arena_bytes, .. } | ChannelKind::Ahead { arena_bytes, granted: false }
            if arena_bytes > 0 =>
        {
            map_arena(fds.pop().ok_or_else(missing)?, arena_bytes)
        }
        _ => None,
    };
    Ok(Ground { quotas, turn, exchange, arena })
}

/// Maps the pages of the channel.
///
/// # Errors
/// A descriptor is missing or is not what it should be; the guest's grant references are wrong.
pub fn channel(kind: &ChannelKind, fds: Vec<OwnedFd>) -> Result<Attached, Failed> {
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(missing);
    let spec = region();
    let bytes = spec.region_bytes().map_err(|error| Failed::new(Code::WorkerFailed, with_causes(&error)))?;
    // The end of the supervisor is the worker's own. The peer's end is told by the supervisor, who ends this worker.
    let supervisor = rustix::stdio::stdin().try_clone_to_owned().map_err(ours)?;
    let liveness = Some(Liveness::socket(supervisor));
    let mut chunks = None;
    let (region, waiter, doorbell, peer) = match kind {
        ChannelKind::Local { pid, .. } => {
            let region = Region::map(next()?, bytes).map_err(ours)?;
            let (waiter, doorbell) = (Waiter::EventFd(next()?), Doorbell::EventFd(next()?));
            (region, waiter, doorbell, Peer::Process(*pid))
        }
        // Such a worker does not come here.
        ChannelKind::None(_) | ChannelKind::Ahead { .. } => {
            return Err(Failed::new(Code::WorkerFailed, "the assignment has no channel"));
        }
        ChannelKind::Xen { domid, parts, port, arena_bytes } => {
            let from = DomId::new(*domid).ok_or_else(|| Failed::new(Code::WorkerFailed, "no such domain"))?;
            let part =
                |&(index, pages): &(u64, u32)| RecordedPart { index, pages, access: Access::ReadWrite };
            let recorded = Recorded { from, parts: parts.iter().map(part).collect() };
            let channel = AcceptedChannel { gntdev: next()?, recorded, evtchn: next()?, port: *port };
            if *arena_bytes > 0 {
                chunks = Some((next()?, next()?));
            }
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
    Ok(Attached { parts, chunks })
}

fn ours(error: std::io::Error) -> Failed {
    Failed::new(Code::WorkerFailed, format!("the channel cannot be mapped: {error}"))
}

fn missing() -> Failed {
    Failed::new(Code::WorkerFailed, "the assignment lacks a descriptor")
}

/// Before the device is opened: a driver that comes later finds the window taken and goes elsewhere. Without it programs have pinned
/// memory of their own and staged copies, and are told so.
fn map_arena(memory: OwnedFd, bytes: u64) -> Option<Window> {
    let mapped = Arena::received(memory, bytes, Peer::Server).and_then(|arena| arena.map());
    mapped.inspect_err(|error| log::warn!("no arena: {}", with_causes(error))).ok().map(Window::Whole)
}

/// As [`map_arena`], where its pages come later.
fn keep_free(bytes: u64) -> Option<Window> {
    let window = ChunkWindow::reserve(bytes);
    window.inspect_err(|error| log::warn!("no arena: {error}")).ok().map(Window::Kept)
}
