//! The guest's door over Xen: one GPU stream a zone (`device/vgpu-idm/1`), on which guest-init offers a channel for each process.
//!
//! ```text
//! registered ─► the domain has the UUID that the shim said ─► stream accepted ─► hellos ─► messages ─► the guest or the zone ends
//! ```
//! The peer is hostile. What it says is bounded by `vgpu-zone-api`; how many channels it may have by [`Limits`](super::zones::Limits);
//! one broken message ends its stream and its workers, and nobody else's.

mod arena;

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use idm::hello;
use idm::stream::{AsyncStream, Stream, StreamSpec};
use idm::xen::death::Deaths;
use idm::xen::device::{Backend, Device};
use idm::xen::domain::{Identity, Uuid};
use idm::xen::gntdev::Gntdev;
use idm::xen::offer::AcceptedChannel;
use idm::xen::xenstore::{Client, XsError};
use idm::xen::{DomId, GrantRef, Offer, XenError};
use idm::{Liveness, Peer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use vgpu_codes::{Code, with_causes};
use vgpu_zone_api::guest::facts::Facts;
use vgpu_zone_api::guest::{ChannelId, Connect, ContainerId, Frames, Message, ToGuest, ToProxy, wire};
use vgpu_zone_api::shim::{DomainRef, ZoneId, ZoneState};

use super::pace::Pace;
use super::workers::{ArenaKind, Channel, Running, Wanted};
use super::zone_log::ZoneLog;
use super::zones::Refusal;
use super::{Supervisor, channel_pages};
use crate::worker::assignment::ChannelKind;
use arena::{DomainPages, Granted, GuestArena};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// How long one wait for the guest's offer lasts before the zone's end is looked for.
const OFFER_ROUND: Duration = Duration::from_millis(500);
/// For the guest's hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;
/// Answers that wait for room in the stream. A guest that does not read stops being read.
const ANSWERS_MAX: usize = 64;
/// Channels of one stream beyond which a `Connect` is not even tried: those being set up and taken down are among them.
const CHANNELS_MAX: usize = 256;
/// What the guest said of a channel's chunks and nobody has looked at yet: one is waited for at a time.
const GRANTS_MAX: usize = 4;
/// Questions of one stream that wait for their turn, beyond which one is refused.
const QUESTIONS_MAX: usize = 32;

/// A stream that ended, or could not be had, is accepted anew after this: each costs xenstore's time and lines in the log.
const STREAM_PAUSE: Duration = Duration::from_secs(1);

/// What the supervisor needs of Xen.
#[derive(Debug)]
pub struct Xen {
    /// Replaced when it has ended: what was wrong with xenstored for a while must not cost the GPU to all who come later.
    xenstore: std::sync::Mutex<Client>,
    deaths: Deaths,
    own: DomId,
}

/// Where there is no door there is no Xen; one that stays shut is another matter.
fn unreached(error: XsError) -> Refusal {
    let why = with_causes(&error);
    if error.is_no_xen() {
        let text = format!("this is no domain of Xen: {why}; without Xen use gpu-proxy --local SOCKET");
        return Refusal::new(Code::NoXen, text);
    }
    Refusal::new(Code::HostFailure, format!("xenstored does not answer: {why}"))
}

impl Xen {
    /// Reaches xenstore.
    ///
    /// # Errors
    /// [`Code::NoXen`]; [`Code::HostFailure`] if there is Xen and xenstored does not answer; [`Code::ConfigInvalid`].
    pub fn reach(own: u16) -> Result<Self, Refusal> {
        let own = DomId::new(own)
            .ok_or_else(|| Refusal::new(Code::ConfigInvalid, "proxy.domain is no domain's id"))?;
        let xenstore = Client::connect().map_err(unreached)?;
        let failed = |error: XenError| {
            Refusal::new(Code::HostFailure, format!("cannot learn of domains' ends: {}", with_causes(&error)))
        };
        let deaths = Deaths::of_domains(&xenstore).map_err(failed)?;
        Ok(Self { xenstore: std::sync::Mutex::new(xenstore), deaths, own })
    }

    fn xenstore(&self) -> Result<Client, XenError> {
        let mut xenstore = self.xenstore.lock().unwrap_or_else(PoisonError::into_inner);
        if xenstore.has_ended() {
            *xenstore = Client::connect()?;
        }
        Ok(xenstore.clone())
    }

    /// Makes sure that the domain is the one that the shim meant. Its end is told by the second.
    fn identify(&self, domain: DomainRef) -> Result<(DomId, Liveness), XenError> {
        let domid = DomId::new(domain.domid).ok_or(XenError::PeerGone(DomId::DOM0))?;
        let identity = Identity::of(&self.xenstore()?, domid)?;
        if identity.uuid != Uuid::from(domain.uuid.into_bytes()) {
            // Its id has been given to another domain already.
            return Err(XenError::PeerGone(domid));
        }
        Ok((domid, self.deaths.domain(identity)?))
    }
}

/// Serves the door of one zone until its guest or the zone ends.
pub async fn serve(
    supervisor: Arc<Supervisor>,
    xen: Arc<Xen>,
    zone: ZoneId,
    domain: DomainRef,
    stop: watch::Receiver<bool>,
) {
    // A zone that is not there any more is not served.
    let Some(log) = supervisor.zones().log(zone) else { return };
    let bounds = Arc::new(Bounds::new(Arc::clone(&log)));
    let mut door = Door {
        supervisor: Arc::clone(&supervisor),
        xen,
        zone,
        domain,
        stop: stop.clone(),
        bounds,
        known: None,
    };
    serve_streams(&mut door, &log, stop).await;
    log.info(format_args!("the GPU stream ended"));
    supervisor.zones().set_state(zone, ZoneState::Ended);
}

/// Where a guest's streams come from, one after the other. Over a trait so that it is tested without Xen.
trait Streams: Send {
    /// Serves the next one. True: it ended in order, and guest-init, which keeps one up, offers another. False: the guest or the zone ended.
    fn serve(&mut self) -> impl Future<Output = Result<bool, String>> + Send;
}

/// Serves one stream after the other. What goes wrong with one, of the guest's making or the node's, ends that one: nobody would
/// register the zone's door again while its shim lives.
async fn serve_streams(streams: &mut impl Streams, log: &ZoneLog, mut stop: watch::Receiver<bool>) {
    loop {
        match streams.serve().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => log.warn(format_args!("{why}")),
        }
        tokio::select! {
            () = tokio::time::sleep(STREAM_PAUSE) => {}
            () = is_set(&mut stop) => return,
        }
    }
}

