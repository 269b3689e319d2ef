//! Create killed after each of its steps in turn, shim gone, guest hung: `delete` from a new process leaves nothing.
//!
//! The shim is the installed one. It is stopped from outside: its `xl` waits at a place (`shim.rs`), gpu-proxy falls silent (`proxy.rs`), or
//! strace delays the end of its mounts and renames. Then it is killed, its guest, if it has one, is paused, and `delete` has to do.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Story;
use crate::command::{SOON, must, until};
use crate::node::Node;
use crate::plays::vgpu;
use crate::proxy::{Proxy, Silent};
use crate::shim::{DIR, Held, Shim};
use crate::traces::processes;

/// containerd kills a `delete` that takes longer. Source: containerd, `shim.cleanup` timeout.
const CONTAINERD_WAITS: Duration = Duration::from_secs(5);
/// The cleaning goes on after the answer where it needs more time: emulated, and with a guest that hangs.
const DOMAIN_GONE: Duration = Duration::from_secs(60);
/// Between a system call of the shim and its next: time to see its effect and to kill.
const DELAY_US: &str = "delay_exit=700000";
/// Before the UUID of its domain.
const SHARE_OF_EARLY: &str = "/shared/stories+early+";
const PROXY: &str = "/tmp/story-proxy.sock";
const REAL_PROXY: &str = "/run/vgpu/gpu-proxy.sock";

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu("create_killed_before_its_domain", 600, create_killed_before_its_domain),
        vgpu("create_killed_with_a_paused_domain", 600, create_killed_with_a_paused_domain),
        vgpu("create_killed_with_a_hung_guest", 600, create_killed_with_a_hung_guest),
    ]
}

fn create_killed_before_its_domain(node: &Node) {
    let mounted = |parts: &[&str]| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts.lines().any(|line| parts.iter().all(|part| line.contains(part)))
    };
    let slow = |name: &str, seen: &dyn Fn(&Shim) -> bool, not_yet: &dyn Fn(&Shim) -> bool| {
        let shim = Shim::start("early", false, REAL_PROXY);
        let mut strace = Slowed::attach(shim.pid());
        let answer = shim.create();
        let reached = until(SOON, || seen(&shim).then_some(()));
        shim.kill();
        strace.end();
        assert!(reached.is_some(), "Create never came to {name}: {:?}", answer.join());
        assert!(not_yet(&shim), "Create was past {name} when it was killed");
        cleaned_up(node, &shim, name);
    };
    let exported = || mounted(&[SHARE_OF_EARLY, "/export ", "master:"]);
    let rooted = || mounted(&["/tmp/story-shim/bundles/early/rootfs "]);
    slow("Recorded", &|shim| !shim.record().is_empty(), &|_| !exported());
    slow("ShareMade", &|_| exported(), &|_| !rooted());
    let shared = || mounted(&[SHARE_OF_EARLY, "/rw/early/rootfs "]);
    slow("RootMounted", &|_| rooted(), &|_| !shared());
    // Between RootMounted and ContainerShared: the root is about to be moved to where the guest sees it.
    slow("the stage", &|_| mounted(&[SHARE_OF_EARLY, "/stage/early/rootfs "]), &|_| !shared());
    held(node, "ContainerShared", "before create");
}

fn create_killed_with_a_paused_domain(node: &Node) {
    let shim = Shim::start("create", false, REAL_PROXY);
    let answer = shim.create();
    let at_work = until(SOON, || {
        processes().into_iter().find(|p| p.program() == "xl" && p.words.iter().any(|word| word == "create"))
    });
    assert!(at_work.is_some(), "Create never called xl: {:?}", answer.join());
    shim.kill();
    cleaned_up(node, &shim, "the middle of DomainMade");
    drop(shim);

    held(node, "DomainMade", "after create");
    let shim = Shim::start("served", false, REAL_PROXY);
    // It goes no further than to the next step.
    let held_there = Held::at("before unpause");
    let answer = shim.create();
    let served = until(SOON, || shim.record().contains("\"backend\": {").then_some(()));
    assert!(served.is_some(), "Create never came to ShareServed: {:?}", answer.join());
    shim.kill();
    let took = deleted(node, &shim, "ShareServed");
    drop(held_there);
    nothing_left(node, "ShareServed", took);
    drop(shim);
    held(node, "DevicesMade", "before unpause");
}

fn create_killed_with_a_hung_guest(node: &Node) {
    held(node, "Unpaused", "after unpause");
    for (name, silent) in [("GuestUp", Silent::AtRegister), ("Granted", Silent::AfterGrant)] {
        let shim = Shim::start("granted", true, PROXY);
        let proxy = Proxy::at(PROXY, silent);
        let _answer = shim.create();
        proxy.wait();
        shim.kill();
        let deleted = deleted(node, &shim, name);
        drop(proxy);
        nothing_left(node, name, deleted);
    }
    let shim = Shim::start("made", true, REAL_PROXY);
    let answer = shim.create().join().expect("no reader panics");
    assert_eq!(answer, Some(Ok(())), "Create");
    shim.kill();
    cleaned_up(node, &shim, "TaskMade");
}

/// Kills a Create while its `xl` waits at `place`.
fn held(node: &Node, name: &str, place: &str) {
    let shim = Shim::start("held", false, REAL_PROXY);
    let held = Held::at(place);
    let _answer = shim.create();
    held.wait();
    shim.kill();
    let deleted = deleted(node, &shim, name);
    drop(held);
    nothing_left(node, name, deleted);
}

fn cleaned_up(node: &Node, shim: &Shim, name: &str) {
    let took = deleted(node, shim, name);
    nothing_left(node, name, took);
}

/// Hangs the guest, if there is one, and runs `delete`.
fn deleted(node: &Node, shim: &Shim, name: &str) -> Duration {
    for domain in node.domains() {
        node.pause(domain); // also one that is paused already
    }
    let begun = Instant::now();
    let output = shim.delete();
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{name}: delete: {said}");
    took
}

fn nothing_left(node: &Node, name: &str, took: Duration) {
    assert!(took < CONTAINERD_WAITS, "{name}: delete was answered after {:.1} s", took.as_secs_f64());
    let answered = Instant::now();
    let gone = until(DOMAIN_GONE, || node.domains().is_empty().then_some(()));
    assert!(gone.is_some(), "{name}: a domain is left: {:?}", node.domains());
    node.assert_nothing_left();
    println!(
        "    killed after {name}: delete was answered after {:.1} s, all was gone {:.1} s later",
        took.as_secs_f64(),
        answered.elapsed().as_secs_f64()
    );
    must(&["rm", "-rf", DIR]);
}

/// A shim whose renames and mounts take their time.
struct Slowed(Child);

impl Slowed {
    fn attach(pid: u32) -> Self {
        let strace = Command::new("strace")
            .args(["-qq", "-f", "-o", "/dev/null", "-e", "trace=rename,mount"])
            .args(["-e", &format!("inject=rename,mount:{DELAY_US}"), "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let strace = Self(strace.expect("Dom0 has strace"));
        let attached = || {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let traced = |status: String| !status.contains("TracerPid:\t0\n");
            threads
                .map(|thread| thread.path().join("status"))
                .all(|file| fs::read_to_string(file).is_ok_and(traced))
        };
        until(SOON, || attached().then_some(())).expect("strace attaches");
        strace
    }

    /// It ends with its tracee.
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.end();
    }
}
