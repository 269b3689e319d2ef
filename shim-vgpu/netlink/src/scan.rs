//! A pod's network as its CNI plugins left it, whole or refused: [`scan`] asks the kernel, [`Dumps::network`] makes of the answers what
//! crosses to the guest.
//!
//! Dropping a rule or half a route silently would send a pod's packets where nobody meant them to go.

mod rules;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::LinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RoutePreference,
        RouteProtocol, RouteType,
    },
    rule::RuleMessage,
};

use vgpu_agent_api::{
    network::{Address, Interface, Mac, NAME_BYTES_MAX, Neighbour, Network, Prefix, Route},
    sysctl::Sysctl,
};

use crate::{
    Rtnetlink,
    link::{self, Link},
    netfilter, sysctls,
};

/// Vifs of a domain are few: each costs its guest memory for its rings.
const INTERFACES_MAX: usize = 8;
/// Far more than a plugin makes, and small enough for one message to the guest.
const ADDRESSES_MAX: usize = 64;
const ROUTES_MAX: usize = 1024;
const NEIGHBOURS_MAX: usize = 1024;
const SYSCTLS_MAX: usize = 1024;
/// Of all their values: a list of ports may be long.
const SYSCTLS_BYTES_MAX: usize = 64 * 1024;

/// Source: Linux, `include/net/addrconf.h`, `INFINITY_LIFE_TIME`.
const FOREVER: u32 = u32::MAX;

/// Why a network cannot be a guest's.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// It has something that is not carried.
    #[error("{0}")]
    Unfit(String),
    /// The kernel did not say what there is.
    #[error("cannot read what the network namespace has")]
    Io(#[from] io::Error),
}

fn unfit<T>(what: impl Into<String>) -> Result<T, ScanError> {
    Err(ScanError::Unfit(what.into()))
}

/// The network of the thread's namespace.
/// # Errors
/// [`ScanError`].
pub fn scan() -> Result<Network, ScanError> {
    let mut netlink = Rtnetlink::open()?;
    let dumps = Dumps::read(&mut netlink)?;
    let mut network = dumps.network()?;
    if let Some(acting) = netfilter::acting()? {
        return unfit(format!(
            "{acting}, which what a guest sends and gets would not pass: they belong into the pod, made by an \
             init container of it, or to the node's end of its interfaces"
        ));
    }
    for link in dumps.carried() {
        if let Some(found) = netlink.incoming(link.index)? {
            return unfit(format!("{} has {found}", link.name));
        }
    }
    network.sysctls = set_sysctls(&network)?;
    Ok(network)
}

/// None without an interface: nobody made a network of the namespace.
fn set_sysctls(network: &Network) -> Result<BTreeMap<Sysctl, String>, ScanError> {
    if network.interfaces.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: Vec<&str> = network.interfaces.iter().map(|interface| &*interface.name).collect();
    let set = sysctls::set_here(&names)?;
    few("sysctls that were set", set.len(), SYSCTLS_MAX)?;
    few("bytes in sysctls that were set", set.values().map(String::len).sum(), SYSCTLS_BYTES_MAX)?;
    let sysctl = |(file, value): (PathBuf, String)| match Sysctl::parse(&file.to_string_lossy()) {
        Ok(sysctl) => Ok((sysctl, value)),
        Err(why) => unfit(format!("of a sysctl that was set, {why}")),
    };
    set.into_iter().map(sysctl).collect()
}

/// What the kernel says there is.
#[derive(Debug)]
pub struct Dumps {
    links: Vec<Link>,
    addresses: Vec<RouteNetlinkMessage>,
    routes: Vec<RouteNetlinkMessage>,
    neighbours: Vec<RouteNetlinkMessage>,
    rules: Vec<RouteNetlinkMessage>,
}

impl Dumps {
    /// Asks for all of it.
    /// # Errors
    /// As [`Rtnetlink::dump`].
    pub fn read(netlink: &mut Rtnetlink) -> io::Result<Self> {
        use RouteNetlinkMessage::{GetAddress, GetLink, GetNeighbour, GetRoute, GetRule};
        Ok(Dumps {
            links: link::links(&netlink.dump(&GetLink(LinkMessage::default()))?),
            addresses: netlink.dump(&GetAddress(AddressMessage::default()))?,
            routes: netlink.dump(&GetRoute(RouteMessage::default()))?,
            neighbours: netlink.dump(&GetNeighbour(NeighbourMessage::default()))?,
            rules: netlink.dump(&GetRule(RuleMessage::default()))?,
        })
    }

