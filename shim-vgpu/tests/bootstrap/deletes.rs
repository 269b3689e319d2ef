//! `delete` for pods that exist on disk alone, beside a process that stands for their shim.

use std::{
    fs,
    fs::File,
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Child, Command, Output},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api,
    shim_async::{Task, create_task},
};
use rustix::fs::FlockOperation;
use serde_json::json;
use ttrpc::r#async::{Server, TtrpcContext, transport::Listener};
use vgpu_codes::Code;

use crate::containerd::{Bundle, Containerd, MARK};

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
        let start_ticks = start_ticks(&shim);
        let uuid = "5f8c2f8e-2f0b-4c8e-9d53-0b6a1c7e8f11";
        let [state, shared] =
            ["sandboxes", "shared"].map(|of| containerd.dir.path().join(format!("{of}/default+pod+{uuid}")));
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(&shared).unwrap();
        let containers: serde_json::Map<_, _> = containers
            .iter()
            .map(|&id| (id.to_owned(), json!({"bundle": containerd.dir.path().join(id), "gpu": null})))
            .collect();
        let socket = containerd.dir.path().join("shim.sock");
        let record = json!({
            "version": 1, "socket": socket, "namespace": "default", "sandbox": "pod", "domain_uuid": uuid, "domid": null,
            "shim": {"pid": shim.id(), "start_ticks": start_ticks}, "backend": null, "driver_domain": 0,
            "share": shared, "proxy": null, "zone": uuid, "pod_uid": uuid, "containers": containers
        });
        fs::write(state.join("state.json"), record.to_string()).unwrap();
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
    let mut pod = Pod::with(&[]);
    pod.deleted("app");
    assert_eq!(pod.recorded().unwrap(), [""; 0]);
    assert!(pod.socket.exists() && pod.shim.try_wait().unwrap().is_none());
}

/// After a restart in the middle of a Create, or after a call that took too long, containerd takes a container for lost that is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_living_shim_is_asked_for_the_container_that_containerd_gave_up() {
    let mut pod = Pod::with(&["app", "other"]);
    let heard = Arc::new(Heard::default());
    let listener = Listener::try_from(pod.listener.take().unwrap()).unwrap();
    let mut server = Server::new().add_listener(listener).register_service(create_task(heard.clone()));
    server.start().await.unwrap();
    pod.deleted("app");
    assert_eq!(*heard.said.lock().unwrap(), ["kill app 9", "delete app", "delete app", "shutdown"]);
    assert_eq!(pod.recorded().unwrap(), ["app", "other"], "the record is the shim's");
    assert!(pod.shim.try_wait().unwrap().is_none() && pod.socket.exists());
}

/// Then no container is in the pod, as it knows, and what its record has still is left.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_shim_that_lets_go_has_left_is_taken_away() {
    for (id, is_asked) in [("pod", false), ("app", false), ("other", false), ("app", true)] {
        let mut pod = Pod::with(&["app"]);
        let socket = pod.socket.clone();
        let listener = Listener::try_from(pod.listener.take().unwrap()).unwrap();
        let heard = Arc::new(Heard { lets_go_of: Some(socket.clone()), ..Heard::default() });
        let mut server = Server::new().add_listener(listener).register_service(create_task(heard.clone()));
        server.start().await.unwrap();
        let bundle = pod.bundle(id);
        if !is_asked {
            fs::remove_file(&socket).unwrap();
        }
        let output = pod.delete_in(&bundle);
        assert!(output.status.success() && output.stderr.is_empty(), "{id}: {output:?}");
        assert_eq!(heard.said.lock().unwrap().is_empty(), !is_asked);
        assert!(pod.shim.try_wait().unwrap().is_some(), "{id}: it would write its record");
        pod.assert_gone();
    }
}

#[test]
fn a_delete_of_a_container_whose_spec_is_damaged_spares_the_pod() {
    let mut pod = Pod::with(&["app", "other"]);
    pod.kill_shim();
    let bundle = pod.bundle("app");
    fs::write(bundle.path.join("config.json"), "{").unwrap();
    let output = pod.delete_in(&bundle);
    assert!(output.status.success(), "{output:?}");
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
    let (code, remedy) = (Code::StateUnreadable.to_string(), Code::StateUnreadable.remedy());
    for once in ["containerd-shim-vgpu-v1", "VGPU-", &code, remedy] {
        assert_eq!(said.matches(once).count(), 1, "{once}: {said}");
    }
}

