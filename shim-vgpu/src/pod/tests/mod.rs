//! Stories of pods with fakes behind the seams to Xen; mounts, fifos, files and ttrpc are real, so they run as root.

mod fake_guest;
mod fake_proxy;
mod stubborn;
mod world;

use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api,
    cgroups_v2::metrics::Metrics,
    shim::events::ForwardRequest,
    shim_async::{Events, Task, create_events},
};
use protobuf::Message;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::mpsc,
};
use ttrpc::r#async::{Server, TtrpcContext, transport::Listener};
use uuid::Uuid;
use vgpu_codes::Code;
use vgpu_zone_api::shim::{DomainRef, Request, ZoneId};

use super::{
    Pod,
    steps::{Cut, Step},
};
use crate::{
    cleanup,
    container::life::Who,
    error::Result,
    events::Outbox,
    names,
    persist::{Record, Store, random_uuid},
    service::Service,
    share::Process,
};
use fake_guest::{Habits, STRANGE};
use fake_proxy::FakeProxy;
use world::{Source, World};

/// A containerd that only listens.
struct Heard(Mutex<Vec<String>>);

#[async_trait]
impl Events for Heard {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<api::Empty> {
        self.0.lock().unwrap().push(request.envelope.topic.clone());
        Ok(api::Empty::default())
    }
}

/// One node with one shim.
struct Node {
    world: Arc<World>,
    pod: Arc<Pod>,
    outbox: Outbox,
    heard: Arc<Heard>,
    _containerd: Server,
}

impl Node {
    async fn new(habits: Habits) -> Node {
        Node::with_cut(habits, Cut::default()).await
    }

    async fn with_cut(habits: Habits, cut: Cut) -> Node {
        let world = World::new(habits);
        let socket = world.dir.path().join("containerd.sock");
        let heard = Arc::new(Heard(Mutex::default()));
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut containerd = Server::new()
            .add_listener(Listener::try_from(listener).unwrap())
            .register_service(create_events(heard.clone()));
        containerd.start().await.unwrap();
        let outbox = Outbox::new("default", &socket.to_string_lossy());
        let pod = Pod::new(Arc::new(Source(world.clone())), "default", outbox.clone(), cut);
        Node { world, pod, outbox, heard, _containerd: containerd }
    }

    fn request(&self, id: &str, annotations: serde_json::Value) -> api::CreateTaskRequest {
        let bundle = self.world.bundle(id, annotations).to_string_lossy().into_owned();
        api::CreateTaskRequest { id: id.into(), bundle, ..Default::default() }
    }

    async fn create(&self, id: &str) -> Result<api::CreateTaskResponse> {
        self.pod.clone().create(self.request(id, json!({}))).await
    }

    async fn start(&self, id: &str, exec: &str) -> Result<api::StartResponse> {
        self.pod
            .clone()
            .start(api::StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() })
            .await
    }

    async fn kill(&self, id: &str, signal: u32) -> Result<api::Empty> {
        self.pod.clone().kill(api::KillRequest { id: id.into(), signal, ..Default::default() }).await
    }

    async fn exec(&self, id: &str, exec: &str) -> Result<api::ExecProcessResponse> {
        let request = api::ExecProcessRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.pod.clone().exec(request).await
    }

    async fn stats(&self, id: &str) -> Result<api::StatsResponse> {
        self.pod.clone().stats(api::StatsRequest { id: id.into(), ..Default::default() }).await
    }

    async fn delete(&self, id: &str) -> Result<u32> {
        let request = api::DeleteRequest { id: id.into(), ..Default::default() };
        self.pod.clone().delete(request).await.map(|reply| reply.exit_status)
    }

    /// Whether it is said to be a process of this host, its status, and how it ended.
    fn state(&self, id: &str, exec: &str) -> (bool, api::Status, Option<u32>) {
        let state = self.pod.container(id).unwrap().state(&Who::of(exec)).unwrap();
        assert_eq!((state.id.as_str(), state.exec_id.as_str()), (id, exec));
        assert!(state.exit_status == 0 || state.exited_at.is_some());
        let exit = state.exited_at.as_ref().map(|_| state.exit_status);
        (state.pid == std::process::id(), state.status.unwrap(), exit)
    }

    async fn pids(&self, id: &str) -> Result<Vec<u32>> {
        let request = api::PidsRequest { id: id.into(), ..Default::default() };
        let answer = self.pod.clone().pids(request);
        // containerd gives all calls on all pods together 5 s when it starts.
        let answer = tokio::time::timeout(Duration::from_secs(2), answer).await.expect("Pids is late");
        answer.map(|pids| pids.processes.iter().map(|process| process.pid).collect())
    }

    async fn wait(&self, id: &str, exec: &str) -> u32 {
        let container = self.pod.container(id).unwrap();
        let who = Who::of(exec);
        let exit = container.wait(&who);
        tokio::time::timeout(Duration::from_secs(10), exit)
            .await
            .expect("nobody tells of the exit")
            .unwrap()
            .status
    }

    /// The events so far, without their folder.
    async fn events(&self) -> Vec<String> {
        self.outbox.drain(Duration::from_secs(5)).await;
        self.heard
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|topic| topic.trim_start_matches("/tasks/").to_owned())
            .collect()
    }
}

