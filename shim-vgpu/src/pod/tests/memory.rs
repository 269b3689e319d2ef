//! Kills for want of memory: each is told once, and before the exit that follows from it.

use super::*;

/// A container that runs, and was killed from `kills` times.
async fn killed_from(habits: Habits, kills: u64) -> Node {
    let node = Node::new(habits).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    (0..kills).for_each(|_| node.world.oom.kill("run"));
    node
}

async fn ends(node: &Node) {
    node.world.end("run", 137);
    assert_eq!(node.wait("run", "").await, 137);
}

#[tokio::test]
async fn an_oom_kill_is_told_before_the_exit_however_slow_the_poll_is() {
    let node = killed_from(Habits::default(), 2).await;
    ends(&node).await;
    let told = ["create", "start", "oom", "oom", "exit"];
    assert_eq!(node.events().await, told);
    // The poll comes to both of them, and each is asked for.
    let mut asked = node.world.oom.asked.subscribe();
    let before = *asked.borrow_and_update();
    node.world.oom.poll();
    asked.wait_for(|asked| *asked == before + 2).await.unwrap();
    node.delete("run").await.unwrap();
    assert_eq!(node.events().await, [&told[..], &["delete"]].concat());
}

#[tokio::test]
async fn a_kill_that_the_poll_told_is_not_told_again_with_the_exit() {
    let node = killed_from(Habits::default(), 1).await;
    node.world.oom.poll();
    node.hears(3).await;
    assert_eq!(node.events().await, ["create", "start", "oom"]);
    node.world.oom.kill("run");
    ends(&node).await;
    assert_eq!(node.events().await, ["create", "start", "oom", "oom", "exit"]);
}

#[tokio::test]
async fn a_guest_that_has_no_count_tells_its_kills_by_the_poll() {
    let node = killed_from(Habits { is_old: true, ..Habits::default() }, 1).await;
    node.world.oom.poll();
    node.hears(3).await;
    ends(&node).await;
    assert_eq!(node.events().await, ["create", "start", "oom", "exit"]);
}

/// One that does not answer keeps no exit back, and one that counts as it likes does not fill containerd.
#[tokio::test]
async fn a_guest_that_counts_badly_is_not_waited_for_and_not_believed() {
    let node = killed_from(Habits { hangs: true, ..Habits::default() }, 1).await;
    ends(&node).await;
    assert_eq!(node.events().await, ["create", "start", "exit"]);

    let node = killed_from(Habits::default(), 0).await;
    for (n, count) in [u64::MAX, 0, u64::MAX].into_iter().enumerate() {
        node.world.oom.kills.lock().unwrap().insert("run".into(), count);
        let id = format!("exit{n}");
        node.exec("run", &id).await.unwrap();
        node.start("run", &id).await.unwrap();
        node.wait("run", &id).await;
    }
    ends(&node).await;
    let events = node.events().await;
    assert_eq!(events.iter().filter(|event| *event == "oom").count(), 16, "{events:?}");
    assert_eq!(events.last().unwrap(), "exit");

    // Of one that tells by itself, ten a second.
    let node = killed_from(Habits::default(), 100).await;
    let mut asked = node.world.oom.asked.subscribe();
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    node.world.oom.poll();
    asked.wait_for(|asked| *asked == 2).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(1600), "{:?}", begun.elapsed());
}
