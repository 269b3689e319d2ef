//! A pod by containerd's Sandbox API: each call, in each state.

use containerd_shim_protos::{
    sandbox_api::{self as own, CreateSandboxRequest},
    sandbox_async::Sandbox,
};
use protobuf::well_known_types::any::Any;
use serde_json::Value;
use tokio::sync::watch;
use ttrpc::Code as Rpc;

use super::*;
use crate::{
    cri::{NamespaceMode, PodSandboxConfig},
    error::Result,
    pod::steps::{Cut, Step},
    sandbox_service::SandboxService,
    service::LettingGo,
};

/// What says that a container is of it.
fn in_sandbox() -> Value {
    json!({"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "run"})
}

/// A node whose shim was started for the sandbox "run".
struct Own {
    node: Node,
    service: SandboxService,
    exit: Arc<watch::Sender<bool>>,
}

impl Own {
    async fn new(habits: Habits) -> Own {
        Own::with_cut(habits, Cut::default()).await
    }

    async fn with_cut(habits: Habits, cut: Cut) -> Own {
        let (node, exit) = (Node::with_cut(habits, cut).await, Arc::default());
        let letting_go = LettingGo::new(None, Arc::clone(&exit));
        let service = SandboxService::new(node.pod.clone(), None, letting_go);
        Own { node, service, exit }
    }

    /// As containerd asks: its bundle has no config.json.
    async fn create(&self, change: impl FnOnce(&mut PodSandboxConfig)) -> ttrpc::Result<()> {
        let bundle = self.node.world.dir.path().join("bundles/run");
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let mut config = PodSandboxConfig { hostname: "pod".into(), ..Default::default() };
        pids(&mut config, NamespaceMode::CONTAINER);
        change(&mut config);
        let request = CreateSandboxRequest {
            sandbox_id: "run".into(),
            bundle_path: bundle.to_string_lossy().into(),
            options: Some(Any {
                type_url: "runtime.v1.PodSandboxConfig".into(),
                value: config.write_to_bytes().unwrap(),
                ..Default::default()
            })
            .into(),
            ..Default::default()
        };
        self.service.create_sandbox(&context(), request).await.map(drop)
    }

    async fn start(&self) -> ttrpc::Result<u32> {
        let request = own::StartSandboxRequest { sandbox_id: "run".into(), ..Default::default() };
        let started = self.service.start_sandbox(&context(), request).await?;
        assert!(started.created_at.is_some());
        Ok(started.pid)
    }

    async fn begin(habits: Habits) -> (Own, u32) {
        let own = Own::new(habits).await;
        own.create(|_| ()).await.unwrap();
        let pid = own.start().await.unwrap();
        (own, pid)
    }

    async fn stop(&self) -> ttrpc::Result<()> {
        self.stop_within(0).await
    }

    async fn stop_within(&self, timeout_secs: u32) -> ttrpc::Result<()> {
        let request =
            own::StopSandboxRequest { sandbox_id: "run".into(), timeout_secs, ..Default::default() };
        self.service.stop_sandbox(&context(), request).await.map(drop)
    }

    async fn wait(&self) -> ttrpc::Result<u32> {
        let request = own::WaitSandboxRequest { sandbox_id: "run".into(), ..Default::default() };
        let context = context();
        let ended = self.service.wait_sandbox(&context, request);
        let ended =
            tokio::time::timeout(Duration::from_secs(10), ended).await.expect("nobody tells of its end")?;
        assert!(ended.exited_at.is_some());
        Ok(ended.exit_status)
    }

    /// Its state, its pid, and whether it has ended.
    async fn status(&self) -> ttrpc::Result<(String, u32, bool)> {
        let request = own::SandboxStatusRequest { sandbox_id: "run".into(), ..Default::default() };
        let status = self.service.sandbox_status(&context(), request).await?;
        assert_eq!(status.sandbox_id, "run");
        Ok((status.state, status.pid, status.exited_at.is_some()))
    }

    async fn ping(&self) -> ttrpc::Result<()> {
        let request = own::PingRequest { sandbox_id: "run".into(), ..Default::default() };
        self.service.ping_sandbox(&context(), request).await.map(drop)
    }

    async fn shut_down(&self, id: &str) -> ttrpc::Result<()> {
        let request = own::ShutdownSandboxRequest { sandbox_id: id.into(), ..Default::default() };
        self.service.shutdown_sandbox(&context(), request).await.map(drop)
    }

    async fn platform(&self) -> ttrpc::Result<String> {
        let request = own::PlatformRequest { sandbox_id: "run".into(), ..Default::default() };
        let platform = self.service.platform(&context(), request).await?.platform.unwrap_or_default();
        Ok(format!("{}/{}", platform.os, platform.architecture))
    }

    async fn metrics(&self) -> ttrpc::Result<Metrics> {
        let request = own::SandboxMetricsRequest { sandbox_id: "run".into(), ..Default::default() };
        let metric = self.service.sandbox_metrics(&context(), request).await?.metrics.unwrap_or_default();
        assert_eq!(metric.id, "run");
        Ok(Metrics::parse_from_bytes(&metric.data.unwrap_or_default().value).unwrap())
    }

    /// A container of the pod that shares these namespaces of the sandbox, with /dev/shm and no files of its own.
    async fn app(&self, id: &str, pid: u32, kinds: &[usize]) -> Result<()> {
        let request = self.node.request(id, in_sandbox());
        let file = Path::new(&request.bundle).join("config.json");
        let mut spec: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for kind in kinds {
            let name = ["pid", "ipc", "uts"][*kind];
            assert_eq!(spec["linux"]["namespaces"][*kind]["type"], name);
            spec["linux"]["namespaces"][*kind]["path"] = format!("/proc/{pid}/ns/{name}").into();
        }
        let shm =
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=65536k"]});
        spec["mounts"].as_array_mut().unwrap().push(shm);
        std::fs::write(&file, spec.to_string()).unwrap();
        self.node.pod.clone().create(request).await.map(drop)
    }

    /// What the guest reads of a container.
    fn spec(&self, id: &str) -> Value {
        let share = std::fs::read_dir(self.node.world.dir.path().join("shared")).unwrap().next().unwrap();
        let text = std::fs::read(share.unwrap().path().join("rw").join(id).join("config.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

fn pids(config: &mut PodSandboxConfig, mode: NamespaceMode) {
    let linux = config.linux.mut_or_insert_default();
    let options = &mut linux.security_context.mut_or_insert_default().namespace_options;
    options.mut_or_insert_default().pid = mode.into();
}

fn context() -> TtrpcContext {
    TtrpcContext::default()
}

fn code<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> Rpc {
    match answer.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => status.code(),
        other => panic!("{other}"),
    }
}

const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

#[tokio::test]
async fn a_sandbox_lives_without_a_container_and_leaves_nothing() {
    let own = Own::new(Habits::default()).await;
    own.create(|config| {
        let linux = config.linux.mut_or_insert_default();
        linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    })
    .await
    .unwrap();
    assert!(own.node.world.left.lock().unwrap().domains.is_empty(), "StartSandbox makes it");
    let (state, pid, ended) = own.status().await.unwrap();
    assert_eq!((state.as_str(), ended), (NOT_READY, false));
    assert_eq!(code(own.create(|_| ()).await), Rpc::ALREADY_EXISTS);
    assert_eq!(own.platform().await.unwrap(), "linux/amd64");

    assert_eq!(own.app("app", pid, &[]).await.unwrap_err().code(), Some(Code::WrongState));
    assert_eq!(own.start().await.unwrap(), pid);
    assert_eq!(own.node.world.holders(), [pid], "a process of this host stands for it");
    assert_eq!(own.status().await.unwrap(), (READY.into(), pid, false));
    assert_eq!(code(own.start().await), Rpc::FAILED_PRECONDITION);
    assert_eq!(own.node.world.sysctls.lock().unwrap()["kernel.shm_rmid_forced"], "1");
    assert!(own.node.world.programs.lock().unwrap().is_empty(), "the guest runs nothing for it");
    own.ping().await.unwrap();
    assert!(!own.node.pod.is_empty(), "no Shutdown of a task lets it go");

    let waiting = own.wait();
    let (stopped, ended) = tokio::join!(own.stop(), waiting);
    stopped.unwrap();
    assert_eq!(ended.unwrap(), 137);
    own.node.world.assert_nothing_left("after StopSandbox");
    own.stop().await.unwrap();
    assert_eq!(own.status().await.unwrap(), (NOT_READY.into(), pid, true));
    assert_eq!((own.wait().await.unwrap(), code(own.ping().await)), (137, Rpc::UNAVAILABLE));
    assert_eq!(code(own.start().await), Rpc::FAILED_PRECONDITION);
    assert!(!*own.exit.borrow(), "containerd still asks for it");

    assert_eq!(code(own.shut_down("other").await), Rpc::NOT_FOUND);
    own.shut_down("run").await.unwrap();
    assert!(*own.exit.borrow() && own.node.pod.is_empty());
    own.shut_down("run").await.unwrap();
    for answer in
        [own.stop().await, own.ping().await, own.status().await.map(drop), own.wait().await.map(drop)]
    {
        assert_eq!(code(answer), Rpc::NOT_FOUND);
    }
    assert!(own.node.events().await.is_empty(), "it is no task");
}

#[tokio::test]
async fn before_it_is_made_nothing_is_known_of_it() {
    let own = Own::new(Habits::default()).await;
    for answer in [
        own.start().await.map(drop),
        own.stop().await,
        own.ping().await,
        own.wait().await.map(drop),
        own.status().await.map(drop),
        own.platform().await.map(drop),
        own.metrics().await.map(drop),
    ] {
        assert_eq!(code(answer), Rpc::NOT_FOUND);
    }
    assert!(!*own.exit.borrow());
    // containerd's, after a CreateSandbox that failed.
    own.shut_down("run").await.unwrap();
    assert!(*own.exit.borrow());
}

#[tokio::test]
async fn its_containers_share_what_is_the_guests_and_the_pods_files() {
    let (own, pid) = Own::begin(Habits::default()).await;
    own.app("app", pid, &[1, 2]).await.unwrap();
    let spec = own.spec("app");
    let of = |kind: &str| json!({"type": kind, "path": "vgpu:sandbox"});
    let namespaces = json!([{"type": "pid"}, of("ipc"), of("uts"), {"type": "mount"}]);
    assert_eq!(spec["linux"]["namespaces"], namespaces);
    let mounts = spec["mounts"].as_array().unwrap();
    let at = |place: &str| mounts.iter().find(|mount| mount["destination"] == place).unwrap();
    assert_eq!(at("/dev/shm")["source"], format!("vgpu:memory/{:032}/{}", 0, 64 << 20));
    for (number, name) in ["hostname", "hosts", "resolv.conf"].into_iter().enumerate() {
        let source = format!("/run/vgpu/share/app/mounts/{number}");
        assert_eq!(at(&format!("/etc/{name}"))["source"], source);
    }
    let metrics = own.metrics().await.unwrap();
    assert_eq!(metrics.pids.current, 3);

    let refused = own.app("other", pid, &[0]).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::SpecRefused));
    assert!(refused.to_string().starts_with("linux.namespaces asks for the pid namespace"), "{refused}");
    // As with a pause container, the last of them does not take the pod with it.
    own.node.delete("app").await.unwrap();
    own.app("app", pid, &[1]).await.unwrap();
    own.node.start("app", "").await.unwrap();
    own.stop().await.unwrap();
    assert_eq!(own.node.wait("app", "").await, 137);
    assert_eq!(own.node.delete("app").await.unwrap(), 137);
    let told = own.node.events().await;
    assert_eq!(told, ["create", "delete", "exit", "create", "start", "exit", "delete"]);
    own.node.world.assert_nothing_left("after StopSandbox");
}

/// Their first process is one of the guest, which needs no image.
#[tokio::test]
async fn containers_that_share_their_processes_have_a_first_one() {
    let own = Own::new(Habits::default()).await;
    own.create(|config| pids(config, NamespaceMode::POD)).await.unwrap();
    let pid = own.start().await.unwrap();
    assert_eq!(own.spec("run")["annotations"]["vgpu.dev/pause"], "1");
    own.app("app", pid, &[0, 1]).await.unwrap();
    let namespaces = &own.spec("app")["linux"]["namespaces"];
    assert_eq!(namespaces[0], json!({"type": "pid", "path": "vgpu:container/run"}));
    assert_eq!(own.node.pod.container("run").unwrap_err().code(), Some(Code::NoSuchTask));
    own.node.start("app", "").await.unwrap();
    own.node.world.end("run", 137);
    assert_eq!((own.wait().await.unwrap(), own.node.wait("app", "").await), (137, 137));
    own.shut_down("run").await.unwrap();
    own.node.world.assert_nothing_left("after ShutdownSandbox");
}

#[tokio::test]
async fn the_end_of_its_domain_is_that_of_its_tasks_and_then_its_own() {
    let (own, pid) = Own::begin(Habits::default()).await;
    own.app("app", pid, &[1]).await.unwrap();
    own.node.start("app", "").await.unwrap();
    own.node.world.destroy_all();
    assert_eq!((own.wait().await.unwrap(), own.node.wait("app", "").await), (137, 137));
    assert_eq!(own.status().await.unwrap(), (NOT_READY.into(), pid, true));
    assert_eq!(own.app("late", pid, &[]).await.unwrap_err().code(), Some(Code::GuestGone));
    assert_eq!(own.node.delete("app").await.unwrap(), 137);
    assert_eq!(own.node.events().await, ["create", "start", "exit", "delete"]);
    own.shut_down("run").await.unwrap();
    own.node.world.assert_nothing_left("after ShutdownSandbox");
}

#[tokio::test]
async fn programs_have_the_time_that_stop_sandbox_names_to_end_by_a_sigterm() {
    for (lies, seconds, end) in [(false, 3600, 128 + 15), (true, 1, 137), (false, 0, 137)] {
        let (own, pid) = Own::begin(Habits { lies, ..Habits::default() }).await;
        own.app("unstarted", pid, &[]).await.unwrap();
        own.app("app", pid, &[]).await.unwrap();
        own.node.start("app", "").await.unwrap();
        let begun = std::time::Instant::now();
        own.stop_within(seconds).await.unwrap();
        assert_eq!(own.node.wait("app", "").await, end, "within {seconds} s");
        assert!(
            !lies || begun.elapsed() >= Duration::from_secs(seconds.into()),
            "it was killed before its time"
        );
        own.node.world.assert_nothing_left("after StopSandbox");
    }
}

/// Who kills the pid that was told for it.
#[tokio::test]
async fn a_holder_that_is_killed_takes_its_sandbox_with_it() {
    let (own, pid) = Own::begin(Habits::default()).await;
    crate::share::Process::of(pid).unwrap().kill().unwrap();
    assert_eq!(own.wait().await.unwrap(), 137);
    own.stop().await.unwrap();
    own.node.world.assert_nothing_left("after StopSandbox");
}

#[tokio::test]
async fn what_a_pod_cannot_have_is_refused_by_name_and_leaves_nothing() {
    let refused = |change: fn(&mut PodSandboxConfig)| async move {
        let own = Own::new(Habits::default()).await;
        let answer = own.create(change).await;
        own.node.world.assert_nothing_left("after a CreateSandbox that failed");
        assert!(own.node.pod.is_empty());
        match answer.unwrap_err() {
            ttrpc::Error::RpcStatus(status) => (status.code(), status.message),
            other => panic!("{other}"),
        }
    };
    let (code, text) = refused(|config| {
        let linux = config.linux.mut_or_insert_default();
        let options = &mut linux.security_context.mut_or_insert_default().namespace_options;
        options.mut_or_insert_default().network = NamespaceMode::NODE.into();
    })
    .await;
    assert_eq!(code, Rpc::INVALID_ARGUMENT);
    assert!(text.contains("linux.namespaces asks for the host's network namespace"), "{text}");
    let (code, text) = refused(|config| {
        config.linux.mut_or_insert_default().resources.mut_or_insert_default().memory_limit_in_bytes =
            1 << 20;
    })
    .await;
    assert_eq!(code, Rpc::INVALID_ARGUMENT);
    assert!(text.contains("the pod's memory limit of 1 MiB"), "{text}");
}

/// A guest that cannot be such a pod, or does not come up: nothing is left, and containerd lets the shim go.
#[tokio::test]
async fn a_start_that_fails_leaves_nothing() {
    for habits in
        [Habits { is_old: true, ..Habits::default() }, Habits { never_boots: true, ..Habits::default() }]
    {
        let own = Own::new(habits).await;
        own.create(|_| ()).await.unwrap();
        own.start().await.unwrap_err();
        own.node.world.assert_nothing_left("after a StartSandbox that failed");
        assert_eq!(own.wait().await.unwrap(), 137);
        own.shut_down("run").await.unwrap();
        assert!(*own.exit.borrow());
    }
}

/// containerd does not wait for ever: at each step of either call its ShutdownSandbox is enough.
#[tokio::test]
async fn a_shutdown_in_the_middle_takes_back_what_was_made() {
    let steps = Step::ALL.into_iter().filter(|step| {
        !matches!(
            step,
            Step::RootMounted | Step::ContainerShared | Step::HooksRun | Step::Granted | Step::TaskMade
        )
    });
    for step in steps {
        let reached = Arc::new(tokio::sync::Notify::new());
        let reaches = reached.clone();
        let cut = Cut::new(move |passed| {
            if passed == step {
                reaches.notify_one();
            }
            false
        });
        let own = Own::with_cut(Habits::default(), cut).await;
        let making = async {
            own.create(|_| ()).await?;
            own.start().await
        };
        let shutting = async {
            reached.notified().await;
            own.shut_down("run").await
        };
        let (_, shut) = tokio::join!(making, shutting);
        shut.unwrap();
        own.shut_down("run").await.unwrap();
        own.node.world.assert_nothing_left(&format!("after {step:?}"));
    }
}

#[tokio::test]
async fn hooks_of_an_end_that_cannot_be_begun_keep_no_other_containers_from_theirs() {
    let (own, _) = Own::begin(Habits::default()).await;
    let node = &own.node;
    let (spoilt, others) = (["a", "b", "c"], ["d", "e", "f"]);
    for id in spoilt.iter().chain(&others) {
        let hooks = json!({"poststop": [hooks::hook("stop", "")]});
        node.pod.clone().create(hooks::asked_with(node, id, in_sandbox(), hooks)).await.unwrap();
    }
    hooks::owes(node, "g", in_sandbox(), hooks::hook("owed", "")).await;
    spoilt.iter().for_each(|id| hooks::spoil(node, id));
    own.stop().await.unwrap_err();
    assert_eq!(others.map(|id| hooks::ran(node, id)), [["stop stopped"]; 3]);
    assert_eq!(spoilt.map(|id| hooks::ran(node, id)), [[""; 0]; 3]);
    spoilt.iter().chain(&["g"]).for_each(|id| hooks::mend(node, id));
    own.stop().await.unwrap();
    for id in spoilt.iter().chain(&others) {
        assert_eq!(hooks::ran(node, id), ["stop stopped"], "{id}");
    }
    assert_eq!(hooks::ran(node, "g"), ["fails creating own", "owed stopped"]);
    own.shut_down("run").await.unwrap();
    node.world.assert_nothing_left("after StopSandbox");
}

/// StopSandbox sees to it, and is tried again.
#[tokio::test]
async fn an_owed_hook_that_cannot_be_begun_keeps_no_container_of_a_stopped_sandbox() {
    let (own, _) = Own::begin(Habits::default()).await;
    let node = &own.node;
    node.pod.clone().create(node.request("a", in_sandbox())).await.unwrap();
    hooks::owes(node, "g", in_sandbox(), hooks::hook("owed", "")).await;
    own.stop().await.unwrap_err();
    node.delete("a").await.unwrap();
    hooks::mend(node, "g");
    own.stop().await.unwrap();
    assert_eq!(hooks::ran(node, "g"), ["fails creating own", "owed stopped"]);
    own.shut_down("run").await.unwrap();
    node.world.assert_nothing_left("after StopSandbox");
}

/// Whoever of them is first: the start is not waited for until its guest is up, and is refused.
#[tokio::test]
async fn a_stop_that_meets_the_begin_of_a_start_makes_it_give_up() {
    for start_first in [false, true] {
        let made = Arc::new(std::sync::atomic::AtomicBool::default());
        let makes = made.clone();
        let cut = Cut::new(move |step| {
            makes.fetch_or(step == Step::DomainMade, std::sync::atomic::Ordering::Relaxed);
            false
        });
        let own = Own::with_cut(Habits::default(), cut).await;
        own.create(|_| ()).await.unwrap();
        // Both are under way, and come no further.
        let (pod, host) = (own.node.pod.clone(), own.node.pod.sandbox.lock().await);
        let dying = pod.dying.lock().await;
        let (start, stop) =
            (pod.clone().start_sandbox("run".into()), pod.clone().stop_sandbox("run".into(), Duration::ZERO));
        let (starting, stopping);
        if start_first {
            starting = tokio::spawn(start);
            tokio::time::sleep(Duration::from_millis(100)).await;
            stopping = tokio::spawn(stop);
        } else {
            stopping = tokio::spawn(stop);
            tokio::time::sleep(Duration::from_millis(100)).await;
            starting = tokio::spawn(start);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop((dying, host));
        let refused = starting.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Some(Code::WrongState), "start first: {start_first}: {refused}");
        stopping.await.unwrap().unwrap();
        assert!(!made.load(std::sync::atomic::Ordering::Relaxed), "it had a domain made");
        own.node.world.assert_nothing_left("after StopSandbox");
        own.shut_down("run").await.unwrap();
    }
}
