//! Ways between links of network namespaces of the tests' own, and what others have at these links.

mod frames;

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use netlink_packet_route::tc::TcStats2;
use vgpu_agent_api::network::{Mac, Prefix, Route};

use super::*;
use crate::scratch::Scratch;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
const OURS: Cookie = [1; 16];
const THEIRS: Cookie = [2; 16];

/// Puts a link up with these addresses, and what is in them on the link.
fn dress(name: &str, addresses: &[&str]) {
    let mut netlink = Rtnetlink::open().unwrap();
    let index = netlink.link(name).unwrap().unwrap().index;
    netlink.set_up(index, true).unwrap();
    for (ip, bits) in addresses.iter().map(|text| text.split_once('/').unwrap()) {
        let (ip, bits): (IpAddr, u8) = (ip.parse().unwrap(), bits.parse().unwrap());
        netlink.add_address(index, &Prefix { ip, bits }.into()).unwrap();
        let ours = ip.to_string().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        let to = Prefix { ip: format!("{ours}0").parse().unwrap(), bits };
        let scope = if ip.is_ipv4() { 253 } else { 0 };
        let route = Route {
            to,
            gateway: None,
            interface: 0,
            metric: 1,
            scope,
            onlink: false,
            source: None,
            mtu: None,
            advmss: None,
        };
        netlink.add_route(index, &route).unwrap();
    }
}

/// Whether somebody at this address says that nobody serves the port: he has heard us, and we hear him.
fn refuses(ip: &str, within_ms: u64) -> bool {
    let address = SocketAddr::new(ip.parse().unwrap(), 9);
    let tried = TcpStream::connect_timeout(&address, Duration::from_millis(within_ms));
    tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A pod between its node and its guest, whose wires are not one way yet; the numbers of the pod's ends.
struct World {
    node: Scratch,
    pod: Scratch,
    guest: Scratch,
    eth0: u32,
    vif: u32,
}

impl World {
    fn new() -> Self {
        let [node, pod, guest] = [(); 3].map(|()| Scratch::new().unwrap());
        pod.wire("eth0", &node, "far").unwrap();
        pod.wire("vif", &guest, "inner").unwrap();
        let [eth0, vif] = pod.enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            let [eth0, vif] = ["eth0", "vif"].map(|name| netlink.link(name).unwrap().unwrap().index);
            netlink.set_mac(eth0, MAC).unwrap();
            // As a plugin leaves it: the kernel between would answer for these addresses itself.
            dress("eth0", &["10.0.0.2/24", "fd00::2/64"]);
            [eth0, vif]
        });
        node.enter(|| dress("far", &["10.0.0.1/24", "fd00::1/64"]));
        guest.enter(|| {
            let mut netlink = Rtnetlink::open().unwrap();
            let inner = netlink.link("inner").unwrap().unwrap().index;
            netlink.set_mac(inner, MAC).unwrap();
            dress("inner", &["10.0.0.2/24", "fd00::2/64"]);
        });
        World { node, pod, guest, eth0, vif }
    }

    /// Does it by a socket of the pod's.
    fn with<T: Send>(&self, work: impl FnOnce(&mut Rtnetlink) -> T + Send) -> T {
        self.pod.enter(|| work(&mut Rtnetlink::open().unwrap()))
    }

    /// Whether the node hears the pod's addresses, and the guest the node's, within so long.
    fn heard(&self, guest_within_ms: u64) -> [bool; 4] {
        let [a, b] = self.node.enter(|| ["10.0.0.2", "fd00::2"].map(|ip| refuses(ip, 5000)));
        let [c, d] = self.guest.enter(|| ["10.0.0.1", "fd00::1"].map(|ip| refuses(ip, guest_within_ms)));
        [a, b, c, d]
    }
}

#[test]
fn both_ends_hear_each_other_and_the_namespace_between_hears_nothing() {
    let world = World::new();
    let (eth0, vif) = (world.eth0, world.vif);
    assert_eq!(world.heard(200), [true, true, false, false], "the pod answers, the guest is alone");
    world.with(|netlink| {
        netlink.join(eth0, vif, OURS).unwrap();
        assert!([eth0, vif].map(|index| netlink.incoming(index).unwrap().is_some()) == [true; 2]);
    });
    assert_eq!(world.heard(5000), [true; 4]);
    world.with(|netlink| {
        for index in [eth0, vif, vif] {
            netlink.part(index, OURS).unwrap();
            assert_eq!(netlink.ingress(index).unwrap(), None);
        }
    });
    assert_eq!(world.heard(200), [true, true, false, false], "as before");
}

