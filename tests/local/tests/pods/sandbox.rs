//! Pods by containerd's Sandbox API: the messages of its shim controller, a real guest, and no container but the applications'.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use containerd_shim_protos::{
    api::{CreateTaskResponse, Empty, StateRequest, StateResponse},
    sandbox_api::{PingRequest, PingResponse},
};
use serde_json::{Value, json};
use ttrpc::{Code, Error};
use vgpu_contract::{
    cri_api::{DNSConfig, NamespaceMode, PodSandboxConfig},
    mock::Shim,
};

use crate::{
    containerd::{Containerd, until},
    guest::{cgroup, kill, pid_1, stop},
    moments,
};

const ID: &str = "pod";

/// A pod whose sandbox is no container.
struct Pod {
    containerd: Containerd,
    shim: Shim,
    pid: u32,
    lives: Vec<String>,
}

impl Pod {
    async fn begin(pids: NamespaceMode) -> Pod {
        let containerd = Containerd::new().await;
        containerd.bundle_of_sandbox(ID);
        let shim = containerd.start(ID).await;
        shim.create_sandbox(&containerd, ID, &config(pids)).await.expect("CreateSandbox");
        let pid = shim.start_sandbox(ID).await.expect("StartSandbox");
        let lives = containerd.lives();
        Pod { containerd, shim, pid, lives }
    }

    /// Runs a container, without a `start` of its own.
    async fn run(&self, id: &str, script: &str, kinds: &[&str]) {
        self.containerd.bundle_in_sandbox(id, script, ID, self.pid, kinds);
        self.containerd.create(&self.shim, id).await;
    }

    async fn output(&self, id: &str, script: &str, kinds: &[&str]) -> String {
        self.run(id, script, kinds).await;
        assert_eq!((self.shim.wait(id).await, self.shim.delete(id).await), (0, 0), "{id}");
        self.containerd.output(id)
    }

    async fn state(&self) -> String {
        let (state, pid) = self.shim.sandbox_state(ID).await;
        assert_eq!(pid, self.pid);
        state
    }

    /// ShutdownSandbox, and then what containerd does when the connection has closed.
    async fn over(self) {
        self.shim.shut_down_sandbox(ID).await;
        self.containerd.delete(ID);
        self.containerd.assert_nothing_left(&self.lives).await;
    }
}

fn config(pids: NamespaceMode) -> PodSandboxConfig {
    let dns = DNSConfig {
        servers: vec!["192.0.2.53".into()],
        searches: vec!["a.test".into()],
        ..DNSConfig::default()
    };
    let mut config = PodSandboxConfig {
        hostname: "inside".into(),
        dns_config: Some(dns).into(),
        ..PodSandboxConfig::default()
    };
    let linux = config.linux.mut_or_insert_default();
    linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let options = &mut linux.security_context.mut_or_insert_default().namespace_options;
    options.mut_or_insert_default().pid = pids.into();
    config
}

