//! What a pod has of a network: interfaces with their addresses, routes, neighbours, sysctls. The shim reads it, guest-init makes it.
//!
//! [`Network::to_wire`] and [`Network::from_wire`] are the two ends of `SetNetwork`; the latter checks all that a receiver relies on.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use crate::{
    agent::{NetworkAddress, NetworkInterface, NetworkNeighbour, NetworkRoute, SetNetworkRequest},
    sysctl::Sysctl,
};

/// The longest name of an interface, in bytes. Source: Linux, `include/uapi/linux/if.h`, IFNAMSIZ, which counts a NUL too.
pub const NAME_BYTES_MAX: usize = 15;
/// For all devices of a guest to be there and to have a carrier, which comes when the node serves them: on a node with much to do not soon.
pub const DEVICES_LIMIT: Duration = Duration::from_secs(30);
/// What IPv4 asks of a link at least (RFC 791), and what an IP packet's length can say at most.
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Its interfaces but the loopback.
    pub interfaces: Vec<Interface>,
    /// Of the main table, those first that others need to be added.
    pub routes: Vec<Route>,
    /// The permanent ones.
    pub neighbours: Vec<Neighbour>,
    /// Those that somebody set, and their values. Of the network alone.
    pub sysctls: BTreeMap<Sysctl, String>,
}

/// An Ethernet interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What programs see.
    pub name: String,
    /// Tells it from the others.
    pub mac: Mac,
    /// In bytes.
    pub mtu: u32,
    /// In their order.
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// With what it is in.
    pub prefix: Prefix,
    /// Whom programs ask for to reach all who are in it; the kernel sends there by the prefix.
    pub broadcast: Option<Ipv4Addr>,
    /// Source: rtnetlink(7), RT_SCOPE_*. Of IPv6 0: there the address itself says it.
    pub scope: u8,
}

/// One that is valid everywhere and has no broadcast address.
impl From<Prefix> for Address {
    fn from(prefix: Prefix) -> Self {
        Address { prefix, broadcast: None, scope: 0 }
    }
}

/// An address and how many bits of it are its network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address.
    pub ip: IpAddr,
    /// 32 or 128 at most.
    pub bits: u8,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Prefix,
    /// By whom.
    pub gateway: Option<IpAddr>,
    /// Through which of the interfaces.
    pub interface: usize,
    /// The lower is preferred.
    pub metric: u32,
    /// Source: rtnetlink(7), RT_SCOPE_*.
    pub scope: u8,
    /// The gateway is on the link, whatever the addresses say.
    pub onlink: bool,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// Of this way, where it is not the interface's.
    pub mtu: Option<u32>,
    /// The advertised segment size of TCP, where it is not the kernel's choice.
    pub advmss: Option<u32>,
}

/// A neighbour whose MAC address is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// On which of the interfaces.
    pub interface: usize,
    /// Who.
    pub ip: IpAddr,
    /// Where.
    pub mac: Mac,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// A field that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Which.
    pub field: &'static str,
    /// What it holds.
    pub why: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

impl std::error::Error for Malformed {}

fn malformed<T>(field: &'static str, why: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed { field, why: why.into() })
}

impl Network {
    /// As a request.
    #[must_use]
    pub fn to_wire(&self) -> SetNetworkRequest {
        SetNetworkRequest {
            interfaces: self.interfaces.iter().map(Interface::to_wire).collect(),
            routes: self.routes.iter().map(Route::to_wire).collect(),
            neighbours: self.neighbours.iter().map(Neighbour::to_wire).collect(),
            sysctls: self.sysctls.iter().map(|(sysctl, value)| (sysctl.file(), value.clone())).collect(),
            ..SetNetworkRequest::default()
        }
    }

