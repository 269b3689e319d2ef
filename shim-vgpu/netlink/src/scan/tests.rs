//! Networks that this machine's kernel has, and dumps that it would need special links or modules to give.

use std::{fs, io};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    address::CacheInfo,
    link::LinkFlags,
    route::{RouteNextHop, RouteVia},
    rule::{RuleAction, RuleAttribute},
};

use super::*;
use crate::scratch::Scratch;

/// The first link of any namespace.
const LOOPBACK: u32 = 1;

fn prefix_of(text: &str) -> Prefix {
    let (ip, bits) = text.split_once('/').unwrap();
    Prefix { ip: ip.parse().unwrap(), bits: bits.parse().unwrap() }
}

fn route(to: &str, gateway: Option<&str>) -> Route {
    let v6 = to.contains(':');
    Route {
        to: prefix_of(to),
        gateway: gateway.map(|ip| ip.parse().unwrap()),
        interface: 0,
        metric: if v6 { 1024 } else { 0 },
        scope: if gateway.is_some() || v6 { 0 } else { 253 },
        onlink: false,
        source: None,
        mtu: None,
        advmss: None,
    }
}

/// What a plugin of a routed network makes: nothing on the link but the gateway, whose MAC address is given.
fn wanted() -> Network {
    let mac = Mac([0x0a, 0x58, 10, 1, 2, 3]);
    let of = |text, broadcast, scope| Address { prefix: prefix_of(text), broadcast, scope };
    let addresses = vec![
        of("10.1.2.3/32", None, 0),
        of("10.1.3.4/24", Some([10, 1, 3, 255].into()), 253),
        of("fd00:1::3/64", None, 0),
        of("fe80::3/64", None, 0),
    ];
    let ways = Route { mtu: Some(1200), advmss: Some(1100), ..route("10.9.0.0/16", Some("169.254.1.1")) };
    let source = Some("10.1.2.3".parse().unwrap());
    Network {
        interfaces: vec![Interface { name: "eth0".into(), mac, mtu: 1450, addresses }],
        routes: vec![
            route("169.254.1.1/32", None),
            route("fd00:1::/64", None),
            Route { source, ..route("0.0.0.0/0", Some("169.254.1.1")) },
            ways,
            Route { onlink: true, metric: 7, ..route("10.8.0.0/16", Some("192.0.2.1")) },
            route("::/0", Some("fe80::1")),
        ],
        neighbours: vec![Neighbour { interface: 0, ip: "169.254.1.1".parse().unwrap(), mac: Mac([0xee; 6]) }],
        sysctls: BTreeMap::new(),
    }
}

/// Makes a network whose wire ends in the same namespace, in a link that is down.
fn make(network: &Network) -> io::Result<Rtnetlink> {
    let mut netlink = Rtnetlink::open()?;
    for (number, interface) in network.interfaces.iter().enumerate() {
        let peer = format!("peer{number}");
        netlink.add_veth(&interface.name, &peer)?;
        let far = netlink.link(&peer)?.unwrap().index;
        let near = netlink.link(&interface.name)?.unwrap().index;
        netlink.set_mac(near, interface.mac)?;
        netlink.set_mtu(near, interface.mtu)?;
        netlink.no_own_addresses(near)?;
        netlink.set_up(near, true)?;
        netlink.set_mtu(far, interface.mtu)?;
        for address in &interface.addresses {
            netlink.add_address(near, address)?;
        }
    }
    let indices: Vec<_> = network.interfaces.iter().map(|i| i.name.clone()).collect();
    for route in &network.routes {
        let index = netlink.link(&indices[route.interface])?.unwrap().index;
        netlink.add_route(index, route)?;
    }
    for neighbour in &network.neighbours {
        let index = netlink.link(&indices[neighbour.interface])?.unwrap().index;
        netlink.add_neighbour(index, neighbour)?;
    }
    Ok(netlink)
}

fn sorted(mut network: Network) -> Network {
    network.routes.sort_by_key(|route| (route.gateway.is_some(), route.to.ip, route.to.bits));
    network.interfaces.iter_mut().for_each(|interface| interface.addresses.sort_by_key(|a| a.prefix.ip));
    network
}

