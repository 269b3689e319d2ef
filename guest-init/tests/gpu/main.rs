//! Stories of GPU processes in a container: idm's own client at the socket, a proxy at the other end of the GPU stream that maps the same
//! memory. Only the domain's border is missing: pages are a memfd here, ports eventfds.

mod arenas;
mod questions;
mod world;

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use idm::{
    ChannelError, Peer,
    record::{Consumer, Ready, Submitter},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vgpu_zone_api::guest::{ChannelId, Connect, ToGuest, ToProxy};
use world::World;

const LONG: Duration = Duration::from_secs(20);
const WIRE_HASH: u64 = 0xc0da;

/// Answers one call with the sum of its bytes.
fn serve_one(mut worker: Consumer) -> JoinHandle<Consumer> {
    thread::spawn(move || {
        assert_eq!(worker.wait(Some(LONG)).unwrap(), Ready::Record);
        let record = worker.next().unwrap().unwrap();
        let sum = record.payload.iter().map(|byte| u32::from(*byte)).sum();
        let (lane, seq) = (record.lane.unwrap(), record.seq);
        worker.replies().reply(lane, seq, sum, b"").unwrap();
        worker
    })
}

/// Answers calls until their process ends, each as [`serve_one`] does. How many there were.
fn serve_all(mut worker: Consumer) -> JoinHandle<u32> {
    thread::spawn(move || {
        let mut calls = 0;
        while worker.wait(Some(LONG)) == Ok(Ready::Record) {
            while let Some(record) = worker.next().unwrap() {
                let sum = record.payload.iter().map(|byte| u32::from(*byte)).sum();
                let (lane, seq) = (record.lane.unwrap(), record.seq);
                worker.replies().reply(lane, seq, sum, b"").unwrap();
                calls += 1;
            }
        }
        calls
    })
}

fn call(submitter: &Submitter) -> Result<u32, ChannelError> {
    submitter.call(1, 0, &[1, 2, 3], &mut [0; 16], Some(LONG)).map(|reply| reply.status)
}

#[tokio::test]
async fn a_call_crosses_and_the_pages_stay_until_the_proxy_let_go() {
    let mut world = World::new().await;
    let program = world.program(|connected| {
        let submitter = connected.unwrap();
        // Parked, not polling: the rings have to cross both ways.
        thread::sleep(Duration::from_millis(50));
        call(&submitter)
    });
    let connect = world.connected().await;
    assert_eq!((connect.container.as_str(), connect.wire_hash), ("c1", WIRE_HASH));
    assert_eq!((connect.pid, connect.port, connect.refs), (std::process::id(), 7, vec![8, 9]));
    let worker = serve_one(world.worker());
    world.say(ToGuest::Accepted { channel: connect.channel, arena_mib: 0 }).await;

    // The program ends after its call: the guest says so.
    assert_eq!(world.heard().await, ToProxy::Close { channel: connect.channel });
    assert_eq!(program.join().unwrap(), Ok(6));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 1, "the proxy has not let go yet");
    drop(worker.join().unwrap());
    world.say(ToGuest::Unmapped { channel: connect.channel }).await;
    world.wait_for_plots(0).await;
}

/// A process can call, and its worker answer, before this side's tasks for it run.
#[tokio::test]
async fn a_ring_that_comes_before_anybody_listens_reaches_the_program() {
    let mut world = World::new().await;
    let program = world.program(|connected| {
        let submitter = connected.unwrap();
        let unanswered = submitter.call(1, 0, &[], &mut [0; 16], Some(Duration::from_millis(500)));
        (unanswered.is_err(), submitter.sleeps())
    });
    let channel = world.connected().await.channel;
    let far = world.ground.far.lock().unwrap().pop().unwrap();
    rustix::io::write(&far.rings, &1_u64.to_ne_bytes()).unwrap();
    world.say(ToGuest::Accepted { channel, arena_mib: 0 }).await;
    assert_eq!(world.heard().await, ToProxy::Close { channel });
    assert_eq!(program.join().unwrap(), (true, 2), "once until it was rung, once more until its limit");
    world.say(ToGuest::Unmapped { channel }).await;
    world.wait_for_plots(0).await;
}

/// One after the other, as the children of a test program; each is rung for each of its calls.
#[tokio::test]
async fn no_call_of_many_processes_is_left_asleep() {
    const PROCESSES: u32 = 60;
    const CALLS: u32 = 20;
    let mut world = World::new().await;
    for _ in 0..PROCESSES {
        let program = world.program(|connected| {
            let submitter = connected.unwrap();
            (0..CALLS).all(|_| call(&submitter) == Ok(6))
        });
        let channel = world.connected().await.channel;
        let worker = serve_all(world.worker());
        world.say(ToGuest::Accepted { channel, arena_mib: 0 }).await;
        assert_eq!(world.heard().await, ToProxy::Close { channel });
        assert!(program.join().unwrap(), "a call was not answered");
        assert_eq!(worker.join().unwrap(), CALLS);
        world.say(ToGuest::Unmapped { channel }).await;
    }
    world.wait_for_plots(0).await;
}

