//! Hooks of the node: when they run, what they are told, and what becomes of a container whose hook fails.

use std::{fs, time::Instant};

use serde_json::Value;
use tokio::sync::mpsc;
use vgpu_zone_api::shim::Request;

use super::{fake_proxy::FakeProxy, stubborn::in_pod, *};
use crate::{
    cleanup,
    pod::steps::{Cut, Step},
};

/// Says so if there is a pid and its network namespace is another one than the node's.
const NOTES: &str = r#"pid=$(sed -nE 's/.*"pid":([0-9]+).*/\1/p' "$STATE")
    [ -n "$pid" ] && [ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/self/ns/net)" ] && own=" own""#;

/// A hook that writes "word status" and that into the bundle's file `ran`, and then does something.
fn hook(word: &str, then: &str) -> Value {
    let script = format!(
        r#"STATE=state.{word}; cat > $STATE; {NOTES}
        echo "{word} $(sed -E 's/.*"status":"([a-z]+)".*/\1/' $STATE)$own" >> ran; {then}"#
    );
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 60})
}

fn asked(node: &Node, id: &str, hooks: Value) -> api::CreateTaskRequest {
    let request = node.request(id, json!({}));
    let file = Path::new(&request.bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    spec["hooks"] = hooks;
    fs::write(file, spec.to_string()).unwrap();
    request
}

fn ran(node: &Node, id: &str) -> Vec<String> {
    let file = node.world.dir.path().join("bundles").join(id).join("ran");
    fs::read_to_string(file).unwrap_or_default().lines().map(String::from).collect()
}

#[tokio::test]
async fn hooks_run_at_their_moments_with_the_pid_that_is_told() {
    let node = Node::new(Habits::default()).await;
    let hooks = json!({
        "poststop": [hook("stop", "exit 1"), hook("last", "")], "poststart": [hook("start", "")],
        "createRuntime": [hook("create", "")], "prestart": [hook("first", ""), hook("second", "")]
    });
    let request = asked(&node, "run", hooks);
    let bundle = request.bundle.clone();
    let pid = node.pod.clone().create(request).await.unwrap().pid;
    let of_create = ["first creating own", "second creating own", "create creating own"];
    assert_eq!(ran(&node, "run"), of_create);
    let told: Value =
        serde_json::from_slice(&fs::read(Path::new(&bundle).join("state.create")).unwrap()).unwrap();
    let state = json!({
        "ociVersion": "1.1.0", "id": "run", "status": "creating", "pid": pid, "bundle": bundle, "annotations": {}
    });
    assert_eq!(told, state);
    node.start("run", "").await.unwrap();
    assert_eq!(ran(&node, "run")[3..], ["start running own"]);
    node.exec("run", "e").await.unwrap();
    node.start("run", "e").await.unwrap();
    node.kill("run", 9).await.unwrap();
    node.wait("run", "").await;
    assert_eq!(ran(&node, "run").len(), 4, "execs have none, and an end that is not taken away is none");
    node.delete("run").await.unwrap();
    assert_eq!(ran(&node, "run")[4..], ["stop stopped", "last stopped"], "the first one's failure is logged");
    node.world.assert_nothing_left("after delete");
}

/// Its interfaces end with it, and so do their other ends.
#[tokio::test]
async fn hooks_of_the_end_find_no_network_namespace_that_the_shim_holds() {
    let node = Node::new(Habits::default()).await;
    let looks = hook("stop", "readlink /proc/$PPID/fd/* | grep ^net: > held");
    let request = asked(&node, "run", json!({"poststop": [looks]}));
    let bundle = request.bundle.clone();
    node.pod.clone().create(request).await.unwrap();
    node.delete("run").await.unwrap();
    assert_eq!(ran(&node, "run"), ["stop stopped"]);
    assert_eq!(fs::read_to_string(Path::new(&bundle).join("held")).unwrap(), "");
}

/// Root in a guest that runs would change under a hook's hands what it works on as root of the node.
#[tokio::test]
async fn hooks_have_run_before_a_guest_sees_the_root() {
    let (reached, mut steps) = mpsc::unbounded_channel();
    let node = Node::with_cut(Habits::default(), Cut::new(move |step| reached.send(step).is_err())).await;
    node.pod.clone().create(asked(&node, "run", json!({"prestart": [hook("first", "")]}))).await.unwrap();
    let mut seen = Vec::new();
    while let Ok(step) = steps.try_recv() {
        seen.push(step);
    }
    let at = |step: Step| seen.iter().position(|one| *one == step).unwrap();
    assert!(at(Step::RootMounted) < at(Step::HooksRun) && at(Step::HooksRun) < at(Step::ContainerShared));
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn a_create_whose_hook_fails_is_undone_and_ends_with_the_hooks_of_the_end() {
    let node = Node::new(Habits::default()).await;
    for kind in ["prestart", "createRuntime"] {
        let hooks =
            json!({kind: [hook("fails", "exit 3"), hook("never", "")], "poststop": [hook("stop", "")]});
        let error = node.pod.clone().create(asked(&node, kind, hooks)).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::HookFailed), "{error}");
        assert_eq!(ran(&node, kind), ["fails creating own", "stop stopped"]);
    }
    let hooks = json!({"prestart": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]});
    let error = node.pod.clone().create(asked(&node, "hangs", hooks)).await.unwrap_err();
    assert!(error.report().contains("it has not ended within 1 s"), "{}", error.report());
    assert_eq!(node.events().await, [""; 0]);
    node.world.assert_nothing_left("after three Creates");
}

