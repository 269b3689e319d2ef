//! `delete` for pods that exist on disk alone, beside a process that stands for their shim.

use std::{
    fs,
    fs::File,
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;
use serde_json::json;

use crate::containerd::{Bundle, Containerd};

struct Pod {
    containerd: Containerd,
    state: PathBuf,
    shared: PathBuf,
    shim: Child,
    /// The shim's socket, and its name, which stays when it is killed.
    listener: Option<UnixListener>,
    socket: PathBuf,
}

impl Pod {
    /// A pod whose pause container is deleted, and these are left.
    fn with(containers: &[&str]) -> Pod {
        let containerd = Containerd::new();
        let shim = Command::new("sleep").arg("60").spawn().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", shim.id())).unwrap();
        let start_ticks: u64 = stat.rsplit_once(')').unwrap().1.split(' ').nth(20).unwrap().parse().unwrap();
        let (state, shared) = (
            containerd.dir.path().join("sandboxes/default+pod"),
            containerd.dir.path().join("shared/default+pod"),
        );
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(&shared).unwrap();
        let containers: serde_json::Map<_, _> = containers
            .iter()
            .map(|&id| (id.to_owned(), json!({"bundle": containerd.dir.path().join(id), "gpu": null})))
            .collect();
        let uuid = "5f8c2f8e-2f0b-4c8e-9d53-0b6a1c7e8f11";
        let record = json!({
            "version": 1, "namespace": "default", "sandbox": "pod", "domain_uuid": uuid, "domid": null,
            "shim": {"pid": shim.id(), "start_ticks": start_ticks}, "backend": null, "driver_domain": 0,
            "share": shared, "proxy": null, "zone": uuid, "pod_uid": uuid, "containers": containers
        });
        fs::write(state.join("state.json"), record.to_string()).unwrap();
        let socket = containerd.dir.path().join("shim.sock");
        let listener = Some(UnixListener::bind(&socket).unwrap());
        Pod { containerd, state, shared, shim, listener, socket }
    }

    fn delete(&self, id: &str) -> Output {
        self.delete_in(&self.bundle(id))
    }

    fn bundle(&self, id: &str) -> Bundle {
        let kind = if id == "pod" { "sandbox" } else { "container" };
        let bundle = self.containerd.bundle(
            id,
            json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pod"}),
        );
        fs::write(bundle.path.join("vgpu-state"), self.state.to_str().unwrap()).unwrap();
        fs::write(bundle.path.join("address"), format!("unix://{}", self.socket.display())).unwrap();
        bundle
    }

    fn delete_in(&self, bundle: &Bundle) -> Output {
        self.containerd.run(bundle, &["-bundle", &bundle.path.to_string_lossy(), "delete"], b"")
    }

    fn deleted(&self, id: &str) {
        let output = self.delete(id);
        assert!(output.status.success() && output.stderr.is_empty(), "{id}: {output:?}");
    }

    fn kill_shim(&mut self) {
        self.shim.kill().unwrap();
        self.shim.wait().unwrap();
        self.listener = None;
    }

    /// The containers in the record; none if there is no record.
    fn recorded(&self) -> Option<Vec<String>> {
        let text = fs::read_to_string(self.state.join("state.json")).ok()?;
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        Some(record["containers"].as_object().unwrap().keys().cloned().collect())
    }

    fn assert_gone(&self) {
        assert!(!self.state.exists() && !self.shared.exists(), "{:?}", self.recorded());
        assert!(!self.socket.exists(), "the dead shim's socket is left");
        assert_eq!(self.state.parent().unwrap().read_dir().unwrap().count(), 0);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.shim.kill();
        let _ = self.shim.wait();
    }
}

/// containerd runs `delete` after an ordinary Delete too, as of the pause container of a pod whose others go on.
#[test]
fn delete_of_a_sandbox_that_is_deleted_spares_the_rest_of_the_pod() {
    let mut pod = Pod::with(&["app"]);
    pod.deleted("pod");
    assert!(pod.shim.try_wait().unwrap().is_none(), "the shim is killed");
    assert_eq!(pod.recorded().unwrap(), ["app"]);
    pod.kill_shim();
    pod.deleted("pod");
    pod.assert_gone();
}

#[test]
fn the_last_delete_of_a_pod_whose_shim_is_dead_ends_the_pod() {
    let mut pod = Pod::with(&["app", "other"]);
    pod.deleted("pod");
    pod.kill_shim();
    pod.deleted("app");
    assert_eq!(pod.recorded().unwrap(), ["other"]);
    pod.deleted("other");
    pod.assert_gone();
}

#[test]
fn the_last_delete_of_a_pod_whose_shim_lives_leaves_the_pod_to_it() {
    let pod = Pod::with(&["app"]);
    pod.deleted("app");
    assert_eq!(pod.recorded().unwrap(), [""; 0]);
    assert!(pod.socket.exists());
}

#[test]
fn a_delete_of_a_container_whose_spec_is_damaged_spares_the_pod() {
    let mut pod = Pod::with(&["app", "other"]);
    let bundle = pod.bundle("app");
    fs::write(bundle.path.join("config.json"), "{").unwrap();
    let output = pod.delete_in(&bundle);
    assert!(output.status.success(), "{output:?}");
    assert!(pod.shim.try_wait().unwrap().is_none(), "the shim is killed");
    assert_eq!(pod.recorded().unwrap(), ["other"]);
}

#[test]
fn the_deletes_of_a_pod_may_come_all_at_once() {
    for _ in 0..5 {
        let ids = ["a", "b", "c", "d", "e", "f"];
        let mut pod = Pod::with(&ids);
        pod.kill_shim();
        thread::scope(|scope| {
            for id in ids {
                let pod = &pod;
                scope.spawn(move || pod.deleted(id));
            }
        });
        pod.assert_gone();
    }
}

#[test]
fn a_delete_that_takes_longer_than_containerd_waits_is_answered_in_time_and_goes_on() {
    let mut pod = Pod::with(&["app", "other"]);
    pod.kill_shim();
    let busy = File::open(&pod.state).unwrap();
    rustix::fs::flock(&busy, FlockOperation::LockExclusive).unwrap();
    let begun = Instant::now();
    pod.deleted("app");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(pod.recorded().unwrap(), ["app", "other"], "changed under the other's lock");
    drop(busy);
    while pod.recorded().unwrap() != ["other"] {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody cleans up after the answer");
        thread::sleep(Duration::from_millis(20));
    }
}

/// containerd removes the bundle as soon as it has the answer.
#[test]
fn what_goes_on_after_the_answer_needs_no_bundle() {
    let mut pod = Pod::with(&["app"]);
    pod.kill_shim();
    let busy = File::open(&pod.state).unwrap();
    rustix::fs::flock(&busy, FlockOperation::LockExclusive).unwrap();
    let bundle = pod.bundle("app");
    let output = pod.delete_in(&bundle);
    assert!(output.status.success(), "{output:?}");
    fs::remove_dir_all(&bundle.path).unwrap();
    drop(busy);
    let begun = Instant::now();
    while pod.state.exists() || pod.socket.exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}, {:?}", pod.recorded(), pod.socket);
        thread::sleep(Duration::from_millis(20));
    }
    pod.assert_gone();
}

#[test]
fn a_failing_delete_reports_code_and_remedy_once() {
    let mut pod = Pod::with(&["app"]);
    pod.kill_shim();
    fs::write(pod.state.join("state.json"), "{").unwrap();
    let output = pod.delete("app");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert_eq!(
        (said.matches("VGPU-").count(), said.matches("containerd-shim-vgpu-v1").count()),
        (1, 1),
        "{said}"
    );
}
