//! Questions of processes that only ask.

use idm::hello::Hello;
use vgpu_zone_api::guest::{
    facts::{self, Facts, ProcessFacts},
    wire,
};

use super::*;

/// Refused with this code.
fn refused(code: u16) -> Result<Facts, ChannelError> {
    Err(ChannelError::Refused { peer: Peer::Server, code })
}

#[tokio::test]
async fn a_question_is_answered_without_a_page_and_with_the_pids_that_the_process_knows() {
    let mut world = World::new().await;
    let asker = world.asker();
    let question = world.asked().await;
    // This test's process is the only one that it can see; PID 2 of a machine is a kernel's thread, if anybody's.
    let seen = std::process::id();
    let process = |pid| ProcessFacts { device: 0, pid, used_bytes: 5 };
    let facts =
        Facts { cuda_version: 13000, processes: vec![process(seen), process(u32::MAX)], ..Facts::default() };
    world.say(ToGuest::Told { question, code: 0, answer: facts.encode() }).await;
    let told = tokio::task::spawn_blocking(move || asker.join().unwrap()).await.unwrap().unwrap();
    assert_eq!((told.cuda_version, told.processes.len()), (13000, 1));
    assert_eq!(told.processes[0].used_bytes, 5);
    assert_eq!(world.ground.plots.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_question_is_refused_with_the_proxys_code_or_by_an_older_proxy() {
    let mut world = World::new().await;
    let asker = world.asker();
    let question = world.asked().await;
    world.say(ToGuest::Told { question, code: 403, answer: Vec::new() }).await;
    let told = tokio::task::spawn_blocking(move || asker.join().unwrap());
    assert_eq!(told.await.unwrap(), refused(403));

    // It would take the question for a broken stream.
    let world = World::with_minor(wire::MINOR_ASK - 1).await;
    let asker = world.asker();
    let told = tokio::task::spawn_blocking(move || asker.join().unwrap());
    assert_eq!(told.await.unwrap(), refused(501));
}

#[tokio::test]
async fn a_question_whose_proxy_dies_is_refused_and_one_whose_process_dies_is_forgotten() {
    let mut world = World::new().await;
    let mut gone = tokio::net::UnixStream::connect(&world.socket).await.unwrap();
    gone.write_all(&Hello::new(64 << 10, facts::APPLICATION).encode()).await.unwrap();
    let first = world.asked().await;
    drop(gone);
    let asker = world.asker();
    let second = world.asked().await;
    assert_ne!(first, second);
    world.say(ToGuest::Told { question: first, code: 0, answer: Facts::default().encode() }).await;
    world.stream.shutdown().await.unwrap();
    let told = tokio::task::spawn_blocking(move || asker.join().unwrap());
    assert_eq!(told.await.unwrap(), refused(401));
}
