//! The local sockets: this supervisor serves a zone at each by itself, as guest-init does in a domain. Each connection is one process.

use std::future::ready;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Socket;
use std::sync::Arc;
use std::time::Duration;

use idm::Peer;
use idm::arena::SINCE_MINOR;
use idm::connect::{self, ProgramEnd, ServerEnd};
use idm::hello::Hello;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;
use vgpu_api::WIRE_HASH;
use vgpu_codes::{Code, with_causes};
use vgpu_zone_api::guest::facts;
use vgpu_zone_api::guest::wire::region;
use vgpu_zone_api::shim::{ZoneId, ZoneState};

use super::foreign::Foreign;
use super::pace::Pace;
use super::refusal::Refusal;
use super::running::{ArenaKind, Channel, Running, Wanted};
use super::socket::Door;
use super::watched::watch;
use super::{Supervisor, channel_pages};
use crate::worker::assignment::ChannelKind;

/// The only container of a local zone.
pub const CONTAINER: &str = "local";
/// For a hello to arrive: it is the first thing that libvgpu sends.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Connections that have not said hello: more wait at the socket. Each has a thread of the runtime, and a descriptor.
const HANDSHAKES_MAX: usize = 64;

/// Makes a local zone, by its number, with so many devices, and serves its socket for ever.
///
/// # Errors
/// The zone cannot be made, there are not so many devices, or there is no such share left.
pub fn serve(
    supervisor: Arc<Supervisor>,
    door: Door,
    number: usize,
    devices: u32,
    share: Option<u32>,
) -> Result<impl Future<Output = ()>, Refusal> {
    let name = format!("vgpu local {} {number}", std::process::id());
    let zone = ZoneId(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()));
    {
        let mut zones = supervisor.zones();
        zones.register(zone, &zone.to_string(), None)?;
        zones.grant(zone, CONTAINER, devices, None, share)?;
        zones.set_state(zone, ZoneState::Connected);
    }
    supervisor.start_ahead(zone, CONTAINER);
    Ok(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let answers = Arc::new(Pace::of_answers());
        // The semaphore is never closed.
        while let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await {
            let stream = door.accept().await;
            let (supervisor, answers) = (Arc::clone(&supervisor), Arc::clone(&answers));
            tokio::spawn(async move { process(&supervisor, zone, stream, handshake, &answers).await });
        }
    })
}

/// One guest process, from its hello to its worker's end.
async fn process(
    supervisor: &Arc<Supervisor>,
    zone: ZoneId,
    stream: UnixStream,
    handshake: OwnedSemaphorePermit,
    answers: &Pace,
) {
    // Blocking, for idm's handshake; each has a limit.
    let socket = match stream.into_std().and_then(|socket| socket.set_nonblocking(false).map(|()| socket)) {
        Ok(socket) => socket,
        Err(error) => return log::warn!("a connection was lost: {error}"),
    };
    let greeted = tokio::task::spawn_blocking(move || {
        let peer = connect::peer_of(&socket)?;
        let hello = connect::greet(&socket, peer, HELLO_LIMIT)?;
        Ok::<_, idm::ChannelError>((Foreign::new(socket), peer, hello))
    });
    let (socket, peer, theirs) = match greeted.await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return log::info!("a connection ended before its hello: {error}"),
        Err(error) => return log::error!("a handshake was lost: {error}"),
    };
    if theirs.application == facts::APPLICATION {
        // As long as it waits, others wait at the socket.
        return tell(supervisor, zone, peer, &socket, answers).await;
    }
    drop(handshake);
    let spec = region();
    let ours = Hello::new(spec.record_limit, WIRE_HASH);
    match start(supervisor, zone, peer, &socket, &theirs, &ours).await {
        Ok(running) => see_to_end(running, socket, peer).await,
        Err(refusal) => {
            log::warn!("{peer} was refused: {refusal}");
            // It may have gone meanwhile.
            let _ = connect::refuse(&socket, peer, &ours, refusal.code as u16);
        }
    }
}

/// Answers a process that only asks. It has nothing else to say: the socket ends.
async fn tell(supervisor: &Arc<Supervisor>, zone: ZoneId, peer: Peer, socket: &Socket, answers: &Pace) {
    answers.wait().await;
    let ours = Hello::new(region().record_limit, facts::APPLICATION);
    // It may have gone meanwhile.
    let _ = match supervisor.facts(zone, CONTAINER).await {
        Ok(facts) => connect::tell(socket, peer, &ours, &facts.encode()),
        Err(refusal) => {
            log::warn!("a question of {peer} was refused: {refusal}");
            connect::refuse(socket, peer, &ours, refusal.code as u16)
        }
    };
}

async fn start(
    supervisor: &Arc<Supervisor>,
    zone: ZoneId,
    peer: Peer,
    socket: &Socket,
    theirs: &Hello,
    ours: &Hello,
) -> Result<Running, Refusal> {
    let channel = |error: idm::ChannelError| {
        Refusal::new(Code::HostResource, format!("no channel: {}", with_causes(&error)))
    };
    let program = supervisor.program_for(theirs.application)?;
    let agreed =
        ours.meet(theirs, peer).map_err(|error| Refusal::new(Code::ProtocolVersion, error.to_string()))?;
    if let Some(theirs) = agreed.peer_build.other() {
        log::info!("{peer} is of release {theirs}, this supervisor of {}", ours.build);
    }
    let spec = region();
    let (end, ServerEnd { memory, bell, ear }) = connect::make_ends(&spec).map_err(channel)?;
    let pid = match peer {
        Peer::Process(pid) => pid,
        _ => 0,
    };
    let wanted = Wanted {
        zone,
        container: CONTAINER.into(),
        guest_pid: pid.unsigned_abs(),
        peer: peer.to_string(),
        pages: channel_pages(),
        arena: if agreed.minor >= SINCE_MINOR { supervisor.arena } else { ArenaKind::Nothing },
        program,
    };
    let attached = Channel { kind: ChannelKind::Local { pid, arena_bytes: 0 }, fds: vec![memory, ear, bell] };
    let (running, arena) = supervisor.start_worker(wanted, ready(Ok(attached))).await?;
    let end = ProgramEnd { arena, ..end };
    // The worker of another wire hash is one that speaks it: the hello says so.
    let ours = Hello { application: theirs.application, ..*ours };
    connect::answer(socket.as_fd(), peer, &ours, &spec, &end).map_err(channel)?;
    Ok(running)
}

/// Ends the worker with its process; closes the process's socket with its worker, which is how it learns of it.
async fn see_to_end(mut running: Running, socket: Foreign<Socket>, peer: Peer) {
    let socket = Arc::new(socket);
    match watch(Arc::clone(&socket)) {
        Ok(watched) => {
            tokio::select! {
                // Readable is the end, too: after its hello a process has nothing to say here.
                _ = watched.readable() => log::debug!("{peer} is gone"),
                () = running.ended() => log::info!("the worker of {peer} is gone"),
            }
        }
        Err(error) => log::error!("{peer} cannot be watched: {error}"),
    }
    running.kill();
    running.ended().await;
}
