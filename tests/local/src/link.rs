//! The way to the guest by sockets: `agent` carries ttrpc, `streams` gives out the far ends of stdio ([`crate::handover`]).
//!
//! In the place of idm's rings, so without their hello. A vif is a veth: its end in the guest waits in the pod's network namespace until the
//! guest has one, which it has when it listens; one that is made later is the guest's at once.

use std::{
    fs, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rustix::io::Errno;
use shim_vgpu::seams::{AnyStream, Error, Link, Result, Vif};
use tokio::{net::UnixStream, sync::watch};
use uuid::Uuid;
use vgpu_agent_api::agent::StreamOffer;
use vgpu_codes::Code;
use vgpu_netlink::{Namespace, Rtnetlink};

use crate::{
    handover,
    node::{Node, failed, remove},
};

/// Until a guest that boots is looked for again.
const PAUSE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub struct LocalLink {
    pub node: Node,
    pub endings: Arc<watch::Sender<u64>>,
    pub vifs: Mutex<Vifs>,
}

/// The two namespaces that the guest's ends of its vifs pass, as far as they are known.
#[derive(Debug, Default)]
pub struct Vifs {
    pod: Option<Namespace>,
    guest: Option<Namespace>,
}

impl Vifs {
    /// Moves the devices from the one to the other, when there are both.
    fn give(&self, domid: u16) -> io::Result<()> {
        let (Some(pod), Some(guest)) = (&self.pod, &self.guest) else { return Ok(()) };
        pod.enter(|| each(&devices(domid), |netlink, index| netlink.move_to(index, guest))).flatten()
    }
}

/// What the names of the guest's ends begin with.
fn devices(domid: u16) -> String {
    format!("gst{domid}.")
}

/// Does something to each link whose name begins so. The other end of a veth may have taken it along.
fn each(names: &str, mut work: impl FnMut(&mut Rtnetlink, u32) -> io::Result<()>) -> io::Result<()> {
    let mut netlink = Rtnetlink::open()?;
    for link in netlink.links()?.iter().filter(|link| link.name.starts_with(names)) {
        match work(&mut netlink, link.index) {
            Err(gone) if gone.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {}
            done => done?,
        }
    }
    Ok(())
}

/// The network namespace of who listens at this stream's other end.
fn network_of(stream: &UnixStream) -> io::Result<Namespace> {
    let guest = rustix::net::sockopt::socket_peercred(stream)?.pid;
    Namespace::open(format!("/proc/{}/ns/net", guest.as_raw_nonzero()).as_ref())
}

impl LocalLink {
    fn known(&self, domid: u16) -> Result<Option<Uuid>> {
        let known = self.node.known(domid).map_err(failed(format!("cannot read what domain {domid} is")))?;
        Ok(known.map(|domain| domain.uuid))
    }
}

#[async_trait]
impl Link for LocalLink {
    fn make_devices(&self, domid: u16, _: u16) -> Result<()> {
        let devices = self.node.devices(domid);
        // An earlier domain's of this id, which its shim has not got to yet.
        remove(&devices)?;
        fs::create_dir_all(&devices).map_err(failed(format!("cannot make {}", devices.display())))
    }

    fn remove_devices(&self, domid: u16, uuid: Uuid, _: u16) -> Result<()> {
        match self.known(domid)? {
            Some(other) if other != uuid => Ok(()),
            _ => remove(&self.node.devices(domid)),
        }
    }

    fn make_vifs(&self, domid: u16, vifs: &[Vif], namespace: &Namespace) -> Result<()> {
        let make = || {
            let mut netlink = Rtnetlink::open()?;
            for vif in vifs {
                let device = format!("{}{}", devices(domid), vif.number);
                netlink.add_veth(&vif.name(domid), &device)?;
                let index = netlink.link(&device)?.ok_or(io::ErrorKind::NotFound)?.index;
                netlink.set_mac(index, vif.mac)?;
            }
            Ok(())
        };
        let made = namespace.enter(make).flatten().and_then(|()| {
            let mut known = self.vifs.lock().unwrap_or_else(PoisonError::into_inner);
            known.pod = Some(namespace.try_clone()?);
            known.give(domid)
        });
        made.map_err(failed(format!("cannot make the vifs of domain {domid}")))
    }

    fn remove_vifs(&self, domid: u16, uuid: Uuid, namespace: Option<&Namespace>) -> Result<()> {
        let Some(namespace) = namespace else { return Ok(()) };
        if self.known(domid)?.is_some_and(|other| other != uuid) {
            return Ok(());
        }
        let removed = namespace.enter(|| each(&Vif::names(domid), Rtnetlink::remove_link));
        removed.flatten().map_err(failed(format!("cannot remove the vifs of domain {domid}")))
    }

    /// Veths have none.
    fn vif_changes(&self, _: u16, _: usize) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    async fn agent(&self, domid: u16) -> Result<AnyStream> {
        loop {
            if let Ok(stream) = UnixStream::connect(self.node.agent(domid)).await {
                let given = tokio::task::block_in_place(|| {
                    let mut known = self.vifs.lock().unwrap_or_else(PoisonError::into_inner);
                    known.guest = Some(network_of(&stream)?);
                    known.give(domid)
                });
                given.map_err(failed(format!("cannot give domain {domid} its vifs")))?;
                return Ok(Box::new(stream));
            }
            if self.known(domid)?.is_none() {
                return Err(Error::new(Code::GuestGone, format!("domain {domid} is gone")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn accept(&self, domid: u16, offer: &StreamOffer) -> Result<AnyStream> {
        let (socket, port) = (self.node.streams(domid), offer.port);
        let received = tokio::task::spawn_blocking(move || handover::receive(&socket, port)).await;
        let stream = received
            .map_err(io::Error::other)
            .flatten()
            .and_then(|stream| {
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream)
            })
            .map_err(|error| Error::caused(Code::GuestGone, format!("a stream of domain {domid}"), error))?;
        Ok(Box::new(stream))
    }

    fn endings(&self) -> watch::Receiver<u64> {
        self.endings.subscribe()
    }
}
