//! What containers of a pod share, as containerd asks for it: by paths of the pids that the shim has told.

use std::{fs, path::Path};

use containerd_shim_protos::api::{CreateTaskResponse, StateRequest, StateResponse};
use serde_json::{Value, json};
use tempfile::TempDir;
use vgpu_contract::mock::Shim;

use crate::containerd::{Containerd, PROGRAMS, until};

const SIGKILL: u32 = 9;
const LINKS: &str = "for of in pid uts ipc; do busybox readlink /proc/self/ns/$of; done; hostname";

/// A pod whose sandbox container sleeps.
struct Pod {
    /// A folder in memory, as CRI makes for a pod.
    shm: TempDir,
    containerd: Containerd,
    shim: Shim,
    lives: Vec<String>,
}

impl Pod {
    async fn begin() -> Self {
        Pod::of(Containerd::new().await).await
    }

    async fn of(containerd: Containerd) -> Self {
        let shm = tempfile::tempdir_in("/dev/shm").unwrap();
        let memory = memory(&shm, "/dev/shm");
        let script = format!("{LINKS}; echo there; exec sleep 1111");
        containerd.bundle("pod", &script, |spec| {
            spec["annotations"] = annotations("sandbox");
            spec["mounts"].as_array_mut().unwrap().push(memory);
        });
        let shim = containerd.start("pod").await;
        containerd.create(&shim, "pod").await;
        let lives = containerd.lives();
        let pod = Pod { shm, containerd, shim, lives };
        pod.writes("pod", "there").await;
        pod
    }

    /// A bundle of one more container: its name is the pod's, these namespaces those of somebody, its memory the pod's, at two places.
    fn bundle(&self, id: &str, script: &str, namespaces: &[(&str, u32)]) {
        let memories = ["/dev/shm", "/cache"].map(|at| memory(&self.shm, at));
        self.containerd.bundle(id, script, |spec| {
            spec["annotations"] = annotations("container");
            spec.as_object_mut().unwrap().remove("hostname");
            spec["mounts"].as_array_mut().unwrap().extend(memories);
            for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
                let asked = namespaces.iter().find(|(kind, _)| namespace["type"] == *kind);
                if let Some((kind, pid)) = asked {
                    namespace["path"] = path(kind, *pid).into();
                }
            }
        });
    }

    async fn run(&self, id: &str, script: &str, namespaces: &[(&str, u32)]) {
        self.bundle(id, script, namespaces);
        assert_eq!(self.containerd.start(id).await.pid, self.shim.pid);
        self.containerd.create(&self.shim, id).await;
    }

    /// What one writes that ends, and is deleted with its bundle, as kubelet does.
    async fn output(&self, id: &str, script: &str, namespaces: &[(&str, u32)]) -> String {
        self.run(id, script, namespaces).await;
        assert_eq!((self.shim.wait(id).await, self.shim.delete(id).await), (0, 0), "{id}");
        self.containerd.delete(id);
        let output = self.containerd.output(id);
        self.containerd.remove_bundle(id);
        output
    }

    async fn pid(&self, id: &str) -> u32 {
        let request = StateRequest { id: id.into(), ..Default::default() };
        self.shim.call::<_, StateResponse>("State", &request).await.expect("State").pid
    }

    async fn writes(&self, id: &str, words: &str) -> String {
        let output = || self.containerd.output(id);
        until("it has written", || output().contains(words), output).await;
        output()
    }

    /// SIGKILL and Delete; its pid is nobody's then.
    async fn end(&self, id: &str) {
        let pid = self.pid(id).await;
        self.shim.signal(id, SIGKILL).await;
        assert_eq!(self.shim.wait(id).await, 137, "{id}");
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{id}");
        assert_eq!((self.pid(id).await, self.shim.delete(id).await), (pid, 137), "{id}");
        self.containerd.delete(id);
    }

    /// The last `delete` has let the shim go.
    async fn over(self) {
        self.containerd.assert_nothing_left(&self.lives).await;
    }
}

fn annotations(kind: &str) -> Value {
    json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pod"})
}

/// A pod's shared memory, as CRI mounts it at /dev/shm.
fn memory(shm: &TempDir, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": shm.path(), "options": ["rbind", "rw"]})
}

fn path(kind: &str, pid: u32) -> String {
    format!("/proc/{pid}/ns/{}", if kind == "network" { "net" } else { kind })
}

/// As a program of the host sees it.
fn link(kind: &str, pid: u32) -> String {
    fs::read_link(path(kind, pid)).unwrap().to_string_lossy().into_owned()
}

