//! What goes on, and what comes to an end, when a part hangs or comes back.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::Story;
use crate::command::{must, until};
use crate::node::{Node, kill_9};
use crate::plays::vgpu;
use crate::pod::{Pod, Runtime, START};

/// A worker dies with its supervisor at once; shim.kill_timeout_s is 15 s in the testbed; emulated, and with what else the end takes.
const ENDED: Duration = Duration::from_secs(60);

/// The stories.
pub fn stories() -> Vec<Story> {
    vec![
        vgpu("death_of_gpu_proxy_and_its_return", 600, death_of_gpu_proxy_and_its_return),
        vgpu("death_of_gpu_proxy_while_chunks_are_mapped", 600, death_of_gpu_proxy_while_chunks_are_mapped),
        vgpu("hung_guest_is_ended_by_sigkill", 300, hung_guest_is_ended_by_sigkill),
        vgpu("hung_xenstored_delays_a_pod_and_ends_none", 400, hung_xenstored_delays_a_pod_and_ends_none),
    ]
}

/// The pod that lives on gets its GPU back with the new supervisor: a program of the same container works again.
fn death_of_gpu_proxy_and_its_return(node: &Node) {
    let mut pod = node.start(Pod::cuda(&["sh", "-c", "/spin 1000; echo spin gave $?; exec sleep 1000"]));
    pod.until_line("allocated");

    kill_9(node.supervisor());

    let gave = pod.until_line("spin gave");
    assert_ne!(gave.trim(), "spin gave 0", "the program did not see an error: {}", pod.text());
    node.assert_no_worker_within(ENDED);
    must(&["sh", "/ctl/vgpu-up.sh"]); // as systemd's Restart=always does
    for round in 0..2 {
        let second = pod.exec(&["/vector_add"]);
        assert_eq!(second.code, Some(0), "round {round}: {}{}", second.text(), second.complaint());
        assert!(second.text().contains("vector_add: ok"), "{}", second.text());
    }
    assert!(pod.runs(), "the pod ended: {}{}", pod.text(), pod.complaint());
    pod.signal("SIGKILL");
    assert_eq!(pod.end(START).code, Some(137));
}

/// Workers come and go with chunks of a guest's arena mapped; some die with their supervisor, and at last with the pod.
fn death_of_gpu_proxy_while_chunks_are_mapped(node: &Node) {
    let mut pod = node.start(Pod::cuda(&["sh", "-c", "while :; do /pinned; done"]));
    pod.until_line("pinned: ok");

    kill_9(node.supervisor());

    node.assert_no_worker_within(ENDED);
    must(&["sh", "/ctl/vgpu-up.sh"]);
    let count =
        |text: String| text.lines().filter(|line| line.contains("kernels reach pinned memory")).count();
    let before = count(pod.text());
    let more = until(START, || (count(pod.text()) >= before + 2).then_some(()));
    assert!(more.is_some(), "no program shares memory any more: {}{}", pod.text(), pod.complaint());
    pod.signal("SIGKILL");
    assert_eq!(pod.end(START).code, Some(137));
}

/// A guest that does not answer is destroyed, and its program ends as any other that was killed.
fn hung_guest_is_ended_by_sigkill(node: &Node) {
    let mut pod = node.start(Pod::busybox(Runtime::Vgpu, &["sh", "-c", "echo runs; exec sleep 1000"]));
    pod.until_line("runs");
    node.pause(*node.domains().first().expect("the pod's domain"));

    pod.signal("SIGKILL");

    assert_eq!(pod.end(ENDED).code, Some(137));
    assert_eq!(node.domains(), [0; 0], "the guest is left");
}

/// Longer than containerd waits for a clean-up, and than an emulated exec takes.
const HANGS: Duration = Duration::from_secs(60);

/// Of a pod that runs, nothing goes by xenstore but its end: that one waits, and what was begun meanwhile begins later.
fn hung_xenstored_delays_a_pod_and_ends_none(node: &Node) {
    let program = ["sh", "-c", "echo runs; exec sleep 1000"];
    let mut pod = node.start(Pod::busybox(Runtime::Vgpu, &program));
    pod.until_line("runs");
    let store = fs::read_to_string("/run/xenstored.pid").expect("it runs");
    let store = store.trim().to_string();
    must(&["kill", "-STOP", &store]);
    let goes_on = thread::spawn(move || {
        thread::sleep(HANGS);
        must(&["kill", "-CONT", &store]);
    });

    let exec = pod.exec(&["echo", "meanwhile"]);
    assert!(!goes_on.is_finished(), "the exec waited for xenstored");
    let mut late = node.start(Pod::busybox(Runtime::Vgpu, &program));
    pod.signal("SIGKILL");

    assert_eq!((exec.code, exec.text().as_str()), (Some(0), "meanwhile\n"), "{}", exec.complaint());
    assert_eq!(pod.end(START).code, Some(137));
    goes_on.join().expect("xenstored goes on");
    late.until_line("runs");
    late.signal("SIGKILL");
    assert_eq!(late.end(START).code, Some(137));
}
