//! From a SIGKILL to the exit, whatever the guest does and however long its domain takes to go.

use std::{sync::atomic::Ordering, time::Instant};

use super::*;
use crate::pod::steps::Cut;
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
