//! From a SIGKILL to the exit, whatever the guest does and however long its domain takes to go.

use std::{sync::atomic::Ordering, time::Instant};

use super::*;
use crate::{container::stage::Stage, pod::steps::Cut};
use fake_guest::STUCK;
use world::World;

/// As the node is configured.
const LIMIT: Duration = Duration::from_secs(5);

async fn running(habits: Habits) -> Node {
    let world = World::configured(habits, |config| {
        config.shim.kill_timeout_s = vgpu_config::Config::default().shim.kill_timeout_s;
    });
    let node = Node::of(world, Cut::default()).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    node.exec("run", "e").await.unwrap();
    node.start("run", "e").await.unwrap();
    node
}

#[tokio::test]
async fn a_silent_guest_is_dead_five_seconds_after_sigkill() {
    for habits in [Habits { hangs: true, ..Habits::default() }, Habits { lies: true, ..Habits::default() }] {
        let node = running(habits).await;
        node.world.destroying_takes_long.store(true, Ordering::Relaxed);
        let killed = Instant::now();
        let (first, second) = tokio::join!(node.kill("run", 9), node.kill("run", 9));
        first.and(second).unwrap();
        assert_eq!((node.wait("run", "").await, node.wait("run", "e").await), (137, 137));
        node.hears(6).await;
        assert!(killed.elapsed() < LIMIT, "{:?}", killed.elapsed());
        let told = ["create", "start", "exec-added", "exec-started", "exit", "exit"];
        assert_eq!(node.events().await, told);
        {
            let left = node.world.left.lock().unwrap();
            assert!(left.backends.is_empty(), "its share is still served");
            assert_eq!((left.domains.len(), left.halted.len()), (1, 1), "it was told before it was dead");
        }
        // What is left of the domain is not forgotten.
        let later = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            node.world.destroying_takes_long.store(false, Ordering::Relaxed);
        };
        let (deleted, ()) = tokio::join!(node.delete("run"), later);
        assert_eq!(deleted.unwrap(), 137);
        node.world.assert_nothing_left("after delete");
    }
}

/// Its destruction alone says that it runs no more, and is waited for.
#[tokio::test]
async fn of_a_domain_that_cannot_be_halted_no_exit_is_told_before_it_is_destroyed() {
    let node = running(Habits { hangs: true, never_halts: true, ..Habits::default() }).await;
    node.world.destroying_takes_long.store(true, Ordering::Relaxed);
    let killing = node.kill("run", 9);
    let watching = async {
        tokio::time::sleep(LIMIT).await;
        let state = node.state("run", "");
        assert_eq!(node.world.destroyings.load(Ordering::Relaxed), 1, "to halt it took too long");
        node.world.destroying_takes_long.store(false, Ordering::Relaxed);
        state
    };
    let (killed, state) = tokio::join!(killing, watching);
    killed.unwrap();
    assert_eq!(state, (true, api::Status::RUNNING, None));
    assert_eq!(node.wait("run", "").await, 137);
    assert!(node.world.left.lock().unwrap().domains.is_empty());
}

/// A halted domain's streams do not end: who is asked for a start, and who waits for output, would hear of it when the domain is destroyed.
#[tokio::test]
async fn what_waits_for_a_guest_ends_with_it_and_not_with_its_domain() {
    let world = World::configured(Habits { lies: true, ..Habits::default() }, |config| {
        config.shim.kill_timeout_s = vgpu_config::Config::default().shim.kill_timeout_s;
    });
    let node = Node::of(world, Cut::default()).await;
    let mut request = node.request("run", json!({}));
    request.stdout = format!("file://{}", node.world.dir.path().join("out").display());
    node.pod.clone().create(request).await.unwrap();
    node.start("run", "").await.unwrap();
    node.exec("run", STUCK).await.unwrap();
    let request = api::StartRequest { id: "run".into(), exec_id: STUCK.into(), ..Default::default() };
    let starting = tokio::spawn(node.pod.clone().start(request));
    let container = node.pod.container("run").unwrap();
    until("its start has begun", || matches!(container.stage(&Who::of(STUCK)), Ok(Stage::Starting(_)))).await;
    node.world.destroying_takes_long.store(true, Ordering::Relaxed);
    let killed = Instant::now();
    node.kill("run", 9).await.unwrap();
    assert_eq!((node.wait("run", "").await, node.wait("run", STUCK).await), (137, 137));
    node.hears(4).await;
    assert!(killed.elapsed() < LIMIT, "{:?}", killed.elapsed());
    assert_eq!(starting.await.unwrap().unwrap_err().code(), Some(Code::GuestGone));
    assert_eq!(node.events().await, ["create", "start", "exec-added", "exit"]);
    node.world.destroying_takes_long.store(false, Ordering::Relaxed);
    node.domain_goes().await;
    let deleting = Instant::now();
    assert_eq!(node.delete("run").await.unwrap(), 137);
    assert!(deleting.elapsed() < LIMIT, "it waited for output: {:?}", deleting.elapsed());
    node.world.assert_nothing_left("after delete");
}

/// An init that ended takes its execs with it; a guest that says nothing of them, and answers a SIGKILL for what it likes, is no better off.
#[tokio::test]
async fn an_exit_that_is_held_is_told_in_five_seconds_too() {
    for killed in [false, true] {
        let node = running(Habits { lies: true, ..Habits::default() }).await;
        let begun = Instant::now();
        node.world.end("run", 7);
        if killed {
            // Its end is known from here on.
            let mut ids = (0..).map(|n| format!("f{n}"));
            while node.exec("run", &ids.next().unwrap()).await.is_ok() {}
            assert_eq!(node.state("run", ""), (true, api::Status::RUNNING, None));
            node.kill("run", 9).await.unwrap();
        }
        assert_eq!((node.wait("run", "").await, node.wait("run", "e").await), (7, 137));
        assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
        assert_eq!(node.events().await[..4], ["create", "start", "exec-added", "exec-started"]);
        node.domain_goes().await;
        assert_eq!(node.delete("run").await.unwrap(), 7);
        node.world.assert_nothing_left("after delete");
    }
}

/// Five seconds are not kept then, and who asks for the kill is answered.
#[tokio::test]
async fn while_xl_is_missing_no_exit_is_told_and_then_at_once() {
    let node = running(Habits { hangs: true, ..Habits::default() }).await;
    node.world.no_xl.store(true, Ordering::Relaxed);
    let killed = Instant::now();
    node.kill("run", 9).await.unwrap();
    assert!(killed.elapsed() < LIMIT, "{:?}", killed.elapsed());
    tokio::time::sleep(LIMIT).await;
    assert_eq!(node.state("run", ""), (true, api::Status::RUNNING, None));
    {
        let left = node.world.left.lock().unwrap();
        assert!(left.backends.is_empty(), "who serves its files still runs");
        assert_eq!((left.domains.len(), left.halted.len()), (1, 0));
    }
    node.world.destroying_takes_long.store(true, Ordering::Relaxed);
    node.world.no_xl.store(false, Ordering::Relaxed);
    assert_eq!((node.wait("run", "").await, node.wait("run", "e").await), (137, 137));
    assert_eq!(node.world.left.lock().unwrap().halted.len(), 1, "it was told before it was dead");
    node.world.destroying_takes_long.store(false, Ordering::Relaxed);
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}