    /// What of it is a pod's network.
    /// # Errors
    /// [`ScanError::Unfit`].
    pub fn network(&self) -> Result<Network, ScanError> {
        for rule in &self.rules {
            if let RouteNetlinkMessage::NewRule(rule) = rule {
                rules::refuse(rule)?;
            }
        }
        self.refuse_loopback()?;
        let interfaces: Vec<_> = self.carried().map(|link| self.interface(link)).collect::<Result<_, _>>()?;
        let (routes, neighbours) = (self.routes()?, self.neighbours());
        let network = Network { interfaces, routes, neighbours, sysctls: BTreeMap::new() };
        few("interfaces", network.interfaces.len(), INTERFACES_MAX)?;
        few("routes", network.routes.len(), ROUTES_MAX)?;
        few("permanent neighbours", network.neighbours.len(), NEIGHBOURS_MAX)?;
        for (number, interface) in network.interfaces.iter().enumerate() {
            let earlier = &network.interfaces[..number];
            if let Some(other) = earlier.iter().find(|other| other.mac == interface.mac) {
                return unfit(format!(
                    "{} and {} have one MAC address, {}",
                    other.name, interface.name, other.mac
                ));
            }
        }
        Ok(network)
    }

    /// The links that a guest is to have, in order.
    fn carried(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| link.up && !link.loopback)
    }

    fn number(&self, index: u32) -> Option<usize> {
        self.carried().position(|link| link.index == index)
    }

    fn interface(&self, link: &Link) -> Result<Interface, ScanError> {
        let mac = link.mac.filter(|mac| link.ethernet && mac.is_one());
        let Some(mac) = mac else { return unfit(format!("{} is no Ethernet link", link.name)) };
        if !link.arp {
            return unfit(format!("{} is a link without ARP", link.name));
        }
        debug_assert!(link.name.len() <= NAME_BYTES_MAX);
        let mut addresses = Vec::new();
        for message in &self.addresses {
            if let RouteNetlinkMessage::NewAddress(address) = message
                && address.header.index == link.index
            {
                addresses.extend(read_address(address, link)?);
            }
        }
        few(&format!("addresses of {}", link.name), addresses.len(), ADDRESSES_MAX)?;
        Ok(Interface { name: link.name.clone(), mac, mtu: link.mtu, addresses })
    }

    /// Those of the main table.
    fn routes(&self) -> Result<Vec<Route>, ScanError> {
        let mut routes = Vec::new();
        for message in &self.routes {
            if let RouteNetlinkMessage::NewRoute(message) = message
                && is_main(message)
            {
                routes.extend(self.route(message)?);
            }
        }
        // A gateway has to be reachable before the route by it is added.
        routes.sort_by_key(|route| route.gateway.is_some());
        Ok(routes)
    }

    fn route(&self, message: &RouteMessage) -> Result<Option<Route>, ScanError> {
        let header = &message.header;
        let unspecified: IpAddr = match header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            _ => Ipv6Addr::UNSPECIFIED.into(),
        };
        let mut to = Prefix { ip: unspecified, bits: header.destination_prefix_length };
        let mut route = Route {
            to,
            gateway: None,
            interface: 0,
            metric: 0,
            scope: header.scope.into(),
            onlink: header.flags.contains(RouteFlags::Onlink),
            source: None,
            mtu: None,
            advmss: None,
        };
        let mut through = None;
        let mut odd = None;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(ip) => to.ip = address(ip).unwrap_or(unspecified),
                RouteAttribute::Gateway(ip) => route.gateway = address(ip),
                RouteAttribute::PrefSource(ip) => route.source = address(ip),
                RouteAttribute::Oif(index) => through = Some(*index),
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Metrics(metrics) => odd = odd.or(read_metrics(metrics, &mut route)),
                RouteAttribute::MultiPath(_) => odd = Some("several ways"),
                RouteAttribute::Via(_) => odd = Some("a gateway of another family"),
                RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => odd = Some("an encapsulation"),
                RouteAttribute::Source(_) => odd = Some("a condition on the source"),
                RouteAttribute::Realm(_) => odd = Some("a realm"),
                RouteAttribute::Preference(RoutePreference::Medium) => {}
                RouteAttribute::Preference(_) => odd = Some("another preference than medium"),
                RouteAttribute::CacheInfo(info) if info.expires != 0 => odd = Some("an end in time"),
                _ => {}
            }
        }
        route.to = to;
        if header.kind != RouteType::Unicast {
            return unfit(format!("the route to {to} is of another kind than unicast"));
        }
        if header.tos != 0 {
            odd = Some("a type of service");
        }
        if let Some(odd) = odd {
            return unfit(format!("the route to {to} has {odd}"));
        }
        if header.flags.contains(RouteFlags::Dead) {
            return Ok(None);
        }
        let Some(index) = through else { return unfit(format!("the route to {to} is through no link")) };
        match self.number(index) {
            Some(interface) => Ok(Some(Route { interface, ..route })),
            // As to ::1: the guest's kernel makes it, too.
            None if header.protocol == RouteProtocol::Kernel && self.is_loopback(index) => Ok(None),
            None => {
                let link = self.links.iter().find(|link| link.index == index);
                let name = link.map_or("a link that is gone", |link| &link.name);
                unfit(format!("the route to {to} is through {name}, which is not carried"))
            }
        }
    }

    fn is_loopback(&self, index: u32) -> bool {
        self.links.iter().any(|link| link.index == index && link.loopback)
    }

    /// The loopback has its two addresses in the guest, and no others.
    fn refuse_loopback(&self) -> Result<(), ScanError> {
        for message in &self.addresses {
            if let RouteNetlinkMessage::NewAddress(address) = message
                && let Some(link) = self.links.iter().find(|link| link.index == address.header.index)
                && link.loopback
                && let Some(Address { prefix, .. }) = read_address(address, link)?
                && prefix.ip != Ipv4Addr::LOCALHOST
                && prefix.ip != Ipv6Addr::LOCALHOST
            {
                return unfit(format!("the address {prefix} of {} is not carried", link.name));
            }
        }
        Ok(())
    }

    fn neighbours(&self) -> Vec<Neighbour> {
        let neighbours = self.neighbours.iter().filter_map(|message| {
            let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
            let interface = self.number(message.header.ifindex)?;
            let (mut ip, mut mac) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some((*v4).into()),
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some((*v6).into()),
                    NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes[..].try_into().ok().map(Mac),
                    _ => {}
                }
            }
            let permanent = message.header.state == NeighbourState::Permanent;
            let mac = mac.filter(|mac: &Mac| permanent && mac.is_one())?;
            Some(Neighbour { interface, ip: ip?, mac })
        });
        neighbours.collect()
    }
}

