//! CPU limits that change while the pod lives: what Xen gives its domain at most, a quarter of a CPU for its kernel on top, and how many CPUs
//! its guest uses. In hundredths of one.

use std::sync::atomic::Ordering;

use serde_json::Value;

use super::{
    size::{create_of, update},
    world::World,
    *,
};
use crate::pod::steps::Cut;

/// What comes at all comes by then.
const SOON: Duration = Duration::from_secs(20);

fn limit(percent: i64) -> Value {
    json!({"cpu": {"quota": percent * 1000, "period": 100_000}})
}

/// A pod for which Kubernetes has summed up so much.
async fn pod(habits: Habits, percent: u64) -> Node {
    pod_of(Node::new(habits).await, percent).await
}

async fn pod_of(node: Node, percent: u64) -> Node {
    let pod = json!({
        "io.kubernetes.cri.sandbox-cpu-quota": (percent * 1000).to_string(),
        "io.kubernetes.cri.sandbox-cpu-period": "100000",
    });
    // As the pause container's.
    create_of(&node, "run", pod, json!({"cpu": {"shares": 2}})).await.unwrap();
    node
}

async fn create(node: &Node, id: &str, resources: Value) {
    create_of(node, id, json!({}), resources).await.unwrap();
}

/// All caps, and all numbers of CPUs, that there have been. Less is nobody's to wait for.
async fn are_given(node: &Node, caps: &[u32], cpus: &[u32]) {
    let given = || {
        let left = node.world.left.lock().unwrap();
        (left.caps.clone(), left.cpus.clone())
    };
    let begun = std::time::Instant::now();
    while given() != (caps.to_vec(), cpus.to_vec()) && begun.elapsed() < SOON {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(given(), (caps.to_vec(), cpus.to_vec()));
}

#[tokio::test]
async fn a_pod_has_what_its_limits_sum_up_to_and_what_was_added_to_them() {
    let node = pod(Habits::default(), 150).await;
    are_given(&node, &[175], &[]).await;
    create(&node, "app", limit(100)).await;
    create(&node, "side", limit(50)).await;
    update(&node, "app", limit(300)).await.unwrap();
    are_given(&node, &[175, 375], &[4]).await;
    update(&node, "app", json!({"memory": {"limit": 1 << 20}, "cpu": {"shares": 2}})).await.unwrap();
    update(&node, "app", limit(100)).await.unwrap();
    are_given(&node, &[175, 375, 175], &[4, 2]).await;
    // It is never less than at first, as with memory.
    update(&node, "app", limit(10)).await.unwrap();
    node.delete("side").await.unwrap();
    create(&node, "side-again", limit(150)).await;
    are_given(&node, &[175, 375, 175, 275], &[4, 2, 3]).await;
    node.delete("side-again").await.unwrap();
    are_given(&node, &[175, 375, 175, 275, 175], &[4, 2, 3, 2]).await;
}

/// Of the CPUs that the domain has its kernel starts those of the limits.
#[tokio::test]
async fn a_domain_is_made_with_cpus_for_later() {
    let node = pod(Habits::default(), 250).await;
    let made = node.world.left.lock().unwrap().made.clone().unwrap();
    assert_eq!(made.vcpus, 12);
    assert!(made.command_line.ends_with(" maxcpus=3"), "{}", made.command_line);
}

/// Its guest may start all virtual CPUs of its domain; it gets the time of those alone that it is to use.
#[tokio::test]
async fn while_a_container_has_no_limit_the_cap_is_that_of_the_cpus_that_such_a_pod_has() {
    let node = pod(Habits::default(), 50).await;
    create(&node, "app", limit(50)).await;
    create(&node, "free", json!({})).await;
    are_given(&node, &[75, 400], &[4]).await;
    node.delete("free").await.unwrap();
    are_given(&node, &[75, 400, 75], &[4, 1]).await;
    // One is taken off, and another one needs more than a pod without limits has.
    update(&node, "app", limit(-1)).await.unwrap();
    are_given(&node, &[75, 400, 75, 400], &[4, 1, 4]).await;
    create(&node, "side", limit(50)).await;
    update(&node, "side", limit(550)).await.unwrap();
    are_given(&node, &[75, 400, 75, 400, 600], &[4, 1, 4, 6]).await;
}

#[tokio::test]
async fn without_kubernetes_word_the_cap_is_the_sum() {
    let node = Node::new(Habits::default()).await;
    create(&node, "run", json!({})).await;
    are_given(&node, &[400], &[]).await;
    create(&node, "app", limit(100)).await;
    create(&node, "side", limit(30)).await;
    are_given(&node, &[400, 125, 155], &[]).await;
    update(&node, "app", limit(500)).await.unwrap();
    are_given(&node, &[400, 125, 155, 555], &[6]).await;
    update(&node, "app", limit(50)).await.unwrap();
    are_given(&node, &[400, 125, 155, 555, 105], &[6, 4]).await;
}

/// libxl refuses a cap above that, so that there would be none.
#[tokio::test]
async fn a_limit_of_as_many_cpus_as_the_domain_has_or_more_is_all_that_it_has() {
    let node = pod(Habits::default(), 100).await;
    create(&node, "app", limit(100)).await;
    update(&node, "app", limit(780)).await.unwrap();
    are_given(&node, &[125, 800], &[8]).await;
    update(&node, "app", limit(100_000)).await.unwrap();
    are_given(&node, &[125, 800], &[8]).await;
    let one = World::configured(Habits::default(), |config| config.guest.kind = vgpu_config::GuestKind::Pv);
    let node = pod_of(Node::of(one, Cut::default()).await, 100).await;
    are_given(&node, &[100], &[]).await;
}

#[tokio::test]
async fn a_cap_that_failed_is_set_with_the_next_change_whatever_that_is() {
    let node = pod(Habits::default(), 100).await;
    create(&node, "app", limit(100)).await;
    node.world.no_xl.store(true, Ordering::Relaxed);
    update(&node, "app", limit(300)).await.unwrap();
    are_given(&node, &[125], &[3]).await;
    node.world.no_xl.store(false, Ordering::Relaxed);
    update(&node, "app", json!({"cpu": {"shares": 2}})).await.unwrap();
    are_given(&node, &[125, 325], &[3]).await;
}

#[tokio::test]
async fn a_change_that_the_guest_refuses_gives_no_more_cpus() {
    let node = pod(Habits::default(), 100).await;
    create(&node, "app", limit(100)).await;
    let odd = json!({"cpu": {"quota": 200_000}, "memory": {"limit": (1 << 20) + 1}});
    update(&node, "app", odd).await.unwrap_err();
    are_given(&node, &[125, 225, 125], &[2, 1]).await;
}

/// Xen with another scheduler, and a guest of an earlier protocol: neither keeps a container from being made or changed.
#[tokio::test]
async fn who_cannot_be_held_to_a_limit_or_given_more_lives_without() {
    for (habits, caps) in [
        (Habits { no_caps: true, ..Habits::default() }, &[][..]),
        (Habits { is_old: true, ..Habits::default() }, &[125, 325][..]),
    ] {
        let node = Node::new(habits).await;
        let request = node.request("alone", json!({}));
        let file = Path::new(&request.bundle).join("config.json");
        let mut spec: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        spec["linux"]["resources"] = limit(100);
        std::fs::write(&file, spec.to_string()).unwrap();
        node.pod.clone().create(request).await.unwrap();
        update(&node, "alone", limit(300)).await.unwrap();
        are_given(&node, caps, if habits.no_caps { &[3] } else { &[] }).await;
    }
}
