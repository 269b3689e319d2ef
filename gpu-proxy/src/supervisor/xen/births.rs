//! Makes workers for the channels of a domain, and the arenas of those that may have one.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use idm::xen::gntdev::Gntdev;
use idm::xen::offer::AcceptedChannel;
use idm::xen::{DomId, GrantRef, Offer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vgpu_codes::{Code, with_causes};
use vgpu_zone_api::guest::facts::Facts;
use vgpu_zone_api::guest::{Connect, ContainerId, wire};
use vgpu_zone_api::shim::ZoneId;

use super::arena::{DomainPages, GuestArena};
use super::blocking;
use super::stream::{Channels, Worker};
use crate::supervisor::Supervisor;
use crate::supervisor::refusal::Refusal;
use crate::supervisor::running::{ArenaKind, Channel, Running, Wanted};
use crate::worker::assignment::ChannelKind;

#[derive(Debug)]
pub(super) struct Starter {
    pub supervisor: Arc<Supervisor>,
    pub zone: ZoneId,
    pub guest: DomId,
    pub arena: ArenaKind,
}

impl Worker for Running {
    fn kill(&self) {
        Running::kill(self);
    }
    async fn ended(&mut self) {
        Running::ended(self).await;
    }
}

impl Channels for Starter {
    type Worker = Running;

    async fn start(&self, connect: Connect) -> Result<(Running, Option<GuestArena>), Refusal> {
        let Connect { container, pid, wire_hash, port, refs, .. } = connect;
        let program = self.supervisor.program_for(wire_hash)?;
        let bytes = wire::region()
            .region_bytes()
            .map_err(|error| Refusal::new(Code::HostFailure, error.to_string()))?;
        let guest = self.guest;
        let wanted = Wanted {
            zone: self.zone,
            container: container.as_str().to_owned(),
            guest_pid: pid,
            peer: format!("{guest}"),
            pages: refs.len() as u64,
            arena: self.arena,
            program,
        };
        let offer = Offer { refs: refs.into_iter().map(GrantRef).collect(), port };
        let (near, far) = match self.arena {
            ArenaKind::Granted(bytes) => {
                ends().map(|(near, far)| (Some((bytes, near)), Some((bytes, far))))?
            }
            ArenaKind::Nothing | ArenaKind::Memory(_) => (None, None),
        };
        let started = self.supervisor.start_worker(wanted, attach(guest, offer, bytes, far)).await;
        let (running, _) = started?;
        let arena = near.map(|(bytes, End { gntdev, socket })| {
            let (supervisor, zone) = (Arc::clone(&self.supervisor), self.zone);
            let worker = running.worker();
            let gntdev = Gntdev::from_fd(gntdev);
            let pages = DomainPages { supervisor, zone, worker, guest, gntdev };
            GuestArena::new(bytes, socket, Arc::new(pages))
        });
        Ok((running, arena))
    }

    async fn facts(&self, container: ContainerId) -> Result<Facts, Refusal> {
        self.supervisor.facts(self.zone, container.as_str()).await
    }
}

/// What one side has of an arena: the gntdev, which both have, and its end of the socket.
struct End {
    gntdev: OwnedFd,
    socket: OwnedFd,
}

/// Both sides' of a new arena: ours, and the worker's.
fn ends() -> Result<(End, End), Refusal> {
    let failed = |error: &dyn std::error::Error| {
        Refusal::new(Code::HostResource, format!("no arena: {}", with_causes(error)))
    };
    let ours = Gntdev::open().map_err(|error| failed(&error))?.into_fd();
    let theirs = ours.try_clone().map_err(|error| failed(&error))?;
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (near, far) = pair.map_err(|error| failed(&error))?;
    Ok((End { gntdev: ours, socket: near }, End { gntdev: theirs, socket: far }))
}

/// Has the kernel record the guest's pages: from here on they cost this domain memory. With the worker's end of its arena and the length
/// of that.
async fn attach(
    guest: DomId,
    offer: Offer,
    bytes: usize,
    arena: Option<(u64, End)>,
) -> Result<Channel, Refusal> {
    let accepted = blocking(move || AcceptedChannel::accept(guest, &offer, bytes)).await;
    let accepted = accepted.map_err(|lost| Refusal::new(Code::HostFailure, lost))?;
    let AcceptedChannel { gntdev, recorded, evtchn, port } = accepted.map_err(|error| {
        let code = match error.fault() {
            idm::Fault::Ours => Code::HostFailure,
            idm::Fault::Peer => Code::ProtocolBroken,
            idm::Fault::Gone => Code::PeerGone,
        };
        Refusal::new(code, with_causes(&error))
    })?;
    let parts = recorded.parts.iter().map(|part| (part.index, part.pages)).collect();
    let arena_bytes = arena.as_ref().map_or(0, |(bytes, _)| *bytes);
    let kind = ChannelKind::Xen { domid: guest.get(), parts, port, arena_bytes };
    let of_arena = arena.into_iter().flat_map(|(_, End { gntdev, socket })| [gntdev, socket]);
    Ok(Channel { kind, fds: [gntdev, evtchn].into_iter().chain(of_arena).collect() })
}