/// A filter of somebody else's: what passes is copied to a link, and goes on.
fn copying(from: u32, to: u32, parent: TcHandle, priority: u32) -> RouteNetlinkMessage {
    let mut theirs = filter(from, to, THEIRS).unwrap();
    theirs.header.parent = parent;
    theirs.header.info = priority << 16 | u32::from(ALL_PROTOCOLS);
    let attributes = theirs.attributes.iter_mut().flat_map(|attribute| match attribute {
        TcAttribute::Options(options) => &mut options[..],
        _ => &mut [],
    });
    for option in attributes {
        let TcOption::U32(TcFilterU32Option::Action(actions)) = option else { continue };
        let mut way = TcMirror::default();
        way.generic.action = TcActionType::Unspec;
        way.eaction = TcMirrorActionType::EgressMirror;
        way.ifindex = to;
        let way = TcActionOption::Mirror(TcActionMirrorOption::Parms(way));
        actions[0].attributes[1] = TcActionAttribute::Options(vec![way]);
    }
    RouteNetlinkMessage::NewTrafficFilter(theirs)
}

fn add_qdisc(netlink: &mut Rtnetlink, index: u32, kind: &str, parent: TcHandle, handle: TcHandle) {
    let mut theirs = message(index).unwrap();
    (theirs.header.parent, theirs.header.handle) = (parent, handle);
    theirs.attributes = vec![TcAttribute::Kind(kind.into())];
    netlink.ask(RouteNetlinkMessage::NewQueueDiscipline(theirs), NLM_F_CREATE | NLM_F_EXCL).unwrap();
}

/// What the pod has at eth0: qdiscs by kind and the packets that they saw, and filters by where and which.
fn kept(netlink: &mut Rtnetlink, eth0: u32) -> (Vec<(String, u32)>, Vec<TcHandle>) {
    let qdiscs = netlink.dump(&RouteNetlinkMessage::GetQueueDiscipline(message(eth0).unwrap())).unwrap();
    let qdiscs = qdiscs.into_iter().filter_map(|qdisc| match qdisc {
        RouteNetlinkMessage::NewQueueDiscipline(qdisc) if qdisc.header.index.cast_unsigned() == eth0 => {
            let packets = qdisc.attributes.iter().find_map(|attribute| match attribute {
                TcAttribute::Stats2(stats) => stats.iter().find_map(|stats| match stats {
                    TcStats2::Basic(basic) => Some(basic.packets),
                    _ => None,
                }),
                _ => None,
            });
            Some((qdisc.attributes.iter().find_map(kind)?.to_owned(), packets.unwrap_or(0)))
        }
        _ => None,
    });
    let mut asked = message(eth0).unwrap();
    asked.header.parent = OUTGOING;
    let outgoing = netlink.dump(&RouteNetlinkMessage::GetTrafficFilter(asked)).unwrap();
    let outgoing = outgoing.into_iter().filter_map(|filter| match filter {
        RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
        _ => None,
    });
    let filters = outgoing.chain(netlink.filters(eth0).unwrap().into_iter().flatten());
    (qdiscs.collect(), filters.map(|filter| filter.header.handle).collect())
}

/// How many packets have come in at this link of the pod's.
fn came_in(name: &str) -> u64 {
    let links = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let of = links.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}:"))).unwrap();
    of.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Their filter has seen so many: a copy comes in when the kernel gets to it.
fn assert_copied(world: &World, wanted: u64) {
    let copied = || world.pod.enter(|| came_in("tapped"));
    let seen = (0..500).any(|_| {
        copied() >= wanted || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }
    });
    assert!(seen, "their filter saw {} of {wanted}", copied());
}

/// Where filters for what goes out are.
const OUTGOING: TcHandle = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };
const ROOT: TcHandle = TcHandle { major: u16::MAX, minor: u16::MAX };

#[test]
fn what_others_have_at_what_goes_out_sees_the_guests_packets_and_stays() {
    let world = World::new();
    let (eth0, vif) = (world.eth0, world.vif);
    let before = world.with(|netlink| {
        netlink.add_veth("tap", "tapped").unwrap();
        let [tap, tapped] = ["tap", "tapped"].map(|name| netlink.link(name).unwrap().unwrap().index);
        for index in [tap, tapped] {
            netlink.no_own_addresses(index).unwrap();
            netlink.set_up(index, true).unwrap();
        }
        add_qdisc(netlink, eth0, "pfifo", ROOT, TcHandle { major: 1, minor: 0 });
        add_qdisc(netlink, eth0, THEIR_KIND, TcHandle::CLSACT, INGRESS);
        netlink.ask(copying(eth0, tap, OUTGOING, 1), NLM_F_CREATE).unwrap();
        assert_eq!(netlink.incoming(eth0).unwrap(), None, "it is for what goes out alone");
        let before = kept(netlink, eth0);
        netlink.join(eth0, vif, OURS).unwrap();
        before
    });
    let before_them = world.pod.enter(|| came_in("tapped"));
    assert_eq!(world.heard(5000), [true; 4]);
    assert_copied(&world, before_them + 4);
    world.with(|netlink| {
        netlink.part(eth0, THEIRS).unwrap();
        assert!(netlink.incoming(eth0).unwrap().is_some(), "not by another's word");
        netlink.part(eth0, OURS).unwrap();
        let after = kept(netlink, eth0);
        let kinds = |kept: &[(String, u32)]| kept.iter().map(|(kind, _)| kind.clone()).collect::<Vec<_>>();
        assert_eq!((kinds(&after.0), &after.1), (kinds(&before.0), &before.1));
        assert!(after.0[0].1 >= before.0[0].1 + 4, "their qdisc saw {before:?}, then {after:?}");
    });
}