/// pid, uts and ipc: whether what a container has written of them is what another one has.
fn same(one: &str, other: &str) -> [bool; 3] {
    let (mut one, mut other) = (one.lines(), other.lines());
    [(); 3].map(|()| one.next().unwrap() == other.next().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_what_the_spec_says() {
    let pod = Pod::begin().await;
    let (sandbox, of_pod) = (pod.pid("pod").await, pod.containerd.output("pod"));
    let cri = [("network", sandbox), ("ipc", sandbox), ("uts", sandbox)];
    let script = format!("{LINKS}; echo kept > /dev/shm/file; echo there; exec sleep 2222");
    pod.run("app", &script, &cri).await;
    let of_app = pod.writes("app", "there").await;
    assert_eq!(same(&of_app, &of_pod), [false, true, true], "{of_app}{of_pod}");
    assert!(of_app.contains("\ninside\n"), "its name is the pod's: {of_app}");

    let app = pod.pid("app").await;
    assert!(app != sandbox && i32::try_from(app) != Ok(pod.shim.pid), "each has a pid of its own");
    for (kind, shared) in [("network", true), ("ipc", true), ("uts", true), ("pid", false)] {
        let of = [app, sandbox, std::process::id()].map(|pid| link(kind, pid));
        assert_eq!((of[0] == of[1], of[0] == of[2]), (shared, false), "{kind}: {of:?}");
    }
    // Its processes, when it asks, and only then.
    let all = [("network", sandbox), ("ipc", sandbox), ("uts", sandbox), ("pid", sandbox)];
    let text = pod.output("second", &format!("{LINKS}; ps; cat /cache/file"), &all).await;
    assert_eq!(same(&text, &of_pod), [true; 3], "{text}");
    assert!(
        text.contains("sleep 1111") && !text.contains("sleep 2222") && text.ends_with("kept\n"),
        "{text}"
    );
    let text = pod.output("apart", &format!("{LINKS}; ps"), &[]).await;
    assert_eq!(same(&text, &of_pod), [false; 3], "{text}");
    assert!(!text.contains("sleep"), "{text}");
    let on_the_host = fs::read_dir(pod.shm.path()).unwrap().count();
    assert_eq!(on_the_host, 0, "the memory is the guest's");

    // The next life of an id, in the same guest.
    for _ in 0..3 {
        pod.end("app").await;
        pod.containerd.remove_bundle("app");
        pod.run("app", "hostname; cat /dev/shm/file; echo there; exec sleep 3333", &cri).await;
        assert_eq!(pod.writes("app", "there").await, "inside\nkept\nthere\n");
    }
    pod.end("app").await;
    pod.end("pod").await;
    pod.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_container_sees_its_target() {
    let pod = Pod::begin().await;
    pod.run("app", "exec sleep 2222", &[]).await;
    let target = [("pid", pod.pid("app").await)];
    pod.run("debug", "ps; echo there; exec sleep 3333", &target).await;
    let seen = pod.writes("debug", "there").await;
    assert!(seen.contains("sleep 2222") && !seen.contains("sleep 1111"), "{seen}");
    // By the one that came to it.
    let text = pod.output("second", "ps", &[("pid", pod.pid("debug").await)]).await;
    assert!(text.contains("sleep 2222") && text.contains("sleep 3333"), "{text}");
    // It has ended without harm to the target; the target's end is its own.
    pod.end("app").await;
    assert_eq!((pod.shim.wait("debug").await, pod.shim.delete("debug").await), (137, 137));
    pod.containerd.delete("debug");
    pod.end("pod").await;
    pod.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_after_its_pause_has_the_pods_namespaces() {
    let pod = Pod::begin().await;
    let (sandbox, of_pod) = (pod.pid("pod").await, pod.containerd.output("pod"));
    let cri = [("network", sandbox), ("ipc", sandbox), ("uts", sandbox)];
    pod.run("app", "echo kept > /dev/shm/file; echo there; exec sleep 2222", &cri).await;
    pod.writes("app", "there").await;
    pod.end("pod").await;
    // By the name of one that lives.
    let app = pod.pid("app").await;
    let script = format!("{LINKS}; cat /dev/shm/file");
    let text = pod.output("late", &script, &[("network", app), ("ipc", app), ("uts", app)]).await;
    // Its pid namespace may have the number of the one that has ended.
    assert_eq!(same(&text, &of_pod)[1..], [true, true], "{text}{of_pod}");
    assert!(text.ends_with("inside\nkept\n"), "{text}");
    // The one that is gone is nobody, as with runc.
    pod.bundle("lost", "true", &cri);
    pod.containerd.start("lost").await;
    let lost = pod.shim.call::<_, CreateTaskResponse>("Create", &pod.containerd.asked("lost")).await;
    let said = lost.unwrap_err().to_string();
    assert!(said.contains("linux.namespaces[1].path: cannot open /proc/"), "{said}");
    pod.containerd.delete("lost");
    pod.end("app").await;
    pod.over().await;
}

/// An upgrade unpacks the new program in the place of the old one, which goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_shim_was_upgraded_takes_containers() {
    let programs = tempfile::tempdir().unwrap();
    let place = |program: &str| programs.path().join(Path::new(program).file_name().unwrap());
    let install = || {
        for program in PROGRAMS {
            let _ = fs::remove_file(place(program));
            fs::copy(program, place(program)).unwrap();
        }
    };
    install();
    let pod = Pod::of(Containerd::of(place(PROGRAMS[0])).await).await;
    install();
    assert_eq!(pod.output("later", "echo there", &[("ipc", pod.pid("pod").await)]).await, "there\n");
    pod.end("pod").await;
    pod.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_another_pod_or_of_the_host_is_refused_by_name() {
    let (pod, other) = (Pod::begin().await, Pod::begin().await);
    let (others, own) = (other.pid("pod").await, std::process::id());
    for (number, kind) in ["pid", "ipc", "uts"].into_iter().enumerate() {
        for pid in [others, own] {
            pod.bundle("app", "true", &[(kind, pid)]);
            pod.containerd.start("app").await;
            let asked = pod.shim.call::<_, CreateTaskResponse>("Create", &pod.containerd.asked("app")).await;
            let said = asked.unwrap_err().to_string();
            let right = format!("linux.namespaces[{number}].path asks for the ");
            assert!(said.contains(&right) && said.contains(kind), "{said}");
            pod.containerd.delete("app");
            pod.containerd.remove_bundle("app");
        }
    }
    for pod in [pod, other] {
        pod.end("pod").await;
        pod.over().await;
    }
}
