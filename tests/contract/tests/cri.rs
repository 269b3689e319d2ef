//! Every case of kubelet's on runc and on the local shim, below each containerd that there is.

use std::{env, path::PathBuf, sync::Arc};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};
use vgpu_contract::{
    compare::{Accepted, differences, judge},
    cri::{
        ACCEPTED, ACCEPTED_BY_SANDBOX, ACCEPTED_OF_MORE, Node, Parts, Place,
        cases::{CASES, Case, LIMITS, MORE, NETWORKS},
        has_limits,
        play::{Stage, assert_right, play},
        report::{self, Column},
        step::Step,
    },
    left,
    outcome::Outcome,
};
use vgpu_inside::part::{can_be_tried, given};

/// The runtime handler whose pods are made by the Sandbox API.
const SANDBOX: &str = "vgpu-sandbox";
/// Cases beside each other: most of a case is waiting.
const BESIDE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_RUNC, a root with runc and containerd, VGPU_CONTAINERD_OLD and _NEW, further ones, VGPU_IMAGES, and VGPU_LOCAL_SHIM"]
async fn kubelet_has_the_answers_of_runc_from_ours() {
    if !can_be_tried(file!()) {
        return;
    }
    let limits = LIMITS.iter().filter(|case| can_be_limited(case));
    let cases: Vec<_> = CASES.iter().chain(NETWORKS).chain(limits).collect();
    let mut columns = columns(&cases).await;
    hold_reasons(&columns, ACCEPTED);
    // Of every machine, so that the table is everywhere the same.
    columns.iter_mut().for_each(|(_, rows)| rows.truncate(CASES.len() + NETWORKS.len()));
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_RUNC, VGPU_CONTAINERD_NEW, VGPU_IMAGES, and VGPU_LOCAL_SHIM"]
async fn kubelets_pods_by_the_sandbox_api_have_the_answers_of_runc_from_ours() {
    if !can_be_tried(file!()) {
        return;
    }
    let has_pause = |case: &&Case| case.steps.iter().any(|step| matches!(step, Step::KillPause(_)));
    let cases: Vec<_> = CASES.iter().filter(|case| !has_pause(case)).collect();
    let columns = [column("2.1", of("VGPU_CONTAINERD_NEW"), &cases, SANDBOX).await];
    let accepted = [ACCEPTED, ACCEPTED_BY_SANDBOX].concat();
    hold_reasons(&columns, &accepted);
    vgpu_contract::report::hold(&report::by_sandbox(&columns, &accepted));
}

/// It lives on while containerd is away; the end of its domain, and that of its shim, are its end.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_RUNC, VGPU_CONTAINERD_NEW, VGPU_IMAGES, and VGPU_LOCAL_SHIM"]
async fn a_pod_by_the_sandbox_api_outlives_its_containerd_and_ends_with_its_domain() {
    if !can_be_tried(file!()) {
        return;
    }
    let node = Node::start(of("VGPU_CONTAINERD_NEW")).await;
    // What the shim has not told containerd calls 255.
    for (name, end, code) in [("domain", end_domain as fn(&Node), 137), ("shim", end_shim, 255)] {
        let mut pod = Stage::new(name, &node, SANDBOX);
        let begin = [
            Step::RunPod(|_| ()),
            Step::Create("app", RUNS),
            Step::Start("app"),
            Step::Until("app", "there"),
        ];
        for step in &begin {
            none(pod.take(step).await, "error");
        }
        let before = pod.take(&Step::PodStatus).await;
        none(before.clone(), "error");
        node.restart().await;
        assert_eq!(pod.take(&Step::PodStatus).await, before, "READY, which is 0, and its address");
        is(&mut pod, Step::Status("app"), "status.state", "CONTAINER_RUNNING").await;
        is(&mut pod, Step::ExecSync("app", "echo lives"), "stdout", "lives\n").await;
        for step in [Step::Create("late", RUNS), Step::Start("late"), Step::Until("late", "there")] {
            none(pod.take(&step).await, "error");
        }
        end(&node);
        none(pod.take(&Step::UntilPodEnds).await, "comes");
        for app in ["app", "late"] {
            none(pod.take(&Step::UntilExit(app)).await, "comes");
            is(&mut pod, Step::Status(app), "status.exit_code", code).await;
        }
        for step in [Step::StopPod, Step::StopPod, Step::RemovePod, Step::RemovePod] {
            none(pod.take(&step).await, "error");
        }
    }
    node.stop().await;
}

/// Says when it does.
const RUNS: &str = "echo there; exec sleep 1000";

/// The only guest's first process is killed, as by a kernel that panics.
fn end_domain(node: &Node) {
    let lives = left::lives(&node.dir().join("node"));
    let [uuid] = &lives[..] else { panic!("one pod: {lives:?}") };
    let cgroup = left::cgroup_of(uuid).expect("the domain has a cgroup");
    let pid = Pid::from_raw(left::pid_1(&cgroup).expect("the guest has a PID 1")).expect("a pid");
    kill_process(pid, Signal::KILL).expect("it lives");
}

fn end_shim(node: &Node) {
    assert_eq!(left::end(node.dir(), "containerd-shim-vgpulocal-v1"), 1, "one shim");
}

async fn is(pod: &mut Stage<'_>, step: Step, field: &str, value: impl Into<Value>) {
    let outcome = pod.take(&step).await.unwrap_or_default();
    assert_eq!(outcome.get(field), Some(&value.into()), "{}: {outcome:?}", step.name());
}

fn none(outcome: Option<Outcome>, field: &str) {
    assert!(outcome.as_ref().is_none_or(|outcome| !outcome.contains_key(field)), "{outcome:?}");
}

fn hold_reasons(columns: &[Column], accepted: &[Accepted]) {
    let wrong = judge(columns.iter().flat_map(|(_, rows)| rows).flat_map(|(_, found)| found), accepted);
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// All cases below each containerd.
async fn columns(cases: &[&'static Case]) -> Vec<Column> {
    let (old, usual, new) = tokio::join!(
        column("1.6", of("VGPU_CONTAINERD_OLD"), cases, "vgpu"),
        column("1.7", parts(None), cases, "vgpu"),
        column("2.1", of("VGPU_CONTAINERD_NEW"), cases, "vgpu")
    );
    vec![old, usual, new]
}

fn of(containerd: &str) -> Parts {
    parts(Some(given(containerd)))
}

/// None: the root's own containerd.
fn parts(containerd: Option<PathBuf>) -> Parts {
    Parts {
        place: Place::Own { root: given("VGPU_RUNC"), containerd, shim: given("VGPU_LOCAL_SHIM") },
        images: env::split_paths(&given("VGPU_IMAGES")).collect(),
    }
}

/// All cases below one containerd, of which nothing is left.
async fn column(name: &'static str, parts: Parts, cases: &[&'static Case], handler: &'static str) -> Column {
    let (node, free) = (Arc::new(Node::start(parts).await), Arc::new(Semaphore::new(BESIDE)));
    let mut playing = JoinSet::new();
    for (at, case) in cases.iter().copied().enumerate() {
        let (node, free) = (Arc::clone(&node), Arc::clone(&free));
        playing.spawn(async move {
            let _turn = free.acquire().await;
            let (mut right, mut ours) = tokio::join!(play(case, &node, "runc"), play(case, &node, handler));
            if handler == SANDBOX {
                // Of a task that ours has not.
                for played in [&mut right, &mut ours] {
                    played.retain(|(name, _)| !name.ends_with(" of SANDBOX"));
                }
            }
            assert_right(case, &right);
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
