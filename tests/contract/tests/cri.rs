//! Every case of kubelet's on runc and on the local shim, below each containerd that there is.

use std::{env, sync::Arc};

use tokio::{sync::Semaphore, task::JoinSet};
use vgpu_contract::{
    compare::{Accepted, differences, judge},
    cri::{
        ACCEPTED, ACCEPTED_OF_MORE, Node, Parts,
        cases::{CASES, Case, LIMITS, MORE},
        has_limits,
        play::play,
        report::{self, Column},
    },
};
use vgpu_inside::part::{can_be_tried, given};

/// Cases beside each other: most of a case is waiting.
const BESIDE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_RUNC, a root with runc and containerd, VGPU_CONTAINERD_OLD and _NEW, further ones, VGPU_IMAGES, and VGPU_LOCAL_SHIM"]
async fn kubelet_has_the_answers_of_runc_from_ours() {
    if !can_be_tried(file!()) {
        return;
    }
    let limits = LIMITS.iter().filter(|case| can_be_limited(case));
    let cases: Vec<_> = CASES.iter().chain(limits).collect();
    let mut columns = columns(&cases).await;
    hold_reasons(&columns, ACCEPTED);
    // Of every machine, so that the table is everywhere the same.
    columns.iter_mut().for_each(|(_, rows)| rows.truncate(CASES.len()));
    vgpu_contract::report::hold(&report::table(&columns, ACCEPTED));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by --long contract with VGPU_RUNC, VGPU_CONTAINERD_OLD and _NEW, VGPU_IMAGES, and VGPU_LOCAL_SHIM"]
async fn more_of_kubelets_pods_have_the_answers_of_runc_from_ours() {
    if !can_be_tried(file!()) {
        return;
    }
    let columns = columns(&MORE.iter().collect::<Vec<_>>()).await;
    hold_reasons(&columns, ACCEPTED_OF_MORE);
    vgpu_contract::report::hold(&report::more(&columns, ACCEPTED_OF_MORE));
}

fn hold_reasons(columns: &[Column], accepted: &[Accepted]) {
    let wrong = judge(columns.iter().flat_map(|(_, rows)| rows).flat_map(|(_, found)| found), accepted);
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// All cases below each containerd.
async fn columns(cases: &[&'static Case]) -> Vec<Column> {
    let own = || Parts {
        root: given("VGPU_RUNC"),
        containerd: None,
        shim: given("VGPU_LOCAL_SHIM"),
        images: env::split_paths(&given("VGPU_IMAGES")).collect(),
    };
    let of = |name| Parts { containerd: Some(given(name)), ..own() };
    let (old, usual, new) = tokio::join!(
        column("1.6", of("VGPU_CONTAINERD_OLD"), cases),
        column("1.7", own(), cases),
        column("2.1", of("VGPU_CONTAINERD_NEW"), cases)
    );
    vec![old, usual, new]
}

/// All cases below one containerd, of which nothing is left.
async fn column(name: &'static str, parts: Parts, cases: &[&'static Case]) -> Column {
    let (node, free) = (Arc::new(Node::start(parts).await), Arc::new(Semaphore::new(BESIDE)));
    let mut playing = JoinSet::new();
    for (at, case) in cases.iter().copied().enumerate() {
        let (node, free) = (Arc::clone(&node), Arc::clone(&free));
        playing.spawn(async move {
            let _turn = free.acquire().await;
            let (right, ours) = tokio::join!(play(case, &node, "runc"), play(case, &node, "vgpu"));
            let never = right.iter().find(|(_, outcome)| outcome.contains_key("comes"));
            assert!(never.is_none(), "{}: of runc's container it never comes: {never:?}", case.name);
            (at, case, differences(case.name, &right, &ours))
        });
    }
    let mut rows = playing.join_all().await;
    rows.sort_by_key(|(at, ..)| *at);
    Arc::into_inner(node).expect("all have ended").stop().await;
    (name, rows.into_iter().map(|(_, case, found)| (case, found)).collect())
}

/// Whether a guest of this machine has limits. Says why not.
fn can_be_limited(case: &Case) -> bool {
    if !has_limits() {
        eprintln!(
            "NOT TRIED: {}: {}: this machine's controllers are those of cgroup version 1",
            file!(),
            case.name
        );
    }
    has_limits()
}
