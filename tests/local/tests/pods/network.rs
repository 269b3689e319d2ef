//! What CNI plugins make in a pod's network namespace is what its guest has, and nothing of it is left in the namespace.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use vgpu_agent_api::network::{Mac, Neighbour, Network, Prefix, Route};
use vgpu_netlink::{Namespace, Rtnetlink, scan::scan, scratch::Scratch};

use crate::{
    containerd::{Containerd, until},
    guest::{cgroup, kill, pid_1},
    moments,
};

/// Longer than anything takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    let (address, bits) = text.split_once('/').unwrap();
    Prefix { ip: ip(address), bits: bits.parse().unwrap() }
}

pub fn route(to: &str, gateway: Option<&str>) -> Route {
    let v6 = to.contains(':');
    Route {
        to: prefix(to),
        gateway: gateway.map(ip),
        interface: 0,
        metric: if v6 { 1024 } else { 0 },
        scope: if v6 || gateway.is_some() { 0 } else { 253 },
        onlink: false,
        source: None,
        mtu: None,
        advmss: None,
    }
}

/// Gives a link addresses and routes.
fn dress(of: &Scratch, name: &str, addresses: &[&str], routes: &[Route]) {
    dress_in(of.namespace(), name, addresses, routes);
}

pub fn dress_in(of: &Namespace, name: &str, addresses: &[&str], routes: &[Route]) {
    let dressing = || {
        let mut netlink = Rtnetlink::open().unwrap();
        let index = netlink.link(name).unwrap().unwrap().index;
        for address in addresses {
            netlink.add_address(index, &prefix(address).into()).unwrap();
        }
        for route in routes {
            netlink.add_route(index, route).unwrap();
        }
    };
    of.enter(dressing).unwrap();
}

/// A pod's namespace as a plugin leaves it, and the node's with the other end of its wire, which is the gateway.
fn plugged() -> (Scratch, Scratch) {
    let [pod, node] = [(); 2].map(|()| Scratch::new().unwrap());
    pod.wire("eth0", &node, "veth0").unwrap();
    let links = [route("10.0.0.0/24", None), route("fd00::/64", None)];
    let ways = [route("0.0.0.0/0", Some("10.0.0.1")), route("::/0", Some("fd00::1"))];
    dress(&node, "veth0", &["10.0.0.1/24", "fd00::1/64"], &links);
    dress(&pod, "eth0", &["10.0.0.2/24", "fd00::2/64"], &[links, ways].concat());
    pod.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let index = netlink.link("eth0").unwrap().unwrap().index;
        netlink.set_mtu(index, 1400).unwrap();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        netlink.add_neighbour(index, &Neighbour { interface: 0, ip: ip("10.0.0.77"), mac }).unwrap();
        // As CNI's plugin tuning does.
        fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "2").unwrap();
        fs::write("/proc/sys/net/core/somaxconn", "3000").unwrap();
    });
    (pod, node)
}

pub fn joins(spec: &mut Value, pod: &Scratch) {
    spec["linux"]["namespaces"][4]["path"] = pod.path().to_str().unwrap().into();
}

/// In no order.
pub fn network_of(namespace: &Namespace) -> Network {
    let mut network = namespace.enter(|| scan().unwrap()).unwrap();
    network.interfaces.iter_mut().for_each(|interface| interface.addresses.sort_by_key(|a| a.prefix.ip));
    network
        .routes
        .sort_by_key(|route| (route.interface, route.gateway.is_some(), route.to.ip, route.to.bits));
    network
}

pub fn guest_of(cgroup: &Path) -> Namespace {
    Namespace::open(format!("/proc/{}/ns/net", pid_1(cgroup)).as_ref()).unwrap()
}

/// The namespace's links, and which of them are one way with another.
fn links(pod: &Scratch) -> Vec<(String, bool)> {
    pod.enter(|| {
        let mut netlink = Rtnetlink::open().unwrap();
        let links = netlink.links().unwrap();
        links.into_iter().map(|link| (link.name, netlink.incoming(link.index).unwrap().is_some())).collect()
    })
}

/// Tells `word` to the first who comes.
pub fn tell(node: &Namespace, at: &str, word: &'static str) {
    let listener = node.enter(|| TcpListener::bind(at).unwrap()).unwrap();
    thread::spawn(move || listener.accept().unwrap().0.write_all(word.as_bytes()).unwrap());
}

