//! Every case on runc's shim and on the local one.

use vgpu_contract::{
    ACCEPTED, cases,
    compare::{differences, judge},
    mock::{Flavour, Runtime},
    play::play,
    report,
};
use vgpu_inside::part::{can_be_tried, given};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_RUNC, a root with runc's shim, and VGPU_LOCAL_SHIM, the local one"]
async fn the_comparison_has_no_unexplained_difference() {
    if !can_be_tried(file!()) {
        return;
    }
    let mut played = Vec::new();
    for case in cases::all() {
        println!("{}", case.name);
        let (right, ours) = tokio::join!(
            play(case, Runtime::Runc { root: given("VGPU_RUNC") }, Flavour::V1),
            play(case, Runtime::Local { program: given("VGPU_LOCAL_SHIM") }, Flavour::V1)
        );
        played.push((case, differences(case.name, &right, &ours)));
    }
    let wrong = judge(played.iter().flat_map(|(_, found)| found), ACCEPTED);
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));

    report::hold(&report::table(&played, ACCEPTED));
}

/// runc's shim of Debian 13 knows the old way alone, so the new one is held against ours.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "played by part contract with VGPU_LOCAL_SHIM, the local shim"]
async fn a_new_containerd_has_the_answers_of_an_old_one() {
    if !can_be_tried(file!()) {
        return;
    }
    let local = || Runtime::Local { program: given("VGPU_LOCAL_SHIM") };
    let mut found = Vec::new();
    for case in cases::all() {
        println!("{}", case.name);
        let (old, new) = tokio::join!(play(case, local(), Flavour::V1), play(case, local(), Flavour::V2_3));
        found.extend(differences(case.name, &old, &new));
    }
    assert_eq!(judge(found.iter(), &[]), [""; 0]);
}
