//! The real [`Link`]: `idm`'s `xen` transport, over one connection to xenstored.
//!
//! Everything that a guest wrote comes through `idm`, which checks it; a number of pages, a reference or a port that is not right ends the
//! stream and nothing else.

pub mod nodes;
mod vif;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use idm::{
    Fault, Liveness, Peer,
    hello::{self, Hello},
    stream::{AsyncStream, Stream, StreamSpec},
    xen::{
        DomId, GrantRef, XenError,
        death::{Deaths, RELEASE_DOMAIN},
        device::{self, Backend, Device},
        domain::{Identity, own_domid},
        offer::{Offer, accept_stream},
        xenstore::{Client, Store as _, XsError},
    },
};
use tokio::{sync::watch, task::block_in_place};
use uuid::Uuid;
use vgpu_agent_api::{agent::StreamOffer, wire};
use vgpu_codes::Code;
use vgpu_netlink::Namespace;

use crate::{
    error::{Error, OrFail, Result, blocking},
    link::{AnyStream, Link},
    network::Vif,
};

/// How long a thread waits for a guest before it looks whether somebody still wants it.
const TURN: Duration = Duration::from_secs(1);
/// Between two tries to reach a xenstored that is gone.
const RETRY: Duration = Duration::from_secs(1);

/// Connects lazily: a shim that is asked for nothing of Xen touches nothing of Xen.
#[derive(Debug, Default)]
pub struct XenLink {
    held: Mutex<Held>,
    endings: Arc<watch::Sender<u64>>,
    /// Whether endings are counted.
    watches: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    xenstore: Option<Client>,
    /// Marks the streams of a domain that is gone.
    deaths: Option<Deaths>,
    /// Of this pod's domain.
    liveness: Option<(u16, Liveness)>,
}

impl XenLink {
    /// The connection to xenstored, made at its first use.
    ///
    /// # Errors
    /// [`Code::NoXen`]; [`Code::HostFailure`] if there is Xen and no connection is to be had.
    pub fn xenstore(&self) -> Result<Client> {
        self.lock().xenstore()
    }

    /// Removes nodes that carry a domain's id, unless the id is another domain's by now.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn remove_if_ours(
        &self,
        domid: u16,
        uuid: Uuid,
        remove: impl Fn(&Client) -> Result<(), XsError>,
    ) -> Result<()> {
        let what = || format!("cannot remove what xenstore holds of domain {domid}");
        let xenstore = match self.xenstore() {
            Ok(xenstore) => xenstore,
            // Without Xen there are no nodes.
            Err(error) if error.code() == Some(Code::NoXen) => return Ok(()),
            Err(error) => return Err(error),
        };
        let owner =
            xenstore.read_if_there(&format!("/local/domain/{domid}/vm")).or_fail(Code::HostFailure, what)?;
        if owner.is_some_and(|owner| owner != format!("/vm/{uuid}").as_bytes()) {
            return Ok(());
        }
        remove(&xenstore).or_fail(Code::HostFailure, what)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a stream with this domain needs: the connection, and a sign of the domain's end. May wait for xenstored.
    fn peer(&self, domid: u16) -> Result<(Client, DomId, Liveness)> {
        let what = || format!("domain {domid} is gone");
        let guest = guest_id(domid)?;
        let mut held = self.lock();
        let xenstore = held.xenstore()?;
        let known = held.liveness.as_ref().filter(|(of, _)| *of == domid);
        let liveness = match known {
            Some((_, liveness)) => liveness.try_clone().or_fail(Code::HostFailure, what)?,
            None => {
                if held.deaths.is_none() {
                    held.deaths =
                        Some(Deaths::of_domains(&xenstore).map_err(|error| guest_error(domid, error))?);
                }
                let identity = Identity::of(&xenstore, guest).map_err(|error| guest_error(domid, error))?;
                // Filled just above.
                let Some(deaths) = &held.deaths else { return Err(Error::new(Code::HostFailure, what())) };
                let liveness = deaths.domain(identity).map_err(|error| guest_error(domid, error))?;
                let copy = liveness.try_clone().or_fail(Code::HostFailure, what)?;
                held.liveness = Some((domid, liveness));
                copy
            }
        };
        Ok((xenstore, guest, liveness))
    }
}

impl Held {
    fn xenstore(&mut self) -> Result<Client> {
        if let Some(client) = self.xenstore.as_ref().filter(|client| !client.has_ended()) {
            return Ok(client.clone());
        }
        let client = Client::connect().map_err(|error| {
            // Without a door there is no Xen; behind one that stays shut there may be nodes.
            let code = if error.is_no_xen() { Code::NoXen } else { Code::HostFailure };
            Error::caused(code, "cannot connect to xenstored", error)
        })?;
        Ok(self.xenstore.insert(client).clone())
    }
}

#[async_trait]
impl Link for XenLink {
    fn make_devices(&self, domid: u16, driver_domain: u16) -> Result<()> {
        let what = || format!("cannot write the IDM devices of domain {domid}");
        let xenstore = self.xenstore()?;
        for device in devices(&xenstore, domid, driver_domain)? {
            device::create(&xenstore, device).or_fail(Code::HostFailure, what)?;
        }
        Ok(())
    }