fn few(what: &str, count: usize, most: usize) -> Result<(), ScanError> {
    if count > most { unfit(format!("{count} {what}, more than {most}")) } else { Ok(()) }
}

/// None: it is nobody's, since another on the link has it.
fn read_address(message: &AddressMessage, link: &Link) -> Result<Option<Address>, ScanError> {
    let (mut local, mut far, mut broadcast) = (None, None, None);
    let (mut flags, mut ends) = (AddressFlags::empty(), false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => far = Some(*ip),
            AddressAttribute::Broadcast(ip) => broadcast = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            // It is valid no shorter than it is preferred.
            AddressAttribute::CacheInfo(info) => ends = info.ifa_preferred != FOREVER,
            _ => {}
        }
    }
    let Some(ip) = local.or(far).filter(|_| !flags.contains(AddressFlags::Dadfailed)) else {
        return Ok(None);
    };
    if far.is_some_and(|far| far != ip) {
        return unfit(format!("the address {ip} of {} is of a point-to-point link", link.name));
    }
    if ends {
        return unfit(format!("the address {ip} of {} is one for a time", link.name));
    }
    let prefix = Prefix { ip, bits: message.header.prefix_len };
    let scope = if ip.is_ipv4() { message.header.scope.into() } else { 0 };
    Ok(Some(Address { prefix, broadcast, scope }))
}

fn is_main(message: &RouteMessage) -> bool {
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    matches!(message.header.address_family, AddressFamily::Inet | AddressFamily::Inet6)
        && table.unwrap_or(message.header.table.into()) == RouteHeader::RT_TABLE_MAIN.into()
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

/// What of them is not carried.
fn read_metrics(metrics: &[RouteMetric], route: &mut Route) -> Option<&'static str> {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
            RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
            _ => return Some("another metric than mtu and advmss"),
        }
    }
    None
}

#[cfg(test)]
mod tests;
