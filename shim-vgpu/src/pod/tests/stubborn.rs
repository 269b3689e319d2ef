//! Guests that answer and do something else, or nothing: no process is left that nobody follows or ends.

use super::*;
use fake_guest::{MUTE, SLOW};

pub fn in_pod(kind: &str) -> serde_json::Value {
    json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pause"})
}

/// Lets a time pass at once, for those who wait for nothing else.
pub async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::sleep(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_guest_that_acknowledges_a_sigkill_and_does_nothing_is_destroyed() {
    let node = Node::new(Habits { lies: true, ..Habits::default() }).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    node.exec("run", "e").await.unwrap();
    node.start("run", "e").await.unwrap();
    node.kill("run", 15).await.unwrap();
    pass(Duration::from_secs(60)).await;
    assert_eq!(node.world.left.lock().unwrap().domains.len(), 1, "other signals may be ignored");
    node.kill("run", 9).await.unwrap();
    node.kill("run", 9).await.unwrap();
    assert_eq!((node.wait("run", "").await, node.wait("run", "e").await), (137, 137));
    node.domain_goes().await;
    assert_eq!(node.delete("run").await.unwrap(), 137);
    let events = node.events().await;
    assert_eq!(events, ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"]);
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn a_guest_that_obeys_a_sigkill_lives_on() {
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    for deleted in [true, false] {
        node.pod.clone().create(node.request("run", in_pod("container"))).await.unwrap();
        node.start("run", "").await.unwrap();
        node.kill("run", 9).await.unwrap();
        assert_eq!(node.wait("run", "").await, 137);
        if deleted {
            node.delete("run").await.unwrap();
        }
        pass(Duration::from_secs(60)).await;
        assert_eq!(node.world.left.lock().unwrap().domains.len(), 1);
    }
}

#[tokio::test]
async fn a_guest_that_denies_a_process_which_runs_is_destroyed() {
    let node = Node::new(Habits { denies: true, ..Habits::default() }).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    assert_eq!(node.wait("run", "").await, 137);
    node.domain_goes().await;
    node.delete("run").await.unwrap();
    assert_eq!(node.events().await, ["create", "start", "exit", "delete"]);
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn a_container_that_is_being_deleted_may_be_denied() {
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    node.pod.clone().create(node.request("run", in_pod("container"))).await.unwrap();
    // The host's part of a Delete may take long.
    let host = node.pod.sandbox.lock().await;
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let domains = node.world.left.lock().unwrap().domains.len();
        drop(host);
        domains
    };
    let (deleted, domains) = tokio::join!(node.delete("run"), later);
    assert_eq!((deleted.unwrap(), domains), (0, 1));
    assert_eq!(node.events().await, ["create", "create", "delete", "exit"]);
}

/// Its end is told after the Delete, however long that takes.
#[tokio::test]
async fn a_sigkill_for_one_that_is_being_deleted_spares_its_pod() {
    for kill_first in [true, false] {
        let node = Node::new(Habits::default()).await;
        node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
        node.start("pause", "").await.unwrap();
        node.pod.clone().create(node.request("run", in_pod("container"))).await.unwrap();
        let host = node.pod.sandbox.lock().await;
        let (kill, delete) = (node.kill("run", 9), node.delete("run"));
        let asked =
            async { if kill_first { tokio::join!(kill, delete).1 } else { tokio::join!(delete, kill).0 } };
        let later = async {
            // `shim.kill_timeout_s` is 1.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let domains = node.world.left.lock().unwrap().domains.len();
            drop(host);
            domains
        };
        let (deleted, domains) = tokio::join!(asked, later);
        assert_eq!((deleted.unwrap(), domains), (0, 1), "{kill_first}");
        assert_eq!(node.state("pause", ""), (true, api::Status::RUNNING, None));
        assert_eq!(node.events().await, ["create", "start", "create", "delete", "exit"]);
    }
}

#[tokio::test]
async fn a_container_that_the_guest_still_makes_is_taken_back_from_it() {
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    let creating = tokio::spawn(node.pod.clone().create(node.request(SLOW, in_pod("container"))));
    let known = |id: &str| node.world.programs.lock().unwrap().keys().any(|(found, _)| found == id);
    until("the guest makes it", || known(SLOW)).await;
    assert_eq!(node.delete(SLOW).await.unwrap_err().code(), Some(Code::NoSuchTask));
    creating.await.unwrap().unwrap_err();
    assert!(!known(SLOW), "it is left in the guest");
    assert!(known("pause"));
}

#[tokio::test]
async fn a_program_whose_start_was_given_up_does_not_run_on() {
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    node.pod.clone().create(node.request(MUTE, in_pod("container"))).await.unwrap();
    tokio::time::pause();
    assert_eq!(node.start(MUTE, "").await.unwrap_err().code(), Some(Code::GuestSilent));
    tokio::time::resume();
    assert!(node.world.programs.lock().unwrap().keys().all(|(found, _)| found == "pause"));
    assert_eq!(node.delete(MUTE).await.unwrap(), 255);
    assert_eq!(node.world.left.lock().unwrap().domains.len(), 1);
}

#[tokio::test]
async fn an_exec_that_was_given_up_does_not_stay() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    tokio::time::pause();
    assert_eq!(node.exec("run", MUTE).await.unwrap_err().code(), Some(Code::GuestSilent));
    tokio::time::resume();
    assert!(node.world.programs.lock().unwrap().keys().all(|(_, exec)| exec.is_empty()));
    assert_eq!(node.events().await, ["create"]);
    node.delete("run").await.unwrap();
}

/// The pod's lock may be another Create's for long.
#[tokio::test]
async fn a_kill_that_meets_the_begin_of_a_start_makes_it_give_up() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    let host = node.pod.sandbox.lock().await;
    let request = api::StartRequest { id: "run".into(), ..Default::default() };
    let starting = tokio::spawn(node.pod.clone().start(request));
    let container = node.pod.container("run").unwrap();
    let starts = || matches!(container.stage(&Who::Init), Ok(crate::container::stage::Stage::Starting(_)));
    until("its start has begun", starts).await;
    node.kill("run", 9).await.unwrap();
    assert_eq!(node.wait("run", "").await, 137);
    let refused = starting.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Some(Code::WrongState), "{refused}");
    assert_eq!(node.world.left.lock().unwrap().domains.len(), 1, "its guest was destroyed");
    drop(host);
    assert_eq!(node.delete("run").await.unwrap(), 137);
    assert_eq!(node.events().await, ["create", "exit", "delete"]);
}

#[tokio::test]
async fn a_delete_of_one_whose_create_waits_for_another_is_answered_at_once() {
    let node = Node::new(Habits::default()).await;
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    let host = node.pod.sandbox.lock().await;
    let creating = tokio::spawn(node.pod.clone().create(node.request("run", in_pod("container"))));
    until("its Create has begun", || node.pod.lock().contains_key("run")).await;
    let deleted = tokio::time::timeout(Duration::from_secs(10), node.delete("run")).await.expect("it waits");
    assert_eq!(deleted.unwrap_err().code(), Some(Code::NoSuchTask));
    assert_eq!(creating.await.unwrap().unwrap_err().code(), Some(Code::WrongState));
    drop(host);
    node.delete("pause").await.unwrap();
    node.world.assert_nothing_left("after delete");
}
