//! Hooks of the end, whose shim may not have lived until then.

use std::{
    fs,
    time::{Duration, Instant},
};

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