const CRI: [&str; 3] = ["network", "ipc", "uts"];

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_sandbox_container_has_what_its_containers_share() {
    let pod = Pod::begin(NamespaceMode::CONTAINER).await;
    assert_eq!(pod.state().await, "SANDBOX_READY");
    let cgroups = fs::read_dir(cgroup(&pod.containerd).join("vgpu")).into_iter().flatten().flatten();
    let made: Vec<_> = cgroups.filter(|entry| entry.path().is_dir()).collect();
    assert!(made.is_empty(), "the guest runs something for it: {made:?}");

    let links = "for of in ipc uts pid; do busybox readlink /proc/self/ns/$of; done";
    let script = format!(
        "{links}; hostname; cat /etc/hostname /etc/resolv.conf /proc/sys/kernel/shm_rmid_forced; \
         echo kept > /dev/shm/file; echo more >> /etc/hosts; echo there; exec sleep 1000"
    );
    pod.run("one", &script, &CRI).await;
    let one = || pod.containerd.output("one");
    until("it runs", || one().contains("there"), one).await;
    let lines: Vec<_> = one().lines().map(str::to_owned).collect();
    let right = ["inside", "inside", "search a.test", "nameserver 192.0.2.53", "1", "there"];
    assert_eq!(lines[3..], right);

    let two = pod.output("two", &format!("{links}; cat /dev/shm/file; tail -n 1 /etc/hosts"), &CRI).await;
    let two: Vec<_> = two.lines().collect();
    assert_eq!((two[0], two[1]), (lines[0].as_str(), lines[1].as_str()), "ipc and uts");
    assert_ne!(two[2], lines[2], "each has pids of its own");
    assert_eq!(two[3..], ["kept", "more"]);
    // containerd asks for State of what it has as a task alone.
    let request = StateRequest { id: ID.into(), ..Default::default() };
    let Err(Error::RpcStatus(status)) = pod.shim.call::<_, StateResponse>("State", &request).await else {
        panic!("the sandbox is a task");
    };
    assert_eq!(status.code(), Code::NOT_FOUND);
    // No end of a container, nor a Shutdown of the Task service, takes it away.
    let _: Empty = pod.shim.call("Shutdown", &Empty::default()).await.expect("Shutdown");
    assert_eq!(pod.state().await, "SANDBOX_READY");

    pod.shim.stop_sandbox(ID).await.expect("StopSandbox");
    assert_eq!((pod.shim.wait_sandbox(ID).await, pod.shim.wait("one").await), (137, 137));
    assert_eq!(pod.state().await, "SANDBOX_NOTREADY");
    assert!(!Path::new(&format!("/proc/{}", pod.pid)).exists(), "its pid is somebody's");
    pod.shim.stop_sandbox(ID).await.expect("once more is no error");
    assert_eq!(pod.shim.delete("one").await, 137);
    let told = ["create", "start", "exit", "delete"];
    let mut twice = [told, told].concat();
    twice.sort_unstable();
    let topics = || {
        let mut topics = pod.containerd.topics();
        topics.sort();
        topics
    };
    // They come when they like.
    until("all is told of its two containers", || topics() == twice, || format!("{:?}", topics())).await;
    pod.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_their_processes_where_the_pod_says_so() {
    let pod = Pod::begin(NamespaceMode::POD).await;
    let kinds = [&CRI[..], &["pid"]].concat();
    pod.run("one", "echo there; sleep 2222 & exec sleep 1111", &kinds).await;
    until("it runs", || pod.containerd.output("one").contains("there"), || pod.containerd.output("one"))
        .await;
    let seen = pod
        .output(
            "two",
            "test $$ = 1 && echo first; ps | grep -c '[s]leep 1111'; kill -9 1; kill -0 1 && echo lives
            grep -e CapPrm -e CapBnd -e NoNewPrivs /proc/1/status",
            &kinds,
        )
        .await;
    let none = "CapPrm:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n";
    assert_eq!(seen, format!("1\nlives\n{none}"), "neither is the first, and the first cannot be killed");
    let first =
        fs::read_to_string(cgroup(&pod.containerd).join("vgpu").join(ID).join("cgroup.procs")).unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", first.trim())).unwrap().count();
    assert_eq!(open, 3, "its streams alone");
    pod.shim.signal("one", 9).await;
    assert_eq!((pod.shim.wait("one").await, pod.shim.delete("one").await), (137, 137));
    assert_eq!(pod.state().await, "SANDBOX_READY");
    pod.over().await;
}

/// As a kernel that panics: PID 1 is killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_guest_is_the_end_of_its_sandbox() {
    let pod = Pod::begin(NamespaceMode::CONTAINER).await;
    pod.run("app", "exec sleep 1000", &CRI).await;
    kill(pid_1(&cgroup(&pod.containerd)));
    assert_eq!(
        (pod.shim.wait_sandbox(ID).await, pod.shim.wait("app").await, pod.state().await.as_str()),
        (137, 137, "SANDBOX_NOTREADY")
    );
    let request = PingRequest { sandbox_id: ID.into(), ..Default::default() };
    let Err(Error::RpcStatus(status)) = pod.shim.sandbox::<_, PingResponse>("PingSandbox", &request).await
    else {
        panic!("it is pinged");
    };
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert_eq!(pod.shim.delete("app").await, 137);
    let topics = || pod.containerd.topics();
    until("its delete is told", || topics().contains(&"delete".into()), || format!("{:?}", topics())).await;
    let exits = topics().iter().filter(|topic| *topic == "exit").count();
    assert_eq!(exits, 1);
    pod.over().await;
}

