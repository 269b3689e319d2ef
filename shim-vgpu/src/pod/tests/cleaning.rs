//! What a sandbox leaves is removed, whoever comes to do it.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    fake_proxy::FakeProxy,
    stubborn::in_pod,
    world::{Source, World},
    *,
};
use crate::{
    cleanup, names,
    persist::Record,
    pod::{
        Pod,
        steps::{Cut, Step},
    },
    share::Process,
};

/// Its shim was killed, and its cleaning failed or is not over: the next sandbox of the id must not meet its guest at its files.
#[tokio::test]
async fn a_sandbox_of_the_same_id_first_ends_the_earlier_one() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    let first: Vec<_> = node.world.left.lock().unwrap().domains.values().copied().collect();
    let next = Pod::new(Arc::new(Source(node.world.clone())), "default", node.outbox.clone(), Cut::default());
    next.clone().create(node.request("run", json!({}))).await.unwrap();
    let domains: Vec<_> = node.world.left.lock().unwrap().domains.values().copied().collect();
    assert!(domains.len() == 1 && domains != first, "{first:?}, then {domains:?}");
    assert_eq!(std::fs::read_dir(node.world.dir.path().join("sandboxes")).unwrap().count(), 1);
    next.delete(api::DeleteRequest { id: "run".into(), ..Default::default() }).await.unwrap();
    node.world.assert_nothing_left("after the next one's Delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_panics_keeps_no_delete_waiting() {
    let node = Node::new(Habits { panics: true, ..Habits::default() }).await;
    let creating = tokio::spawn(node.pod.clone().create(node.request("run", json!({}))));
    assert!(creating.await.unwrap_err().is_panic());
    let answer = tokio::time::timeout(Duration::from_secs(5), node.delete("run"));
    assert_eq!(answer.await.expect("an answer").unwrap_err().code(), Some(Code::NoSuchTask));
}

/// While an earlier life's cleaning is at work Create waits, and one that lives is another containerd's.
#[tokio::test]
async fn a_sandbox_of_the_same_id_waits_for_a_cleaning_and_spares_the_living() {
    let node = Node::new(Habits::default()).await;
    let state_dir = node.world.dir.path().join("sandboxes");
    let life = Store::at(state_dir.join(names::folder("default", "run", Uuid::from_u128(1))));
    life.point_from(node.world.dir.path()).unwrap();
    let mut living = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let mut record =
        Record::new("default", "run", None, Uuid::from_u128(1), node.world.dir.path().join("shared/1"));
    record.shim = Process::of(living.id());
    life.save(&record).unwrap();
    assert_eq!(node.create("run").await.unwrap_err().code(), Some(Code::IdTaken));
    assert!(living.try_wait().unwrap().is_none() && life.load().unwrap().is_some());
    living.kill().unwrap();
    living.wait().unwrap();

    let lock = life.lock(Duration::ZERO).unwrap();
    let (pod, request) = (node.pod.clone(), node.request("run", json!({})));
    let creating = tokio::spawn(pod.create(request));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!creating.is_finished() && node.world.left.lock().unwrap().domains.is_empty(), "it did not wait");
    drop(lock);
    creating.await.unwrap().unwrap();
    assert!(life.load().unwrap().is_none());
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after both lives");
}

/// A pod whose container `run` could not be made, nor taken back: its Create was given up, and no folder can be removed at the path that is told.
async fn with_a_rest() -> (Node, PathBuf) {
    let (reached, mut cut_at) = mpsc::unbounded_channel();
    let made = AtomicU32::default();
    let second = move |step| step == Step::TaskMade && made.fetch_add(1, Ordering::Relaxed) == 1;
    let cut = Cut::new(move |step| second(step) && reached.send(()).is_ok());
    let node = Node::with_cut(Habits::default(), cut).await;
    node.pod.clone().create(node.request("pause", in_pod("sandbox"))).await.unwrap();
    let creating = tokio::spawn(node.pod.clone().create(node.request("run", in_pod("container"))));
    cut_at.recv().await.unwrap();
    let life = std::fs::read_dir(node.world.dir.path().join("shared")).unwrap().next().unwrap().unwrap();
    let share = life.path().join("rw");
    std::fs::rename(share.join("run"), share.join("kept")).unwrap();
    std::fs::write(share.join("run"), "").unwrap();
    assert_eq!(node.delete("run").await.unwrap_err().code(), Some(Code::NoSuchTask));
    assert_eq!(creating.await.unwrap().unwrap_err().code(), Some(Code::WrongState));
    (node, share.join("run"))
}

/// The next Create of the id would have its stand-in noted in place of the first one's.
#[tokio::test]
async fn what_cannot_be_taken_back_of_a_create_is_taken_back_by_the_next_one_of_its_id() {
    let (node, rest) = with_a_rest().await;
    let store = Store::pointed_from(&node.world.dir.path().join("bundles/pause")).unwrap();
    let create = || node.pod.clone().create(node.request("run", in_pod("container")));
    let held = || store.load().unwrap().unwrap().containers["run"].holder;
    let first = held();
    let refused = create().await.unwrap_err();
    assert!(refused.report().contains("cannot remove"), "{}", refused.report());
    assert_eq!(held(), first, "nobody would end it");
    std::fs::remove_file(&rest).unwrap();
    std::fs::rename(rest.with_file_name("kept"), rest).unwrap();
    create().await.unwrap();
    for id in ["run", "pause"] {
        node.delete(id).await.unwrap();
    }
    node.world.assert_nothing_left("after the last Delete");
}

