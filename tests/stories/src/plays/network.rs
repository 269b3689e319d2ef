//! A pod whose network was made before it, as CNI's `bridge` makes it: a bridge of the node, a veth, addresses and routes in a namespace.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Story;
use crate::command::{SOON, must, run, until};
use crate::node::Node;
use crate::pod::{Pod, Runtime, START};

/// The story.
pub fn stories() -> Vec<Story> {
    vec![super::vgpu("pod_network_by_bridge", 400, pod_network_by_bridge)]
}

/// Where the namespace is.
const NAMESPACE: &str = "/run/story-netns";
const BRIDGE: &str = "story0";
/// More than the rings hold.
const BYTES: usize = 1_000_003;

/// What the container says of itself, and what it gets and gives.
const SCRIPT: &str = "cat /sys/class/net/eth0/mtu; ip address show dev eth0; ip route; ip -6 route
    nc 10.88.0.1 8000 | md5sum; nc fd00:88::1 8000 | md5sum
    echo the guest | nc -l -p 8001; echo its loopback | nc -l -p 8002; exec sleep 1000";

/// Frames pass Xen's rings in both directions, and the namespace is as before when the pod has gone.
fn pod_network_by_bridge(node: &Node) {
    let bridge = Bridge::new();
    let before = bridge.links();
    let noise: Vec<u8> = (0..BYTES).map(|n| (n * 31 % 251).to_le_bytes()[0]).collect();
    let tellers = ["10.88.0.1:8000", "[fd00:88::1]:8000"].map(|at| tell(at, noise.clone()));
    let path = format!("network:{NAMESPACE}");
    let pod = Pod::busybox(Runtime::Vgpu, &["sh", "-c", SCRIPT]).option("--with-ns").option(&path);
    let mut pod = node.start(pod);

    pod.until_line("default via fd00:88::1 dev eth0");
    let said = pod.text();
    for words in [
        "1400\n",
        "link/ether 0a:58:0a:58:00:02",
        "inet 10.88.0.2/16",
        "inet6 fd00:88::2/64",
        "default via 10.88.0.1 dev eth0",
        "10.88.0.0/16 dev eth0",
    ] {
        assert!(said.contains(words), "the guest has no '{words}': {said}");
    }
    // Longer than a whole megabyte takes, emulated.
    let heard = until(START, || (pod.text().matches("  -").count() == 2).then(|| pod.text()));
    let sums =
        heard.unwrap_or_else(|| panic!("the guest got no two megabytes: {}{}", pod.text(), pod.complaint()));
    let sum = md5(&noise);
    assert_eq!(sums.matches(&sum).count(), 2, "not what was sent, whose sum is {sum}: {sums}");
    for teller in tellers {
        teller.join().expect("the guest came");
    }
    assert_eq!(hear("10.88.0.2:8001"), "the guest\n");
    // As containerd dials for a port-forward.
    let dial = ["nsenter", &format!("--net={NAMESPACE}"), "bash", "-c", "cat < /dev/tcp/127.0.0.1/8002"];
    let forwarded = until(SOON, || Some(run(&dial, SOON).text()).filter(|text| !text.is_empty()));
    assert_eq!(forwarded.as_deref(), Some("its loopback\n"), "{}", pod.complaint());

    change_states(&node.domains());
    assert_eq!(
        pod.end(START).code,
        Some(137),
        "a guest that changes its vif's state without end loses its domain"
    );
    let mut now = Vec::new();
    let back = until(SOON, || {
        now = bridge.links();
        (now == before).then_some(())
    });
    assert!(back.is_some(), "the namespace had {before:?} and has {now:?}");
    let noted = run(&["xenstore-list", "/local/domain/0/error/backend/vif"], SOON).text();
    assert_eq!(noted.trim(), "", "what netback noted of a guest goes with it");
}

