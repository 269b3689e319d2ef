//! Limits that change while the pod lives, and the memory of its domain, which has 256 MiB for its containers and 64 for its kernel. Of what comes
//! later a 64th is the kernel's.

use std::sync::atomic::Ordering;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::Value;

use super::*;
use crate::error::Result;

pub(super) const MIB: u64 = 1 << 20;
/// What comes at all comes by then.
const SOON: Duration = Duration::from_secs(20);
const TYPE: &str = "io.kubernetes.cri.container-type";

async fn create(node: &Node, id: &str, limit_mib: Option<u64>) -> Result<api::CreateTaskResponse> {
    let memory = limit_mib.map_or(json!({}), |mib| json!({"limit": mib * MIB}));
    create_with(node, id, json!({"memory": memory})).await
}

pub(super) async fn create_with(node: &Node, id: &str, resources: Value) -> Result<api::CreateTaskResponse> {
    let pod = json!({"io.kubernetes.cri.sandbox-memory": (256 * MIB).to_string()});
    create_of(node, id, pod, resources).await
}

pub(super) async fn create_of(
    node: &Node,
    id: &str,
    pod: Value,
    resources: Value,
) -> Result<api::CreateTaskResponse> {
    node.pod.clone().create(request_of(node, id, pod, resources)).await
}

/// The sandbox's annotations are `pod`'s.
pub(super) fn request_of(node: &Node, id: &str, pod: Value, resources: Value) -> api::CreateTaskRequest {
    let mut annotations = match id {
        "run" => json!({TYPE: "sandbox"}),
        _ => json!({
            TYPE: "container",
            "io.kubernetes.cri.sandbox-id": "run",
            "io.kubernetes.cri.container-name": id.trim_end_matches("-again"),
        }),
    };
    if id == "run" {
        annotations.as_object_mut().unwrap().extend(pod.as_object().unwrap().clone());
    }
    let request = node.request(id, annotations);
    let file = Path::new(&request.bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    spec["linux"]["resources"] = resources;
    std::fs::write(&file, spec.to_string()).unwrap();
    request
}

/// A pod whose containers may use 256 MiB, and two of them with 128 each.
pub(super) async fn pod() -> Node {
    let node = Node::new(Habits::default()).await;
    create(&node, "run", None).await.unwrap();
    create(&node, "app", Some(128)).await.unwrap();
    create(&node, "side", Some(128)).await.unwrap();
    assert!(given(&node).is_empty(), "they fit");
    node
}

fn given(node: &Node) -> Vec<u64> {
    node.world.left.lock().unwrap().memory.clone()
}

pub(super) fn update(
    node: &Node,
    id: &str,
    resources: Value,
) -> impl Future<Output = Result<api::Empty>> + Send + use<> {
    let resources = Any { value: resources.to_string().into_bytes(), ..Any::default() };
    let request =
        api::UpdateTaskRequest { id: id.into(), resources: Some(resources).into(), ..Default::default() };
    node.pod.clone().update(request)
}

async fn limit(node: &Node, id: &str, bytes: u64) -> Result<api::Empty> {
    update(node, id, json!({"memory": {"limit": bytes}})).await
}

/// Shrinking is nobody's to wait for.
pub(super) async fn is_given(node: &Node, mib: &[u64]) {
    let begun = std::time::Instant::now();
    while given(node) != mib && begun.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(given(node), mib);
}

#[tokio::test]
async fn the_domain_grows_by_what_limits_were_raised_and_is_never_smaller_than_it_was_made() {
    let node = pod().await;
    limit(&node, "app", 512 * MIB).await.unwrap();
    limit(&node, "side", 129 * MIB).await.unwrap();
    assert_eq!(given(&node), [320 + 384 + 6, 320 + 385 + 7]);
    for nothing_of_memory in [json!({"cpu": {"shares": 2}}), json!({"memory": {"limit": -1}}), json!({})] {
        update(&node, "app", nothing_of_memory).await.unwrap();
    }
    limit(&node, "app", 256 * MIB).await.unwrap();
    is_given(&node, &[710, 712, 320 + 129 + 3]).await;
    limit(&node, "app", 2 * MIB).await.unwrap();
    is_given(&node, &[710, 712, 452, 320 + 1 + 1]).await;
    node.delete("side").await.unwrap();
    is_given(&node, &[710, 712, 452, 322, 320]).await;
    node.delete("app").await.unwrap();
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// Kubernetes makes a container that it restarts with the limit that it has come to have.
#[tokio::test]
async fn a_container_that_comes_again_with_more_makes_the_domain_grow_until_it_goes() {
    let node = pod().await;
    node.delete("side").await.unwrap();
    create(&node, "side-again", Some(512)).await.unwrap();
    assert_eq!(given(&node), [320 + 384 + 6]);
    node.delete("side-again").await.unwrap();
    is_given(&node, &[710, 320]).await;
}

/// Where the pod as a whole has a limit, kubelet gives it to each container.
#[tokio::test]
async fn limits_whose_sum_is_more_than_the_pods_make_no_larger_domain() {
    let node = pod().await;
    create(&node, "third", Some(256)).await.unwrap();
    create(&node, "fourth", Some(256)).await.unwrap();
    assert!(given(&node).is_empty());
}

/// Without Kubernetes' word of the pod the domain is its first container's, and what comes has to fit.
#[tokio::test]
async fn a_domain_of_one_container_grows_by_what_does_not_fit() {
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(node.request("run", json!({TYPE: "sandbox"}))).await.unwrap();
    create(&node, "app", Some(1984)).await.unwrap();
    assert!(given(&node).is_empty(), "2048 MiB and no limit");
    create(&node, "side", Some(64)).await.unwrap();
    assert_eq!(given(&node), [2048 + 64 + 1]);
}

/// Kubelet counts them apart from the memory, and names each size of its node.
#[tokio::test]
async fn huge_pages_come_on_top() {
    let node = pod().await;
    let huge = json!([{"pageSize": "2MB", "limit": 6 * MIB}, {"pageSize": "1GB", "limit": 0}]);
    create_with(&node, "third", json!({"memory": {"limit": MIB}, "hugepageLimits": huge})).await.unwrap();
    assert_eq!(given(&node), [320 + 6 + 1]);
    node.delete("third").await.unwrap();
    is_given(&node, &[327, 320]).await;
}

#[tokio::test]
async fn a_limit_that_the_guest_refuses_leaves_the_domain_as_it_was() {
    let node = pod().await;
    limit(&node, "app", 512 * MIB + 1).await.unwrap_err();
    // It grows before its limit does, and not for good.
    is_given(&node, &[320 + 385 + 7, 320]).await;
}

#[tokio::test]
async fn more_than_xen_has_is_refused_and_nothing_else_changes() {
    let node = pod().await;
    node.world.left.lock().unwrap().free_mib = Some(512);
    let error = limit(&node, "app", 512 * MIB).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::HostResource));
    let huge = json!([{"pageSize": "2MB", "limit": 512 * MIB}]);
    let error = create_with(&node, "third", json!({"hugepageLimits": huge})).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::HostResource));
    // Neither counts. What was set last was not known, so it is set once more.
    limit(&node, "app", 192 * MIB).await.unwrap();
    assert_eq!(given(&node).last(), Some(&(320 + 64 + 1)));
}