/// No next Create comes, and after an answer that all is well no Delete.
#[tokio::test]
async fn what_cannot_be_taken_back_of_a_create_goes_with_the_last_container_of_its_pod() {
    let (node, _rest) = with_a_rest().await;
    node.world.no_xl.store(true, Ordering::Relaxed);
    assert_eq!(node.delete("pause").await.unwrap_err().code(), Some(Code::NoXen));
    node.world.no_xl.store(false, Ordering::Relaxed);
    node.delete("pause").await.unwrap();
    node.world.assert_nothing_left("after the last Delete");
}

/// Create killed after each of its steps in turn: a new process cleans up from disk alone.
#[tokio::test]
async fn a_create_that_dies_after_any_step_is_cleaned_up_from_disk() {
    for last in Step::ALL {
        let mut proxy = None;
        let (node, bundle) = Node::killed_after(last, |node| {
            proxy = Some(FakeProxy::start(&node.world.proxy_socket()));
            node.request("run", json!({"vgpu.dev/gpu": "1"}))
        })
        .await;
        let (proxy, when) = (proxy.unwrap(), format!("{last:?}"));
        let begun = std::time::Instant::now();
        // Twice: it may be killed itself, and containerd may call it again.
        node.clean(&bundle).await.unwrap();
        node.clean(&bundle).await.unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{when}: containerd's limit: {:?}",
            begun.elapsed()
        );
        node.world.assert_nothing_left(&when);
        let (asked, registered) = (proxy.asked(), last >= Step::Granted);
        assert!(asked.is_empty() != registered && proxy.zones().is_empty(), "{when}: {asked:?}");
    }
}

/// Without xl it's Xen that says whether there can be a domain; a record without an id says nothing.
#[tokio::test]
async fn a_domain_is_not_forgotten_while_xl_is_missing() {
    let (node, bundle) = Node::killed_after(Step::DomainMade, |node| node.request("run", json!({}))).await;
    let store = Store::pointed_from(Path::new(&bundle)).unwrap();
    let mut record = store.load().unwrap().unwrap();
    record.domid = None;
    store.save(&record).unwrap();

    let clean = |world: &Arc<World>| {
        let (platform, store, record) = (world.platform(), store.clone(), record.clone());
        tokio::task::spawn_blocking(move || cleanup::sandbox(&platform, &store, &record))
    };
    node.world.no_xl.store(true, Ordering::Relaxed);
    assert_eq!(clean(&node.world).await.unwrap().unwrap_err().code(), Some(Code::NoXen));
    assert!(store.load().unwrap().is_some(), "what is left can be tried again");
    node.world.no_xl.store(false, Ordering::Relaxed);
    clean(&node.world).await.unwrap().unwrap();
    node.world.assert_nothing_left("with xl again");

    let without_xen = World::new(Habits { no_xen: true, ..Habits::default() });
    clean(&without_xen).await.unwrap().unwrap();
}

/// A guest can end its stream when it likes, so also while xl is away. Whether its domain runs nobody can say then; a Delete says so.
#[tokio::test]
async fn a_dead_guests_share_ends_even_when_its_domain_cannot_be_found() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    node.start("run", "").await.unwrap();
    node.world.no_xl.store(true, Ordering::Relaxed);
    node.world.break_agents();
    until("who serves its files has ended", || node.world.left.lock().unwrap().backends.is_empty()).await;
    assert_eq!(node.state("run", ""), (true, api::Status::RUNNING, None));
    node.world.no_xl.store(false, Ordering::Relaxed);
    assert_eq!(node.wait("run", "").await, 137);
    node.delete("run").await.unwrap();
    node.world.assert_nothing_left("after delete");
}

/// It does not wait for xl to come back, and its failure makes nobody dead.
#[tokio::test]
async fn a_delete_without_xl_fails_and_may_come_again() {
    let node = Node::new(Habits::default()).await;
    node.create("run").await.unwrap();
    node.world.no_xl.store(true, Ordering::Relaxed);
    node.world.break_agents();
    for _ in 0..2 {
        let deleted = tokio::time::timeout(Duration::from_secs(5), node.delete("run")).await;
        assert_eq!(deleted.expect("it waits").unwrap_err().code(), Some(Code::NoXen));
        assert_eq!(node.state("run", ""), (true, api::Status::CREATED, None));
    }
    node.world.no_xl.store(false, Ordering::Relaxed);
    node.delete("run").await.unwrap();
    assert_eq!(node.events().await.iter().filter(|event| *event == "exit").count(), 1);
    node.world.assert_nothing_left("after delete");
}
