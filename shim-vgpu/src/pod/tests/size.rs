//! Limits that change while the pod lives, and the memory of its domain. It has 2048 MiB, or its first container's limit and 64 MiB.

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde_json::Value;

use super::*;
use crate::error::Result;

const MIB: u64 = 1 << 20;
const TYPE: &str = "io.kubernetes.cri.container-type";

async fn create(node: &Node, id: &str, limit_mib: Option<u64>) -> Result<api::CreateTaskResponse> {
    let memory = limit_mib.map_or(json!({}), |mib| json!({"limit": mib * MIB}));
    create_with(node, id, json!({"memory": memory})).await
}

async fn create_with(node: &Node, id: &str, resources: Value) -> Result<api::CreateTaskResponse> {
    let annotations = match id {
        "run" => json!({TYPE: "sandbox", "io.kubernetes.cri.sandbox-memory": (256 * MIB).to_string()}),
        _ => json!({TYPE: "container", "io.kubernetes.cri.sandbox-id": "run"}),
    };
    let request = node.request(id, annotations);
    let file = Path::new(&request.bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    spec["linux"]["resources"] = resources;
    std::fs::write(&file, spec.to_string()).unwrap();
    node.pod.clone().create(request).await
}

/// A pod whose containers may use 256 MiB, and two of them with 128 each.
async fn pod() -> Node {
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

async fn update(node: &Node, id: &str, resources: Value) -> Result<api::Empty> {
    let resources = Any { value: resources.to_string().into_bytes(), ..Any::default() };
    let request =
        api::UpdateTaskRequest { id: id.into(), resources: Some(resources).into(), ..Default::default() };
    node.pod.clone().update(request).await
}

async fn limit(node: &Node, id: &str, bytes: u64) -> Result<api::Empty> {
    update(node, id, json!({"memory": {"limit": bytes}})).await
}

#[tokio::test]
async fn the_domain_follows_the_sum_of_limits_and_is_never_smaller_than_it_was_made() {
    let node = pod().await;
    limit(&node, "app", 512 * MIB).await.unwrap();
    limit(&node, "side", 129 * MIB).await.unwrap();
    assert_eq!(given(&node), [512 + 128 + 64, 512 + 129 + 64]);
    for nothing_of_memory in [json!({"cpu": {"shares": 2}}), json!({"memory": {"limit": -1}}), json!({})] {
        update(&node, "app", nothing_of_memory).await.unwrap();
    }
    limit(&node, "app", 256 * MIB).await.unwrap();
    limit(&node, "app", 2 * MIB).await.unwrap();
    assert_eq!(given(&node)[2..], [256 + 129 + 64, 256 + 64]);
    node.delete("side").await.unwrap();
    limit(&node, "app", 256 * MIB).await.unwrap();
    assert_eq!(given(&node).len(), 4, "what is left fits");
    node.delete("app").await.unwrap();
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// Kubernetes makes a container that it restarts with the limit that it has come to have.
#[tokio::test]
async fn a_container_that_comes_with_more_makes_the_domain_grow_until_it_goes() {
    let node = pod().await;
    node.delete("side").await.unwrap();
    create(&node, "side", Some(512)).await.unwrap();
    assert_eq!(given(&node), [128 + 512 + 64]);
    node.delete("side").await.unwrap();
    // The next one to change something waits for it.
    limit(&node, "app", 128 * MIB).await.unwrap();
    assert_eq!(given(&node)[1..], [256 + 64]);
}

/// Kubelet counts them apart from the memory, and names each size of its node.
#[tokio::test]
async fn huge_pages_come_on_top() {
    let node = pod().await;
    let huge = json!([{"pageSize": "2MB", "limit": 6 * MIB}, {"pageSize": "1GB", "limit": 0}]);
    create_with(&node, "third", json!({"memory": {"limit": MIB}, "hugepageLimits": huge})).await.unwrap();
    assert_eq!(given(&node), [256 + 1 + 64 + 6]);
    limit(&node, "third", 2 * MIB).await.unwrap();
    assert_eq!(given(&node)[1..], [256 + 2 + 64 + 6]);
    node.delete("third").await.unwrap();
    limit(&node, "app", 128 * MIB).await.unwrap();
    assert_eq!(given(&node)[2..], [256 + 64]);
}

#[tokio::test]
async fn a_limit_that_the_guest_refuses_leaves_the_domain_as_it_was() {
    let node = pod().await;
    limit(&node, "app", 512 * MIB + 1).await.unwrap_err();
    assert_eq!(
        given(&node),
        [512 + 1 + 128 + 64, 256 + 64],
        "it grows before its limit does, and not for good"
    );
}

#[tokio::test]
async fn more_than_xen_has_is_refused_and_nothing_else_changes() {
    let node = pod().await;
    node.world.left.lock().unwrap().free_mib = Some(512);
    let error = limit(&node, "app", 512 * MIB).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::HostResource));
    let error = create(&node, "third", Some(512)).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::HostResource));
    assert!(given(&node).is_empty());
    // Neither counts.
    create(&node, "third", Some(128)).await.unwrap();
    limit(&node, "app", 192 * MIB).await.unwrap();
    assert_eq!(given(&node), [3 * 128 + 64, 192 + 2 * 128 + 64]);
}