/// A toolstack that does not come back, and a guest that lets its memory be waited for, hold up who wants more of it, and nobody else.
#[tokio::test]
async fn deletes_wait_for_no_toolstack() {
    let node = pod().await;
    limit(&node, "app", 256 * MIB).await.unwrap();
    limit(&node, "side", 256 * MIB).await.unwrap();
    node.world.memory_takes_long.store(true, Ordering::Relaxed);
    let huge = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 64 * MIB}]});
    let third = request_of(&node, "third", json!({}), huge);
    let creating = tokio::spawn(node.pod.clone().create(third));
    let asked = || node.world.left.lock().unwrap().memory_asked.len();
    until("a container comes that needs more", || asked() == 3).await;
    for id in ["app", "side"] {
        tokio::time::timeout(SOON, node.delete(id)).await.expect("it waits").unwrap();
    }
    // Nor does one's own, which takes back all of it.
    let deleted = tokio::time::timeout(SOON, node.delete("third")).await.expect("it waits");
    assert_eq!(deleted.unwrap_err().code(), Some(Code::NoSuchTask));
    creating.await.unwrap().unwrap_err();
    node.world.memory_takes_long.store(false, Ordering::Relaxed);
    until("it gives back what it grew by", || given(&node).last() == Some(&320)).await;
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}
