//! Pause and Resume: what State says is what the guest did.

use api::Status;
use fake_guest::{FAILING, IGNORED, LOST, SLOW};

use super::*;

async fn running(id: &str, habits: Habits) -> Node {
    let node = Node::new(habits).await;
    node.create(id).await.unwrap();
    node.start(id, "").await.unwrap();
    node.exec(id, "e").await.unwrap();
    node.start(id, "e").await.unwrap();
    node
}

/// What init and its exec are in.
fn status(node: &Node, id: &str) -> [Status; 2] {
    ["", "e"].map(|exec| node.state(id, exec).1)
}

/// Asks for it, and lets the time for an answer pass.
async fn freeze(node: &Node, id: &str, pause: bool) -> Option<Option<Code>> {
    let asked = tokio::spawn(node.pod.clone().freeze(id.into(), pause));
    let begun = std::time::Instant::now();
    while pause && status(node, id) != [Status::PAUSING; 2] {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", status(node, id));
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    let answer = asked.await.unwrap();
    tokio::time::resume();
    answer.err().map(|error| error.code())
}

#[tokio::test]
async fn a_paused_container_says_so_and_takes_no_exec() {
    let node = running("run", Habits::default()).await;
    assert_eq!(freeze(&node, "run", true).await, None);
    assert_eq!(status(&node, "run"), [Status::PAUSED; 2]);
    assert_eq!(node.exec("run", "f").await.unwrap_err().code(), Some(Code::WrongState));
    assert_eq!(freeze(&node, "run", false).await, None);
    assert_eq!(status(&node, "run"), [Status::RUNNING; 2]);
    let told = ["create", "start", "exec-added", "exec-started", "paused", "resumed"];
    assert_eq!(node.events().await, told);
}

#[tokio::test]
async fn a_pause_whose_answer_is_lost_is_what_the_guest_says() {
    let node = running(LOST, Habits::default()).await;
    assert_eq!(freeze(&node, LOST, true).await, None, "it was done");
    assert_eq!(status(&node, LOST), [Status::PAUSED; 2]);
    assert_eq!(freeze(&node, LOST, false).await, None, "it was done");
    assert_eq!(status(&node, LOST), [Status::RUNNING; 2]);
    assert_eq!(node.events().await[4..], ["paused", "resumed"]);

    let node = running(IGNORED, Habits::default()).await;
    assert_eq!(freeze(&node, IGNORED, true).await, Some(Some(Code::GuestSilent)));
    assert_eq!(status(&node, IGNORED), [Status::RUNNING; 2]);
    assert_eq!(node.events().await.len(), 4);

    let node = running("run", Habits { hangs: true, ..Habits::default() }).await;
    assert_eq!(freeze(&node, "run", true).await, Some(Some(Code::GuestSilent)));
    assert_eq!(status(&node, "run"), [Status::STOPPED; 2]);
    assert_eq!(node.events().await[4..], ["exit", "exit"]);
    node.domain_goes().await;
}

#[tokio::test]
async fn a_container_that_is_gone_when_its_pause_is_asked_for_again_spares_its_pod() {
    let node = Node::new(Habits::default()).await;
    for (id, kind) in [("pause", "sandbox"), (LOST, "container")] {
        node.pod.clone().create(node.request(id, stubborn::in_pod(kind))).await.unwrap();
        node.start(id, "").await.unwrap();
    }
    let asked = tokio::spawn(node.pod.clone().freeze(LOST.into(), true));
    until("it is asked", || node.state(LOST, "").1 == Status::PAUSING).await;
    node.world.end(LOST, 3);
    assert_eq!(node.wait(LOST, "").await, 3);
    node.delete(LOST).await.unwrap();
    tokio::time::pause();
    assert_eq!(asked.await.unwrap().unwrap_err().code(), Some(Code::GuestSilent));
    tokio::time::resume();
    assert_eq!(node.state("pause", ""), (true, Status::RUNNING, None));
    assert_eq!(node.events().await, ["create", "start", "create", "start", "exit", "delete"]);
}

/// Of the two Resumes one is done, and the other one refused in the middle of the Pause that follows.
#[tokio::test]
async fn a_refused_resume_ends_no_pause_that_is_under_way() {
    let node = running(SLOW, Habits::default()).await;
    let freeze = |pause| node.pod.clone().freeze(SLOW.into(), pause);
    freeze(true).await.unwrap();
    node.world.freezes.send_replace(0);
    let mut resuming = tokio::task::JoinSet::new();
    resuming.spawn(freeze(false));
    resuming.spawn(freeze(false));
    resuming.join_next().await.unwrap().unwrap().unwrap();
    let pausing = tokio::spawn(freeze(true));
    until("it is asked", || status(&node, SLOW) == [Status::PAUSING; 2]).await;
    node.world.freezes.send_replace(1);
    resuming.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(status(&node, SLOW), [Status::PAUSING; 2]);
    node.world.freezes.send_replace(2);
    pausing.await.unwrap().unwrap();
    assert_eq!(status(&node, SLOW), [Status::PAUSED; 2]);
    assert_eq!(node.events().await[4..], ["paused", "resumed", "paused"]);
}

#[tokio::test]
async fn a_pause_that_failed_in_the_guest_is_what_the_guest_says() {
    let node = running(FAILING, Habits::default()).await;
    assert_eq!(freeze(&node, FAILING, true).await, None, "it was done");
    assert_eq!(status(&node, FAILING), [Status::PAUSED; 2]);
    assert_eq!(freeze(&node, FAILING, false).await, None, "it was done");
    assert_eq!(status(&node, FAILING), [Status::RUNNING; 2]);
    assert_eq!(node.events().await[4..], ["paused", "resumed"]);
}