#[test]
fn what_was_made_is_read() {
    let scratch = Scratch::new().unwrap();
    let read = scratch.enter(|| {
        let mut netlink = make(&wanted()).unwrap();
        // With routes of its own.
        netlink.set_up(LOOPBACK, true).unwrap();
        fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "2").unwrap();
        scan().unwrap()
    });
    let sysctl = Sysctl::parse("net.ipv4.conf.eth0.rp_filter").unwrap();
    let wanted = Network { sysctls: BTreeMap::from([(sysctl, "2".into())]), ..wanted() };
    assert_eq!(sorted(read), sorted(wanted));
}

#[test]
fn a_namespace_without_a_network_has_none() {
    let scratch = Scratch::new().unwrap();
    assert_eq!(scratch.enter(|| scan().unwrap()), Network::default());
}

fn odd_route(index: u32, odd: RouteAttribute) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 64;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    let to = RouteAddress::Inet6("fd00:3::".parse().unwrap());
    message.attributes = vec![RouteAttribute::Destination(to), RouteAttribute::Oif(index), odd];
    RouteNetlinkMessage::NewRoute(message)
}

#[test]
fn what_is_not_carried_is_named() {
    type Change = fn(&mut Rtnetlink, u32) -> io::Result<()>;
    let rule: Change = |netlink, _| {
        let mut rule = RuleMessage::default();
        rule.header.family = AddressFamily::Inet6;
        rule.header.action = RuleAction::ToTable;
        rule.header.table = RouteHeader::RT_TABLE_MAIN;
        rule.attributes = vec![RuleAttribute::Priority(100), RuleAttribute::FwMark(1)];
        netlink.ask(RouteNetlinkMessage::NewRule(rule), NLM_F_CREATE | NLM_F_EXCL)
    };
    let blackhole: Change = |netlink, _| {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 8;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::BlackHole;
        message.attributes =
            vec![RouteAttribute::Destination(RouteAddress::Inet(Ipv4Addr::new(11, 0, 0, 0)))];
        netlink.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE)
    };
    let point: Change = |netlink, index| {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = 32;
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(Ipv4Addr::new(10, 0, 0, 1).into()),
            AddressAttribute::Address(Ipv4Addr::new(10, 0, 0, 2).into()),
        ];
        netlink.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE)
    };
    let joined: Change = |netlink, index| {
        let far = netlink.link("peer0")?.unwrap().index;
        netlink.join(index, far, [7; 16])
    };
    let timed: Change = |netlink, index| {
        let mut info = CacheInfo::default();
        (info.ifa_valid, info.ifa_preferred) = (u32::MAX, 1000);
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.prefix_len = 64;
        message.header.index = index;
        let ip: Ipv6Addr = "fd00:2::1".parse().unwrap();
        message.attributes = vec![AddressAttribute::Local(ip.into()), AddressAttribute::CacheInfo(info)];
        netlink.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE)
    };
    let preferred: Change = |netlink, index| {
        netlink.ask(odd_route(index, RouteAttribute::Preference(RoutePreference::High)), NLM_F_CREATE)
    };
    let ending: Change =
        |netlink, index| netlink.ask(odd_route(index, RouteAttribute::Expires(1000)), NLM_F_CREATE);
    let silent: Change = |netlink, index| {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Noarp;
        message.header.flags = LinkFlags::Noarp;
        netlink.ask(RouteNetlinkMessage::SetLink(message), 0)
    };
    let apart: Change = |netlink, _| {
        netlink.set_up(LOOPBACK, true)?;
        netlink.add_route(LOOPBACK, &route("10.7.0.0/16", None))
    };
    let beside: Change = |netlink, _| {
        netlink.set_up(LOOPBACK, true)?;
        netlink.add_address(LOOPBACK, &prefix_of("10.7.0.1/32").into())
    };
    for (change, said) in [
        (apart, "the route to 10.7.0.0/16 is through lo, which is not carried"),
        (beside, "the address 10.7.0.1/32 of lo is not carried"),
        (timed, "the address fd00:2::1 of eth0 is one for a time"),
        (preferred, "the route to fd00:3::/64 has another preference than medium"),
        (ending, "the route to fd00:3::/64 has an end in time"),
        (silent, "eth0 is a link without ARP"),
        (rule, "the IPv6 policy rule of priority 100"),
        (blackhole, "the route to 11.0.0.0/8 is of another kind than unicast"),
        (point, "the address 10.0.0.1 of eth0 is of a point-to-point link"),
        (joined, "eth0 has a queueing discipline for what comes in (ingress)"),
    ] {
        let scratch = Scratch::new().unwrap();
        let error = scratch.enter(|| {
            let mut netlink = make(&wanted()).unwrap();
            let index = netlink.link("eth0").unwrap().unwrap().index;
            change(&mut netlink, index).unwrap();
            scan().unwrap_err()
        });
        assert_eq!(error.to_string(), said);
    }
}

