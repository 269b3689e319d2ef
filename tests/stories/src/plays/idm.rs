//! idm over real grants and event channels: `xen-peer` (`tests/xen-peer`) as a program of Dom0, and as PID 1 of a guest.

use std::fs;
use std::time::Duration;

use crate::Story;
use crate::command::{must, run, until};
use crate::node::Node;
use crate::plays::vgpu;

/// Put there by xtask: the program, and an initramfs with nothing else in it.
const PEER: &str = "/ctl/xen-peer";
const INITRAMFS: &str = "/ctl/xen-peer.cpio";
/// A guest boots and everything of its story happens within this, emulated.
const LIMIT: Duration = Duration::from_secs(120);

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        in_one_domain(),
        vgpu("idm_between_dom0_and_a_pvh_guest", 180, |node| with_guest(node, PVH)),
        vgpu("idm_between_dom0_and_a_pv_guest", 180, |node| with_guest(node, PV)),
        vgpu("idm_death_of_a_guest_whose_pages_are_mapped", 180, guest_is_destroyed),
    ]
}

fn in_one_domain() -> Story {
    let story = vgpu("idm_between_two_ends_in_one_domain", 180, |_| peer_plays(&["loop"]));
    let dom0 = fs::read_to_string("/sys/hypervisor/guest_type").unwrap_or_default();
    // idm/src/xen/README.md, "Limits to know".
    let pvh =
        (dom0.trim() == "PVH").then(|| "a PVH domain loses a page that it maps from itself".to_string());
    Story { skip: story.skip.or(pvh), ..story }
}

/// A type of domain, and what its kernel has to be told (`idm/src/xen/README.md`, "Limits to know").
type Kind = (&'static str, &'static str);
const PVH: Kind = ("pvh", "");
const PV: Kind = ("pv", "iommu=soft swiotlb=2048");

fn with_guest(node: &Node, kind: Kind) {
    let guest = create(kind, "");

    peer_plays(&["backend", &guest]);

    let ended = until(LIMIT, || node.domains().is_empty().then_some(()));
    let console = fs::read_to_string("/var/log/xen/console/guest-idm.log").unwrap_or_default();
    assert!(ended.is_some(), "the guest did not power off; it wrote:\n{console}");
    assert!(console.contains("1 passed, 0 failed"), "the guest wrote:\n{console}");
}

fn guest_is_destroyed(_: &Node) {
    let guest = create(PVH, "linger");

    peer_plays(&["backend", &guest, "destroy"]);
}

/// Runs the peer to its end; each of its checks has to hold, and this domain's kernel has nothing to say about it.
fn peer_plays(words: &[&str]) {
    let line: Vec<&str> = [PEER].into_iter().chain(words.iter().copied()).collect();
    let ended = run(&line, LIMIT);
    assert_eq!(ended.code, Some(0), "{}{}", ended.text(), ended.complaint());
    let kernel = must(&["dmesg"]);
    let wrong: Vec<&str> =
        kernel.lines().filter(|line| line.contains("BUG:") || line.contains("Oops")).collect();
    assert!(wrong.is_empty(), "Dom0's kernel: {wrong:#?}");
}

/// Starts a guest whose PID 1 is the peer, and returns its domain id.
fn create((kind, needs): Kind, word: &str) -> String {
    let _ = fs::remove_file("/var/log/xen/console/guest-idm.log");
    let config = format!(
        "name = \"idm\"\ntype = \"{kind}\"\nkernel = \"/usr/lib/vgpu/vmlinux\"\nramdisk = \"{INITRAMFS}\"\n\
         cmdline = \"console=hvc0 quiet {needs} {word}\"\nmemory = 128\nvcpus = 1\non_poweroff = \"destroy\"\n"
    );
    fs::write("/tmp/idm.cfg", config).expect("/tmp is writable");
    must(&["xl", "create", "/tmp/idm.cfg"]);
    must(&["xl", "domid", "idm"]).trim().to_string()
}
