//! What a pod's shim costs while nobody asks it for anything. Of its memory what is no code: a build for tests has several times as much of
//! that as a node's. `cargo xtask bench shim` has all of it.

use containerd_shim_protos::api::{Empty, KillRequest};
use vgpu_contract::{cost::Cost, mock::Shim};

use crate::containerd::{Containerd, until};

const KIB_MAX: u64 = 8 << 10;
const KIB_PER_EXEC_MAX: u64 = 256;
const THREADS_MAX: usize = 4;
const SIGKILL: u32 = 9;
/// Enough for what each takes to be seen, and what an odd page takes not to be.
const EXECS: u32 = 20;

/// Threads that wait for work go after ten seconds without any.
async fn idle(shim: &Shim) -> Cost {
    let cost = || Cost::of(shim.pid);
    let rests = || cost().threads <= THREADS_MAX;
    until("its threads are few", rests, || format!("{:?}", cost())).await;
    cost()
}

async fn exec(containerd: &Containerd, shim: &Shim, name: &str, script: &str) {
    let request = containerd.asked_exec("a", name, script, |_| {});
    shim.exec(&request).await;
    shim.begin_exec("a", name).await;
}

async fn end(shim: &Shim, name: &str) {
    shim.wait_exec("a", name).await;
    shim.delete_exec("a", name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_keeps_to_its_budget_and_an_exec_leaves_nothing_with_it() {
    let _alone = crate::COUNTING.lock().await;
    let containerd = Containerd::new().await;
    containerd.bundle("a", "exec sleep 1000", |_| {});
    let shim = containerd.start("a").await;
    containerd.create(&shim, "a").await;
    let lives = containerd.lives();
    let before = idle(&shim).await;
    assert!(before.anonymous_kib <= KIB_MAX, "{before:?}");

    let names: Vec<String> = (0..EXECS).map(|number| format!("e{number}")).collect();
    for name in &names {
        exec(&containerd, &shim, name, "exec sleep 1000").await;
    }
    let with_execs = idle(&shim).await;
    println!("{before:?}, with {EXECS} execs {with_execs:?}");
    let most = before.anonymous_kib + u64::from(EXECS) * KIB_PER_EXEC_MAX;
    assert!(with_execs.anonymous_kib <= most, "{before:?}, with {EXECS} execs {with_execs:?}");

    for name in &names {
        let (id, exec_id) = ("a".into(), name.clone());
        let kill = KillRequest { id, exec_id, signal: SIGKILL, ..Default::default() };
        let _: Empty = shim.call("Kill", &kill).await.unwrap();
        end(&shim, name).await;
    }
    // Each is its own, and gone before the next one comes.
    for name in &names {
        exec(&containerd, &shim, name, "exit 0").await;
        end(&shim, name).await;
    }
    let kept = || Cost::of(shim.pid);
    let same = || (kept().threads, kept().descriptors) == (before.threads, before.descriptors);
    until("nothing of the execs is kept", same, || format!("{before:?}, after the execs {:?}", kept())).await;

    shim.signal("a", SIGKILL).await;
    assert_eq!((shim.wait("a").await, shim.delete("a").await), (137, 137));
    shim.shut_down().await;
    containerd.delete("a");
    containerd.assert_nothing_left(&lives).await;
}
