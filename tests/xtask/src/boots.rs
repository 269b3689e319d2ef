//! All stories of ours, each once on a PV Dom0, in several boots, as many beside each other as the machine carries.
//!
//! A PVH Dom0 is left to `test --long pvh-deaths` and `pvh-others`: emulated it has half the speed and keeps two cores busy, and it was
//! seen to crash by itself (`tests/testbed/README.md`). An emulated Dom0 has one CPU and is busy all the time, its guests seldom: a boot
//! fills one core and a tenth of another.

use std::sync::Mutex;
use std::thread;

use crate::dom0::Dom0;
use crate::error::{Failure, Result};
use crate::long;
use crate::progress::Steps;
use crate::qemu::{Kind, own_memory_mib};
use crate::stories::{self, Stories};
use crate::tally::Tally;
use crate::testbed;

/// One boot: its name, and parts of the names of its stories.
struct Boot {
    name: &'static str,
    stories: &'static [&'static str],
}

/// The longest first, so that the last ones to end do so together.
const BOOTS: &[Boot] = &[
    Boot {
        name: "deaths",
        stories: &[
            "create_killed",
            "death_of_the_program",
            "death_of_the_domain",
            "death_of_the_worker",
            "death_of_the_shim",
            "death_of_gpu",
            "hung_",
            "config_",
            "pod_with",
        ],
    },
    Boot {
        name: "cuda",
        stories: &[
            "cuda_runtimes",
            "cuda_memory",
            "cuda_costs",
            "cuda_programs",
            "cuda_vector_add",
            "cuda_worker",
            "cuda_program_in",
            "two_pods",
            "container_",
            "death_of_a_cuda",
            "nvidia_smi",
        ],
    },
    Boot {
        name: "containers",
        stories: &["vgpu_", "demo_", "pod_network", "two_containers", "guest_kernel"],
    },
    Boot { name: "idm", stories: &["canary_", "idm_", "pod_is", "death_of_containerd"] },
];
/// What `test --long rest` plays: that runc does what stories want of any runtime, which no change of ours can break, CUDA programs
/// that part `programs` runs too, and a guest kernel's crash, which Xen ends as `xl destroy` does.
pub const REST: &[&str] = &["runc_", "cuda_other_programs", "death_of_the_guests_kernel"];
/// What `test --long churn` plays: pods by the number, and random deaths.
pub const CHURN: &[&str] = &["churn_pods_in_a_row", "churn_random_kills"];
/// What `test --long contract-on-xen` plays: the cases that part `contract` plays without Xen.
pub const CONTRACT: &[&str] = &[
    "contract_of_task",
    "contract_of_exec",
    "contract_of_pod",
    "contract_of_calls",
    "contract_of_stdio",
    "contract_of_process",
    "contract_of_mounts",
    "contract_of_node_mounts",
    "contract_of_linux",
    "contract_of_spec_of_execs",
    "contract_of_hooks",
    "contract_of_cri_networks",
    "contract_of_cri_limits",
];
/// What `bench xen` plays.
pub const FIGURES: &[&str] = &["figures_of_"];
/// What a boot touches of its memory, at most.
const BOOT_MIB: u32 = 5120;

/// The part `stories` of `cargo xtask test`.
pub fn part(steps: &Steps, tally: &mut Tally) -> Result<()> {
    let names = stories::names(steps, "")?;
    tally.check("stories: each is played once", each_is_played_once(&names));
    tally.check("stories: every part of a boot plays one", every_part_plays_one(&names));
    tally
        .check("stories: each has a place in the stages on a PVH Dom0", long::every_story_has_a_unit(&names));
    let dom0 = testbed::complete(steps)?;
    let stories = Stories::build(steps)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let beside = cores.min((own_memory_mib() / BOOT_MIB) as usize).clamp(1, BOOTS.len());
    let queue = Mutex::new(BOOTS.iter());
    let next = || queue.lock().ok()?.next();
    let lane = || std::iter::from_fn(next).map(|boot| boot.run(steps, &dom0, &stories)).collect();
    let heard = thread::scope(|scope| {
        let lanes: Vec<_> = (0..beside).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().map(thread::ScopedJoinHandle::join).collect::<thread::Result<Vec<Vec<Tally>>>>()
    });
    let heard = heard.map_err(|_| Failure::new("a boot's thread panicked"))?;
    heard.into_iter().flatten().for_each(|seen| tally.merge(seen));
    Ok(())
}

impl Boot {
    fn run(&self, steps: &Steps, dom0: &Dom0, stories: &Stories) -> Tally {
        let mut tally = Tally::default();
        let kept = format!("last-{}", self.name);
        if let Err(failure) = stories.play(steps, dom0, Kind::Pv, self.stories, &kept, &mut tally) {
            tally.check(&format!("stories, {}", self.name), Err(failure));
        }
        tally
    }
}

/// No story of ours is forgotten, and none takes its time twice.
fn each_is_played_once(names: &[String]) -> Result<()> {
    let boots = |name: &String| {
        BOOTS.iter().filter(|boot| boot.stories.iter().any(|part| name.contains(part))).count()
    };
    let is_left =
        |name: &String| [REST, CHURN, CONTRACT, FIGURES].concat().iter().any(|part| name.starts_with(part));
    let wrong: Vec<&String> =
        names.iter().filter(|name| boots(name) != 1 && !(boots(name) == 0 && is_left(name))).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("no boot or more than one plays {wrong:?}: see BOOTS in boots.rs")))
}

/// A story with another name does not drop out of a boot unseen.
fn every_part_plays_one(names: &[String]) -> Result<()> {
    let parts = BOOTS.iter().flat_map(|boot| boot.stories);
    let idle: Vec<_> = parts.filter(|part| !names.iter().any(|name| name.contains(**part))).collect();
    if idle.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("no story's name contains {idle:?}: see BOOTS in boots.rs")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_that_is_renamed_is_missed_by_its_boot() {
        let parts = BOOTS.iter().flat_map(|boot| boot.stories);
        let mut names: Vec<String> = parts.map(|part| part.to_string()).collect();
        every_part_plays_one(&names).expect("each part is a name");
        names.retain(|name| !name.contains("two_pods"));
        let missed = every_part_plays_one(&names).expect_err("the others are there").to_string();
        assert!(missed.contains("[\"two_pods\"]"), "{missed}");
    }
}
