//! The guest's clock follows the node's.

use std::time::{Instant, SystemTime};

use super::{stubborn::pass, *};

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
async fn a_guest_is_told_the_time_each_minute_and_when_a_container_goes_on() {
    let node = Node::new(Habits::default()).await;
    let begun = SystemTime::now();
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    assert_eq!(node.world.clocks.lock().unwrap()[..], [], "the hello has it");
    pass(Duration::from_secs(61)).await;
    let clock = set(&node, 1).await;
    assert!((begun..=SystemTime::now()).contains(&clock), "{clock:?}");
    let before = node.world.clocks.lock().unwrap().len();
    node.pod.clone().freeze("run".into(), true).await.unwrap();
    node.pod.clone().freeze("run".into(), false).await.unwrap();
    assert!(set(&node, before + 1).await > clock);
}

/// What it heard late is a clock that is late.
#[tokio::test]
async fn a_time_that_the_guest_heard_late_is_told_again() {
    let node = Node::new(Habits { is_slow: true, ..Habits::default() }).await;
    node.create("run").await.unwrap();
    node.pod.set_clock().await;
    assert_eq!(node.world.clocks.lock().unwrap().len(), 3, "and not for ever");
}
