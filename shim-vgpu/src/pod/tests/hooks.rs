//! Hooks of the node: when they run, what they are told, and what becomes of a container whose hook fails.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, time::Instant};

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
pub fn hook(word: &str, then: &str) -> Value {
    let script = format!(
        r#"STATE=state.{word}; cat > $STATE; {NOTES}
        echo "{word} $(sed -E 's/.*"status":"([a-z]+)".*/\1/' $STATE)$own" >> ran; {then}"#
    );
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 60})
}

fn asked(node: &Node, id: &str, hooks: Value) -> api::CreateTaskRequest {
    asked_with(node, id, json!({}), hooks)
}

/// With these annotations.
pub fn asked_with(node: &Node, id: &str, annotations: Value, hooks: Value) -> api::CreateTaskRequest {
    let request = node.request(id, annotations);
    let file = Path::new(&request.bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    spec["hooks"] = hooks;
    fs::write(file, spec.to_string()).unwrap();
    request
}

/// What makes the first hook of an end one that cannot be taken out, where a container's are noted.
const SPOILS: &str = "mv 0 kept; mkdir 0";

/// Where they are noted.
fn noted(node: &Node, id: &str) -> PathBuf {
    let lives = fs::read_dir(node.world.dir.path().join("sandboxes")).unwrap();
    lives.map(|life| life.unwrap().path().join("hooks").join(id)).find(|notes| notes.exists()).unwrap()
}

pub fn spoil(node: &Node, id: &str) {
    let notes = noted(node, id);
    fs::rename(notes.join("0"), notes.join("kept")).unwrap();
    fs::create_dir(notes.join("0")).unwrap();
}

pub fn mend(node: &Node, id: &str) {
    let notes = noted(node, id);
    fs::remove_dir(notes.join("0")).unwrap();
    fs::rename(notes.join("kept"), notes.join("0")).unwrap();
}

pub fn ran(node: &Node, id: &str) -> Vec<String> {
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
    let pid = node.pod.clone().create(request).await.unwrap().pid;
    // Other tests of this process have theirs. Held here, so that none of them gets its number.
    let own = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let name = format!("net:[{}]", own.metadata().unwrap().ino());
    let held =
        || fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    assert!(held().filter(|link| link.as_os_str() == &*name).count() > 1, "the shim holds it before");
    node.delete("run").await.unwrap();
    assert_eq!(ran(&node, "run"), ["stop stopped"]);
    let held = fs::read_to_string(Path::new(&bundle).join("held")).unwrap();
    assert_eq!(held.lines().filter(|link| *link == name).count(), 1, "{name}: {held}");
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

/// A Create that fails, of whose end this hook cannot be begun: it is owed.
pub async fn owes(node: &Node, id: &str, annotations: Value, owed: Value) {
    let dir = node.world.dir.path().display();
    let spoils = format!("cd {dir}/sandboxes/*/hooks/{id}; {SPOILS}; exit 3");
    let hooks = json!({"createRuntime": [hook("fails", &spoils)], "poststop": [owed]});
    let failing = node.pod.clone().create(asked_with(node, id, annotations, hooks));
    assert_eq!(failing.await.unwrap_err().code(), Some(Code::HookFailed));
}

/// One that cannot be begun is owed: the next container's hooks come after it, and not in its place.
#[tokio::test]
async fn hooks_of_the_end_of_a_failed_create_are_not_lost_to_the_next_one() {
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    owes(&node, "run", in_pod("container"), hook("owed", "")).await;
    let create = |hooks: Value| node.pod.clone().create(asked_with(&node, "run", in_pod("container"), hooks));
    let next = json!({"createRuntime": [hook("next", "")], "poststop": [hook("stop", "")]});
    assert_eq!(create(next.clone()).await.unwrap_err().code(), Some(Code::HostFailure));
    assert_eq!(ran(&node, "run"), ["fails creating own"]);
    mend(&node, "run");
    create(next).await.unwrap();
    node.delete("run").await.unwrap();
    assert_eq!(ran(&node, "run")[1..], ["owed stopped", "next creating own", "stop stopped"]);
    node.delete("pause").await.unwrap();
    node.world.assert_nothing_left("after the last Delete");
}

/// They are not the next container's: they run under no lock of the pod, and on when its Create is given up.
#[tokio::test]
async fn owed_hooks_hold_up_no_other_container_and_no_delete_of_who_waits_for_them() {
    let node = Node::new(Habits::default()).await;
    for (id, role) in [("pause", "sandbox"), ("other", "container")] {
        node.pod.clone().create(node.request(id, in_pod(role))).await.unwrap();
    }
    owes(&node, "run", in_pod("container"), slow()).await;
    mend(&node, "run");
    let create = || node.pod.clone().create(node.request("run", in_pod("container")));
    let creating = tokio::spawn(create());
    until_ran(&node, "run", 2).await;
    let in_time = |id| tokio::time::timeout(Duration::from_secs(20), node.delete(id));
    in_time("other").await.expect("it waits for the hook").unwrap();
    assert!(!creating.is_finished());
    let deleted = in_time("run").await.expect("it waits for the hook");
    assert_eq!(deleted.unwrap_err().code(), Some(Code::NoSuchTask));
    assert_eq!(creating.await.unwrap().unwrap_err().code(), Some(Code::WrongState));
    let_go(&node, "run");
    create().await.unwrap();
    assert_eq!(ran(&node, "run"), ["fails creating own", "slow stopped", "over"]);
    for id in ["run", "pause"] {
        node.delete(id).await.unwrap();
    }
    node.world.assert_nothing_left("after the last Delete");
}

/// There is no next Create then.
#[tokio::test]
async fn the_end_of_a_pod_runs_the_hooks_that_a_failed_create_owes() {
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    owes(&node, "run", in_pod("container"), hook("owed", "")).await;
    assert_eq!(node.delete("pause").await.unwrap_err().code(), Some(Code::HostFailure));
    assert!(node.world.left.lock().unwrap().domains.is_empty(), "it keeps nothing else");
    mend(&node, "run");
    node.delete("pause").await.unwrap();
    assert_eq!(ran(&node, "run"), ["fails creating own", "owed stopped"]);
    node.world.assert_nothing_left("after delete");
}

/// The Create fails with the pod: it has nothing to be made in.
#[tokio::test]
async fn the_end_of_a_pod_runs_owed_hooks_that_a_create_of_their_id_is_at() {
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    owes(&node, "run", in_pod("container"), slow()).await;
    mend(&node, "run");
    // One more after it, which cannot be begun.
    let stuck = noted(&node, "run").join("1");
    fs::create_dir(&stuck).unwrap();
    let creating = tokio::spawn(node.pod.clone().create(node.request("run", in_pod("container"))));
    until_ran(&node, "run", 2).await;
    let request = api::DeleteRequest { id: "pause".into(), ..Default::default() };
    let deleting = tokio::spawn(node.pod.clone().delete(request));
    until("the domain is gone", || node.world.left.lock().unwrap().domains.is_empty()).await;
    let_go(&node, "run");
    creating.await.unwrap().unwrap_err();
    assert_eq!(deleting.await.unwrap().unwrap_err().code(), Some(Code::HostFailure));
    fs::remove_dir(stuck).unwrap();
    node.delete("pause").await.unwrap();
    assert_eq!(ran(&node, "run"), ["fails creating own", "slow stopped", "over"]);
    node.world.assert_nothing_left("after delete");
}

/// One without a time of its own, too.
#[tokio::test]
async fn a_delete_ends_the_hook_that_a_create_waits_for() {
    let node = Node::new(Habits::default()).await;
    let hooks =
        json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "echo > ran; sleep 1000"]}]});
    let creating = tokio::spawn(node.pod.clone().create(asked(&node, "run", hooks)));
    let begun = Instant::now();
    until_ran(&node, "run", 1).await;
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
        let hooks = json!({"poststart": [hook("hangs", "exec sleep 1000")]});
        let request = asked_with(&node, "run", in_pod("container"), hooks);
        node.pod.clone().create(request).await.unwrap();
        let begun = Instant::now();
        let started = async {
            let error = node.start("run", "").await.unwrap_err();
            assert_eq!(error.code(), Some(Code::HookFailed), "{error}");
        };
        let ended = async {
            until_ran(&node, "run", 1).await;
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
            cleanup::last_hooks(&store, Duration::ZERO, crate::hooks::OWN_TIME).unwrap();
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
    until(&format!("{count} hooks have run"), || ran(node, id).len() >= count).await;
}

/// A pod with a container that runs, and one with a GPU whose Delete waits for a hook of its end.
async fn with_a_slow_end(node: &Node) -> tokio::task::JoinHandle<crate::error::Result<api::DeleteResponse>> {
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    let mut annotations = in_pod("container");
    annotations["vgpu.dev/gpu"] = "1".into();
    let mut request = asked_with(node, "run", annotations, json!({"poststop": [slow(), hook("last", "")]}));
    let root = api::Mount { type_: "tmpfs".into(), source: "root".into(), ..Default::default() };
    request.rootfs = vec![root];
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
