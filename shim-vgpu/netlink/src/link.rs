//! Links: which there are, and what is done with one.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
        LinkInfo, LinkLayerType, LinkMessage,
    },
};
use rustix::io::Errno;
use vgpu_agent_api::network::Mac;

use crate::Rtnetlink;

/// A link as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its network namespace.
    pub index: u32,
    /// Its name there.
    pub name: String,
    /// If it has one of Ethernet's form.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// Up, by who configures it.
    pub up: bool,
    /// Up at both ends.
    pub carrier: bool,
    /// The namespace's own.
    pub loopback: bool,
    /// It carries Ethernet's frames.
    pub ethernet: bool,
    /// Who is on it is asked for by ARP and by IPv6's like.
    pub arp: bool,
}

impl Link {
    fn from_message(message: &LinkMessage) -> Self {
        let header = &message.header;
        let has = |flags: LinkFlags| header.flags.contains(flags);
        let mut link = Link {
            index: header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: has(LinkFlags::Up),
            carrier: has(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running),
            loopback: has(LinkFlags::Loopback),
            ethernet: header.link_layer_type == LinkLayerType::Ether,
            arp: !has(LinkFlags::Noarp),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(bytes) => link.mac = bytes[..].try_into().ok().map(Mac),
                _ => {}
            }
        }
        link
    }
}

/// The links of a dump.
pub(crate) fn links(dump: &[RouteNetlinkMessage]) -> Vec<Link> {
    let links = dump.iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(Link::from_message(link)),
        _ => None,
    });
    links.collect()
}

fn message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

impl Rtnetlink {
    /// All links.
    /// # Errors
    /// As [`Rtnetlink::dump`].
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        Ok(links(&self.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?))
    }

    /// The link of this name.
    /// # Errors
    /// As [`Rtnetlink::links`].
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Gives it another name.
    /// # Errors
    /// It is gone, or the name is taken.
    pub fn rename(&mut self, index: u32, name: &str) -> io::Result<()> {
        self.set(message(index, vec![LinkAttribute::IfName(name.into())]))
    }

    /// Sets how large its packets are at most.
    /// # Errors
    /// It is gone, or cannot have that.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.set(message(index, vec![LinkAttribute::Mtu(mtu)]))
    }

    /// Sets its Ethernet address.
    /// # Errors
    /// It is gone, or cannot have that.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> io::Result<()> {
        self.set(message(index, vec![LinkAttribute::Address(mac.0.to_vec())]))
    }

    /// Puts it up or down.
    /// # Errors
    /// It is gone.
    pub fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        let mut message = message(index, Vec::new());
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.set(message)
    }

    /// Keeps the kernel from giving it an IPv6 address, and from asking for routers, when it goes up.
    /// # Errors
    /// It is gone. A link without IPv6 is no error.
    pub fn no_own_addresses(&mut self, index: u32) -> io::Result<()> {
        let mode = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
        let set =
            self.set(message(index, vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(mode)])]));
        match set {
            Err(error) if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => Ok(()),
            set => set,
        }
    }

    /// Moves it into another network namespace, where it is down.
    /// # Errors
    /// It is gone, or its name is taken there.
    pub fn move_to(&mut self, index: u32, namespace: impl AsFd) -> io::Result<()> {
        let namespace = namespace.as_fd().as_raw_fd();
        self.set(message(index, vec![LinkAttribute::NetNsFd(namespace)]))
    }

    /// Removes a virtual link, and the other end of a veth.
    /// # Errors
    /// It is gone, or not of this kind.
    pub fn remove_link(&mut self, index: u32) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::DelLink(message(index, Vec::new())), 0)
    }

    /// Makes two ends of one wire, both here.
    /// # Errors
    /// A name is taken.
    pub fn add_veth(&mut self, name: &str, peer: &str) -> io::Result<()> {
        let end = |name: &str| LinkAttribute::IfName(name.into());
        let info = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(message(0, vec![end(peer)])))),
        ];
        let veth = message(0, vec![end(name), LinkAttribute::LinkInfo(info)]);
        self.ask(RouteNetlinkMessage::NewLink(veth), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn set(&mut self, message: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
    }
}