/// One without a time of its own, too.
#[tokio::test]
async fn a_delete_ends_the_hook_that_a_create_waits_for() {
    let node = Node::new(Habits::default()).await;
    let hooks =
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo > ran; sleep 1000"]}]});
    let creating = tokio::spawn(node.pod.clone().create(asked(&node, "run", hooks)));
    let begun = Instant::now();
    while ran(&node, "run").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(node.delete("run").await.unwrap_err().code(), Some(Code::NoSuchTask));
    let error = creating.await.unwrap().unwrap_err();
    assert!(
        error.report().contains("the container was deleted or has ended meanwhile"),
        "{}",
        error.report()
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn a_start_whose_hook_fails_ends_the_container() {
    let node = Node::new(Habits::default()).await;
    let hooks = json!({"poststart": [hook("fails", "exit 3")], "poststop": [hook("stop", "")]});
    node.pod.clone().create(asked(&node, "run", hooks)).await.unwrap();
    assert_eq!(node.start("run", "").await.unwrap_err().code(), Some(Code::HookFailed));
    assert_eq!(node.state("run", "").1, api::Status::STOPPED);
    assert!(node.world.programs.lock().unwrap().is_empty(), "its program runs on");
    node.delete("run").await.unwrap();
    assert_eq!(ran(&node, "run"), ["fails running own", "stop stopped"]);
    assert_eq!(node.events().await, ["create", "exit", "delete"]);
    node.world.assert_nothing_left("after delete");
}

/// containerd has waited for the end, and for no hook: the pod's other containers go on.
#[tokio::test]
async fn a_program_that_ends_before_its_hook_ends_alone_and_in_time() {
    for killed in [false, true] {
        let node = Node::new(Habits::default()).await;
        let other = node.request("pause", in_pod("sandbox"));
        node.pod.clone().create(other).await.unwrap();
        node.start("pause", "").await.unwrap();
        let mut request = asked(&node, "run", json!({"poststart": [hook("hangs", "exec sleep 1000")]}));
        let file = Path::new(&request.bundle).join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        spec["annotations"] = in_pod("container");
        fs::write(file, spec.to_string()).unwrap();
        request.id = "run".into();
        node.pod.clone().create(request).await.unwrap();
        let begun = Instant::now();
        let started = async {
            let error = node.start("run", "").await.unwrap_err();
            assert_eq!(error.code(), Some(Code::HookFailed), "{error}");
        };
        let ended = async {
            while ran(&node, "run").is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if killed {
                node.kill("run", 9).await.unwrap();
            } else {
                node.world.end("run", 0);
            }
            assert_eq!(node.wait("run", "").await, if killed { 137 } else { 0 });
        };
        tokio::join!(started, ended);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!(node.state("pause", "").1, api::Status::RUNNING, "killed: {killed}");
        node.world.destroy_all();
        node.wait("pause", "").await;
        for id in ["run", "pause"] {
            node.delete(id).await.unwrap();
        }
        node.world.assert_nothing_left("after delete");
    }
}

/// Its shim was killed: whoever cleans up, and however often, runs each once.
#[tokio::test]
async fn from_disk_each_hook_of_the_end_runs_once() {
    let (reached, mut cut_at) = mpsc::unbounded_channel();
    let cut = Cut::new(move |step| step == Step::TaskMade && reached.send(()).is_ok());
    let node = Node::with_cut(Habits::default(), cut).await;
    // The first one's cleaner is killed by it, as it were: another one goes on.
    let request =
        asked(&node, "run", json!({"poststop": [hook("one", ""), hook("two", ""), hook("three", "")]}));
    let bundle = request.bundle.clone();
    let creating = tokio::spawn(node.pod.clone().create(request));
    tokio::time::timeout(Duration::from_secs(10), cut_at.recv()).await.expect("the step is reached").unwrap();
    creating.abort();
    let _ = creating.await;
    let store = Store::pointed_from(Path::new(&bundle)).unwrap();
    let notes = store.hooks_of("run");
    assert!(notes.turn(Duration::ZERO).unwrap().unwrap().take().unwrap().is_some());
    let platform = node.world.platform();
    let clean = move || {
        if let Some(record) = store.load().unwrap() {
            cleanup::sandbox(&platform, &store, &record).unwrap();
            cleanup::last_hooks(&store, Duration::ZERO).unwrap();
        }
    };
    tokio::task::spawn_blocking(move || (clean(), clean())).await.unwrap();
    assert_eq!(ran(&node, "run"), ["two stopped", "three stopped"]);
    node.world.assert_nothing_left("after the cleaning");
}

/// One that ends when the bundle has a file `go`, and says so.
fn slow() -> Value {
    hook("slow", "while [ ! -e go ]; do sleep 0.01; done; echo over >> ran")
}

fn let_go(node: &Node, id: &str) {
    fs::write(node.world.dir.path().join("bundles").join(id).join("go"), "").unwrap();
}

async fn until_ran(node: &Node, id: &str, count: usize) {
    let begun = Instant::now();
    while ran(node, id).len() < count {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", ran(node, id));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A pod with a container that runs, and one with a GPU whose Delete waits for a hook of its end.
async fn with_a_slow_end(node: &Node) -> tokio::task::JoinHandle<crate::error::Result<api::DeleteResponse>> {
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    let mut request = asked(node, "run", json!({"poststop": [slow(), hook("last", "")]}));
    let root = api::Mount { type_: "tmpfs".into(), source: "root".into(), ..Default::default() };
    request.rootfs = vec![root];
    let file = Path::new(&request.bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    spec["annotations"] = in_pod("container");
    spec["annotations"]["vgpu.dev/gpu"] = "1".into();
    fs::write(file, spec.to_string()).unwrap();
    node.pod.clone().create(request).await.unwrap();
    let request = api::DeleteRequest { id: "run".into(), ..Default::default() };
    let deleting = tokio::spawn(node.pod.clone().delete(request));
    until_ran(node, "run", 1).await;
    deleting
}

/// Whether anything of the container is mounted.
fn is_mounted(node: &Node, id: &str) -> bool {
    let mounts = crate::mount::below(node.world.dir.path()).unwrap();
    mounts.iter().any(|mount| mount.iter().any(|part| part == id))
}

#[tokio::test]
async fn a_slow_hook_of_the_end_keeps_nothing_and_holds_up_nobody_but_its_own_delete() {
    let node = Node::new(Habits::default()).await;
    let proxy = FakeProxy::start(&node.world.proxy_socket());
    let deleting = with_a_slow_end(&node).await;
    let asked = proxy.asked();
    assert!(
        matches!(asked.last(), Some(Request::Revoke { container, .. }) if container == "run"),
        "{asked:?}"
    );
    assert!(!is_mounted(&node, "run") && is_mounted(&node, "pause"));

    node.pod.clone().create(node.request("other", in_pod("container"))).await.unwrap();
    node.delete("other").await.unwrap();
    assert_eq!(
        node.pod.clone().create(node.request("run", in_pod("container"))).await.unwrap_err().code(),
        Some(Code::IdTaken)
    );
    assert!(!deleting.is_finished() && ran(&node, "run").len() == 1);
    let_go(&node, "run");
    deleting.await.unwrap().unwrap();
    assert_eq!(ran(&node, "run"), ["slow stopped", "over", "last stopped"]);
    node.delete("pause").await.unwrap();
    node.world.assert_nothing_left("after the last Delete");
}

/// Its pod ends with the last container that there is.
#[tokio::test]
async fn a_pod_does_not_wait_for_a_hook_of_the_end_and_what_is_on_disk_of_it_does() {
    let node = Node::new(Habits::default()).await;
    let proxy = FakeProxy::start(&node.world.proxy_socket());
    let deleting = with_a_slow_end(&node).await;
    node.delete("pause").await.unwrap();
    assert!(node.world.left.lock().unwrap().domains.is_empty() && proxy.zones().is_empty());
    assert!(!deleting.is_finished() && !node.pod.is_empty(), "the shim would go");
    let lives = || fs::read_dir(node.world.dir.path().join("sandboxes")).unwrap().count();
    assert_eq!(lives(), 1, "who comes after a killed shim would find no hook");
    let_go(&node, "run");
    deleting.await.unwrap().unwrap();
    assert_eq!(ran(&node, "run"), ["slow stopped", "over", "last stopped"]);
    assert!(node.pod.is_empty());
    node.world.assert_nothing_left("after the last Delete");
}
