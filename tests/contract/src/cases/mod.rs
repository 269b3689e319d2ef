//! The cases: steps and no asserts. What is right, the other runtime says.

mod calls;
mod exec;
mod hooks;
mod linux;
mod mounts;
mod pod;
mod process;
mod stdio;
mod task;

use crate::step::{SECOND, Step, TASK};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Of a group, which the name begins with.
    pub name: &'static str,
    /// In order; each is answered before the next.
    pub steps: &'static [Step],
}

impl Case {
    /// The containers that it may have, the first one last.
    pub(crate) fn containers(&self) -> Vec<&'static str> {
        let beside = self.steps.iter().filter_map(|step| match *step {
            Step::Second(..) => Some(SECOND.id),
            Step::Another(of, ..) => Some(of.id),
            _ => None,
        });
        let mut ids: Vec<_> = beside.collect();
        ids.dedup();
        ids.push(TASK.id);
        ids
    }
}

/// A program that says so and stays.
const SLEEPS: &str = "echo there; exec sleep 1000";
const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;

/// A name and steps each.
macro_rules! cases {
    ($($name:ident: $($step:expr),+;)+) => {
        $crate::cases::cases! { CASES: $($name: $($step),+;)+ }
    };
    ($(#[$doc:meta])* $all:ident: $($name:ident: $($step:expr),+;)+) => {
        $(#[$doc])*
        pub const $all: &[Case] = &[$(Case { name: stringify!($name), steps: &[$($step),+] as &[Step] }),+];
    };
}
use cases;

/// A name, a script, and the change of the spec that it looks at, or because of which it never runs.
macro_rules! looks {
    ($($name:ident: $script:literal, $change:expr;)+) => {
        // One stream, in the order of its writer.
        $crate::cases::cases! { $($name: CreateOf(concat!("exec 2>&1\n", $script), $change), Start(TASK), Wait(TASK), Delete(TASK), Output(TASK);)+ }
    };
}
use looks;

/// Those of calls, streams and events, by group.
pub const OF_CALLS: &[(&str, &[Case])] = &[
    ("task", task::CASES),
    ("exec", exec::CASES),
    ("pod", pod::CASES),
    ("calls", calls::CASES),
    ("stdio", stdio::CASES),
];
/// Those of specs, and of what a container sees of its own.
pub const OF_SPECS: &[(&str, &[Case])] = &[
    ("process", process::CASES),
    ("mounts", mounts::CASES),
    ("node_mounts", mounts::ON_THE_NODE),
    ("linux", linux::CASES),
    ("spec_of_execs", linux::OF_EXECS),
    ("hooks", hooks::CASES),
];

/// All of some groups.
pub fn all(groups: &'static [(&str, &[Case])]) -> impl Iterator<Item = &'static Case> {
    groups.iter().flat_map(|(_, cases)| *cases)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_case_has_a_name_of_its_own_and_begins_with_its_container() {
        let all = || all(OF_CALLS).chain(all(OF_SPECS));
        let names: BTreeSet<_> = all().map(|case| case.name).collect();
        assert_eq!(names.len(), all().count());
        let creates = |case: &&Case| {
            let of = |step: &&Step| matches!(step, Step::Create(_) | Step::CreateOf(..) | Step::CreateIo(..));
            case.steps.iter().filter(of).count() == 1
        };
        assert_eq!(all().filter(creates).count(), names.len(), "the shim is started in its bundle");
    }
}