#[test]
fn filters_for_what_comes_in_are_named_and_those_of_later_act_before_ours_and_stay() {
    let world = World::new();
    let (eth0, vif) = (world.eth0, world.vif);
    world.with(|netlink| {
        netlink.add_veth("tap", "tapped").unwrap();
        let [tap, tapped] = ["tap", "tapped"].map(|name| netlink.link(name).unwrap().unwrap().index);
        for index in [tap, tapped] {
            netlink.no_own_addresses(index).unwrap();
            netlink.set_up(index, true).unwrap();
        }
        add_qdisc(netlink, vif, THEIR_KIND, TcHandle::CLSACT, INGRESS);
        netlink.ask(copying(vif, tap, INCOMING, 1), NLM_F_CREATE).unwrap();
        assert_eq!(netlink.incoming(vif).unwrap().unwrap(), "filters for what comes in (of clsact)");
        let mut clsact = qdisc(vif).unwrap();
        clsact.attributes = vec![TcAttribute::Kind(THEIR_KIND.into())];
        netlink.ask(RouteNetlinkMessage::DelQueueDiscipline(clsact), 0).unwrap();

        netlink.join(eth0, vif, OURS).unwrap();
        // The kernel chooses a priority, and then one is chosen that is ours.
        netlink.ask(copying(eth0, tap, INCOMING, 0), NLM_F_CREATE).unwrap();
    });
    let before_them = world.pod.enter(|| came_in("tapped"));
    assert_eq!(world.heard(5000), [true; 4]);
    assert_copied(&world, before_them + 4);
    world.with(|netlink| {
        let tap = netlink.link("tap").unwrap().unwrap().index;
        netlink.ask(copying(eth0, tap, INCOMING, PRIORITY), NLM_F_CREATE).unwrap();
        netlink.part(eth0, OURS).unwrap();
        let kept: Vec<_> = netlink.filters(eth0).unwrap().into_iter().flatten().collect();
        let theirs = kept.iter().filter(|filter| is_of(filter, THEIRS)).count();
        let ours = kept.iter().filter(|filter| is_of(filter, OURS)).count();
        assert_eq!((theirs, ours), (2, 0));
    });
    assert_eq!(world.heard(200), [true, true, false, false], "ours is out");
}

#[test]
fn a_way_to_a_link_that_is_gone_and_a_join_that_was_cut_are_taken_away() {
    let world = World::new();
    world.with(|netlink| {
        netlink.join(world.eth0, world.vif, OURS).unwrap();
        netlink.remove_link(world.vif).unwrap();
        netlink.part(world.eth0, OURS).unwrap();
        assert_eq!(netlink.ingress(world.eth0).unwrap(), None);
        let begun = RouteNetlinkMessage::NewQueueDiscipline(qdisc(world.eth0).unwrap());
        netlink.ask(begun, NLM_F_CREATE).unwrap();
        netlink.part(world.eth0, OURS).unwrap();
        assert_eq!(netlink.ingress(world.eth0).unwrap(), None);
    });
}

#[test]
fn a_filter_of_a_form_that_nobody_knows_is_told_beside_others() {
    let known = RouteNetlinkMessage::NewTrafficFilter(filter(1, 2, OURS).unwrap());
    let mut body = vec![0; known.buffer_len()];
    known.serialize(&mut body);
    let mut header = NetlinkHeader::default();
    header.message_type = known.message_type();
    let Told(told) = Told::deserialize(&header, &body).unwrap();
    assert!(matches!(told, Some(RouteNetlinkMessage::NewTrafficFilter(filter)) if is_of(&filter, OURS)));
    // The name of its kind is no text: the first attribute, behind the header of 20 bytes and its own.
    body[24] = 0xff;
    let Told(told) = Told::deserialize(&header, &body).unwrap();
    assert!(told.is_none());
}