#[tokio::test]
async fn a_container_lives_and_leaves_nothing() {
    let node = Node::new(Habits::default()).await;
    let created = node.create("exit7").await.unwrap();
    assert_eq!(created.pid, std::process::id());
    assert_eq!(node.state("exit7", ""), (true, api::Status::CREATED, None));
    assert_eq!(node.create("exit7").await.unwrap_err().code(), Some(Code::IdTaken));
    node.start("exit7", "").await.unwrap();
    assert_eq!(node.wait("exit7", "").await, 7);
    assert_eq!(node.state("exit7", ""), (true, api::Status::STOPPED, Some(7)));
    assert_eq!(node.start("exit7", "").await.unwrap_err().code(), Some(Code::WrongState));
    assert_eq!(node.kill("exit7", 9).await.unwrap_err().code(), Some(Code::NoSuchTask));
    assert_eq!(node.delete("exit7").await.unwrap(), 7);
    assert_eq!(node.delete("exit7").await.unwrap_err().code(), Some(Code::NoSuchTask));
    assert_eq!(node.events().await, ["create", "start", "exit", "delete"]);
    assert!(node.pod.is_empty());
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn of_a_guests_figures_containerd_gets_the_known_ones() {
    let node = Node::new(Habits::default()).await;
    node.create("a").await.unwrap();
    let any = node.stats("a").await.unwrap().stats.unwrap();
    let metrics = Metrics::parse_from_bytes(&any.value).unwrap();
    let mut expected = Metrics::default();
    expected.pids.mut_or_insert_default().current = 3;
    expected.cpu.mut_or_insert_default();
    expected.memory.mut_or_insert_default();
    assert_eq!(metrics, expected);

    let node = Node::new(Habits::default()).await;
    node.create(STRANGE).await.unwrap();
    assert_eq!(node.stats(STRANGE).await.unwrap_err().code(), Some(Code::ProtocolBroken));
}

#[tokio::test]
async fn stdin_reaches_stdout_whole_and_closing_it_ends_the_program() {
    let node = Node::new(Habits::default()).await;
    let dir = node.world.dir.path().to_owned();
    let fifo = |name: &str| {
        let path = dir.join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        path
    };
    let (stdin, stdout) = (fifo("in"), fifo("out"));
    let mut request = node.request("echo", json!({}));
    (request.stdin, request.stdout) = (stdin.to_string_lossy().into(), stdout.to_string_lossy().into());
    let mut from = pipe::OpenOptions::new().open_receiver(&stdout).unwrap();
    node.pod.clone().create(request).await.unwrap();
    node.start("echo", "").await.unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 3 == 0)]).collect();
    let mut to = pipe::OpenOptions::new().open_sender(&stdin).unwrap();
    let (copy, len) = (sent.clone(), sent.len());
    let writer = tokio::spawn(async move { to.write_all(&copy).await.unwrap() });
    let mut received = vec![0; len];
    from.read_exact(&mut received).await.unwrap();
    writer.await.unwrap();
    assert!(received == sent, "the bytes differ");
    // The client's end is closed, but the shim's own hold keeps stdin open until CloseIO.
    let container = node.pod.container("echo").unwrap();
    let init = Who::Init;
    assert!(tokio::time::timeout(Duration::from_millis(200), container.wait(&init)).await.is_err());
    container.pumps(&init).unwrap().close_stdin();
    assert_eq!(node.wait("echo", "").await, 0);
    node.delete("echo").await.unwrap();
    assert_eq!(from.read(&mut [0; 1]).await.unwrap(), 0, "the fifo is still held");
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn a_destroyed_domain_ends_its_tasks_with_137_once() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    node.exec("run", "e").await.unwrap();
    assert_eq!(node.state("run", "e"), (true, api::Status::CREATED, None));
    node.start("run", "e").await.unwrap();
    let states = || [node.state("run", ""), node.state("run", "e")];
    assert_eq!(states(), [(true, api::Status::RUNNING, None); 2]);
    node.world.destroy_all();
    assert_eq!((node.wait("run", "").await, node.wait("run", "e").await), (137, 137));
    assert_eq!(states(), [(true, api::Status::STOPPED, Some(137)); 2]);
    assert_eq!(node.delete("run").await.unwrap(), 137);
    assert_eq!(
        node.events().await,
        ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"]
    );
    node.world.assert_nothing_left("after delete");
}

