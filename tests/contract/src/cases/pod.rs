//! Two containers of one pod.

use serde_json::{Value, json};

use super::{Case, SIGKILL, SLEEPS, cases};
use crate::step::{
    SECOND,
    Step::{self, *},
    TASK,
};

/// As CRI makes a pod's first container.
fn sandbox(spec: &mut Value) {
    spec["annotations"] =
        json!({"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": TASK.id});
    spec["hostname"] = json!("of-the-pod");
}

/// Has the namespaces of `kinds` be those of the process `pid`.
fn join(spec: &mut Value, pid: u32, kinds: &[&str]) {
    for namespace in spec["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
        if let Some(kind) = kinds.iter().find(|kind| namespace["type"] == **kind) {
            namespace["path"] =
                json!(format!("/proc/{pid}/ns/{}", if *kind == "network" { "net" } else { kind }));
        }
    }
    if kinds.contains(&"uts") {
        spec["hostname"].take();
    }
}

/// As CRI makes the others.
fn cri(spec: &mut Value, pid: u32) {
    join(spec, pid, &["network", "ipc", "uts"]);
}

/// With `shareProcessNamespace`, or beside a target.
fn processes(spec: &mut Value, pid: u32) {
    join(spec, pid, &["network", "ipc", "uts", "pid"]);
}

cases! {
    pod_name: CreateOf(SLEEPS, sandbox), Start(TASK), Second("hostname; ps -o args", cri), Start(SECOND), Wait(SECOND), Delete(SECOND), Output(SECOND);
    pod_processes: CreateOf(SLEEPS, sandbox), Start(TASK), Until(TASK, "there"), Second("ps -o args", processes), Start(SECOND), Wait(SECOND),
        Delete(SECOND), Output(SECOND);
    pod_processes_end_with_their_init: CreateOf(SLEEPS, sandbox), Start(TASK), Second("sleep 1000 & echo there; wait", processes), Start(SECOND),
        Until(SECOND, "there"), Kill(SECOND, SIGKILL), Wait(SECOND), Delete(SECOND), State(TASK);
    pod_container_again: CreateOf(SLEEPS, sandbox), Start(TASK), Second("exit 3", cri), Start(SECOND), Wait(SECOND), Delete(SECOND),
        Second("hostname; exit 4", cri), Start(SECOND), Wait(SECOND), Delete(SECOND), Output(SECOND);
    pod_container_after_a_failure: CreateOf(SLEEPS, sandbox), Start(TASK), Second("", no_such), Second("exit 4", cri), Start(SECOND), Wait(SECOND),
        Delete(SECOND);
    pod_pause_killed_first: CreateOf(SLEEPS, sandbox), Start(TASK), Second("echo there; exec sleep 1000", cri), Start(SECOND), Until(SECOND, "there"),
        Kill(TASK, SIGKILL), Wait(TASK), Delete(TASK), State(SECOND), Kill(SECOND, SIGKILL), Wait(SECOND), Delete(SECOND);
    pod_namespace_that_is_gone: CreateOf(SLEEPS, sandbox), Start(TASK), Kill(TASK, SIGKILL), Wait(TASK), Second("true", cri), State(SECOND);
    pod_namespace_of_nobody: CreateOf(SLEEPS, sandbox), Start(TASK), Second("true", |spec, _| cri(spec, 0)), State(SECOND);
}

fn no_such(spec: &mut Value, pid: u32) {
    cri(spec, pid);
    spec["process"]["args"] = json!(["/no/such"]);
}