    /// From a request.
    /// # Errors
    /// The first field that cannot be used.
    pub fn from_wire(request: &SetNetworkRequest) -> Result<Self, Malformed> {
        let interfaces: Vec<_> =
            request.interfaces.iter().map(Interface::from_wire).collect::<Result<_, _>>()?;
        for (number, interface) in interfaces.iter().enumerate() {
            let earlier = &interfaces[..number];
            if earlier.iter().any(|other| other.name == interface.name) {
                return malformed("interfaces.name", format!("two are {}", interface.name));
            }
            if earlier.iter().any(|other| other.mac == interface.mac) {
                return malformed("interfaces.mac", format!("two have {}", interface.mac));
            }
        }
        let count = interfaces.len();
        let routes =
            request.routes.iter().map(|route| Route::from_wire(route, count)).collect::<Result<_, _>>()?;
        let neighbours = request.neighbours.iter().map(|neighbour| Neighbour::from_wire(neighbour, count));
        let neighbours = neighbours.collect::<Result<_, _>>()?;
        let sysctls = request.sysctls.iter().map(|(name, value)| match Sysctl::parse(name) {
            Ok(sysctl) if sysctl.is_network() => Ok((sysctl, value.clone())),
            Ok(_) => malformed("sysctls", format!("{name} is not of the network")),
            Err(why) => malformed("sysctls", why.to_string()),
        });
        let sysctls = sysctls.collect::<Result<_, _>>()?;
        Ok(Network { interfaces, routes, neighbours, sysctls })
    }
}

impl Interface {
    fn to_wire(&self) -> NetworkInterface {
        NetworkInterface {
            name: self.name.clone(),
            mac: self.mac.0.to_vec(),
            mtu: self.mtu,
            addresses: self.addresses.iter().copied().map(Address::to_wire).collect(),
            ..NetworkInterface::default()
        }
    }

    fn from_wire(wire: &NetworkInterface) -> Result<Self, Malformed> {
        if !is_name(&wire.name) {
            return malformed("interfaces.name", format!("{:?} is no interface's name", wire.name));
        }
        if !MTU.contains(&wire.mtu) {
            return malformed("interfaces.mtu", format!("{} bytes", wire.mtu));
        }
        let addresses = wire.addresses.iter().map(Address::from_wire).collect::<Result<_, _>>()?;
        let mac = Mac::from_wire("interfaces.mac", &wire.mac)?;
        Ok(Interface { name: wire.name.clone(), mac, mtu: wire.mtu, addresses })
    }
}

impl Address {
    fn to_wire(self) -> NetworkAddress {
        NetworkAddress {
            ip: bytes(self.prefix.ip),
            prefix: self.prefix.bits.into(),
            broadcast: self.broadcast.map(|ip| ip.octets().to_vec()).unwrap_or_default(),
            scope: self.scope.into(),
            ..NetworkAddress::default()
        }
    }

    fn from_wire(wire: &NetworkAddress) -> Result<Self, Malformed> {
        let prefix = Prefix::new("interfaces.addresses", &wire.ip, wire.prefix)?;
        let broadcast = match &wire.broadcast[..] {
            [] => None,
            bytes => match address("interfaces.addresses.broadcast", bytes)? {
                IpAddr::V4(v4) if prefix.ip.is_ipv4() => Some(v4),
                ip => return malformed("interfaces.addresses.broadcast", format!("{ip} of {prefix}")),
            },
        };
        let Ok(scope) = u8::try_from(wire.scope) else {
            return malformed("interfaces.addresses.scope", wire.scope.to_string());
        };
        Ok(Address { prefix, broadcast, scope })
    }
}

impl Prefix {
    fn new(field: &'static str, ip: &[u8], bits: u32) -> Result<Self, Malformed> {
        let ip = address(field, ip)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        match u8::try_from(bits) {
            Ok(bits) if bits <= most => Ok(Prefix { ip, bits }),
            _ => malformed(field, format!("{ip}/{bits}")),
        }
    }
}

