//! The pod's network: what CNI plugins made in its network namespace becomes the guest's.
//!
//! [`PodNetwork::scan`] reads it before a guest is built, or before its program runs; [`PodNetwork::join`] makes each interface and the vif of the guest one way, so
//! that plugins' rules, at the interface's other end, hold for the guest; guest-init gets the rest ([`crate::guest::Guest::set_network`]).
//! The namespace's own IP hears nothing from then on. [`leave`] takes all of it away, by the record alone, and nothing of anybody else's.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vgpu_agent_api::{
    network::{Mac, Network},
    sysctl::Sysctl,
};
use vgpu_codes::Code;
use vgpu_netlink::{
    Id, Namespace, Rtnetlink,
    scan::{ScanError, scan},
};

use crate::{
    error::{Error, OrFail, Result},
    link::Link,
};

/// One network device of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vif {
    /// Its number among the guest's, from 0.
    pub number: usize,
    /// The guest finds it by this.
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
}

impl Vif {
    /// The node's side of it. Source: Linux, `drivers/net/xen-netback/interface.c`, `xenvif_alloc`.
    pub fn name(&self, domid: u16) -> String {
        format!("{}{}", Vif::names(domid), self.number)
    }

    /// What the names of all of a domain begin with.
    pub fn names(domid: u16) -> String {
        format!("vif{domid}.")
    }
}

/// What is on disk of it, from before anything is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// The namespace's path, which may be another's later.
    pub namespace: PathBuf,
    /// With the inode, which namespace it was: a hint, since a new one gets the inode of one that is gone.
    pub device: u64,
    /// See `device`.
    pub inode: u64,
    /// Those of its interfaces that are joined with vifs.
    pub interfaces: Vec<String>,
}

/// The network of a pod's namespace, as it was found.
#[derive(Debug)]
pub struct PodNetwork {
    namespace: Namespace,
    record: NetworkRecord,
    network: Network,
}

impl PodNetwork {
    /// Reads what a namespace has which others find at `path`, without the sysctls that the pod sets itself; none if that is a loopback alone. Blocks.
    ///
    /// # Errors
    /// [`Code::SpecRefused`] for what cannot be a guest's, [`Code::NetworkFailed`].
    pub fn scan(path: &Path, namespace: &Namespace, set_by_pod: &BTreeSet<Sysctl>) -> Result<Option<Self>> {
        let what = || format!("cannot use the network namespace {}", path.display());
        let namespace = namespace.try_clone().or_fail(Code::NetworkFailed, what)?;
        let id = namespace.id().or_fail(Code::NetworkFailed, what)?;
        let hosts = Namespace::open(Path::new("/proc/self/ns/net")).and_then(|hosts| hosts.id());
        if id == hosts.or_fail(Code::NetworkFailed, what)? {
            // Refused by its path before ([`crate::spec::refuse`]), which may have led elsewhere by then.
            return Err(Error::new(Code::NetworkFailed, format!("{}: it is the host's", what())));
        }
        let mut network = match namespace.enter(scan).or_fail(Code::NetworkFailed, what)? {
            Ok(network) => network,
            Err(ScanError::Unfit(found)) => {
                let what = format!("linux.namespaces asks for the network of {}", path.display());
                return Err(Error::new(
                    Code::SpecRefused,
                    format!("{what}, which a pod in a domain cannot have: {found}"),
                ));
            }
            Err(error) => return Err(Error::caused(Code::NetworkFailed, what(), error)),
        };
        if network.interfaces.is_empty() {
            return Ok(None);
        }
        network.sysctls.retain(|sysctl, _| !set_by_pod.contains(sysctl));
        let interfaces = network.interfaces.iter().map(|interface| interface.name.clone()).collect();
        let (namespace_path, Id { device, inode }) = (path.to_owned(), id);
        let record = NetworkRecord { namespace: namespace_path, device, inode, interfaces };
        Ok(Some(PodNetwork { namespace, record, network }))
    }

    /// What is to be on disk before [`PodNetwork::join`].
    pub fn record(&self) -> &NetworkRecord {
        &self.record
    }

    /// What the guest is told.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Gives the guest of domain `uuid` its vifs, and makes each one way with its interface. Blocks.
    ///
    /// # Errors
    /// [`Code::NetworkFailed`].
    pub fn join(&self, link: &dyn Link, domid: u16, uuid: Uuid) -> Result<()> {
        let interfaces = self.network.interfaces.iter().enumerate();
        let vifs: Vec<_> = interfaces
            .map(|(number, interface)| Vif { number, mac: interface.mac, mtu: interface.mtu })
            .collect();
        link.make_vifs(domid, &vifs, &self.namespace)?;
        let joined = self.namespace.enter(|| {
            let mut netlink = Rtnetlink::open()?;
            vifs.iter().zip(&self.record.interfaces).try_for_each(|(vif, interface)| {
                join(&mut netlink, interface, &vif.name(domid), vif.mtu, uuid)
                    .map_err(|error| io::Error::new(error.kind(), format!("{interface}: {error}")))
            })
        });
        joined.flatten().or_fail(Code::NetworkFailed, || {
            format!("cannot join the pod's interfaces with the vifs of domain {domid}")
        })
    }
}

fn join(netlink: &mut Rtnetlink, interface: &str, vif: &str, mtu: u32, uuid: Uuid) -> io::Result<()> {
    let near = index(netlink, interface)?;
    let far = index(netlink, vif)?;
    netlink.no_own_addresses(far)?;
    netlink.set_mtu(far, mtu)?;
    netlink.set_up(far, true)?;
    netlink.join(near, far, uuid.into_bytes())
}

fn index(netlink: &mut Rtnetlink, name: &str) -> io::Result<u32> {
    let link = netlink.link(name)?;
    link.map(|link| link.index)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no {name}")))
}

/// Takes away the vifs of a domain that runs no more, and takes the pod's interfaces out of their ways; a namespace that is gone has taken
/// them with it. Blocks.
///
/// # Errors
/// What the link's removal says; [`Code::NetworkFailed`].
pub fn leave(link: &dyn Link, record: &NetworkRecord, domid: u16, uuid: Uuid) -> Result<()> {
    let what = || format!("cannot take the network of {} from domain {domid}", record.namespace.display());
    let namespace = record.open().or_fail(Code::NetworkFailed, what)?;
    // Whatever becomes of them, the pod's interfaces are the pod's again.
    let removed = link.remove_vifs(domid, uuid, namespace.as_ref());
    let Some(namespace) = namespace else { return removed };
    let parted = namespace.enter(|| {
        let mut netlink = Rtnetlink::open()?;
        record.interfaces.iter().try_for_each(|name| match netlink.link(name)? {
            Some(link) => netlink.part(link.index, uuid.into_bytes()),
            None => Ok(()),
        })
    });
    removed.and(parted.flatten().or_fail(Code::NetworkFailed, what))
}

impl NetworkRecord {
    /// The namespace, if it is still there; or one that has its path and inode now.
    fn open(&self) -> io::Result<Option<Namespace>> {
        let namespace = match Namespace::open(&self.namespace) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let was = Id { device: self.device, inode: self.inode };
        Ok((namespace.id()? == was).then_some(namespace))
    }
}
