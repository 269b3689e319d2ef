//! A container whose network is made after it, as `ctr run --cni` does: a plugin is told the namespace of the task's pid, between Create and
//! Start.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
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
const CONFIGURATION: &str = r#"{"cniVersion": "0.4.0", "name": "story", "plugins": [{"type": "story"}]}"#;
/// A veth of the node. Source: CNI specification 0.4.0.
const PLUGIN: &str = r#"#!/bin/sh
set -eu
case $CNI_COMMAND in
ADD)
    ip link add story-veth type veth peer name "$CNI_IFNAME"
    ip link set "$CNI_IFNAME" netns "$CNI_NETNS"
    ip address add 10.89.0.1/16 dev story-veth
    ip link set story-veth up
    nsenter --net="$CNI_NETNS" sh -c "ip address add 10.89.0.2/16 dev $CNI_IFNAME && ip link set $CNI_IFNAME up &&
        ip route add default via 10.89.0.1"
    echo '{"cniVersion": "0.4.0", "interfaces": [{"name": "'"$CNI_IFNAME"'", "sandbox": "'"$CNI_NETNS"'"}],'
    echo '"ips": [{"version": "4", "address": "10.89.0.2/16", "interface": 0}]}'
    ;;
DEL) ip link delete story-veth 2> /dev/null || true ;;
VERSION) echo '{"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}' ;;
esac
"#;
const SCRIPT: &str =
    "ip address show dev eth0; ip route; nc 10.89.0.1 8000; echo the guest | nc -l -p 8001; exec sleep 1000";

/// The device comes to a guest that has long booted.
fn pod_network_by_ctr(node: &Node) {
    let plugin = Plugin::install();
    // The address comes with the interface.
    let teller = thread::spawn(|| {
        let listener =
            until(SOON, || TcpListener::bind("10.89.0.1:8000").ok()).expect("the plugin was called");
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
    let left = || links().lines().any(|link| link.contains("story-veth") || link.contains("vif"));
    assert!(until(SOON, || (!left()).then_some(())).is_some(), "the container left links: {}", links());
    drop(plugin);
}

/// Gone when dropped.
struct Plugin;

impl Plugin {
    fn install() -> Self {
        must(&["modprobe", "xen-netback"]);
        for folder in [PLUGINS, CONFIGURATIONS] {
            fs::create_dir_all(folder).expect("Dom0's disk is writable");
        }
        let (program, configuration) = Plugin::files();
        fs::write(&program, PLUGIN).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
        fs::write(configuration, CONFIGURATION).expect("written");
        Plugin
    }

    /// The first of all configurations, which is the one that `ctr` takes.
    fn files() -> (std::path::PathBuf, std::path::PathBuf) {
        (Path::new(PLUGINS).join("story"), Path::new(CONFIGURATIONS).join("00-story.conflist"))
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let (program, configuration) = Plugin::files();
        let removed = fs::remove_file(program).and(fs::remove_file(configuration));
        assert!(removed.is_ok() || thread::panicking(), "{removed:?}");
        // Only one that failed has left it.
        if thread::panicking() {
            run(&["ip", "link", "delete", "story-veth"], SOON);
        }
    }
}