impl Route {
    fn to_wire(&self) -> NetworkRoute {
        NetworkRoute {
            destination: bytes(self.to.ip),
            prefix: self.to.bits.into(),
            gateway: self.gateway.map(bytes).unwrap_or_default(),
            interface: number(self.interface),
            metric: self.metric,
            scope: self.scope.into(),
            onlink: self.onlink,
            source: self.source.map(bytes).unwrap_or_default(),
            mtu: self.mtu.unwrap_or(0),
            advmss: self.advmss.unwrap_or(0),
            ..NetworkRoute::default()
        }
    }

    fn from_wire(wire: &NetworkRoute, interfaces: usize) -> Result<Self, Malformed> {
        let to = Prefix::new("routes.destination", &wire.destination, wire.prefix)?;
        let optional = |field, bytes: &[u8]| match bytes {
            [] => Ok(None),
            _ => match address(field, bytes)? {
                ip if ip.is_ipv4() == to.ip.is_ipv4() => Ok(Some(ip)),
                ip => malformed(field, format!("{ip} of a route to {to}")),
            },
        };
        let Ok(scope) = u8::try_from(wire.scope) else {
            return malformed("routes.scope", wire.scope.to_string());
        };
        Ok(Route {
            to,
            gateway: optional("routes.gateway", &wire.gateway)?,
            interface: index("routes.interface", wire.interface, interfaces)?,
            metric: wire.metric,
            scope,
            onlink: wire.onlink,
            source: optional("routes.source", &wire.source)?,
            mtu: Some(wire.mtu).filter(|mtu| *mtu != 0),
            advmss: Some(wire.advmss).filter(|advmss| *advmss != 0),
        })
    }
}

impl Neighbour {
    fn to_wire(&self) -> NetworkNeighbour {
        NetworkNeighbour {
            interface: number(self.interface),
            ip: bytes(self.ip),
            mac: self.mac.0.to_vec(),
            ..NetworkNeighbour::default()
        }
    }

    fn from_wire(wire: &NetworkNeighbour, interfaces: usize) -> Result<Self, Malformed> {
        Ok(Neighbour {
            interface: index("neighbours.interface", wire.interface, interfaces)?,
            ip: address("neighbours.ip", &wire.ip)?,
            mac: Mac::from_wire("neighbours.mac", &wire.mac)?,
        })
    }
}

impl Mac {
    /// An address that one interface can have: not all zeroes, and nobody's group (IEEE 802, the first byte's lowest bit).
    #[must_use]
    pub fn is_one(self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0
    }

    fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes.try_into().map(Mac) {
            Ok(mac) if mac.is_one() => Ok(mac),
            Ok(mac) => malformed(field, format!("{mac} is no interface's")),
            Err(_) => malformed(field, format!("{} bytes", bytes.len())),
        }
    }
}

/// Source: Linux, `net/core/dev.c`, `dev_valid_name`; `%` would have the kernel choose a number.
fn is_name(name: &str) -> bool {
    let is_odd = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !matches!(name, "." | ".." | "lo") && !name.contains(is_odd)
}

fn address(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(v4).into());
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(v6) => Ok(Ipv6Addr::from(v6).into()),
        Err(_) => malformed(field, format!("an address of {} bytes", bytes.len())),
    }
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Never cut: a number that has no such form is no interface's.
fn number(interface: usize) -> u32 {
    u32::try_from(interface).unwrap_or(u32::MAX)
}

