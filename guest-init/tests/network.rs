//! What the shim says of a pod's network is what the guest has: in network namespaces of this machine, with veths for devices.

use std::{collections::BTreeMap, fs, net::IpAddr, thread, time::Duration};

use guest_init::network::{make, make_within};
use vgpu_agent_api::{
    network::{Interface, Mac, Neighbour, Network, Prefix, Route},
    sysctl::Sysctl,
};
use vgpu_netlink::{Rtnetlink, scan::scan, scratch::Scratch};

const ONE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const TWO: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    let (address, bits) = text.split_once('/').unwrap();
    Prefix { ip: ip(address), bits: bits.parse().unwrap() }
}

fn route(interface: usize, to: &str, gateway: Option<&str>) -> Route {
    let v6 = to.contains(':');
    Route {
        to: prefix(to),
        gateway: gateway.map(ip),
        interface,
        metric: if v6 { 256 } else { 0 },
        scope: if v6 || gateway.is_some() { 0 } else { 253 },
        onlink: false,
        source: None,
        mtu: None,
        advmss: None,
    }
}

fn network() -> Network {
    let interface = |name: &str, mac, mtu, addresses: &[&str]| Interface {
        name: name.into(),
        mac,
        mtu,
        addresses: addresses.iter().copied().map(|text| prefix(text).into()).collect(),
    };
    Network {
        interfaces: vec![
            interface("eth0", ONE, 1400, &["10.1.0.2/24", "fd00:1::2/64", "fe80::2/64"]),
            interface("eth1", TWO, 9000, &["10.1.0.3/24", "10.2.0.2/32", "fe80::3/64"]),
        ],
        routes: vec![
            Route { source: Some(ip("10.1.0.2")), ..route(0, "10.1.0.0/24", None) },
            // One prefix on both: neither route is in the other's place.
            Route { source: Some(ip("10.1.0.3")), ..route(1, "10.1.0.0/24", None) },
            route(0, "fd00:1::/64", None),
            route(0, "fe80::/64", None),
            route(1, "fe80::/64", None),
            route(1, "169.254.1.1/32", None),
            route(0, "0.0.0.0/0", Some("10.1.0.1")),
            Route { mtu: Some(1300), ..route(1, "10.0.0.0/8", Some("169.254.1.1")) },
            route(0, "::/0", Some("fe80::1")),
        ],
        neighbours: vec![Neighbour { interface: 1, ip: ip("169.254.1.1"), mac: Mac([0xee; 6]) }],
        sysctls: BTreeMap::new(),
    }
}

/// A guest with a device of each MAC address, named as said, the wires' other ends being in a node, `up` or not.
fn guest(devices: &[(&str, Mac)], up: bool) -> (Scratch, Scratch) {
    let [guest, node] = [(); 2].map(|()| Scratch::new().unwrap());
    guest.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        for (name, mac) in devices {
            netlink.add_veth(name, "far").unwrap();
            let index = |netlink: &mut Rtnetlink, name| netlink.link(name).unwrap().unwrap().index;
            let (near, far) = (index(&mut netlink, name), index(&mut netlink, "far"));
            netlink.set_mac(near, *mac).unwrap();
            netlink.rename(far, &format!("to-{name}")).unwrap();
            netlink.move_to(far, node.namespace()).unwrap();
        }
    });
    serve(&node, up);
    (guest, node)
}

/// The devices have a carrier, or not.
fn serve(node: &Scratch, up: bool) {
    node.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        for link in netlink.links().unwrap().iter().filter(|link| !link.loopback) {
            netlink.set_up(link.index, up).unwrap();
        }
    });
}

fn sorted(mut network: Network) -> Network {
    network.interfaces.sort_by_key(|interface| interface.name.clone());
    network.interfaces.iter_mut().for_each(|interface| interface.addresses.sort_by_key(|a| a.prefix.ip));
    network
        .routes
        .sort_by_key(|route| (route.gateway.is_some(), route.to.ip, route.to.bits, route.interface));
    network
}