/// The door of one zone.
struct Door {
    supervisor: Arc<Supervisor>,
    xen: Arc<Xen>,
    zone: ZoneId,
    domain: DomainRef,
    stop: watch::Receiver<bool>,
    bounds: Arc<Bounds>,
    /// Asked for once: each question about it is kept until the domain ends.
    known: Option<(DomId, Arc<Liveness>)>,
}

impl Streams for Door {
    async fn serve(&mut self) -> Result<bool, String> {
        let Some((guest, liveness)) = self.identify().await? else { return Ok(false) };
        let (xen, alive) =
            (Arc::clone(&self.xen), liveness.try_clone().map_err(|error| with_causes(&error))?);
        let stopped = self.stop.clone();
        // Looks at `stop` itself, and is waited for: who releases the zone is told only when it can map nothing more of the guest.
        let accepted = blocking(move || accept(&xen, guest, &alive, &|| *stopped.borrow())).await?;
        let Some(stream) = accepted.map_err(|error| with_causes(&error))? else { return Ok(false) };
        let stream = AsyncStream::new(stream).map_err(|error| with_causes(&error))?;
        self.supervisor.zones().set_state(self.zone, ZoneState::Connected);
        self.bounds.log.info(format_args!("{guest} is connected"));
        let served = tokio::select! {
            served = greet_and_serve(&self.supervisor, self.zone, guest, stream, &self.bounds) => served,
            // Workers of the stream are ended by the release that stops us.
            () = is_set(&mut self.stop) => return Ok(false),
        };
        self.supervisor.zones().set_state(self.zone, ZoneState::Waiting);
        served.map(|()| true)
    }
}

impl Door {
    /// The zone's domain; `None` if it is gone, or was another.
    async fn identify(&mut self) -> Result<Option<(DomId, Arc<Liveness>)>, String> {
        if self.known.is_none() {
            let (xen, domain) = (Arc::clone(&self.xen), self.domain);
            self.known = match blocking(move || xen.identify(domain)).await? {
                Err(XenError::PeerGone(_)) => None,
                known => {
                    let (guest, liveness) = known.map_err(|error| with_causes(&error))?;
                    Some((guest, Arc::new(liveness)))
                }
            };
        }
        Ok(self.known.clone())
    }
}