/// An error would not do: containerd 2.x takes any for a leaked shim, and deletes it.
#[tokio::test]
async fn a_guest_that_tells_no_pids_is_answered_for() {
    let own = vec![std::process::id()];
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    assert_eq!(node.pids("run").await.unwrap(), [2], "the guest's");
    assert_eq!(node.pids("other").await.unwrap_err().code(), Some(Code::NoSuchTask));
    node.world.destroy_all();
    node.wait("run", "").await;
    assert_eq!(node.pids("run").await.unwrap(), own, "it is gone");
    for habits in [Habits { hangs: true, ..Habits::default() }, Habits { denies: true, ..Habits::default() }]
    {
        let node = Node::new(habits).await;
        node.create("run").await.unwrap();
        assert_eq!(node.pids("run").await.unwrap(), own, "{habits:?}");
    }
}

/// ttrpc drops a handler at its deadline, and when the connection ends.
#[tokio::test]
async fn a_create_whose_request_is_dropped_runs_to_its_end() {
    let node = Node::new(Habits::default()).await;
    let service = Service::new(node.pod.clone(), Arc::default());
    let request = node.request(fake_guest::SLOW, json!({}));
    let handler = tokio::spawn(async move { service.create(&TtrpcContext::default(), request).await });
    while node.world.programs.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handler.abort();
    assert!(handler.await.unwrap_err().is_cancelled());
    let begun = std::time::Instant::now();
    while node.pod.container(fake_guest::SLOW).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it ended with its request");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.state(fake_guest::SLOW, ""), (true, api::Status::CREATED, None));
    assert_eq!(node.events().await, ["create"]);
    node.delete(fake_guest::SLOW).await.unwrap();
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn a_share_that_nobody_serves_any_more_ends_the_pod() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    node.world.kill_backends();
    assert_eq!(node.wait("run", "").await, 137);
    assert!(node.world.left.lock().unwrap().domains.is_empty());
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");

    let node = Node::new(Habits { never_boots: true, ..Habits::default() }).await;
    let creating = tokio::spawn(node.pod.clone().create(node.request("run", json!({}))));
    while node.world.left.lock().unwrap().devices.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.world.kill_backends();
    assert_eq!(creating.await.unwrap().unwrap_err().code(), Some(Code::ShareFailed));
    node.world.assert_nothing_left("while it boots");
}