/// As a guest would whose kernel was taken over: closes its vif and connects it again, for as long as there is one.
fn change_states(domains: &[u32]) {
    let &[domain] = domains else { panic!("more than one guest: {domains:?}") };
    let state = format!("/local/domain/{domain}/device/vif/0/state");
    let script = format!(
        "while xl domname {domain}; do for n in 1 2 3 4 5 6 7 8 9; do
            xenstore-write {state} 6; xenstore-write {state} 4
        done; done"
    );
    let ended = run(&["sh", "-c", &script], START);
    assert!(ended.code.is_some(), "the guest is still there: {}", ended.complaint());
    // What was written after its end is nobody's.
    run(&["xenstore-rm", "-t", &state], SOON);
}

/// Gone with all in it when dropped.
struct Bridge;

impl Bridge {
    fn new() -> Self {
        fs::write(NAMESPACE, "").expect("/run is writable");
        must(&["unshare", &format!("--net={NAMESPACE}"), "true"]);
        let bridge = Bridge;
        // Nothing of the testbed loads it when a device's nodes appear.
        must(&["modprobe", "xen-netback"]);
        for line in [
            "ip link add story0 type bridge",
            "ip address add 10.88.0.1/16 dev story0",
            "ip address add fd00:88::1/64 dev story0 nodad",
            "ip link set story0 up",
            "ip link add story-veth mtu 1400 type veth peer name eth0 address 0a:58:0a:58:00:02 mtu 1400",
            "ip link set story-veth master story0 up",
        ] {
            must(&line.split(' ').collect::<Vec<_>>());
        }
        let script = "ip link set lo up && ip address add 10.88.0.2/16 dev eth0 && ip address add fd00:88::2/64 dev eth0 nodad &&
            ip link set eth0 up && ip route add default via 10.88.0.1 && ip route add default via fd00:88::1";
        must(&["ip", "link", "set", "eth0", "netns", NAMESPACE]);
        bridge.inside(&["sh", "-c", script]);
        bridge
    }

    fn inside(&self, line: &[&str]) -> String {
        must(&[&["nsenter", &format!("--net={NAMESPACE}")], line].concat())
    }

    /// What links and queueing disciplines the namespace has.
    fn links(&self) -> Vec<String> {
        let links = self.inside(&["ip", "-o", "link"]);
        let names = links.lines().filter_map(|line| line.split_whitespace().nth(1));
        let disciplines = self.inside(&["tc", "qdisc", "show"]);
        names.chain(disciplines.lines().filter(|line| line.contains("ingress"))).map(String::from).collect()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // With its end on the bridge goes the one in the namespace.
        for line in [
            ["ip", "link", "delete", "story-veth"].as_slice(),
            &["ip", "link", "delete", BRIDGE],
            &["umount", NAMESPACE],
        ] {
            let output = Command::new(line[0]).args(&line[1..]).output().expect("Dom0 has it");
            // A story that failed may have made no more than a part of it.
            assert!(output.status.success() || thread::panicking(), "{line:?}: {output:?}");
        }
        let removed = fs::remove_file(NAMESPACE);
        assert!(removed.is_ok() || thread::panicking(), "{removed:?}");
    }
}

/// Sends these bytes to the first who comes.
fn tell(at: &str, bytes: Vec<u8>) -> JoinHandle<()> {
    let listener = TcpListener::bind(at).expect("the bridge has the address");
    thread::spawn(move || {
        let (mut guest, _) = listener.accept().expect("the guest connects");
        guest.write_all(&bytes).expect("the guest reads");
    })
}

/// What is told at this address, once somebody serves it.
fn hear(at: &str) -> String {
    let address: SocketAddr = at.parse().expect("an address");
    let heard = until(SOON, || {
        let mut text = String::new();
        let mut guest = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
        guest.read_to_string(&mut text).ok()?;
        Some(text)
    });
    heard.unwrap_or_else(|| panic!("nobody serves {at}"))
}

fn md5(bytes: &[u8]) -> String {
    let ended = crate::command::feed(&["md5sum"], bytes, SOON);
    ended.text().split_whitespace().next().expect("a sum").into()
}
