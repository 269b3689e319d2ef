//! The guest's clock follows the node's.

use std::time::{Instant, SystemTime};

use rustix::fs::FlockOperation;

use super::{stubborn::pass, *};
use crate::pod::clock::tests::turn;

/// Waits until it was set so often, and says when to.
async fn set(node: &Node, times: usize) -> SystemTime {
    let begun = Instant::now();
    loop {
        if let Some(clock) = node.world.clocks.lock().unwrap().get(times - 1) {
            return *clock;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it is not set {times} times");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_guest_is_told_the_time_each_minute() {
    let _nobody_sets_it = turn(FlockOperation::LockShared);
    let node = Node::new(Habits::default()).await;
    let begun = SystemTime::now();
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    assert_eq!(node.world.clocks.lock().unwrap()[..], [], "the hello has it");
    pass(Duration::from_secs(61)).await;
    let clock = set(&node, 1).await;
    assert!((begun..=SystemTime::now()).contains(&clock), "{clock:?}");
}

#[tokio::test]
async fn a_guest_is_told_the_time_when_a_container_goes_on() {
    let _nobody_sets_it = turn(FlockOperation::LockShared);
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    node.pod.clone().freeze("run".into(), true).await.unwrap();
    assert_eq!(node.world.clocks.lock().unwrap()[..], []);
    node.pod.clone().freeze("run".into(), false).await.unwrap();
    set(&node, 1).await;
}

/// What it heard late is a clock that is late.
#[tokio::test]
async fn a_time_that_the_guest_heard_late_is_told_again() {
    let _nobody_sets_it = turn(FlockOperation::LockShared);
    let node = Node::new(Habits { is_slow: true, ..Habits::default() }).await;
    node.create("run").await.unwrap();
    node.pod.clock.notify_one();
    let (at_once, later) = (set(&node, 3).await, set(&node, 4).await);
    let between = later.duration_since(at_once).unwrap();
    assert!((Duration::from_secs(1)..Duration::from_secs(60)).contains(&between), "{between:?}");
}

/// It may hear it yet, and set a right clock back.
#[tokio::test]
async fn a_time_that_the_guest_has_not_heard_is_told_again() {
    let _nobody_sets_it = turn(FlockOperation::LockShared);
    let node = Node::new(Habits { hangs: true, ..Habits::default() }).await;
    node.create("run").await.unwrap();
    node.pod.clock.notify_one();
    set(&node, 1).await;
    // It has 10 s to answer.
    pass(Duration::from_secs(12)).await;
    set(&node, 2).await;
}