#[tokio::test]
async fn a_guest_that_hangs_is_destroyed_by_sigkill() {
    let node = Node::new(Habits { hangs: true, ..Habits::default() }).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    assert_eq!(node.kill("run", 15).await.unwrap_err().code(), Some(Code::GuestSilent));
    node.kill("run", 9).await.unwrap();
    assert_eq!(node.wait("run", "").await, 137);
    assert!(node.world.left.lock().unwrap().domains.is_empty());
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn a_failed_create_leaves_nothing() {
    let missing = Habits { command_missing: true, ..Habits::default() };
    let silent = Habits { never_boots: true, ..Habits::default() };
    let no_xen = Habits { no_xen: true, ..Habits::default() };
    let gpu = json!({"vgpu.dev/gpu": "1"});
    let misspelt = json!({"vgpu.dev/gpus": "1"});
    for (habits, annotations, code) in [
        (missing, json!({}), None),
        (silent, json!({}), Some(Code::GuestSilent)),
        (no_xen, json!({}), Some(Code::NoXen)),
        (Habits::default(), gpu, Some(Code::NoProxy)),
        (Habits::default(), misspelt, Some(Code::AnnotationUnknown)),
    ] {
        let node = Node::new(habits).await;
        let error = node.pod.clone().create(node.request("exit0", annotations)).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(node.events().await, [""; 0]);
        assert!(node.pod.is_empty());
        node.world.assert_nothing_left(&format!("{code:?}"));
    }
}

/// Frames of ttrpc: length, stream, kind (2 an answer, 3 data), flags. The shim's first request is on stream 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_babbles_is_given_up_and_costs_no_memory() {
    let before = resident_kib();
    for (words, code) in [
        (&b"\xff\xff\xff\xff\0\0\0\x01\x02\0"[..], Code::ProtocolBroken),
        (b"\0\x04\0\x01\0\0\0\x01\x02\0", Code::ProtocolBroken),
        (b"\0\0\0\x01\0\0\0\x63\x02\0x", Code::GuestSilent),
        (b"\0\0\0\x01\0\0\0\x01\x02\0\xff", Code::ProtocolBroken),
        (b"\0\0\0\x01\0\0\0\x01\x03\0\xff", Code::ProtocolBroken),
        (b"\0\0\0\x01\0\0\0\x01\x63\0\xff", Code::ProtocolBroken),
    ] {
        let node = Node::new(Habits { babbles: Some(words), ..Habits::default() }).await;
        let error =
            tokio::time::timeout(Duration::from_secs(10), node.create("run")).await.unwrap().unwrap_err();
        assert_eq!(error.code(), Some(code), "{words:?}: {error}");
        node.world.assert_nothing_left(&format!("{words:?}"));
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_gpu_is_granted_before_the_container_and_released_after_it() {
    let node = Node::new(Habits::default()).await;
    let proxy = FakeProxy::start(&node.world.proxy_socket());
    let request = node.request("exit0", json!({"vgpu.dev/gpu": "1", "vgpu.dev/memory-mib": "64"}));
    node.pod.clone().create(request).await.unwrap();
    let uuid = *node.world.left.lock().unwrap().domains.values().next().unwrap();
    node.start("exit0", "").await.unwrap();
    assert_eq!(node.wait("exit0", "").await, 0);
    node.delete("exit0").await.unwrap();
    let asked = proxy.asked();
    let [
        Request::Register { zone, domain, .. },
        Request::Grant { zone: granted, bytes, .. },
        Request::Release { zone: released, domain: of },
    ] = &asked[..]
    else {
        panic!("{asked:?}")
    };
    assert!(
        zone == granted && zone == released && domain.uuid == uuid && *bytes == Some(64 << 20),
        "{asked:?}"
    );
    assert_eq!(of, domain, "it is released for the domain it was registered for");
    assert!(proxy.zones().is_empty());
    node.world.assert_nothing_left("after delete");
}

/// A pod's next sandbox has the same zone, and may be up before this one is cleaned up.
#[tokio::test]
async fn a_sandbox_that_is_cleaned_up_late_leaves_the_zone_to_the_pods_next_one() {
    let node = Node::new(Habits::default()).await;
    let proxy = FakeProxy::start(&node.world.proxy_socket());
    node.pod.clone().create(node.request("run", json!({"vgpu.dev/gpu": "1"}))).await.unwrap();
    let (zone, domain) = proxy.zones().pop_first().unwrap();
    // The domain id is used again, the UUID is not.
    let next = DomainRef { uuid: random_uuid().unwrap(), ..domain };
    proxy.hand_over(zone, next);
    node.kill("run", 9).await.unwrap();
    node.wait("run", "").await;
    node.delete("run").await.unwrap();
    assert_eq!(proxy.zones(), [(zone, next)].into());
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn a_create_whose_zone_another_domain_has_fails_and_leaves_it_there() {
    let node = Node::new(Habits::default()).await;
    let proxy = FakeProxy::start(&node.world.proxy_socket());
    let zone = ZoneId::of_sandbox(None, "default", "run");
    let last = DomainRef { domid: 7, uuid: random_uuid().unwrap() };
    proxy.hand_over(zone, last);
    let error = node.pod.clone().create(node.request("run", json!({"vgpu.dev/gpu": "1"}))).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::ZoneConflict), "{error}");
    assert_eq!(proxy.zones(), [(zone, last)].into());
    node.world.assert_nothing_left("after the conflict");
}

/// What a new gpu-proxy is told comes from the record, and nothing that was taken back meanwhile.
#[tokio::test]
async fn a_gpu_proxy_that_was_restarted_is_told_of_the_zone_again() {
    let node = Node::new(Habits::default()).await;
    let socket = node.world.proxy_socket();
    let pod = |kind: &str| json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pause"});
    let gpu = |mib: &str| {
        let mut annotations = pod("container");
        annotations["vgpu.dev/gpu"] = "1".into();
        annotations["vgpu.dev/memory-mib"] = mib.into();
        annotations
    };
    node.pod.clone().create(node.request("pause", pod("sandbox"))).await.unwrap();
    let first = FakeProxy::start(&socket);
    node.pod.clone().create(node.request("run1", gpu("64"))).await.unwrap();
    node.pod.clone().create(node.request("run2", gpu("32"))).await.unwrap();
    assert_eq!(first.asked().len(), 4, "each container registers and is granted: {:?}", first.asked());
    drop(first);
    node.delete("run2").await.unwrap();

    let second = FakeProxy::start(&socket);
    let again = second.asked_until(2).await;
    let [Request::Register { domain, .. }, Request::Grant { container, bytes, .. }] = &again[..] else {
        panic!("{again:?}")
    };
    let left = node.world.left.lock().unwrap().domains.clone();
    assert_eq!(left.get(&domain.domid), Some(&domain.uuid));
    assert_eq!((container.as_str(), *bytes), ("run1", Some(64 << 20)));
    drop(second);

    let third = FakeProxy::start(&socket);
    assert_eq!(third.asked_until(2).await, again, "the same at each restart");
    node.delete("run1").await.unwrap();
    node.kill("pause", 9).await.unwrap();
    node.wait("pause", "").await;
    node.delete("pause").await.unwrap();
    let all = third.asked();
    assert!(
        matches!(
            &all[2..],
            [Request::Revoke { container, domain: from, .. }, Request::Release { domain: of, .. }]
                if container == "run1" && from == domain && of == domain
        ),
        "{all:?}"
    );
    drop(third);
    let fourth = FakeProxy::start(&socket);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fourth.asked(), [], "a pod that is gone is not told");
    node.world.assert_nothing_left("after the sandbox");
}

