//! The table for people: what each case asks, and how ours differs.

use std::{fmt::Write as _, fs, path::Path};

use crate::{
    cases::Case,
    compare::{Accepted, Difference},
};

const HEAD: &str = "# Where vgpu's shim answers differently from runc's

Made by `tests/contract` (`UPDATE=1` in the environment of `cargo xtask test contract` writes it anew): each case is played on containerd's
shim for runc, and on vgpu's shim and guest-init without Xen. Compared is each field of each answer and event, but texts of errors; of a time
and of a number of a process, whether there is one; of a map and of bytes, how many: \"right → ours\". A row with nothing behind its steps is
alike; where only one has made or started something, what follows from that is not told. `CreateOf` is Create of a changed spec, `CreateIo` one with
other streams, `Second` and `Another` that of another container of the pod; `Until` waits for words, `UntilEnded` for the end of the outputs; `Beside` is
several calls at once; `Listen`, `Leave`, `Type` and `HangUp` are a client's at the other ends of the streams.

";
const HEAD_OF_SPECS: &str = "
## What becomes of a container's spec

As in the first table: a spec is changed, and what its program sees and leaves is compared. `Node` looks at what is on the node then. `cargo
xtask test --long contract` plays these.

";
const COLUMNS: &str = "| case | steps | accepted differences |\n|---|---|---|\n";

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/runtime-comparison.md");
/// What a part begins with, but the first.
const PART: &str = "\n## ";

/// Holds a part of the document against what it should be; writes it where `UPDATE` is in the environment. It is known by its heading.
///
/// # Panics
/// It is another one.
pub fn hold(part: &str) {
    let path = Path::new(DOCUMENT);
    let document = with(&fs::read_to_string(path).unwrap_or_default(), part);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &document).expect("written");
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    let others =
        || document.lines().filter(|line| !written.lines().any(|one| one == *line)).collect::<Vec<_>>();
    assert!(
        written == document,
        "{DOCUMENT} is another one: UPDATE=1 cargo xtask test contract\nnot in it: {:#?}",
        others()
    );
}

/// The document with `part` in the place of what it has under that heading, or at its end.
fn with(document: &str, part: &str) -> String {
    let heading = |part: &str| part.trim_start().lines().next().map(str::to_owned);
    let begins = document.match_indices(PART).map(|(at, _)| at).filter(|at| *at > 0);
    let bounds: Vec<_> = [0].into_iter().chain(begins).chain([document.len()]).collect();
    let mut parts: Vec<_> = bounds.windows(2).map(|pair| &document[pair[0]..pair[1]]).collect();
    match parts.iter_mut().find(|one| heading(one) == heading(part)) {
        Some(found) => *found = part,
        None => parts.push(part),
    }
    parts.concat()
}

/// Cases of calls, a row each, and below them the reasons.
pub fn table(played: &[(&Case, Vec<Difference>)], accepted: &[Accepted]) -> String {
    HEAD.to_owned() + &rows(played, accepted)
}

/// Cases of specs.
pub fn specs(played: &[(&Case, Vec<Difference>)], accepted: &[Accepted]) -> String {
    HEAD_OF_SPECS.to_owned() + &rows(played, accepted)
}

fn rows(played: &[(&Case, Vec<Difference>)], accepted: &[Accepted]) -> String {
    let mut table = COLUMNS.to_owned();
    let reasons = accepted.iter().map(|entry| entry.why).fold(Vec::new(), |mut all, why| {
        if !all.contains(&why) {
            all.push(why);
        }
        all
    });
    for (case, differences) in played {
        let steps: Vec<_> = case.steps.iter().map(|step| step.name()).collect();
        let told = differences.iter().map(|one| {
            let why = accepted.iter().find(|entry| entry.fits(one)).map(|entry| entry.why);
            let why = reasons.iter().position(|reason| Some(*reason) == why).map_or(0, |at| at + 1);
            // runc's own words for what a program failed of come in one play and not in the next.
            if one.field.ends_with(" Output text") {
                return format!("{} ({why})", one.field);
            }
            format!("{}: {} ({why})", one.field, one.values())
        });
        let told: Vec<_> = told.collect();
        let row = format!("| `{}` | {} | {} |", case.name, steps.join(", "), told.join("<br>"));
        let _ = writeln!(table, "{}", row.replace("|  |", "| |"));
    }
    table.push('\n');
    for (number, why) in reasons.iter().enumerate() {
        let _ = writeln!(table, "{}. {why}", number + 1);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::step::{Step, TASK};

    #[test]
    fn a_part_takes_the_place_of_its_heading() {
        let document = "# a\n\nold\n\n## b\n\nold\n\n## c\n";
        assert_eq!(with(document, "# a\n\nnew\n"), "# a\n\nnew\n\n## b\n\nold\n\n## c\n");
        assert_eq!(with(document, "\n## b\nnew\n"), "# a\n\nold\n\n## b\nnew\n\n## c\n");
        assert_eq!(with(document, "\n## d\n"), format!("{document}\n## d\n"));
        assert_eq!(with("", "# a\n"), "# a\n");
    }

    #[test]
    fn a_difference_is_told_with_the_number_of_its_reason() {
        let case = Case { name: "task_x", steps: &[Step::Create(""), Step::Start(TASK)] };
        let (case_of, field) = ("task_x".to_owned(), "1 Start error".to_owned());
        let difference = Difference { case: case_of, field, right: json!("UNKNOWN"), ours: Value::Null };
        let entry = Accepted { case: "task_", field: " error", values: "", why: "because" };
        let made = table(&[(&case, vec![difference]), (&Case { name: "task_y", ..case }, vec![])], &[entry]);
        let rows = made.strip_prefix(HEAD).and_then(|rest| rest.strip_prefix(COLUMNS)).expect("a head");
        assert_eq!(
            rows,
            "| `task_x` | Create, Start | 1 Start error: UNKNOWN → none (1) |\n| `task_y` | Create, Start | |\n\n1. because\n"
        );
    }
}