    fn remove_devices(&self, domid: u16, uuid: Uuid, driver_domain: u16) -> Result<()> {
        let devices = match self.xenstore().and_then(|xenstore| devices(&xenstore, domid, driver_domain)) {
            Ok(devices) => devices,
            Err(error) if error.code() == Some(Code::NoXen) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.remove_if_ours(domid, uuid, |xenstore| {
            devices.iter().try_for_each(|device| device::remove(xenstore, *device))
        })
    }

    fn make_vifs(&self, domid: u16, vifs: &[Vif], namespace: &Namespace) -> Result<()> {
        vif::make(&self.xenstore()?, guest_id(domid)?, vifs, namespace)
    }

    fn remove_vifs(&self, domid: u16, uuid: Uuid, _: Option<&Namespace>) -> Result<()> {
        self.remove_if_ours(domid, uuid, |xenstore| vif::remove(xenstore, domid))
    }

    fn vif_changes(&self, domid: u16, vifs: usize) -> watch::Receiver<u64> {
        let (sender, changes) = watch::channel(0);
        let states = vif::states(domid, vifs);
        // Ends with the process: the shim has one pod.
        let counting = thread::Builder::new().name("vifs".into());
        if let Err(error) = counting.spawn(move || vif::count_changes(domid, vifs, states, &sender)) {
            // With the sender the watch ends.
            log::error!("nobody counts what domain {domid} does to its network devices: {error}");
        }
        changes
    }

    async fn agent(&self, domid: u16) -> Result<AnyStream> {
        let spec =
            StreamSpec { to_taker_bytes: wire::AGENT_RING_BYTES, to_maker_bytes: wire::AGENT_RING_BYTES };
        let stream = loop {
            let (xenstore, guest, liveness) = block_in_place(|| self.peer(domid))?;
            let turn = blocking(move || {
                let device = Device { guest, number: wire::DEVICE, backend: backend_id(&xenstore)? };
                match Backend::new(&xenstore, device).accept(spec, TURN, liveness) {
                    Ok(stream) => Ok(Some(stream)),
                    Err(XenError::Late { .. }) => Ok(None),
                    Err(error) => Err(guest_error(domid, error)),
                }
            });
            if let Some(stream) = turn.await? {
                break stream;
            }
        };
        let mut stream = asynchronous(stream)?;
        let mine = Hello::new(wire::RECORD_BYTES_MAX, wire::APPLICATION);
        let agreed = hello::exchange_async(&mut stream, &mine, Peer::Domain(domid)).await;
        let agreed = agreed.map_err(|error| {
            let code = if error.fault() == Fault::Gone { Code::GuestGone } else { Code::ProtocolVersion };
            Error::caused(
                code,
                format!("the agent stream of domain {domid} did not begin with a hello"),
                error,
            )
        })?;
        if let Some(theirs) = agreed.peer_build.other() {
            log::info!("the guest of domain {domid} is of release {theirs}, this shim of {}", mine.build);
        }
        Ok(Box::new(stream))
    }

    async fn accept(&self, domid: u16, offer: &StreamOffer) -> Result<AnyStream> {
        let spec =
            StreamSpec { to_taker_bytes: wire::STDIO_RING_BYTES, to_maker_bytes: wire::STDIO_RING_BYTES };
        let (_, guest, liveness) = block_in_place(|| self.peer(domid))?;
        let offer =
            Offer { refs: offer.grant_refs.iter().copied().map(GrantRef).collect(), port: offer.port };
        let stream = blocking(move || {
            accept_stream(guest, &offer, spec, Some(liveness)).map_err(|error| guest_error(domid, error))
        })
        .await?;
        Ok(Box::new(asynchronous(stream)?))
    }

    fn endings(&self) -> watch::Receiver<u64> {
        // Not under the lock, which is held while xenstored is waited for.
        if !self.watches.swap(true, Ordering::Relaxed) {
            let endings = self.endings.clone();
            // Ends with the process: the shim has one pod.
            let counting = thread::Builder::new().name("endings".into());
            if let Err(error) = counting.spawn(move || count_endings(&endings)) {
                log::error!("nobody hears yet of the ends of domains: {error}");
                self.watches.store(false, Ordering::Relaxed);
            }
        }
        self.endings.subscribe()
    }
}

/// Counts what `@releaseDomain` says, over xenstored's restarts too.
fn count_endings(endings: &watch::Sender<u64>) {
    loop {
        let watched = Client::connect().and_then(|xenstore| xenstore.watch(RELEASE_DOMAIN));
        if let Ok(watch) = watched {
            while let Ok(fired) = watch.wait(Duration::from_secs(3600)) {
                if fired {
                    endings.send_modify(|count| *count += 1);
                }
            }
        }
        thread::sleep(RETRY);
    }
}

fn guest_id(domid: u16) -> Result<DomId> {
    DomId::new(domid).ok_or_else(|| Error::new(Code::HostFailure, format!("{domid} is no domain's id")))
}

/// The shim's own domain serves the agent.
fn backend_id(xenstore: &Client) -> Result<DomId> {
    own_domid(xenstore).or_fail(Code::HostFailure, || "cannot tell which domain this is".into())
}

fn devices(xenstore: &Client, domid: u16, driver_domain: u16) -> Result<[Device; 2]> {
    let guest = guest_id(domid)?;
    Ok([
        Device { guest, number: wire::DEVICE, backend: backend_id(xenstore)? },
        Device { guest, number: vgpu_zone_api::guest::wire::DEVICE, backend: guest_id(driver_domain)? },
    ])
}

fn asynchronous(stream: Stream) -> Result<AsyncStream> {
    AsyncStream::new(stream).or_fail(Code::HostFailure, || "cannot wait for a stream's doorbell".into())
}

/// Whose fault it is decides the code.
fn guest_error(domid: u16, error: XenError) -> Error {
    let what = format!("the streams of domain {domid}");
    match error.fault() {
        Fault::Gone => Error::caused(Code::GuestGone, what, error),
        Fault::Peer => Error::caused(Code::ProtocolBroken, what, error),
        Fault::Ours => Error::caused(Code::HostFailure, what, error),
    }
}