#[tokio::test]
async fn a_gpu_proxy_that_hangs_keeps_nothing_from_being_cleaned_up() {
    let node = Node::new(Habits::default()).await;
    let socket = node.world.proxy_socket();
    let proxy = FakeProxy::start(&socket);
    node.pod.clone().create(node.request("run", json!({"vgpu.dev/gpu": "1"}))).await.unwrap();
    drop(proxy);
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let begun = std::time::Instant::now();
    node.kill("run", 9).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "a Kill waits for gpu-proxy: {:?}", begun.elapsed());
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        crate::mount::below(node.world.dir.path()).unwrap()
    };
    let (deleted, mounts) = tokio::join!(node.delete("run"), meanwhile);
    deleted.unwrap();
    assert!(mounts.is_empty(), "they wait for gpu-proxy: {mounts:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn an_exec_has_its_own_exit_and_a_failed_start_ends_its_waiters() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    node.exec("run", "exit3").await.unwrap();
    assert_eq!(node.exec("run", "exit3").await.unwrap_err().code(), Some(Code::IdTaken));
    node.start("run", "exit3").await.unwrap();
    assert_eq!(node.wait("run", "exit3").await, 3);
    node.exec("run", "missing").await.unwrap();
    node.start("run", "missing").await.unwrap_err();
    assert_eq!(node.wait("run", "missing").await, 255);
    node.kill("run", 9).await.unwrap();
    assert_eq!(node.wait("run", "").await, 137);
    node.delete("run").await.unwrap();
    assert_eq!(
        node.events().await,
        ["create", "start", "exec-added", "exec-started", "exit", "exec-added", "exit", "delete"]
    );
}

