//! Changes of limits, and containers that come, while another change is under way: one comes after the other, and none counts before it is sure.

use std::sync::atomic::Ordering;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::{
    size::{MIB, create_of, create_with, is_given, pod, request_of, update},
    *,
};
use crate::error::Result;
use fake_guest::{FAILING, MUTE};

/// Long enough for what does not wait, on most machines: it is only looked for what must not be.
const A_WHILE: Duration = Duration::from_millis(200);

/// What an Update may take.
const UPDATE_SECONDS: u64 = 45;

fn memory(mib: u64) -> Value {
    json!({"memory": {"limit": mib * MIB}})
}

/// CPU time in hundredths of one.
fn limits(mib: u64, percent: u64) -> Value {
    json!({"memory": {"limit": mib * MIB}, "cpu": {"quota": percent * 1000}})
}

fn asks(node: &Node, id: &str, resources: Value) -> JoinHandle<Result<api::Empty>> {
    tokio::spawn(update(node, id, resources))
}

async fn waits<T>(work: &mut JoinHandle<T>) {
    assert!(tokio::time::timeout(A_WHILE, work).await.is_err(), "it does not wait for its turn");
}

/// A toolstack that has been asked for so much, and does not come back.
async fn is_asked_for(node: &Node, mib: u64) {
    until("the domain is to have it", || node.world.left.lock().unwrap().memory_asked.contains(&mib)).await;
}

fn slow(node: &Node, takes_long: bool) {
    node.world.memory_takes_long.store(takes_long, Ordering::Relaxed);
}

fn told(node: &Node) -> Vec<Value> {
    node.world.updates.lock().unwrap().iter().map(|(_, resources)| resources.clone()).collect()
}

#[tokio::test]
async fn a_lowering_that_meets_a_raise_comes_after_it() {
    let node = pod().await;
    slow(&node, true);
    let raise = asks(&node, "app", memory(512));
    is_asked_for(&node, 710).await;
    let mut lower = asks(&node, "app", memory(128));
    waits(&mut lower).await;
    slow(&node, false);
    raise.await.unwrap().unwrap();
    lower.await.unwrap().unwrap();
    assert_eq!(told(&node), [memory(512), memory(128)]);
    is_given(&node, &[710, 320]).await;
}

#[tokio::test]
async fn of_two_equal_raises_that_xen_has_no_memory_for_neither_reaches_the_guest() {
    let node = pod().await;
    node.world.left.lock().unwrap().free_mib = Some(512);
    slow(&node, true);
    let first = asks(&node, "app", memory(512));
    is_asked_for(&node, 710).await;
    let mut second = asks(&node, "app", memory(512));
    waits(&mut second).await;
    slow(&node, false);
    for refused in [first, second] {
        assert_eq!(refused.await.unwrap().unwrap_err().code(), Some(Code::HostResource));
    }
    assert_eq!(told(&node), [Value::Null; 0]);
}

/// Each has limits of its own to go back to.
#[tokio::test]
async fn a_refused_change_of_cpus_takes_no_memory_from_the_one_that_meets_it() {
    let node = Node::new(Habits::default()).await;
    let sums = json!({
        "io.kubernetes.cri.sandbox-memory": (256 * MIB).to_string(),
        "io.kubernetes.cri.sandbox-cpu-quota": "100000",
        "io.kubernetes.cri.sandbox-cpu-period": "100000",
    });
    create_of(&node, "run", sums, json!({})).await.unwrap();
    let limits = json!({"memory": {"limit": 128 * MIB}, "cpu": {"quota": 100_000}});
    create_with(&node, "app", limits).await.unwrap();
    let slow = node.world.slow_update.lock().await;
    let odd = asks(&node, "app", json!({"cpu": {"quota": 200_001}}));
    until("the guest is told", || told(&node).len() == 1).await;
    let mut more = asks(&node, "app", memory(512));
    waits(&mut more).await;
    drop(slow);
    odd.await.unwrap().unwrap_err();
    more.await.unwrap().unwrap();
    let caps = || node.world.left.lock().unwrap().caps.clone();
    until("its cap is what it was", || caps().len() == 3).await;
    assert_eq!(caps(), [125, 226, 125]);
    // What comes next counts what it has.
    update(&node, "app", memory(513)).await.unwrap();
    is_given(&node, &[710, 712]).await;
    assert_eq!(caps(), [125, 226, 125]);
}

#[tokio::test]
async fn a_change_that_is_not_answered_may_be_done_and_counts() {
    let node = pod().await;
    create_with(&node, MUTE, memory(128)).await.unwrap();
    tokio::time::pause();
    for mib in [512, 64] {
        let error = update(&node, MUTE, memory(mib)).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::GuestSilent));
    }
    tokio::time::resume();
    update(&node, "app", memory(129)).await.unwrap();
    is_given(&node, &[710, 712]).await;
}

