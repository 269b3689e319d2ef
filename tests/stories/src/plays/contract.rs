//! The cases of `tests/contract` on this node: runc's shim and ours on Xen, called by the same client, or below a containerd of their own.
//! `test --long contract-on-xen`.

use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};

use std::process::Command;
use std::time::Duration;

use tokio::runtime::Runtime;
use vgpu_contract::cases::{Case, OF_CALLS, OF_SPECS};
use vgpu_contract::compare::{Accepted, unexplained};
use vgpu_contract::mock::{self, Flavour};
use vgpu_contract::table::on_both;
use vgpu_contract::{ACCEPTED, ACCEPTED_OF_SPECS};

use crate::command::{must, wait};
use crate::plays::{OURS, RUNC, vgpu};
use crate::{Story, message_of};

/// An emulated case takes some ten seconds on Xen, of which its guest boots for most; beside compilers three times as long.
const CASE_S: u64 = 60;
/// Plays those below containerd, which are called over gRPC, and what pods are made of there.
const BELOW_CONTAINERD: &str = "/ctl/cri-cases";
const IMAGES: &str = "/ctl/busybox.tar,/ctl/pause.tar";
/// Groups of those, by the time that a group may take in seconds.
const GROUPS: [(&str, u64); 2] = [("networks", 2700), ("limits", 900)];

/// The stories: one a group of cases.
pub fn stories() -> Vec<Story> {
    let of = |(groups, accepted): (&'static [(&str, &'static [Case])], &'static [Accepted])| {
        let story = move |(group, cases): &(&str, &'static [Case])| {
            let cases = *cases;
            let limit = cases.len() as u64 * CASE_S + 60;
            vgpu(&format!("contract_of_{group}"), limit, move |_| compare(cases, accepted))
        };
        groups.iter().map(story)
    };
    let below = |(group, limit_s)| {
        vgpu(&format!("contract_of_cri_{group}"), limit_s, move |_| below_containerd(group, limit_s))
    };
    let of_shims = [(OF_CALLS, ACCEPTED), (OF_SPECS, ACCEPTED_OF_SPECS)].into_iter().flat_map(of);
    of_shims.chain(GROUPS.map(below)).collect()
}

/// By a program that is built for these alone.
fn below_containerd(group: &str, limit_s: u64) {
    must(&["modprobe", "xen-netback"]);
    let mut cases =
        Command::new(BELOW_CONTAINERD).args([IMAGES, group]).spawn().expect("it is brought along");
    let code = wait(&mut cases, Duration::from_secs(limit_s), group);
    assert_eq!(code, Some(0), "what differs is above");
}

/// Plays the cases, one after the other: they have one name. What is accepted of the local shim is so of ours; that it is not gone is seen there.
fn compare(cases: &'static [Case], accepted: &[Accepted]) {
    let mut wrong = Vec::new();
    for case in cases {
        let found = compare_one(case, accepted);
        found.iter().for_each(|line| println!("    {line}"));
        wrong.extend(found);
    }
    assert!(wrong.is_empty(), "{} wrong in {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// What is wrong with one.
fn compare_one(case: &'static Case, accepted: &[Accepted]) -> Vec<String> {
    let shim = |program: &str| mock::Runtime::Node { program: program.into() };
    let (runc, ours) = (shim(RUNC), shim(OURS));
    let played = catch_unwind(AssertUnwindSafe(|| {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(on_both(iter::once(case), [(&runc, Flavour::V1), (&ours, Flavour::V1)], 1))
    }));
    match played {
        Ok(played) => unexplained(played.iter().flat_map(|(_, found)| found), accepted),
        Err(panic) => vec![format!("{}: {}", case.name, message_of(&*panic))],
    }
}
