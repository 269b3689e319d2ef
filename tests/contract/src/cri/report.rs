//! The second part of the table for people: the cases below containerd, a column for each.

use std::fmt::Write as _;

use super::{
    cases::{Case, LIMITS},
    step::Step,
};
use crate::compare::{Accepted, Difference};

const HEAD: &str = "
## The same below containerd

Real containerds, called as kubelet calls them, with runc and vgpu's shim as two runtimes of each: Debian 12's (1.6), 13's (1.7) and forky's
(2.1 or later). Compared is each field of each answer, of the status, of the logs and of the events; where a pod's containers are said to
log, so is what they see. A number is a reason below, no number is alike. `RunPodOn` has a network by CNI's own plugins, `RunOther` is another pod on it,
`OnNode` what the node sees and reaches of both.

";

const ELSEWHERE: &str = "
\"not here\": only where the machine's controllers are those of cgroup version 2. Xen's Dom0 has them: `test --long contract-on-xen`.
";

const HEAD_OF_MORE: &str = "
## More of it below containerd

As above. `cargo xtask test --long contract` plays these.

";

const HEAD_OF_SANDBOX: &str = "
## The same by the Sandbox API

As above, with `sandboxer = \"shim\"` for vgpu's runtime: its pods have no pause container, runc's have one. What is told of that as a task is left
out, and so are the cases that end it.

";

/// What a containerd has given: its name, and each case's differences in the order of [`super::cases::CASES`].
pub type Column = (&'static str, Vec<(&'static Case, Vec<Difference>)>);

/// The cases of every machine, those of limits, and below them the reasons.
pub fn table(columns: &[Column], accepted: &[Accepted]) -> String {
    let mut table = HEAD.to_owned() + &rows(columns, accepted);
    for case in LIMITS {
        let cells = ["not here"].repeat(columns.len()).join(" | ");
        let _ = writeln!(table, "| `{}` | {} | {cells} |", case.name, steps(case));
    }
    table.push_str(ELSEWHERE);
    table + &told(accepted)
}

/// More cases, and below them the reasons.
pub fn more(columns: &[Column], accepted: &[Accepted]) -> String {
    HEAD_OF_MORE.to_owned() + &rows(columns, accepted) + &told(accepted)
}

/// The cases by the Sandbox API, and below them the reasons.
pub fn by_sandbox(columns: &[Column], accepted: &[Accepted]) -> String {
    HEAD_OF_SANDBOX.to_owned() + &rows(columns, accepted) + &told(accepted)
}

fn rows(columns: &[Column], accepted: &[Accepted]) -> String {
    let mut table = String::new();
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | ");
    let _ = writeln!(table, "| case | steps | {names} |\n|---|---|{}", "---|".repeat(columns.len()));
    for (at, (case, _)) in columns.first().into_iter().flat_map(|(_, rows)| rows).enumerate() {
        let cells =
            columns.iter().map(|(_, rows)| cell(&rows[at].1, accepted)).collect::<Vec<_>>().join(" | ");
        let _ = writeln!(table, "| `{}` | {} | {cells} |", case.name, steps(case));
    }
    // An empty cell.
    table.replace("|  |", "| |").replace("|  |", "| |")
}

fn told(accepted: &[Accepted]) -> String {
    let reasons = reasons(accepted);
    let lines = reasons.iter().enumerate().map(|(number, why)| format!("{}. {why}\n", number + 1));
    "\n".to_owned() + &lines.collect::<String>()
}

fn steps(case: &Case) -> String {
    case.steps.iter().map(Step::name).collect::<Vec<_>>().join(", ")
}

/// The reasons' numbers, each once.
fn cell(found: &[Difference], accepted: &[Accepted]) -> String {
    let reasons = reasons(accepted);
    let number = |one: &Difference| {
        let why = accepted.iter().find(|entry| entry.fits(one)).map(|entry| entry.why);
        reasons.iter().position(|reason| Some(*reason) == why).map_or(0, |at| at + 1)
    };
    let numbers: std::collections::BTreeSet<_> = found.iter().map(number).collect();
    numbers.iter().map(|number| format!("({number})")).collect::<Vec<_>>().join(" ")
}

fn reasons(accepted: &[Accepted]) -> Vec<&'static str> {
    accepted.iter().fold(Vec::new(), |mut all, entry| {
        if !all.contains(&entry.why) {
            all.push(entry.why);
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cri::step::Step::{Start, StopPod};

    static CASE: Case = Case { name: "cri_x", steps: &[Start("app"), StopPod] };

    #[test]
    fn each_containerd_has_the_numbers_of_its_reasons() {
        let difference = || Difference {
            case: "cri_x".into(),
            field: "0 Start app error".into(),
            right: json!("Unknown"),
            ours: Value::Null,
        };
        let entry = Accepted { case: "cri_", field: " error", values: "", why: "because" };
        let columns =
            [("old", vec![(&CASE, vec![difference(), difference()])]), ("new", vec![(&CASE, vec![])])];
        let made = table(&columns, &[entry]);
        let rows = made.strip_prefix(HEAD).expect("a head");
        assert!(
            rows.starts_with(
                "| case | steps | old | new |\n|---|---|---|---|\n| `cri_x` | Start app, StopPod | (1) | |\n"
            ),
            "{rows}"
        );
        assert!(rows.ends_with("\n\n1. because\n"), "{rows}");
    }
}
