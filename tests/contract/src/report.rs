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
alike. `CreateOf` is Create of a changed spec, `Second` that of another container of the pod, `Until` waits for init.

| case | steps | accepted differences |
|---|---|---|
";

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/runtime-comparison.md");
/// Where its second part begins.
const SECOND: &str = "\n## ";

/// Holds a part of the document against what it should be; writes it where `UPDATE` is in the environment. The second begins with its heading.
///
/// # Panics
/// It is another one.
pub fn hold(part: &str) {
    let path = Path::new(DOCUMENT);
    let written = fs::read_to_string(path).unwrap_or_default();
    let (first, second) = written.split_at(written.find(SECOND).unwrap_or(written.len()));
    let document = if part.starts_with(SECOND) { first.to_owned() + part } else { part.to_owned() + second };
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

/// A row a case, and below it the reasons.
pub fn table(played: &[(&Case, Vec<Difference>)], accepted: &[Accepted]) -> String {
    let mut table = HEAD.to_owned();
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
    fn a_difference_is_told_with_the_number_of_its_reason() {
        let case = Case { name: "task_x", steps: &[Step::Create(""), Step::Start(TASK)] };
        let (case_of, field) = ("task_x".to_owned(), "1 Start error".to_owned());
        let difference = Difference { case: case_of, field, right: json!("UNKNOWN"), ours: Value::Null };
        let entry = Accepted { case: "task_", field: " error", values: "", why: "because" };
        let made = table(&[(&case, vec![difference]), (&Case { name: "task_y", ..case }, vec![])], &[entry]);
        let rows = made.strip_prefix(HEAD).expect("a head");
        assert_eq!(
            rows,
            "| `task_x` | Create, Start | 1 Start error: UNKNOWN → none (1) |\n| `task_y` | Create, Start | |\n\n1. because\n"
        );
    }
}
