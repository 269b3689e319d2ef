//! Every case on runc's shim and on the local one.

use vgpu_contract::{
    ACCEPTED, ACCEPTED_OF_SPECS,
    cases::{Case, OF_CALLS, OF_SPECS, all},
    compare::{Accepted, Difference, judge},
    mock::{Flavour, Runtime},
    report,
    table::on_both,
};
use vgpu_inside::part::{can_be_tried, given};

/// Most of a case is waiting.
const BESIDE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_RUNC, a root with runc's shim, and VGPU_LOCAL_SHIM, the local one"]
async fn the_comparison_has_no_unexplained_difference() {
    if !can_be_tried(file!()) {
        return;
    }
    let played = on_both(all(OF_CALLS), [(&runc(), Flavour::V1), (&local(), Flavour::V1)], BESIDE).await;
    hold_reasons(&played, ACCEPTED);
    report::hold(&report::table(&played, ACCEPTED));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by --long contract with VGPU_RUNC, a root with runc's shim, and VGPU_LOCAL_SHIM, the local one"]
async fn more_specs_become_what_they_become_with_runc() {
    if !can_be_tried(file!()) {
        return;
    }
    let played = on_both(all(OF_SPECS), [(&runc(), Flavour::V1), (&local(), Flavour::V1)], BESIDE).await;
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
    let played = on_both(all(OF_CALLS), [(&local(), Flavour::V1), (&local(), Flavour::V2_3)], BESIDE).await;
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