/// What is told at this address, once somebody serves it.
pub fn hear(node: &Scratch, at: &str) -> String {
    let begun = Instant::now();
    loop {
        let connected = node.enter(|| TcpStream::connect_timeout(&at.parse().unwrap(), SOON));
        let heard = connected.and_then(|mut stream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        });
        match heard {
            Ok(text) => return text,
            Err(error) => assert!(begun.elapsed() < SOON, "{at}: {error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether somebody at this address says that nobody serves the port.
fn refuses(address: &str) -> bool {
    let address = SocketAddr::new(ip(address), 9);
    let tried = TcpStream::connect_timeout(&address, SOON);
    tried.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_addresses_routes_mtu_and_sysctls_reach_the_guest() {
    let (pod, node) = plugged();
    let (before, wanted) = (links(&pod), network_of(pod.namespace()));
    let lengths =
        (wanted.interfaces.len(), wanted.routes.len(), wanted.neighbours.len(), wanted.sysctls.len());
    assert_eq!(lengths, (1, 4, 1, 2));
    tell(node.namespace(), "10.0.0.1:8000", "by IPv4\n");
    tell(node.namespace(), "[fd00::1]:8000", "by IPv6\n");
    let containerd = Containerd::new().await;
    let script = "busybox nc 10.0.0.1 8000; busybox nc fd00::1 8000
        echo the guest | busybox nc -l -p 8001; exec sleep 1000";
    containerd.bundle("a", script, |spec| joins(spec, &pod));
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let lives = containerd.lives();
    assert_eq!(network_of(&guest_of(&cgroup(&containerd))), wanted);
    let said = || containerd.output("a");
    until("the guest reaches the node", || said() == "by IPv4\nby IPv6\n", said).await;
    // In the pod's namespace nobody would serve this.
    assert_eq!(hear(&node, "10.0.0.2:8001"), "the guest\n");
    assert!(node.enter(|| refuses("fd00::2")), "the node does not reach the guest by IPv6");
    shim.signal("a", 9).await;
    assert_eq!((shim.wait("a").await, shim.delete("a").await), (137, 137));
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
    assert_eq!(links(&pod), before);
    let back = node.enter(|| ["10.0.0.2", "fd00::2"].map(refuses));
    assert_eq!(back, [true; 2], "the pod's namespace has its interface again");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_interfaces_are_two_ways() {
    let (pod, first) = plugged();
    let second = Scratch::new().unwrap();
    pod.wire("net1", &second, "veth1").unwrap();
    let link = [route("10.9.0.0/16", None)];
    dress(&second, "veth1", &["10.9.0.1/16"], &link);
    dress(&pod, "net1", &["10.9.0.2/16"], &link);
    let (before, wanted) = (links(&pod), network_of(pod.namespace()));
    assert_eq!(wanted.interfaces.len(), 2);
    tell(first.namespace(), "10.0.0.1:8000", "first\n");
    tell(second.namespace(), "10.9.0.1:8000", "second\n");
    let containerd = Containerd::new().await;
    containerd.bundle("a", "busybox nc 10.0.0.1 8000; busybox nc 10.9.0.1 8000", |spec| joins(spec, &pod));
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let lives = containerd.lives();
    assert_eq!((shim.wait("a").await, containerd.output("a").as_str()), (0, "first\nsecond\n"));
    assert!(second.enter(|| refuses("10.9.0.2")) && first.enter(|| refuses("10.0.0.2")));
    // As the crash of a kernel: its devices end with it.
    kill(pid_1(&cgroup(&containerd)));
    shim.delete("a").await;
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
    assert_eq!(links(&pod), before);
}

/// The record knows the namespace from before there is anything in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_killed_leaves_the_pods_namespace_to_its_delete() {
    let (pod, _node) = plugged();
    let before = links(&pod);
    let mut joined = 0;
    let containerd = Containerd::new().await;
    for milliseconds in moments(5) {
        containerd.bundle("a", "exec sleep 1000", |spec| joins(spec, &pod));
        let shim = containerd.start("a").await;
        let create = containerd.create(&shim, "a");
        let created = tokio::time::timeout(Duration::from_millis(milliseconds), create).await.is_ok();
        shim.kill().await;
        let lives = containerd.lives();
        joined += usize::from(links(&pod) != before);
        containerd.delete("a");
        containerd.assert_nothing_left(&lives).await;
        containerd.remove_bundle("a");
        assert_eq!(links(&pod), before, "killed after {milliseconds} ms");
        if created {
            break;
        }
    }
    assert!(joined > 1, "none was killed while there were vifs");
}