/// containerd asks once: a failure is told, and tried again.
#[test]
fn a_cleaning_that_fails_is_reported_and_tried_again() {
    let mut pod = Pod::with(&["app"]);
    pod.kill_shim();
    let file = pod.state.join("state.json");
    let good = fs::read_to_string(&file).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&good).unwrap();
    record["share"] = "nowhere".into();
    fs::write(&file, record.to_string()).unwrap();
    let output = pod.delete("app");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot unmount nowhere"), "{output:?}");
    assert_eq!(said.matches("VGPU-").count(), 1, "one try's: {said}");
    fs::write(&file, good).unwrap();
    let begun = Instant::now();
    while pod.state.exists() || cleaners(&pod) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody tries again");
        thread::sleep(Duration::from_millis(20));
    }
    pod.assert_gone();
}

/// Ids come back: of `ctr`, of restarts. The next life has the same bundle, socket and name.
#[test]
fn a_late_cleaning_spares_the_next_life_of_the_same_id() {
    let mut pod = Pod::with(&["pod"]);
    pod.kill_shim();
    let busy = File::open(&pod.state).unwrap();
    rustix::fs::flock(&busy, FlockOperation::LockExclusive).unwrap();
    let bundle = pod.bundle("pod");
    let output = pod.delete_in(&bundle);
    assert!(output.status.success(), "{output:?}");

    let mut next = Command::new("sleep").arg("60").spawn().unwrap();
    let (state, share) = (pod.state.with_extension("next"), pod.shared.with_extension("next"));
    for folder in [&state, &share] {
        fs::create_dir(folder).unwrap();
    }
    let text = fs::read_to_string(pod.state.join("state.json")).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["domain_uuid"] = "00000000-0000-4000-8000-000000000001".into();
    record["shim"] = json!({"pid": next.id(), "start_ticks": start_ticks(&next)});
    record["share"] = json!(share);
    fs::write(state.join("state.json"), record.to_string()).unwrap();
    fs::write(bundle.path.join("vgpu-state"), state.to_str().unwrap()).unwrap();
    let rootfs = bundle.path.join("rootfs");
    rustix::mount::mount_bind(&rootfs, &rootfs).unwrap();
    fs::remove_file(&pod.socket).unwrap();
    drop(UnixListener::bind(&pod.socket).unwrap());

    drop(busy);
    let begun = Instant::now();
    // It does the bundle and the socket last.
    while pod.state.exists() || pod.shared.exists() || cleaners(&pod) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the first life is not cleaned up");
        thread::sleep(Duration::from_millis(20));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounted = mounts.contains(rootfs.to_str().unwrap());
    let lives = next.try_wait().unwrap().is_none();
    let _ = rustix::mount::unmount(&rootfs, rustix::mount::UnmountFlags::DETACH);
    let _ = next.kill();
    let _ = next.wait();
    let there = [&share, &state.join("state.json"), &pod.socket].map(|path| path.exists());
    assert!(mounted && lives && there == [true; 3], "root {mounted}, shim {lives}, files {there:?}");
}

/// This pod's cleaning processes: they inherit its containerd's address in the environment.
fn cleaners(pod: &Pod) -> usize {
    let mark = format!("{MARK}={}", pod.containerd.address());
    let has = |file: std::io::Result<Vec<u8>>, word: &str| {
        file.is_ok_and(|bytes| bytes.split(|&byte| byte == 0).any(|found| found == word.as_bytes()))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|process| process.path());
    processes
        .filter(|at| has(fs::read(at.join("cmdline")), "clean") && has(fs::read(at.join("environ")), &mark))
        .count()
}

fn start_ticks(process: &Child) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    stat.rsplit_once(')').unwrap().1.split(' ').nth(20).unwrap().parse().unwrap()
}

/// What a shim is asked. Its first Delete comes too early.
#[derive(Default)]
struct Heard {
    said: Mutex<Vec<String>>,
    /// Its socket, where no container is left in it.
    lets_go_of: Option<PathBuf>,
}

#[async_trait]
impl Task for Heard {
    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<api::Empty> {
        self.said.lock().unwrap().push(format!("kill {} {}", request.id, request.signal));
        Ok(api::Empty::default())
    }

    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> ttrpc::Result<api::Empty> {
        self.said.lock().unwrap().push("shutdown".into());
        if let Some(socket) = &self.lets_go_of {
            fs::remove_file(socket).unwrap();
        }
        Ok(api::Empty::default())
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        let mut heard = self.said.lock().unwrap();
        let first = !heard.iter().any(|said| said.starts_with("delete"));
        heard.push(format!("delete {}", request.id));
        if first {
            return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(
                ttrpc::Code::FAILED_PRECONDITION,
                "it runs",
            )));
        }
        Ok(api::DeleteResponse::default())
    }
}
