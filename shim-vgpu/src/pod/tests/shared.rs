//! What containers of a pod share, up to the guest's copy of a spec.

use serde_json::Value;

use super::*;
use crate::error::Result;

const SANDBOX: &str = "io.kubernetes.cri.container-type";

/// A container of the pod "run" that wants the ipc namespace of `pid`.
async fn create(node: &Node, pid: u32) -> Result<api::CreateTaskResponse> {
    let annotations = json!({SANDBOX: "container", "io.kubernetes.cri.sandbox-id": "run"});
    let request = node.request("app", annotations);
    let file = Path::new(&request.bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(spec["linux"]["namespaces"][1]["type"], "ipc");
    spec["linux"]["namespaces"][1]["path"] = format!("/proc/{pid}/ns/ipc").into();
    std::fs::write(&file, spec.to_string()).unwrap();
    node.pod.clone().create(request).await
}

async fn sandbox(node: &Node) -> u32 {
    node.pod.clone().create(node.request("run", json!({SANDBOX: "sandbox"}))).await.unwrap().pid
}

#[tokio::test]
async fn a_namespace_by_the_pid_of_another_container_reaches_the_guest_by_its_name() {
    let node = Node::new(Habits::default()).await;
    let pid = sandbox(&node).await;
    let app = create(&node, pid).await.unwrap().pid;
    let share = std::fs::read_dir(node.world.dir.path().join("shared")).unwrap().next().unwrap().unwrap();
    let spec = std::fs::read(share.path().join("rw/app/config.json")).unwrap();
    let spec: Value = serde_json::from_slice(&spec).unwrap();
    assert_eq!(spec["linux"]["namespaces"][1], json!({"type": "ipc", "path": "vgpu:container/run"}));
    assert!(app != pid && node.world.holders().len() == 2);
    node.delete("app").await.unwrap();
    let own = std::process::id();
    assert_eq!(create(&node, own).await.unwrap_err().code(), Some(Code::SpecRefused), "the host's");
    assert_eq!(node.world.holders(), [pid], "nothing is left of it");
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// It would leave the container in its own namespaces.
#[tokio::test]
async fn a_guest_that_does_not_know_what_is_shared_gets_no_such_container() {
    let node = Node::new(Habits { is_old: true, ..Habits::default() }).await;
    let pid = sandbox(&node).await;
    assert_eq!(create(&node, pid).await.unwrap_err().code(), Some(Code::ProtocolVersion));
    assert_eq!(node.world.holders(), [pid]);
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// As the end of that pid would be with runc.
#[tokio::test]
async fn a_holder_that_is_killed_takes_its_container_with_it() {
    let node = Node::new(Habits::default()).await;
    let pid = sandbox(&node).await;
    let app = create(&node, pid).await.unwrap().pid;
    for id in ["run", "app"] {
        node.start(id, "").await.unwrap();
    }
    crate::share::Process::of(app).unwrap().kill().unwrap();
    assert_eq!(node.wait("app", "").await, 137);
    assert_eq!(node.state("app", ""), (true, api::Status::STOPPED, Some(137)));
    assert_eq!(node.state("run", ""), (true, api::Status::RUNNING, None), "the other one is there");
    let told = node.events().await;
    assert_eq!(told.iter().filter(|event| *event == "exit").count(), 1, "{told:?}");
    node.delete("app").await.unwrap();

    // One that was not started.
    let app = create(&node, pid).await.unwrap().pid;
    crate::share::Process::of(app).unwrap().kill().unwrap();
    assert_eq!(node.wait("app", "").await, 137);
    node.delete("app").await.unwrap();
    node.kill("run", 9).await.unwrap();
    assert_eq!(node.wait("run", "").await, 137);
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// Nor does a guest that obeys nothing outlive the pid that was told for it.
#[tokio::test]
async fn a_holder_that_is_killed_takes_a_guest_with_it_that_does_not_obey() {
    let node = Node::new(Habits { lies: true, ..Habits::default() }).await;
    let pid = sandbox(&node).await;
    node.start("run", "").await.unwrap();
    crate::share::Process::of(pid).unwrap().kill().unwrap();
    assert_eq!(node.wait("run", "").await, 137);
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}