/// As a kernel that hangs: StopSandbox does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_hangs_is_stopped_all_the_same() {
    let pod = Pod::begin(NamespaceMode::CONTAINER).await;
    pod.run("app", "exec sleep 1000", &CRI).await;
    stop(pid_1(&cgroup(&pod.containerd)));
    pod.shim.stop_sandbox(ID).await.expect("StopSandbox");
    assert_eq!(
        (pod.shim.wait_sandbox(ID).await, pod.shim.wait("app").await, pod.shim.delete("app").await),
        (137, 137, 137)
    );
    pod.over().await;
}

/// Its guest has ended by itself, and containerd gives up a shim that it does not reach.
#[tokio::test(flavor = "multi_thread")]
async fn delete_ends_the_living_shim_of_a_sandbox_that_is_over() {
    let pod = Pod::begin(NamespaceMode::CONTAINER).await;
    kill(pid_1(&cgroup(&pod.containerd)));
    assert_eq!(pod.shim.wait_sandbox(ID).await, 137);
    pod.containerd.delete(ID);
    let shim = format!("/proc/{}", pod.shim.pid);
    until("the shim ends", || !Path::new(&shim).exists(), String::new).await;
    pod.containerd.assert_nothing_left(&pod.lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_hook_of_a_container() {
    let pod = Pod::begin(NamespaceMode::CONTAINER).await;
    let script = "cat > /dev/null; echo > ran; exec sleep 1000";
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    pod.containerd.bundle_in_sandbox("app", "exit 0", ID, pod.pid, &CRI);
    let file = pod.containerd.bundle_of("app").join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    spec["hooks"] = json!({"createRuntime": [hook]});
    fs::write(file, spec.to_string()).unwrap();
    let asked = pod.containerd.asked("app");
    let creating = pod.shim.call::<_, CreateTaskResponse>("Create", &asked);
    let ran = pod.containerd.bundle_of("app").join("ran");
    let stopping = async {
        until("the hook runs", || ran.exists(), String::new).await;
        pod.shim.stop_sandbox(ID).await.expect("StopSandbox");
    };
    let begun = Instant::now();
    let (created, ()) = tokio::join!(creating, stopping);
    assert!(created.is_err() && begun.elapsed() < Duration::from_secs(60), "{created:?}");
    pod.over().await;
}

/// containerd asks for the sandbox alone then: its containers had no `start`.
#[tokio::test(flavor = "multi_thread")]
async fn delete_from_disk_ends_a_sandbox_whose_shim_is_gone() {
    let pod = Pod::begin(NamespaceMode::POD).await;
    pod.run("app", "exec sleep 1000", &CRI).await;
    pod.shim.kill().await;
    pod.containerd.delete(ID);
    pod.containerd.assert_nothing_left(&pod.lives).await;
}

/// Of each moment of its two calls, what is on disk is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_killed_while_a_sandbox_is_made_leaves_nothing_to_its_delete() {
    let containerd = Containerd::new().await;
    let mut guests = 0;
    for milliseconds in moments(5) {
        containerd.bundle_of_sandbox(ID);
        let shim = containerd.start(ID).await;
        let making = async {
            shim.create_sandbox(&containerd, ID, &config(NamespaceMode::POD)).await.unwrap();
            shim.start_sandbox(ID).await.unwrap();
        };
        let made = tokio::time::timeout(Duration::from_millis(milliseconds), making).await.is_ok();
        shim.kill().await;
        let lives = containerd.lives();
        guests += usize::from(containerd.node().join("domains/1").exists());
        containerd.delete(ID);
        containerd.assert_nothing_left(&lives).await;
        containerd.remove_bundle(ID);
        if made {
            break;
        }
    }
    assert!(guests > 1, "none was killed while there was a domain");
}
