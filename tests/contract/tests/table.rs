//! Every case on runc's shim and on the local one.

use futures_util::{StreamExt, stream};
use vgpu_contract::{
    ACCEPTED, ACCEPTED_OF_SPECS,
    cases::{self, Case},
    compare::{Accepted, Difference, differences, judge},
    mock::{Flavour, Runtime},
    play::play,
    report,
};
use vgpu_inside::part::{can_be_tried, given};

/// Cases beside each other: most of a case is waiting.
const BESIDE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_RUNC, a root with runc's shim, and VGPU_LOCAL_SHIM, the local one"]
async fn the_comparison_has_no_unexplained_difference() {
    if !can_be_tried(file!()) {
        return;
    }
    let played = all(cases::of_calls(), [(&runc(), Flavour::V1), (&local(), Flavour::V1)]).await;
    hold_reasons(&played, ACCEPTED);
    report::hold(&report::table(&played, ACCEPTED));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by --long contract with VGPU_RUNC, a root with runc's shim, and VGPU_LOCAL_SHIM, the local one"]
async fn more_specs_become_what_they_become_with_runc() {
    if !can_be_tried(file!()) {
        return;
    }
    let played = all(cases::of_specs(), [(&runc(), Flavour::V1), (&local(), Flavour::V1)]).await;
    hold_reasons(&played, ACCEPTED_OF_SPECS);
    report::hold(&report::specs(&played, ACCEPTED_OF_SPECS));
}

/// runc's shim of Debian 13 knows the old way alone, so the new one is held against ours.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_LOCAL_SHIM, the local shim"]
async fn a_new_containerd_has_the_answers_of_an_old_one() {
    if !can_be_tried(file!()) {
        return;
    }
    let played = all(cases::of_calls(), [(&local(), Flavour::V1), (&local(), Flavour::V2_3)]).await;
    assert_eq!(judge(played.iter().flat_map(|(_, found)| found), &[]), [""; 0]);
}

fn hold_reasons(played: &[(&Case, Vec<Difference>)], accepted: &[Accepted]) {
    let wrong = judge(played.iter().flat_map(|(_, found)| found), accepted);
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

fn runc() -> Runtime {
    Runtime::Runc { root: given("VGPU_RUNC") }
}

fn local() -> Runtime {
    Runtime::Local { program: given("VGPU_LOCAL_SHIM") }
}

/// Each case on both sides, in their order.
async fn all(
    cases: impl Iterator<Item = &'static Case>,
    [right, ours]: [(&Runtime, Flavour); 2],
) -> Vec<(&'static Case, Vec<Difference>)> {
    let of = |case, (runtime, flavour): (&Runtime, Flavour)| play(case, runtime.clone(), flavour);
    let both = |case: &'static Case| async move {
        println!("{}", case.name);
        let (right, ours) = tokio::join!(of(case, right), of(case, ours));
        let never =
            right.iter().find(|(_, outcome)| outcome.get("comes").is_some_and(|comes| comes == false));
        assert!(never.is_none(), "{}: of runc's container it never comes: {never:?}", case.name);
        (case, differences(case.name, &right, &ours))
    };
    stream::iter(cases).map(both).buffered(BESIDE).collect().await
}
