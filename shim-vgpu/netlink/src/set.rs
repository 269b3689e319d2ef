//! Addresses, routes and neighbours, added as a pod's network has them. An address or a neighbour that is there already is replaced; a route
//! comes after those to the same prefix.

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
        RouteType,
    },
};
use vgpu_agent_api::network::{Address, Neighbour, Prefix, Route};

use crate::Rtnetlink;

const PUT: u16 = NLM_F_CREATE | NLM_F_REPLACE;
/// Of a route: the kernel would replace one to the same prefix with the same metric, whatever link it is through.
const APPEND: u16 = NLM_F_CREATE | NLM_F_APPEND;

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

impl Rtnetlink {
    /// Gives a link an address, which is used at once: nobody is asked whether he has it. No route comes with it.
    /// # Errors
    /// The kernel's.
    pub fn add_address(&mut self, index: u32, address: &Address) -> io::Result<()> {
        let Prefix { ip, bits } = address.prefix;
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.prefix_len = bits;
        message.header.scope = address.scope.into();
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(ip),
            AddressAttribute::Address(ip),
            AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
        ];
        message.attributes.extend(address.broadcast.map(AddressAttribute::Broadcast));
        self.ask(RouteNetlinkMessage::NewAddress(message), PUT)
    }

    /// Adds a route through a link to the main table.
    /// # Errors
    /// The kernel's: nobody on the link can be the gateway, the source is no address of ours, the very route is there.
    pub fn add_route(&mut self, index: u32, route: &Route) -> io::Result<()> {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(route.to.ip);
        header.destination_prefix_length = route.to.bits;
        header.table = RouteHeader::RT_TABLE_MAIN;
        header.protocol = RouteProtocol::Static;
        header.scope = RouteScope::from(route.scope);
        header.kind = RouteType::Unicast;
        header.flags = if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() };
        let attributes = &mut message.attributes;
        attributes.extend((route.to.bits > 0).then(|| RouteAttribute::Destination(route.to.ip.into())));
        attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
        attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        let metrics: Vec<_> = route
            .mtu
            .map(RouteMetric::Mtu)
            .into_iter()
            .chain(route.advmss.map(RouteMetric::Advmss))
            .collect();
        attributes.extend((!metrics.is_empty()).then_some(RouteAttribute::Metrics(metrics)));
        attributes.extend([RouteAttribute::Oif(index), RouteAttribute::Priority(route.metric)]);
        self.ask(RouteNetlinkMessage::NewRoute(message), APPEND)
    }

    /// Says for good what a neighbour's MAC address is.
    /// # Errors
    /// The kernel's.
    pub fn add_neighbour(&mut self, index: u32, neighbour: &Neighbour) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(neighbour.ip);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(neighbour.ip.into()),
            NeighbourAttribute::LinkLayerAddress(neighbour.mac.0.to_vec()),
        ];
        self.ask(RouteNetlinkMessage::NewNeighbour(message), PUT)
    }
}