#[tokio::test]
async fn a_container_is_restarted_in_a_living_pod() {
    let node = Node::new(Habits::default()).await;
    let sandbox =
        json!({"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": "pause"});
    let inside =
        json!({"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pause"});
    node.pod.clone().create(node.request("pause", sandbox)).await.unwrap();
    node.start("pause", "").await.unwrap();
    for _ in 0..2 {
        let request = node.request("exit5", inside.clone());
        let bundle = request.bundle.clone();
        node.pod.clone().create(request).await.unwrap();
        let store = Store::pointed_from(Path::new(&bundle)).expect("`delete` cannot find the pod's record");
        assert!(store.load().unwrap().unwrap().containers.contains_key("exit5"));
        node.start("exit5", "").await.unwrap();
        assert_eq!(node.wait("exit5", "").await, 5);
        assert_eq!(node.delete("exit5").await.unwrap(), 5);
        assert_eq!(node.world.left.lock().unwrap().domains.len(), 1);
    }
    node.kill("pause", 9).await.unwrap();
    node.wait("pause", "").await;
    node.delete("pause").await.unwrap();
    node.world.assert_nothing_left("after the sandbox");
}

#[tokio::test]
async fn a_delete_that_meets_a_create_stops_it_and_waits_for_its_rollback() {
    let node = Node::new(Habits { never_boots: true, ..Habits::default() }).await;
    let creating = tokio::spawn(node.pod.clone().create(node.request("run", json!({}))));
    while node.world.left.lock().unwrap().devices.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.delete("run").await.unwrap_err().code(), Some(Code::NoSuchTask));
    node.world.assert_nothing_left("after the delete");
    creating.await.unwrap().unwrap_err();
}

/// Its shim was killed, and its cleaning failed or is not over: the next sandbox of the id must not meet its guest at its files.
#[tokio::test]
async fn a_sandbox_of_the_same_id_first_ends_the_earlier_one() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    let first: Vec<_> = node.world.left.lock().unwrap().domains.values().copied().collect();
    let next = Pod::new(Arc::new(Source(node.world.clone())), "default", node.outbox.clone(), Cut::default());
    next.clone().create(node.request("run", json!({}))).await.unwrap();
    let domains: Vec<_> = node.world.left.lock().unwrap().domains.values().copied().collect();
    assert!(domains.len() == 1 && domains != first, "{first:?}, then {domains:?}");
    assert_eq!(std::fs::read_dir(node.world.dir.path().join("sandboxes")).unwrap().count(), 1);
    next.delete(api::DeleteRequest { id: "run".into(), ..Default::default() }).await.unwrap();
    node.world.assert_nothing_left("after the next one's Delete");
}

/// While an earlier life's cleaning is at work Create waits, and one that lives is another containerd's.
#[tokio::test]
async fn a_sandbox_of_the_same_id_waits_for_a_cleaning_and_spares_the_living() {
    let node = Node::new(Habits::default()).await;
    let state_dir = node.world.dir.path().join("sandboxes");
    let life = Store::at(state_dir.join(names::folder("default", "run", Uuid::from_u128(1))));
    life.point_from(node.world.dir.path()).unwrap();
    let mut living = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let mut record =
        Record::new("default", "run", None, Uuid::from_u128(1), node.world.dir.path().join("shared/1"));
    record.shim = Process::of(living.id());
    life.save(&record).unwrap();
    assert_eq!(node.create("run").await.unwrap_err().code(), Some(Code::IdTaken));
    assert!(living.try_wait().unwrap().is_none() && life.load().unwrap().is_some());
    living.kill().unwrap();
    living.wait().unwrap();

    let lock = life.lock(Duration::ZERO).unwrap();
    let (pod, request) = (node.pod.clone(), node.request("run", json!({})));
    let creating = tokio::spawn(pod.create(request));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!creating.is_finished() && node.world.left.lock().unwrap().domains.is_empty(), "it did not wait");
    drop(lock);
    creating.await.unwrap().unwrap();
    assert!(life.load().unwrap().is_none());
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after both lives");
}

