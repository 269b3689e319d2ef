//! The guest's door over Xen: one GPU stream a zone (`device/vgpu-idm/1`), on which guest-init offers a channel for each process.
//!
//! ```text
//! registered ─► the domain has the UUID that the shim said ─► stream accepted ─► hellos ─► messages ─► the guest or the zone ends
//! ```
//! The peer is hostile. What it says is bounded by `vgpu-zone-api`; how many channels it may have by [`Limits`](super::zones::Limits);
//! one broken message ends its stream and its workers, and nobody else's.

mod arena;
mod births;
mod stream;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use idm::hello;
use idm::stream::{AsyncStream, Stream, StreamSpec};
use idm::xen::death::Deaths;
use idm::xen::device::{Backend, Device};
use idm::xen::domain::{Identity, Uuid};
use idm::xen::xenstore::{Client, XsError};
use idm::xen::{DomId, XenError};
use idm::{Liveness, Peer};
use tokio::sync::watch;
use vgpu_codes::{Code, with_causes};
use vgpu_zone_api::guest::wire;
use vgpu_zone_api::shim::{DomainRef, ZoneId, ZoneState};

use super::Supervisor;
use super::refusal::Refusal;
use super::running::ArenaKind;
use super::zone_log::ZoneLog;
use births::Starter;
use stream::{Bounds, messages};

/// How long one wait for the guest's offer lasts before the zone's end is looked for.
const OFFER_ROUND: Duration = Duration::from_millis(500);
/// For the guest's hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
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

/// Returns when the word is true, or nobody can set it any more.
async fn is_set(word: &mut watch::Receiver<bool>) {
    let _ = word.wait_for(|set| *set).await;
}

#[cfg(test)]
mod tests;