fn index(field: &'static str, index: u32, count: usize) -> Result<usize, Malformed> {
    match usize::try_from(index) {
        Ok(index) if index < count => Ok(index),
        _ => malformed(field, format!("{index} of {count}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(ip: &str, bits: u8) -> Prefix {
        Prefix { ip: ip.parse().unwrap(), bits }
    }

    fn network() -> Network {
        let route = |to, gateway: Option<&str>| Route {
            to,
            gateway: gateway.map(|ip| ip.parse().unwrap()),
            interface: 0,
            metric: 100,
            scope: 253,
            onlink: gateway.is_some(),
            source: None,
            mtu: Some(1300),
            advmss: None,
        };
        Network {
            interfaces: vec![
                Interface {
                    name: "eth0".into(),
                    mac: Mac([2, 0, 0, 0, 0, 1]),
                    mtu: 1450,
                    addresses: vec![
                        Address {
                            broadcast: Some([10, 1, 2, 255].into()),
                            scope: 253,
                            ..prefix("10.1.2.3", 24).into()
                        },
                        prefix("fd00::3", 64).into(),
                    ],
                },
                Interface { name: "net1".into(), mac: Mac([2, 0, 0, 0, 0, 2]), mtu: 9000, addresses: vec![] },
            ],
            routes: vec![route(prefix("10.1.2.0", 24), None), route(prefix("::", 0), Some("fe80::1"))],
            neighbours: vec![Neighbour {
                interface: 1,
                ip: "169.254.1.1".parse().unwrap(),
                mac: Mac([2; 6]),
            }],
            sysctls: BTreeMap::from([(Sysctl::parse("net/ipv4/conf/eth0.1/rp_filter").unwrap(), "2".into())]),
        }
    }

    #[test]
    fn what_is_sent_is_what_is_received() {
        assert_eq!(Network::from_wire(&network().to_wire()), Ok(network()));
        assert_eq!(Network::from_wire(&SetNetworkRequest::default()), Ok(Network::default()));
    }

    #[test]
    fn a_field_that_cannot_be_used_is_named() {
        type Change = fn(&mut SetNetworkRequest);
        let changes: [(Change, &str); 19] = [
            (|wire| drop(wire.sysctls.insert("net/../kernel/core_pattern".into(), "x".into())), "sysctls"),
            (|wire| drop(wire.sysctls.insert("kernel/sem".into(), "1 1 1 1".into())), "sysctls"),
            (|wire| wire.interfaces[0].name = "sixteen-letters!".into(), "interfaces.name"),
            (|wire| wire.interfaces[0].name = "../eth0".into(), "interfaces.name"),
            (|wire| wire.interfaces[0].name = "lo".into(), "interfaces.name"),
            (|wire| wire.interfaces[0].name = "net1".into(), "interfaces.name"),
            (|wire| wire.interfaces[0].mac[0] = 1, "interfaces.mac"),
            (|wire| wire.interfaces[0].mac[5] = 2, "interfaces.mac"),
            (|wire| wire.interfaces[0].mac.clear(), "interfaces.mac"),
            (|wire| wire.interfaces[0].mtu = 67, "interfaces.mtu"),
            (|wire| wire.interfaces[0].addresses[0].prefix = 33, "interfaces.addresses"),
            (|wire| wire.interfaces[0].addresses[1].ip = vec![0; 15], "interfaces.addresses"),
            (|wire| wire.interfaces[0].addresses[1].broadcast = vec![0; 4], "interfaces.addresses.broadcast"),
            (|wire| wire.interfaces[0].addresses[0].scope = 256, "interfaces.addresses.scope"),
            (|wire| wire.routes[0].gateway = vec![0; 16], "routes.gateway"),
            (|wire| wire.routes[0].interface = 2, "routes.interface"),
            (|wire| wire.routes[0].scope = 256, "routes.scope"),
            (|wire| wire.routes[1].prefix = 129, "routes.destination"),
            (|wire| wire.neighbours[0].interface = u32::MAX, "neighbours.interface"),
        ];
        for (change, field) in changes {
            let mut wire = network().to_wire();
            change(&mut wire);
            assert_eq!(Network::from_wire(&wire).unwrap_err().field, field, "{wire:?}");
        }
    }

    #[test]
    fn what_is_shown_is_as_usual() {
        assert_eq!(Mac([2, 0, 0xAB, 0, 0, 1]).to_string(), "02:00:ab:00:00:01");
        assert_eq!(prefix("fd00::3", 64).to_string(), "fd00::3/64");
    }
}
