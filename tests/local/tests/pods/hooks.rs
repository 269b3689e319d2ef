//! Hooks of the end, whose shim may not have lived until then.

use std::{
    fs,
    time::{Duration, Instant},
};

use containerd_shim_protos::api::{CreateTaskResponse, DeleteRequest, DeleteResponse};
use serde_json::{Value, json};

use crate::containerd::{Containerd, until};

/// Where a hook of this containerd's notes what it is told, a line each.
fn notes(containerd: &Containerd) -> String {
    fs::read_to_string(containerd.dir.path().join("told")).unwrap_or_default()
}

/// Two hooks of the end that note it, the first of which takes its time.
fn at_the_end(containerd: &Containerd, seconds: u8) -> Value {
    let note = |seconds: u8| {
        let script =
            format!("(cat; echo) >> {}; sleep {seconds}", containerd.dir.path().join("told").display());
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
    };
    json!({"poststop": [note(seconds), note(0)]})
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_of_the_end_run_once_after_a_killed_shim() {
    let containerd = Containerd::new().await;
    let hooks = at_the_end(&containerd, 0);
    containerd.bundle("a", "exec sleep 1000", |spec| spec["hooks"] = hooks);
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let lives = containerd.lives();
    shim.kill().await;
    assert_eq!(notes(&containerd), "");
    containerd.delete("a");
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
    let told = notes(&containerd);
    let states: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let bundle = containerd.bundle_of("a");
    let state =
        json!({"ociVersion": "1.1.0", "id": "a", "status": "stopped", "bundle": bundle, "annotations": {}});
    assert_eq!(states, [state.clone(), state]);
}

/// containerd kills a `delete` after 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_does_not_wait_for_a_slow_hook_and_the_next_one_runs() {
    let containerd = Containerd::new().await;
    let hooks = at_the_end(&containerd, 6);
    containerd.bundle("a", "exec sleep 1000", |spec| spec["hooks"] = hooks);
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let lives = containerd.lives();
    shim.kill().await;
    let begun = Instant::now();
    containerd.delete("a");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    containerd.remove_bundle("a");
    until("the second one runs", || notes(&containerd).lines().count() == 2, || notes(&containerd)).await;
    containerd.assert_nothing_left(&lives).await;
}

/// A hook of this kind that notes its process and one that it has started, and does not end before there is a file `go`; of the end there is
/// another one, which notes a line.
fn waiting(containerd: &Containerd, kind: &str) -> Value {
    let dir = containerd.dir.path().display();
    let script = format!(
        "sleep 1000 & echo $$ > {dir}/pids; echo $! >> {dir}/pids; while [ ! -e {dir}/go ]; do sleep 0.01; done; \
        kill $!; echo over >> {dir}/told"
    );
    let hook = |script: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    let mut hooks = json!({"poststop": [hook(&format!("echo last >> {dir}/told"))]});
    match hooks[kind].as_array_mut() {
        Some(of_the_end) => of_the_end.insert(0, hook(&script)),
        None => hooks[kind] = json!([hook(&script)]),
    }
    hooks
}

/// What such a hook is made of, as soon as it runs, and as long as it does.
fn processes(containerd: &Containerd) -> Vec<String> {
    let pids = fs::read_to_string(containerd.dir.path().join("pids")).unwrap_or_default();
    let lives = |pid: &&str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    pids.lines().filter(lives).map(String::from).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_whose_shim_is_killed_ends_with_what_it_has_started_before_those_of_the_end() {
    for kind in ["createRuntime", "poststart"] {
        let containerd = Containerd::new().await;
        let hooks = waiting(&containerd, kind);
        containerd.bundle("a", "exec sleep 1000", |spec| spec["hooks"] = hooks);
        let shim = containerd.start("a").await;
        tokio::select! {
            () = containerd.create(&shim, "a") => panic!("it waits for no hook"),
            () = until("the hook runs", || processes(&containerd).len() == 2, || kind.into()) => {}
        }
        let lives = containerd.lives();
        shim.kill().await;
        assert_eq!(processes(&containerd).len(), 2, "it has ended with its shim");
        containerd.delete("a");
        containerd.assert_nothing_left(&lives).await;
        until("nothing of the hook runs", || processes(&containerd).is_empty(), || kind.into()).await;
        assert_eq!(notes(&containerd), "last\n", "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_of_the_end_whose_shim_is_killed_is_waited_for() {
    let containerd = Containerd::new().await;
    let hooks = waiting(&containerd, "poststop");
    containerd.bundle("a", "exec sleep 1000", |spec| spec["hooks"] = hooks);
    let shim = containerd.start("a").await;
    let _: CreateTaskResponse = shim.call("Create", &containerd.asked("a")).await.unwrap();
    let lives = containerd.lives();
    let request = DeleteRequest { id: "a".into(), ..Default::default() };
    tokio::select! {
        deleted = shim.call::<_, DeleteResponse>("Delete", &request) => panic!("{deleted:?}"),
        () = until("the hook runs", || processes(&containerd).len() == 2, String::new) => {}
    }
    shim.kill().await;
    containerd.delete("a");
    assert_eq!((processes(&containerd).len(), notes(&containerd).as_str()), (2, ""));
    fs::write(containerd.dir.path().join("go"), "").unwrap();
    containerd.assert_nothing_left(&lives).await;
    assert_eq!(notes(&containerd), "over\nlast\n");
}