/// As libcgroups does: memory first, and no more after what a kernel refuses.
#[tokio::test]
async fn a_change_that_the_guests_kernel_refused_a_part_of_counts_as_if_it_were_done() {
    let node = pod().await;
    create_with(&node, FAILING, memory(128)).await.unwrap();
    for mib in [512, 64] {
        let both = json!({"memory": {"limit": mib * MIB}, "pids": {"limit": 7}});
        let error = update(&node, FAILING, both).await.unwrap_err();
        assert!(error.to_string().contains("pids.max"), "{error}");
    }
    update(&node, "app", memory(129)).await.unwrap();
    is_given(&node, &[710, 712]).await;
}

#[tokio::test]
async fn a_raise_that_is_refused_later_keeps_no_container_from_coming() {
    let node = pod().await;
    node.world.left.lock().unwrap().free_mib = Some(512);
    slow(&node, true);
    let raise = asks(&node, "app", memory(512));
    is_asked_for(&node, 710).await;
    let mut creating = tokio::spawn(node.pod.clone().create(third(&node, json!({}))));
    waits(&mut creating).await;
    slow(&node, false);
    raise.await.unwrap().unwrap_err();
    creating.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_container_that_does_not_come_keeps_no_limit_from_being_raised() {
    let node = pod().await;
    node.world.left.lock().unwrap().free_mib = Some(512);
    slow(&node, true);
    let huge = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 512 * MIB}]});
    let creating = tokio::spawn(node.pod.clone().create(third(&node, huge)));
    is_asked_for(&node, 320 + 512 + 8).await;
    let mut raise = asks(&node, "app", memory(192));
    waits(&mut raise).await;
    slow(&node, false);
    assert_eq!(creating.await.unwrap().unwrap_err().code(), Some(Code::HostResource));
    raise.await.unwrap().unwrap();
    until("the domain has it", || node.world.left.lock().unwrap().memory.last() == Some(&385)).await;
}

/// Its caller's lock is held meanwhile, so that it is refused in time. What was refused does not come later: neither what was under way, nor what still
/// waited for its turn.
#[tokio::test]
async fn a_change_that_takes_long_is_refused_and_raises_nothing_later() {
    let node = Node::new(Habits::default()).await;
    create_with(&node, "run", json!({})).await.unwrap();
    create_with(&node, "app", limits(128, 100)).await.unwrap();
    create_with(&node, "side", limits(128, 100)).await.unwrap();
    let caps = || node.world.left.lock().unwrap().caps.clone();
    let had = caps();
    slow(&node, true);
    let raise = asks(&node, "app", limits(512, 300));
    is_asked_for(&node, 710).await;
    let mut next = asks(&node, "side", limits(256, 200));
    waits(&mut next).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(UPDATE_SECONDS)).await;
    for refused in [raise, next] {
        let error = refused.await.unwrap().unwrap_err();
        assert_eq!(error.code(), Some(Code::HostFailure));
        let what = format!("the limits are not changed within {UPDATE_SECONDS} s");
        assert!(error.to_string().contains(&what), "{error}");
    }
    tokio::time::resume();
    slow(&node, false);
    is_given(&node, &[710, 320]).await;
    // Whoever waited had its turn before this one.
    let harmless = json!({"cpu": {"shares": 2}});
    update(&node, "app", harmless.clone()).await.unwrap();
    assert_eq!(told(&node), [harmless]);
    assert_eq!(caps(), had);
    is_given(&node, &[710, 320]).await;
}

/// Nor is it where xl was slow with the cap, which was the last before the guest.
#[tokio::test]
async fn a_change_whose_cap_takes_long_is_refused_and_the_cap_falls_again() {
    let node = Node::new(Habits::default()).await;
    create_with(&node, "run", json!({})).await.unwrap();
    create_with(&node, "app", limits(128, 100)).await.unwrap();
    node.world.cap_takes_long.store(true, Ordering::Relaxed);
    let mut raise = asks(&node, "app", limits(128, 300));
    waits(&mut raise).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(UPDATE_SECONDS)).await;
    assert_eq!(raise.await.unwrap().unwrap_err().code(), Some(Code::HostFailure));
    tokio::time::resume();
    node.world.cap_takes_long.store(false, Ordering::Relaxed);
    let caps = || node.world.left.lock().unwrap().caps.clone();
    until("its cap is what it was", || caps() == [400, 125, 325, 125]).await;
    assert_eq!(told(&node), [Value::Null; 0]);
}