/// Create killed after each of its steps in turn: a new process cleans up from disk alone.
#[tokio::test]
async fn a_create_that_dies_after_any_step_is_cleaned_up_from_disk() {
    for last in Step::ALL {
        let (reached, mut cut_at) = mpsc::unbounded_channel();
        let cut = Cut::new(move |step| step == last && reached.send(()).is_ok());
        let node = Node::with_cut(Habits::default(), cut).await;
        let proxy = FakeProxy::start(&node.world.proxy_socket());
        let request = node.request("run", json!({"vgpu.dev/gpu": "1"}));
        let bundle = request.bundle.clone();
        let creating = tokio::spawn(node.pod.clone().create(request));
        tokio::time::timeout(Duration::from_secs(10), cut_at.recv())
            .await
            .unwrap_or_else(|_| panic!("{last:?} is not reached"))
            .unwrap();
        creating.abort();
        let _ = creating.await;
        let (platform, when) = (node.world.platform(), format!("{last:?}"));
        let clean = move || {
            let Some(store) = Store::pointed_from(Path::new(&bundle)) else { return };
            if let Some(record) = store.load().unwrap() {
                cleanup::sandbox(&platform, &store, &record).unwrap();
            }
        };
        let begun = std::time::Instant::now();
        // Twice: it may be killed itself, and containerd may call it again.
        tokio::task::spawn_blocking(move || (clean(), clean())).await.unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{when}: containerd's limit: {:?}",
            begun.elapsed()
        );
        node.world.assert_nothing_left(&when);
        let (asked, registered) = (proxy.asked(), last >= Step::Granted);
        assert!(asked.is_empty() != registered && proxy.zones().is_empty(), "{when}: {asked:?}");
    }
}

/// Without xl it's Xen that says whether there can be a domain; a record without an id says nothing.
#[tokio::test]
async fn a_domain_is_not_forgotten_while_xl_is_missing() {
    let (reached, mut cut_at) = mpsc::unbounded_channel();
    let cut = Cut::new(move |step| step == Step::DomainMade && reached.send(()).is_ok());
    let node = Node::with_cut(Habits::default(), cut).await;
    let request = node.request("run", json!({}));
    let bundle = request.bundle.clone();
    let creating = tokio::spawn(node.pod.clone().create(request));
    cut_at.recv().await.unwrap();
    creating.abort();
    let _ = creating.await;
    let store = Store::pointed_from(Path::new(&bundle)).unwrap();
    let mut record = store.load().unwrap().unwrap();
    record.domid = None;
    store.save(&record).unwrap();

    let clean = |world: &Arc<World>| {
        let (platform, store, record) = (world.platform(), store.clone(), record.clone());
        tokio::task::spawn_blocking(move || cleanup::sandbox(&platform, &store, &record))
    };
    node.world.no_xl.store(true, Ordering::Relaxed);
    assert_eq!(clean(&node.world).await.unwrap().unwrap_err().code(), Some(Code::NoXen));
    assert!(store.load().unwrap().is_some(), "what is left can be tried again");
    node.world.no_xl.store(false, Ordering::Relaxed);
    clean(&node.world).await.unwrap().unwrap();
    node.world.assert_nothing_left("with xl again");

    let without_xen = World::new(Habits { no_xen: true, ..Habits::default() });
    clean(&without_xen).await.unwrap().unwrap();
}

/// A guest can end its stream when it likes, so also while xl is away; containerd takes its containers for dead then.
#[tokio::test]
async fn a_dead_guests_share_ends_even_when_its_domain_cannot_be_found() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    node.world.no_xl.store(true, Ordering::Relaxed);
    node.world.lose_guests();
    assert_eq!(node.wait("run", "").await, 137);
    assert!(node.world.left.lock().unwrap().backends.is_empty(), "who serves its files still runs");
    node.world.no_xl.store(false, Ordering::Relaxed);
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}