/// Runs what waits in the kernel away from the tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("a task was lost: {error}"))
}

/// Waits for the guest's offer; `None` when the zone or the guest ended first.
fn accept(
    xen: &Xen,
    guest: DomId,
    alive: &Liveness,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<Stream>, XenError> {
    let backend = Backend::new(&xen.xenstore()?, Device { guest, number: wire::DEVICE, backend: xen.own });
    let spec = StreamSpec { to_taker_bytes: wire::RING_BYTES, to_maker_bytes: wire::RING_BYTES };
    while !stopped() {
        let liveness = alive.try_clone().map_err(|source| XenError::Call { call: "dup", source })?;
        match backend.accept(spec, OFFER_ROUND, liveness) {
            Ok(stream) => return Ok(Some(stream)),
            Err(XenError::Late { .. }) => {}
            Err(XenError::PeerGone(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn greet_and_serve(
    supervisor: &Arc<Supervisor>,
    zone: ZoneId,
    guest: DomId,
    mut stream: AsyncStream,
    bounds: &Arc<Bounds>,
) -> Result<(), String> {
    let peer = Peer::Domain(guest.get());
    let ours = wire::hello();
    let greeted = tokio::time::timeout(HELLO_LIMIT, hello::exchange_async(&mut stream, &ours, peer)).await;
    let agreed = greeted
        .map_err(|_| format!("{guest} sent no hello within {} s", HELLO_LIMIT.as_secs()))?
        .map_err(|error| with_causes(&error))?;
    if agreed.peer_application != wire::APPLICATION {
        return Err(format!("{guest} speaks something else on its GPU stream"));
    }
    if let Some(theirs) = agreed.peer_build.other() {
        bounds.log.info(format_args!("{guest} is of release {theirs}, this supervisor of {}", ours.build));
    }
    let knows_arenas = agreed.application_minor >= wire::MINOR_ARENA;
    let arena = if knows_arenas { supervisor.arena } else { ArenaKind::Nothing };
    let starter = Starter { supervisor: Arc::clone(supervisor), zone, guest, arena };
    messages(stream, Arc::new(starter), Arc::clone(bounds)).await
}

/// What makes workers for a stream's channels and answers its questions. Over a trait so that the stream is tested without Xen.
trait Channels: Send + Sync + 'static {
    type Worker: Worker;
    /// A worker, and the arena that it may have.
    fn start(
        &self,
        connect: Connect,
    ) -> impl Future<Output = Result<(Self::Worker, Option<GuestArena>), Refusal>> + Send;
    fn facts(&self, container: ContainerId) -> impl Future<Output = Result<Facts, Refusal>> + Send;
}

/// A worker, as a stream sees it.
trait Worker: Send + 'static {
    fn kill(&self);
    fn ended(&mut self) -> impl Future<Output = ()> + Send;
}

impl Worker for Running {
    fn kill(&self) {
        Running::kill(self);
    }
    async fn ended(&mut self) {
        Running::ended(self).await;
    }
}

#[derive(Debug)]
struct Starter {
    supervisor: Arc<Supervisor>,
    zone: ZoneId,
    guest: DomId,
    arena: ArenaKind,
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

/// Serves the messages of one stream. Its workers are reaped when it returns.
///
/// `Ok`: the guest ended the stream. `Err`: it broke the protocol.
async fn messages<C: Channels>(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    channels: Arc<C>,
    bounds: Arc<Bounds>,
) -> Result<(), String> {
    let (mut read, write) = tokio::io::split(stream);
    let (answers, queue) = mpsc::channel::<ToGuest>(ANSWERS_MAX);
    let mut lives = JoinSet::new();
    let mut questions = JoinSet::new();
    let mut open: HashMap<ChannelId, Open> = HashMap::new();
    let mut frames = Frames::<ToProxy>::default();
    let mut bytes = vec![0; READ_BYTES];
    let reading = async {
        loop {
            let count = tokio::select! {
                count = read.read(&mut bytes) => count,
                Some(over) = lives.join_next() => {
                    if let Ok(channel) = over {
                        open.remove(&channel);
                    }
                    continue;
                }
                Some(_) = questions.join_next() => continue,
            };
            match count {
                Ok(0) | Err(_) => break Ok(()),
                Ok(count) => frames.push(&bytes[..count]),
            }
            let taken =
                take(&mut frames, &bounds, &mut open, &mut lives, &mut questions, &channels, &answers).await;
            if let Err(why) = taken {
                break Err(why);
            }
        }
    };
    // Side by side and not in tasks: who gives up the stream has let go of its pages.
    let ended = tokio::select! {
        ended = reading => ended,
        never = write_all(write, queue) => match never {},
    };
    open.values().for_each(Open::close);
    drop((answers, questions));
    while lives.join_next().await.is_some() {}
    ended
}

/// Writes answers as long as the guest takes them. One that is gone is noticed by the reading side, so this never returns.
async fn write_all(write: impl AsyncWrite, queue: mpsc::Receiver<ToGuest>) -> Infallible {
    write_until_gone(write, queue).await;
    std::future::pending().await
}

async fn write_until_gone(write: impl AsyncWrite, mut queue: mpsc::Receiver<ToGuest>) {
    let mut write = std::pin::pin!(write);
    let mut bytes = Vec::new();
    while let Some(answer) = queue.recv().await {
        bytes.clear();
        answer.encode(&mut bytes);
        if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
            return;
        }
    }
}

/// What a zone's streams share, one after the other: a guest that opens a new one begins nothing anew.
#[derive(Debug)]
struct Bounds {
    births: Pace,
    answers: Pace,
    chunks: Pace,
    log: Arc<ZoneLog>,
}

impl Bounds {
    fn new(log: Arc<ZoneLog>) -> Self {
        Self { births: Pace::of_births(), answers: Pace::of_answers(), chunks: Pace::of_chunks(), log }
    }
}

/// Acts on every message that is complete.
async fn take<C: Channels>(
    frames: &mut Frames<ToProxy>,
    bounds: &Arc<Bounds>,
    open: &mut HashMap<ChannelId, Open>,
    lives: &mut JoinSet<ChannelId>,
    questions: &mut JoinSet<()>,
    channels: &Arc<C>,
    answers: &mpsc::Sender<ToGuest>,
) -> Result<(), String> {
    while let Some(message) = frames.next().map_err(|error| error.to_string())? {
        match message {
            // Looked at before it waits for its turn: what waits is kept.
            ToProxy::Connect(connect) if connect.refs.len() as u64 != channel_pages() => {
                let code = u32::from(Code::ProtocolBroken as u16);
                let (channel, pages) = (connect.channel, connect.refs.len());
                bounds.log.warn(format_args!(
                    "channel {channel}: refused: {pages} pages, a channel has {}",
                    channel_pages()
                ));
                // The writer ends only with the stream.
                let _ = answers.send(ToGuest::Refused { channel: connect.channel, code }).await;
            }
            ToProxy::Connect(connect) if open.contains_key(&connect.channel) => {
                // A channel that has just ended is taken out first: its number is the guest's again since `Unmapped`.
                while let Some(over) = lives.try_join_next() {
                    if let Ok(channel) = over {
                        open.remove(&channel);
                    }
                }
                if open.contains_key(&connect.channel) {
                    return Err(format!("the guest uses channel {} twice", connect.channel));
                }
                begin(connect, bounds, open, lives, channels, answers);
            }
            ToProxy::Connect(connect) if open.len() >= CHANNELS_MAX => {
                let code = u32::from(Code::LimitReached as u16);
                let channel = connect.channel;
                bounds.log.warn(format_args!("channel {channel}: refused: {CHANNELS_MAX} are open"));
                let _ = answers.send(ToGuest::Refused { channel: connect.channel, code }).await;
            }
            ToProxy::Connect(connect) => begin(connect, bounds, open, lives, channels, answers),
            // One that is not open crossed our own `Died` or `Refused`.
            ToProxy::Close { channel } => {
                if let Some(open) = open.get(&channel) {
                    open.close();
                }
            }
            ToProxy::Chunk { channel, chunk, refs } => granted(open, channel, chunk, Some(refs)),
            ToProxy::Lack { channel, chunk } => granted(open, channel, chunk, None),
            ToProxy::Ask { question, .. } if questions.len() >= QUESTIONS_MAX => {
                let code = u32::from(Code::LimitReached as u16);
                let _ = answers.send(ToGuest::Told { question, code, answer: Vec::new() }).await;
            }
            ToProxy::Ask { question, container } => {
                let (bounds, channels, answers) = (Arc::clone(bounds), Arc::clone(channels), answers.clone());
                questions.spawn(async move {
                    let told = tell(question, container, &bounds, channels.as_ref()).await;
                    let _ = answers.send(told).await;
                });
            }
        }
    }
    Ok(())
}

/// Passes on what the guest says of a chunk. What nobody waits for is left lying once there is some of it.
fn granted(open: &HashMap<ChannelId, Open>, channel: ChannelId, chunk: u32, refs: Option<Vec<u32>>) {
    if let Some(open) = open.get(&channel) {
        let _ = open.granted.try_send(Granted { chunk, refs });
    }
}

/// Answers a question when it is its turn.
async fn tell<C: Channels>(
    question: ChannelId,
    container: ContainerId,
    bounds: &Bounds,
    channels: &C,
) -> ToGuest {
    bounds.answers.wait().await;
    match channels.facts(container).await {
        Ok(facts) => ToGuest::Told { question, code: 0, answer: facts.encode() },
        Err(refusal) => {
            bounds.log.warn(format_args!("question {question}: refused: {refusal}"));
            ToGuest::Told { question, code: u32::from(refusal.code as u16), answer: Vec::new() }
        }
    }
}

fn begin<C: Channels>(
    connect: Connect,
    bounds: &Arc<Bounds>,
    open: &mut HashMap<ChannelId, Open>,
    lives: &mut JoinSet<ChannelId>,
    channels: &Arc<C>,
    answers: &mpsc::Sender<ToGuest>,
) {
    let (close, closed) = watch::channel(false);
    let (granted, grants) = mpsc::channel(GRANTS_MAX);
    open.insert(connect.channel, Open { close, granted });
    lives.spawn(life(connect, Arc::clone(bounds), Arc::clone(channels), answers.clone(), (closed, grants)));
}

/// How the life of a channel is reached.
#[derive(Debug)]
struct Open {
    close: watch::Sender<bool>,
    granted: mpsc::Sender<Granted>,
}

impl Open {
    fn close(&self) {
        self.close.send_replace(true);
    }
}

/// The life of one channel, as drawn in `vgpu_zone_api::guest`.
async fn life<C: Channels>(
    connect: Connect,
    bounds: Arc<Bounds>,
    channels: Arc<C>,
    answers: mpsc::Sender<ToGuest>,
    (mut closed, mut granted): (watch::Receiver<bool>, mpsc::Receiver<Granted>),
) -> ChannelId {
    let channel = connect.channel;
    // Answers that cannot be sent have nobody to read them: the stream is over.
    tokio::select! {
        biased;
        () = is_set(&mut closed) => {
            let code = u32::from(Code::PeerGone as u16);
            let _ = answers.send(ToGuest::Refused { channel, code }).await;
            return channel;
        }
        () = bounds.births.wait() => {}
    }
    let (mut worker, arena) = match channels.start(connect).await {
        Ok(started) => started,
        Err(refusal) => {
            bounds.log.warn(format_args!("channel {channel}: refused: {refusal}"));
            let code = u32::from(refusal.code as u16);
            let _ = answers.send(ToGuest::Refused { channel, code }).await;
            return channel;
        }
    };
    let arena_mib = arena.as_ref().map_or(0, GuestArena::mib);
    let _ = answers.send(ToGuest::Accepted { channel, arena_mib }).await;
    let chunks = async {
        match &arena {
            Some(arena) => arena.serve(channel, &answers, &mut granted, &bounds.chunks).await,
            None => std::future::pending().await,
        }
    };
    let has_died = tokio::select! {
        () = worker.ended() => true,
        // The sender goes only with the stream: then as well.
        () = is_set(&mut closed) => {
            worker.kill();
            worker.ended().await;
            false
        }
        never = chunks => match never {},
    };
    // Before anything is said: its pages are counted no longer, and a guest that does not listen would keep them mapped.
    if let Some(arena) = arena {
        arena.end().await;
    }
    if has_died {
        let code = u32::from(Code::WorkerFailed as u16);
        let _ = answers.send(ToGuest::Died { channel, code }).await;
    }
    let _ = answers.send(ToGuest::Unmapped { channel }).await;
    channel
}

/// Returns when the word is true, or nobody can set it any more.
async fn is_set(word: &mut watch::Receiver<bool>) {
    let _ = word.wait_for(|set| *set).await;
}

#[cfg(test)]
mod tests;