#[test]
fn rules_of_the_namespace_are_named() {
    let scratch = Scratch::new().unwrap();
    scratch.add_rule("istio").unwrap();
    let said = scratch.enter(|| {
        make(&wanted()).unwrap();
        scan().unwrap_err().to_string()
    });
    assert!(said.starts_with("the nft table inet istio has rules, which "), "{said}");
}

fn dumps() -> Dumps {
    let link = |index, name: &str, mac| Link {
        index,
        name: name.into(),
        mac: Some(Mac(mac)),
        mtu: 1500,
        up: true,
        carrier: true,
        loopback: false,
        ethernet: true,
        arp: true,
    };
    let links = vec![link(2, "eth0", [2, 0, 0, 0, 0, 1]), link(3, "net1", [2, 0, 0, 0, 0, 2])];
    Dumps { links, addresses: vec![], routes: vec![], neighbours: vec![], rules: vec![] }
}

fn said(change: impl FnOnce(&mut Dumps)) -> String {
    let mut dumps = dumps();
    change(&mut dumps);
    dumps.network().unwrap_err().to_string()
}

fn with_route(attribute: RouteAttribute) -> String {
    with_attributes(vec![attribute, RouteAttribute::Oif(2)])
}

fn with_attributes(attributes: Vec<RouteAttribute>) -> String {
    said(|dumps| {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        dumps.routes.push(RouteNetlinkMessage::NewRoute(message));
    })
}

#[test]
fn links_and_routes_of_other_kinds_are_named() {
    assert_eq!(dumps().network().unwrap().interfaces.len(), 2);
    assert_eq!(said(|dumps| dumps.links[1].ethernet = false), "net1 is no Ethernet link");
    assert_eq!(said(|dumps| dumps.links[1].mac = None), "net1 is no Ethernet link");
    let twins = said(|dumps| dumps.links[1].mac = dumps.links[0].mac);
    assert_eq!(twins, "eth0 and net1 have one MAC address, 02:00:00:00:00:01");
    let many = said(|dumps| {
        dumps.links =
            (1..10).map(|n| Link { mac: Some(Mac([2, 0, 0, 0, 0, n])), ..dumps.links[0].clone() }).collect();
    });
    assert_eq!(many, "9 interfaces, more than 8");
    let several = RouteAttribute::MultiPath(vec![RouteNextHop::default()]);
    assert_eq!(with_route(several), "the route to 0.0.0.0/0 has several ways");
    let via = RouteAttribute::Via(RouteVia::Inet6(Ipv6Addr::LOCALHOST));
    assert_eq!(with_route(via), "the route to 0.0.0.0/0 has a gateway of another family");
    let metric = RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(3)]);
    let gone = with_attributes(vec![RouteAttribute::Oif(9)]);
    assert_eq!(gone, "the route to 0.0.0.0/0 is through a link that is gone, which is not carried");
    assert_eq!(with_attributes(vec![]), "the route to 0.0.0.0/0 is through no link");
    assert_eq!(with_route(metric), "the route to 0.0.0.0/0 has another metric than mtu and advmss");
}

#[test]
fn a_link_that_is_down_is_not_the_pods() {
    let mut dumps = dumps();
    dumps.links[0].up = false;
    assert_eq!(dumps.network().unwrap().interfaces[0].name, "net1");
    let names: Vec<_> = dumps.carried().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["net1"]);
}