#[tokio::test]
async fn a_refusal_reaches_the_program_with_its_code() {
    let mut world = World::new().await;
    let program = world.program(|connected| connected.map(drop));
    let channel = world.connected().await.channel;
    world.say(ToGuest::Refused { channel, code: 403 }).await;
    world.wait_for_plots(0).await;
    assert_eq!(program.join().unwrap(), Err(ChannelError::Refused { peer: Peer::Server, code: 403 }));
}

#[tokio::test]
async fn a_worker_that_dies_is_an_error_for_the_program_and_not_a_hang() {
    let mut world = World::new().await;
    let program = world.program(|connected| call(&connected.unwrap()));
    let channel = world.connected().await.channel;
    world.say(ToGuest::Accepted { channel, arena_mib: 0 }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.say(ToGuest::Died { channel, code: 406 }).await;
    let began = Instant::now();
    while !program.is_finished() {
        assert!(began.elapsed() < Duration::from_secs(5), "the program hangs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(program.join().unwrap(), Err(ChannelError::PeerGone(Peer::Server)));
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 1);
    world.say(ToGuest::Unmapped { channel }).await;
    world.wait_for_plots(0).await;
}

#[tokio::test]
async fn a_proxy_that_dies_ends_programs_but_not_what_its_workers_still_map() {
    let mut world = World::new().await;
    let program = world.program(|connected| call(&connected.unwrap()));
    let channel: ChannelId = world.connected().await.channel;
    let worker = world.worker();
    world.say(ToGuest::Accepted { channel, arena_mib: 0 }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let World { stream, ground, .. } = &mut world;
    stream.shutdown().await.unwrap();
    let ground = Arc::clone(ground);
    let ended = tokio::task::spawn_blocking(move || program.join().unwrap());
    let ended =
        tokio::time::timeout(Duration::from_secs(5), ended).await.expect("the program hangs").unwrap();
    assert_eq!(ended, Err(ChannelError::PeerGone(Peer::Server)));

    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(ground.plots.load(Ordering::SeqCst), 1, "a worker still maps them");
    drop(worker);
    world.wait_for_plots(0).await;
}

#[tokio::test]
async fn a_door_that_is_closed_takes_nobody_in() {
    let mut world = World::new().await;
    drop(world.door.take());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let program = world.program(|connected| connected.is_err());
    assert!(program.join().unwrap());
}

#[tokio::test]
async fn bytes_that_are_no_hello_are_turned_away() {
    let mut world = World::new().await;
    let mut stranger = tokio::net::UnixStream::connect(&world.socket).await.unwrap();
    stranger.write_all(&[0x47; 64]).await.unwrap();
    assert_eq!(stranger.read(&mut [0; 8]).await.unwrap_or(0), 0);
    // The door is still open for others.
    let program = world.program(|connected| connected.map(drop));
    let channel = world.connected().await.channel;
    world.say(ToGuest::Refused { channel, code: 404 }).await;
    assert!(tokio::task::spawn_blocking(move || program.join().unwrap().is_err()).await.unwrap());
}

/// Their pages are not counted against the container: only what the proxy accepted, and a few that it was asked for.
#[tokio::test]
async fn processes_that_the_proxy_has_not_judged_hold_few_pages() {
    let mut world = World::new().await;
    let programs: Vec<_> = (0..7).map(|_| world.program(|connected| connected.map(drop).is_ok())).collect();
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(world.connected().await.channel);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 4, "the others have none yet");

    // One that was judged, either way, makes room for the next.
    world.say(ToGuest::Refused { channel: asked[0], code: 404 }).await;
    asked.push(world.connected().await.channel);
    world.say(ToGuest::Accepted { channel: asked[1], arena_mib: 0 }).await;
    let (mut closed, mut next) = (false, None);
    while !closed || next.is_none() {
        match world.heard().await {
            ToProxy::Close { channel } => closed = channel == asked[1],
            ToProxy::Connect(connect) => next = Some(connect.channel),
            other => panic!("nobody asked: {other:?}"),
        }
    }
    // Its process is gone, and the proxy has not let go: accepted pages are the proxy's to count.
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 5);
    asked.push(next.unwrap());
    world.say(ToGuest::Unmapped { channel: asked[1] }).await;
    world.say(ToGuest::Refused { channel: asked[2], code: 404 }).await;
    asked.push(world.connected().await.channel);
    for channel in &asked[3..] {
        world.say(ToGuest::Refused { channel: *channel, code: 404 }).await;
    }
    world.wait_for_plots(0).await;
    let ended = tokio::task::spawn_blocking(|| {
        programs.into_iter().map(|program| program.join().unwrap()).filter(|ok| *ok).count()
    });
    assert_eq!(ended.await.unwrap(), 1);
}
