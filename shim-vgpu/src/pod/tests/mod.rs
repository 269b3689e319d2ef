//! Stories of pods with fakes behind the seams to Xen; mounts, fifos, files and ttrpc are real, so they run as root.

mod cleaning;
mod clock;
mod cpus;
mod deadline;
mod fake_guest;
mod fake_proxy;
mod forward;
mod gpu;
mod hooks;
mod memory;
mod network;
mod node;
mod pause;
mod sandbox;
mod shared;
mod size;
mod stubborn;
mod turns;
mod volumes;
mod world;

use std::{path::Path, sync::Arc, time::Duration};

use containerd_shim_protos::{
    api,
    cgroups_v2::metrics::Metrics,
    events::task::{TaskCreate, TaskExit},
    shim_async::Task,
};
use protobuf::Message;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
};
use ttrpc::r#async::TtrpcContext;
use vgpu_codes::Code;

use crate::{
    container::life::Who,
    persist::Store,
    service::{LettingGo, Service},
};
use fake_guest::{Habits, STRANGE};
use node::{Node, until};

#[tokio::test]
async fn a_container_lives_and_leaves_nothing() {
    let node = Node::new(Habits::default()).await;
    let created = node.create("exit7").await.unwrap();
    assert_eq!(node.world.holders(), [created.pid], "a process of this host stands for it");
    assert_eq!(node.state("exit7", ""), (true, api::Status::CREATED, None));
    assert_eq!(node.create("exit7").await.unwrap_err().code(), Some(Code::IdTaken));
    node.start("exit7", "").await.unwrap();
    assert_eq!(node.wait("exit7", "").await, 7);
    assert!(node.world.holders().is_empty(), "until its exit is told");
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
async fn what_create_was_asked_for_is_what_containerd_hears() {
    let node = Node::new(Habits::default()).await;
    let stdout = node.world.dir.path().join("out").to_string_lossy().into_owned();
    let root = api::Mount { type_: "tmpfs".into(), source: "root".into(), ..Default::default() };
    let mut request = node.request("run", json!({}));
    (request.rootfs, request.stdout) = (vec![root], format!("file://{stdout}"));
    let created = node.pod.clone().create(request.clone()).await.unwrap();
    let told: TaskCreate = node.event("/tasks/create").await;
    let io = told.io.unwrap();
    assert_eq!((told.container_id, told.bundle, told.pid), (request.id, request.bundle, created.pid));
    assert_eq!((told.rootfs, io.stdout, told.checkpoint), (request.rootfs, request.stdout, String::new()));
    node.delete("run").await.unwrap();
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
    assert_eq!(node.state("run", "e"), (false, api::Status::CREATED, None));
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

/// As with runc's shim: it has no pid and no end, and a container's is told after the Delete that makes it.
#[tokio::test]
async fn what_is_deleted_unstarted_has_no_end() {
    let node = Node::new(Habits::default()).await;
    let pid = node.create("run").await.unwrap().pid;
    node.exec("run", "e").await.unwrap();
    let request = |exec_id: &str| api::DeleteRequest {
        id: "run".into(),
        exec_id: exec_id.into(),
        ..Default::default()
    };
    let no_end = |pid| api::DeleteResponse { pid, ..Default::default() };
    assert_eq!(node.pod.clone().delete(request("e")).await.unwrap(), no_end(0));
    assert_eq!(node.pod.clone().delete(request("")).await.unwrap(), no_end(pid));
    assert_eq!(node.events().await, ["create", "exec-added", "delete", "exit"]);
    let told: TaskExit = node.event("/tasks/exit").await;
    assert_eq!((told.id.as_str(), told.exit_status, told.exited_at.is_some()), ("run", 137, true));
    node.world.assert_nothing_left("after delete");
}

/// An error would not do: containerd 2.x takes any for a leaked shim, and deletes it.
#[tokio::test]
async fn a_guest_that_tells_no_pids_is_answered_for() {
    let node = Node::new(Habits::default()).await;
    let own = vec![node.create("run").await.unwrap().pid];
    assert_eq!(node.pids("run").await.unwrap(), [2], "the guest's");
    assert_eq!(node.pids("other").await.unwrap_err().code(), Some(Code::NoSuchTask));
    node.world.destroy_all();
    node.wait("run", "").await;
    assert_eq!(node.pids("run").await.unwrap(), own, "it is gone");
    for habits in [Habits { hangs: true, ..Habits::default() }, Habits { denies: true, ..Habits::default() }]
    {
        let node = Node::new(habits).await;
        let own = vec![node.create("run").await.unwrap().pid];
        assert_eq!(node.pids("run").await.unwrap(), own, "{habits:?}");
    }
}

/// ttrpc drops a handler at its deadline, and when the connection ends.
#[tokio::test]
async fn a_create_whose_request_is_dropped_runs_to_its_end() {
    let node = Node::new(Habits::default()).await;
    let service = Service::new(node.pod.clone(), LettingGo::new(None, Arc::default()));
    let request = node.request(fake_guest::SLOW, json!({}));
    let handler = tokio::spawn(async move { service.create(&TtrpcContext::default(), request).await });
    until("the guest makes it", || !node.world.programs.lock().unwrap().is_empty()).await;
    handler.abort();
    assert!(handler.await.unwrap_err().is_cancelled());
    until("it is made without its request", || node.pod.container(fake_guest::SLOW).is_ok()).await;
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
    node.domain_goes().await;
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");

    let node = Node::new(Habits { never_boots: true, ..Habits::default() }).await;
    let creating = tokio::spawn(node.pod.clone().create(node.request("run", json!({}))));
    until("the domain is made", || !node.world.left.lock().unwrap().devices.is_empty()).await;
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
    node.domain_goes().await;
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
    until("the domain is made", || !node.world.left.lock().unwrap().devices.is_empty()).await;
    assert_eq!(node.delete("run").await.unwrap_err().code(), Some(Code::NoSuchTask));
    node.world.assert_nothing_left("after the delete");
    creating.await.unwrap().unwrap_err();
}