/// The devices' names are the other way round, and the kernel would give each an address of its own.
#[test]
fn the_guest_has_the_pods_network_and_no_more() {
    let (guest, _node) = guest(&[("eth1", ONE), ("eth0", TWO)], true);
    let found = guest.enter(|| {
        make(&network()).unwrap();
        let accepts = |name| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra")).unwrap();
        assert_eq!(["eth0", "eth1"].map(accepts), ["0\n", "0\n"]);
        scan().unwrap()
    });
    let mut found = found;
    if found.interfaces[0].name == "eth1" {
        // In the order of the devices.
        found.routes.iter_mut().for_each(|route| route.interface = 1 - route.interface);
        found.neighbours.iter_mut().for_each(|neighbour| neighbour.interface = 1 - neighbour.interface);
    }
    assert_eq!(sorted(found), sorted(network()));
}

#[test]
fn a_device_that_is_missing_or_dead_is_named() {
    let said = |devices: &'static [(&str, Mac)], up| {
        let (guest, _node) = guest(devices, up);
        let made = guest.enter(|| make_within(&network(), Duration::from_secs(1)));
        vgpu_codes::with_causes(&made.unwrap_err())
    };
    let end = "which the node's xen-netback has to serve: timed out";
    let missing = said(&[("eth0", ONE)], true);
    assert_eq!(missing, format!("wait 1 s for the device of eth1 (02:00:00:00:00:02), {end}"));
    let dead = said(&[("eth0", ONE), ("eth1", TWO)], false);
    assert_eq!(dead, format!("wait 1 s for a carrier of eth0 (02:00:00:00:00:01), {end}"));
}

/// A node with much to do serves its devices when it gets to it.
#[test]
fn a_carrier_that_comes_late_is_waited_for() {
    let (guest, node) = guest(&[("eth0", ONE), ("eth1", TWO)], false);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(6));
            serve(&node, true);
        });
        guest.enter(|| make(&network()).unwrap());
    });
}

#[test]
fn what_the_kernel_refuses_is_named() {
    let said = |change: fn(&mut Network)| {
        let (guest, _node) = guest(&[("eth0", ONE), ("eth1", TWO)], true);
        let mut network = network();
        change(&mut network);
        guest.enter(|| make(&network).unwrap_err().to_string())
    };
    assert_eq!(
        said(|network| network.routes[6].gateway = Some(ip("192.0.2.1"))),
        "add the route to 0.0.0.0/0 by 192.0.2.1 through eth0"
    );
    assert_eq!(
        said(|network| network.interfaces[0].addresses[1] = prefix("ff02::5/64").into()),
        "give eth0 the address ff02::5/64"
    );
}

/// Some write others, as `forwarding` does those of all interfaces, and IPv6 that is switched off loses its addresses.
#[test]
fn the_guest_has_the_sysctls_that_were_set_whatever_their_order() {
    let (guest, _node) = guest(&[("a0", ONE), ("eth1", TWO)], true);
    let set = [
        ("net/core/somaxconn", "3000"),
        ("net/ipv4/conf/a0/forwarding", "0"),
        ("net/ipv4/conf/a0/rp_filter", "2"),
        ("net/ipv4/conf/all/forwarding", "1"),
        ("net/ipv4/conf/eth1/forwarding", "1"),
        ("net/ipv4/tcp_rmem", "4096\t65536\t1048576"),
        ("net/ipv6/conf/a0/disable_ipv6", "0"),
        ("net/ipv6/conf/all/disable_ipv6", "1"),
        ("net/ipv6/conf/eth1/disable_ipv6", "0"),
    ];
    let mut network = network();
    network.interfaces[0].name = "a0".into();
    let sysctl = |name: &str| Sysctl::parse(name).unwrap();
    network.sysctls = set.iter().map(|(name, value)| (sysctl(name), (*value).into())).collect();
    // Of this the kernel knows nothing.
    network.sysctls.insert(sysctl("net/none"), "1".into());
    guest.enter(|| {
        make(&network).unwrap();
        let now = set.map(|(name, _)| {
            (name, fs::read_to_string(format!("/proc/sys/{name}")).unwrap().trim_end().to_owned())
        });
        assert_eq!(now, set.map(|(name, value)| (name, value.to_owned())));
        let found = scan().unwrap();
        assert_eq!(sorted(found).interfaces, sorted(network.clone()).interfaces);
    });
}
