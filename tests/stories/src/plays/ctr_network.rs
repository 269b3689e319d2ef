//! A container whose network is made after it, as `ctr run --cni` does: CNI's own plugins are told the namespace of the task's pid, between
//! Create and Start.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;

use crate::Story;
use crate::command::{SOON, must, run, until};
use crate::node::Node;
use crate::pod::{Pod, Runtime};

/// The story.
pub fn stories() -> Vec<Story> {
    vec![super::vgpu("pod_network_by_ctr", 300, pod_network_by_ctr)]
}

/// Where `ctr` looks, whatever the containerd's configuration says. Source: go-cni, `DefaultCNIDir` and `DefaultNetDir`.
const PLUGINS: &str = "/opt/cni/bin";
const CONFIGURATIONS: &str = "/etc/cni/net.d";
/// Where Debian has CNI's own.
const INSTALLED: &str = "/usr/lib/cni";
/// A link of its own between the node and the pod, with the one address that there is. Source: CNI's pages of `ptp` and `host-local`.
const CONFIGURATION: &str = r#"{"cniVersion": "0.4.0", "name": "story", "plugins": [{"type": "ptp", "ipam": {"type": "host-local",
    "subnet": "10.89.0.0/16", "rangeStart": "10.89.0.2", "rangeEnd": "10.89.0.2", "routes": [{"dst": "0.0.0.0/0"}]}}]}"#;
/// The addresses that it has given, a file each.
const GIVEN: &str = "/var/lib/cni/networks/story/10.89.0.2";
const SCRIPT: &str =
    "ip address show dev eth0; ip route; nc 10.89.0.1 8000; echo the guest | nc -l -p 8001; exec sleep 1000";

/// The device comes to a guest that has long booted.
fn pod_network_by_ctr(node: &Node) {
    let plugins = Plugins::install();
    // The address comes with the interface.
    let teller = thread::spawn(|| {
        let listener = until(SOON, || TcpListener::bind("10.89.0.1:8000").ok()).expect("ptp was called");
        let (mut guest, _) = listener.accept().expect("the guest connects");
        guest.write_all(b"from the node\n").expect("the guest reads");
    });
    let pod = Pod::busybox(Runtime::Vgpu, &["sh", "-c", SCRIPT]).option("--cni");
    let mut pod = node.start(pod);
    pod.until_line("from the node");
    teller.join().expect("the guest came");
    let said = pod.text();
    for words in ["inet 10.89.0.2/16", "default via 10.89.0.1 dev eth0"] {
        assert!(said.contains(words), "the guest has no '{words}': {said}");
    }
    let heard = until(SOON, || {
        let mut text = String::new();
        TcpStream::connect("10.89.0.2:8001").ok()?.read_to_string(&mut text).ok()?;
        Some(text)
    });
    assert_eq!(heard.as_deref(), Some("the guest\n"), "{}", pod.complaint());
    pod.signal("SIGKILL");
    assert_eq!(pod.end(SOON).code, Some(137));
    let links = || run(&["ip", "-o", "link"], SOON).text();
    let left = || {
        Path::new(GIVEN).exists() || links().lines().any(|link| link.contains("veth") || link.contains("vif"))
    };
    assert!(
        until(SOON, || (!left()).then_some(())).is_some(),
        "the container left {GIVEN} or links: {}",
        links()
    );
    drop(plugins);
}

/// Gone when dropped.
struct Plugins;

impl Plugins {
    fn install() -> Self {
        must(&["modprobe", "xen-netback"]);
        for folder in ["/opt/cni", CONFIGURATIONS] {
            fs::create_dir_all(folder).expect("Dom0's disk is writable");
        }
        symlink(INSTALLED, PLUGINS).expect("nobody else has put any there");
        fs::write(Plugins::configuration(), CONFIGURATION).expect("written");
        Plugins
    }

    /// The first of all, which is the one that `ctr` takes.
    fn configuration() -> PathBuf {
        Path::new(CONFIGURATIONS).join("00-story.conflist")
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        let removed = fs::remove_file(PLUGINS).and(fs::remove_file(Plugins::configuration()));
        assert!(removed.is_ok() || thread::panicking(), "{removed:?}");
        // Only one that failed has left it.
        let _ = fs::remove_file(GIVEN);
    }
}