#[tokio::test]
async fn a_change_that_waits_for_its_turn_is_not_made_to_another_container_of_its_id() {
    let node = pod().await;
    slow(&node, true);
    let raise = asks(&node, "side", memory(512));
    is_asked_for(&node, 710).await;
    let mut next = asks(&node, "app", memory(256));
    waits(&mut next).await;
    for id in ["app", "side", "run"] {
        node.delete(id).await.unwrap();
    }
    create_with(&node, "run", json!({})).await.unwrap();
    create_with(&node, "app", memory(128)).await.unwrap();
    slow(&node, false);
    assert_eq!(next.await.unwrap().unwrap_err().code(), Some(Code::NoSuchTask));
    assert_eq!(raise.await.unwrap().unwrap_err().code(), Some(Code::GuestGone));
    assert_eq!(told(&node), [Value::Null; 0]);
    // Nor is the domain that is gone made smaller, for which those that went have waited.
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(node.world.left.lock().unwrap().memory_asked, [710]);
}

/// Each of them may take an xl and a guest their time, and all changes wait for it.
#[tokio::test]
async fn who_goes_while_somebody_has_the_turn_is_counted_once_with_all_others() {
    let node = pod().await;
    for id in ["a", "b", "c", "d", "e"] {
        create_with(&node, id, json!({})).await.unwrap();
    }
    node.world.left.lock().unwrap().free_mib = Some(0);
    slow(&node, true);
    let raise = asks(&node, "app", memory(512));
    is_asked_for(&node, 710).await;
    for id in ["a", "b", "c", "d", "e"] {
        node.delete(id).await.unwrap();
    }
    slow(&node, false);
    raise.await.unwrap().unwrap_err();
    // Its turn comes after theirs, and none could set anything.
    update(&node, "app", json!({"cpu": {"shares": 2}})).await.unwrap();
    assert_eq!(node.world.left.lock().unwrap().memory_asked, [710, 320, 320]);
}

/// Xen's bound and its cap are what holds a guest: a change that comes after this one may never be.
#[tokio::test]
async fn a_lowering_that_nobody_could_set_is_set_when_it_can_be() {
    let node = Node::new(Habits::default()).await;
    create_with(&node, "run", json!({})).await.unwrap();
    create_with(&node, "app", limits(128, 100)).await.unwrap();
    update(&node, "app", limits(512, 300)).await.unwrap();
    let caps = || node.world.left.lock().unwrap().caps.clone();
    // One of both at a time.
    for (less, cap) in [(limits(128, 300), 325), (limits(128, 100), 125)] {
        node.world.no_xl.store(true, Ordering::Relaxed);
        update(&node, "app", less).await.unwrap();
        // Its turn comes after that in which nothing could be set.
        asks(&node, "app", json!({"cpu": {"shares": 2}})).await.unwrap().unwrap();
        node.world.no_xl.store(false, Ordering::Relaxed);
        is_given(&node, &[710, 320]).await;
        until("its cap is less", || caps().last() == Some(&cap)).await;
    }
}

/// It would take none the next time either, and have the others wait for that.
#[tokio::test]
async fn a_guest_that_takes_no_memory_is_not_asked_again_for_nothing() {
    let node = pod().await;
    node.world.left.lock().unwrap().free_mib = Some(0);
    update(&node, "app", memory(512)).await.unwrap_err();
    is_asked_for(&node, 320).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(node.world.left.lock().unwrap().memory_asked, [710, 320]);
}

/// Its bound is the guest's to refuse, its CPU time is not.
#[tokio::test]
async fn who_takes_no_memory_is_held_to_its_cpus_limits() {
    let node = Node::new(Habits::default()).await;
    let cpu = |percent: u64| json!({"cpu": {"quota": percent * 1000}});
    create_with(&node, "run", json!({})).await.unwrap();
    for id in ["app", "side"] {
        create_with(&node, id, cpu(100)).await.unwrap();
    }
    update(&node, "app", cpu(300)).await.unwrap();
    let caps = || node.world.left.lock().unwrap().caps.clone();
    let had = caps();
    assert_eq!(had.last(), Some(&425));
    node.world.left.lock().unwrap().free_mib = Some(0);
    let both = json!({"memory": {"limit": 512 * MIB}, "cpu": {"quota": 500_000}});
    let error = update(&node, "app", both).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::HostResource));
    update(&node, "app", cpu(50)).await.unwrap();
    until("less is what it has", || caps().last() == Some(&175)).await;
    // Nor does it keep a limit from being raised that is none of memory.
    update(&node, "app", cpu(150)).await.unwrap();
    node.delete("side").await.unwrap();
    until("what is gone has no part", || caps().last() == Some(&175)).await;
    assert_eq!(caps(), [&had[..], &[175, 275, 175]].concat());
}

fn third(node: &Node, resources: Value) -> api::CreateTaskRequest {
    request_of(node, "third", json!({}), resources)
}
