//! Arenas and their chunks.

use std::sync::mpsc;

use idm::{
    arena::{CHUNK_PAGES, KEPT_SINCE_MINOR},
    connect::Connected,
    hello::Hello,
};

use super::*;

/// A program that holds its arena until it is told to end; how long that is, and whether it is kept.
fn with_arena(world: &World, hello: Hello) -> (JoinHandle<Option<(u64, bool)>>, mpsc::Sender<()>) {
    let (end, ended) = mpsc::channel();
    let program = world.program_of(hello, move |connected| {
        let Connected { submitter, arena, .. } = connected.unwrap();
        let _ = ended.recv_timeout(LONG);
        drop(submitter);
        arena.map(|arena| (arena.bytes(), arena.is_kept()))
    });
    (program, end)
}

#[tokio::test]
async fn an_arena_is_handed_over_and_its_chunks_are_granted_until_the_proxy_let_go() {
    let mut world = World::new().await;
    let (program, end) = with_arena(&world, Hello::new(64 << 10, WIRE_HASH));
    let channel = world.connected().await.channel;
    // Before it is accepted a channel has none.
    world.say(ToGuest::Want { channel, chunk: 0 }).await;
    world.say(ToGuest::Accepted { channel, arena_mib: 9 }).await;
    for chunk in [1, 3, 1] {
        world.say(ToGuest::Want { channel, chunk }).await;
        let refs = vec![100 + chunk; CHUNK_PAGES];
        assert_eq!(world.heard().await, ToProxy::Chunk { channel, chunk, refs });
    }
    // No grant is left; what is granted stays, also when the program has ended.
    world.say(ToGuest::Want { channel, chunk: 2 }).await;
    assert_eq!(world.heard().await, ToProxy::Lack { channel, chunk: 2 });
    end.send(()).unwrap();
    assert_eq!(world.heard().await, ToProxy::Close { channel });
    assert_eq!(program.join().unwrap(), Some((8 << 20, true)), "whole chunks");
    world.say(ToGuest::Want { channel, chunk: 1 }).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.ground.arenas.load(Ordering::SeqCst), 1, "the proxy has not let go yet");
    world.say(ToGuest::Unmapped { channel }).await;
    world.wait_for_plots(0).await;
    assert_eq!(world.ground.arenas.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_program_that_does_not_know_kept_arenas_gets_none_and_nothing_is_granted() {
    let mut world = World::new().await;
    let old = Hello { minor: KEPT_SINCE_MINOR - 1, ..Hello::new(64 << 10, WIRE_HASH) };
    for (hello, arena_mib) in [(old, 9), (Hello::new(64 << 10, WIRE_HASH), 0)] {
        let (program, end) = with_arena(&world, hello);
        let channel = world.connected().await.channel;
        world.say(ToGuest::Accepted { channel, arena_mib }).await;
        world.say(ToGuest::Want { channel, chunk: 0 }).await;
        assert_eq!(world.heard().await, ToProxy::Lack { channel, chunk: 0 });
        end.send(()).unwrap();
        assert_eq!(world.heard().await, ToProxy::Close { channel });
        assert_eq!(program.join().unwrap(), None);
        world.say(ToGuest::Unmapped { channel }).await;
        world.wait_for_plots(0).await;
    }
}

#[tokio::test]
async fn chunks_stay_granted_while_a_worker_of_a_proxy_that_died_maps_them() {
    let mut world = World::new().await;
    let (program, end) = with_arena(&world, Hello::new(64 << 10, WIRE_HASH));
    let channel = world.connected().await.channel;
    let worker = world.worker();
    world.say(ToGuest::Accepted { channel, arena_mib: 4 }).await;
    world.say(ToGuest::Want { channel, chunk: 0 }).await;
    assert!(matches!(world.heard().await, ToProxy::Chunk { .. }));
    world.stream.shutdown().await.unwrap();
    end.send(()).unwrap();
    tokio::task::spawn_blocking(move || program.join().unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.ground.arenas.load(Ordering::SeqCst), 1, "a worker still maps them");
    drop(worker);
    world.wait_for_plots(0).await;
    assert_eq!(world.ground.arenas.load(Ordering::SeqCst), 0);
}
