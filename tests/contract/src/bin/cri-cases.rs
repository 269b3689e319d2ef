//! Plays cases of kubelet's in Xen's Dom0, whose containerd, runc and CNI plugins are Debian's: each on runc and then on the installed shim, since
//! all of it is emulated. Says what differs and has no reason.
//!
//! usage: cri-cases IMAGE,... GROUP [PART...]      images as `ctr images import` takes them; parts of the cases' names, none: all

use std::{env, path::PathBuf, process::ExitCode};

use vgpu_contract::{
    compare::{Difference, differences, unexplained},
    cri::{
        ACCEPTED, ACCEPTED_ON_XEN, Node, Parts, Place,
        cases::{Case, LIMITS, NETWORKS},
        has_limits,
        play::{assert_right, play},
    },
};

const GROUPS: [(&str, &[Case]); 2] = [("networks", NETWORKS), ("limits", LIMITS)];

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<_> = env::args().skip(1).collect();
    let [images, group, parts @ ..] = &words[..] else {
        panic!("usage: cri-cases IMAGE,... GROUP [PART...]")
    };
    let (_, cases) = GROUPS.iter().find(|(name, _)| name == group).expect("a group");
    assert!(has_limits(), "Dom0's controllers are not those of cgroup version 2");
    let images = images.split(',').map(PathBuf::from).collect();
    let node = Node::start(Parts { place: Place::Dom0, images }).await;
    let (accepted, mut wrong) = ([ACCEPTED, ACCEPTED_ON_XEN].concat(), Vec::new());
    for case in *cases {
        if parts.is_empty() || parts.iter().any(|part| case.name.contains(part)) {
            println!("{}", case.name);
            wrong.extend(unexplained(on_both(case, &node).await.iter(), &accepted));
        }
    }
    node.stop().await;
    wrong.iter().for_each(|line| println!("{line}"));
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn on_both(case: &Case, node: &Node) -> Vec<Difference> {
    let right = play(case, node, "runc").await;
    assert_right(case, &right);
    differences(case.name, &right, &play(case, node, "vgpu").await)
}
