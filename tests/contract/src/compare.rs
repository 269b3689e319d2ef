//! Two plays of a case, field by field, and which of their differences have a reason.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::play::Played;

/// A difference that is meant, or not to be changed.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// The begin of the case's name.
    pub case: &'static str,
    /// The end of the field's.
    pub field: &'static str,
    /// What is right and what ours is, "UNKNOWN → ALREADY_EXISTS"; empty: any.
    pub values: &'static str,
    /// Why it may stay.
    pub why: &'static str,
}

/// One field that two runtimes have not alike; none is null.
#[derive(Debug)]
pub struct Difference {
    /// The case.
    pub case: String,
    /// Step or event, and field.
    pub field: String,
    /// The value of who is taken for right.
    pub right: Value,
    /// Ours.
    pub ours: Value,
}

impl Accepted {
    /// Whether it speaks of this one.
    pub fn fits(&self, one: &Difference) -> bool {
        let values = self.values.is_empty() || one.values() == self.values;
        one.case.starts_with(self.case) && one.field.ends_with(self.field) && values
    }
}

impl Difference {
    fn is_of_what_one_has_not(&self) -> bool {
        let creates = [" Create", " RunPod", " Start"].iter().any(|step| self.field.contains(step))
            && self.field.ends_with(" error");
        creates && (self.right.is_null() || self.ours.is_null())
    }

    /// The number of its step; an event has none.
    fn step(&self) -> Option<usize> {
        self.field.split(' ').next()?.parse().ok()
    }

    /// "what is right → what ours is".
    pub fn values(&self) -> String {
        let text = |value: &Value| match value {
            Value::Null => "none".to_owned(),
            Value::String(text) => text.replace('\n', "\\n"),
            other => other.to_string(),
        };
        format!("{} → {}", text(&self.right), text(&self.ours))
    }
}

const ORDER: &str = "events order";

/// Those of a case. Where only one has made or started something, what follows from that is no difference of its own.
pub fn differences(case: &str, right: &Played, ours: &Played) -> Vec<Difference> {
    let (mut right, ours) = (flat(right), flat(ours));
    if let (Some(Value::Array(right)), Some(Value::Array(ours))) = (right.get_mut(ORDER), ours.get(ORDER))
        && exits_first(right, true) == exits_first(ours, false)
    {
        right.clone_from(ours);
    }
    let names = right.keys().chain(ours.keys().filter(|name| !right.contains_key(*name)));
    let of = |from: &BTreeMap<String, Value>, name: &String| from.get(name).cloned().unwrap_or_default();
    let difference = |name: &String| Difference {
        case: case.to_owned(),
        field: name.clone(),
        right: of(&right, name),
        ours: of(&ours, name),
    };
    let mut all: Vec<_> = names.map(difference).filter(|one| one.right != one.ours).collect();
    let parted = all.iter().filter(|one| one.is_of_what_one_has_not()).filter_map(Difference::step).min();
    if let Some(parted) = parted {
        // Events are of the whole case, and follow, too.
        all.retain(|one| {
            let step = one.step();
            step.is_some_and(|step| step < parted) || step == Some(parted) && one.is_of_what_one_has_not()
        });
    }
    all
}

/// runc's shim tells an end and its Delete from two threads, so a slow node hears them the wrong way round now and then. The contract's order is
/// right, and ours is held to it. Of a container that was never started both orders are right: nobody waits for its end.
fn exits_first(order: &[Value], of_started: bool) -> Vec<Value> {
    let mut order = order.to_vec();
    for at in 1..order.len() {
        let exit =
            order[at - 1].as_str().and_then(|name| Some(format!("exit{}", name.strip_prefix("delete")?)));
        let was_started = order[..at].iter().any(|name| name == "start");
        if (of_started || !was_started) && exit.is_some_and(|exit| order[at] == exit) {
            order.swap(at - 1, at);
        }
    }
    order
}

fn flat(played: &Played) -> BTreeMap<String, Value> {
    let fields = played.iter().flat_map(|(step, outcome)| {
        // A step that gives nothing has been taken all the same.
        let taken = (format!("{step} taken"), Value::Bool(true));
        let fields = outcome.iter().map(move |(field, value)| (format!("{step} {field}"), value.clone()));
        fields.chain([taken])
    });
    fields.collect()
}

/// What is wrong with all cases' differences: one that has no reason, or a reason that has no difference any more.
pub fn judge<'a>(differences: impl Iterator<Item = &'a Difference>, accepted: &[Accepted]) -> Vec<String> {
    let differences: Vec<_> = differences.collect();
    let unexplained = unexplained(differences.iter().copied(), accepted);
    let gone = accepted.iter().filter(|entry| !differences.iter().any(|one| entry.fits(one)));
    let gone = gone.map(|entry| format!("{}…: …{} differs no more ({})", entry.case, entry.field, entry.why));
    unexplained.into_iter().chain(gone).collect()
}

/// Those that have no reason.
pub fn unexplained<'a>(
    differences: impl Iterator<Item = &'a Difference>,
    accepted: &[Accepted],
) -> Vec<String> {
    let bare = differences.filter(|one| !accepted.iter().any(|entry| entry.fits(one)));
    bare.map(|one| format!("{}: {}: {}", one.case, one.field, one.values())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outcome::Outcome;

    fn played(pid: Value, status: &str) -> Played {
        let state = Outcome::from([("pid".into(), pid), ("status".into(), json!(status))]);
        vec![("0 Create".into(), Outcome::new()), ("1 State".into(), state)]
    }

    const PID: Accepted = Accepted { case: "task_", field: " pid", values: "", why: "a holder's" };

    #[test]
    fn an_unexplained_difference_is_told_with_both_values() {
        let found = differences("task_a", &played(json!(1), "RUNNING"), &played(json!(1), "STOPPED"));
        assert_eq!(judge(found.iter(), &[]), ["task_a: 1 State status: RUNNING → STOPPED"]);
        assert!(differences("task_a", &played(json!(1), "x"), &played(json!(1), "x")).is_empty());
    }

    #[test]
    fn an_accepted_difference_is_none_in_its_cases_alone() {
        let found = differences("task_a", &played(json!(1), "x"), &played(json!(0), "x"));
        assert!(judge(found.iter(), &[PID]).is_empty());
        assert!(judge(found.iter(), &[Accepted { values: "1 → 0", ..PID }]).is_empty());
        assert_eq!(judge(found.iter(), &[Accepted { values: "0 → 1", ..PID }]).len(), 2);
        assert_eq!(
            judge(found.iter(), &[Accepted { case: "exec_", ..PID }]).len(),
            2,
            "one unexplained, one gone"
        );
    }

    #[test]
    fn what_follows_from_a_container_that_one_has_not_is_no_difference_of_its_own() {
        let of = |error: Option<&str>, status: &str| {
            let create = Outcome::from_iter(error.map(|code| ("error".into(), json!(code))));
            vec![("0 CreateOf".into(), create), played(json!(1), status).remove(1)]
        };
        let found = differences("task_a", &of(None, "RUNNING"), &of(Some("INTERNAL"), "none"));
        assert_eq!(judge(found.iter(), &[]), ["task_a: 0 CreateOf error: none → INTERNAL"]);
        let found = differences("task_a", &of(Some("UNKNOWN"), "a"), &of(Some("INTERNAL"), "b"));
        assert_eq!(judge(found.iter(), &[]).len(), 2, "both have none");
        let late = |error, status: &str| {
            let mut all = [played(json!(1), status), of(error, "x")].concat();
            (all[2].0, all[3].0) = ("2 CreateOf".into(), "10 State".into());
            all
        };
        let found = differences("task_a", &late(None, "RUNNING"), &late(Some("INTERNAL"), "STOPPED"));
        let found = judge(found.iter(), &[]);
        assert_eq!(
            found,
            ["task_a: 1 State status: RUNNING → STOPPED", "task_a: 2 CreateOf error: none → INTERNAL"]
        );
    }

    #[test]
    fn an_end_that_is_told_after_its_delete_is_right_of_nobody_that_was_started() {
        let order =
            |names: &[&str]| vec![("events".to_owned(), Outcome::from([("order".into(), json!(names))]))];
        let (late, right) = (order(&["start", "delete", "exit"]), order(&["start", "exit", "delete"]));
        assert!(differences("task_a", &late, &right).is_empty());
        assert_eq!(differences("task_a", &right, &late).len(), 1, "ours has no such race");
        let of_exec = order(&["start", "delete of x", "exit", "delete"]);
        assert!(differences("task_a", &of_exec, &of_exec).is_empty(), "another's");
        let (late, right) = (order(&["create", "delete", "exit"]), order(&["create", "exit", "delete"]));
        for (right, ours) in [(&late, &right), (&right, &late), (&late, &late)] {
            assert!(differences("task_a", right, ours).is_empty(), "never started");
        }
        // The Delete is another container's, which goes first.
        let two = order(&["start", "exit of b", "delete", "exit", "delete again 1"]);
        assert!(differences("task_a", &two, &two).is_empty());
    }

    #[test]
    fn an_accepted_difference_that_is_gone_is_an_error() {
        let found = differences("task_a", &played(json!(1), "x"), &played(json!(1), "x"));
        assert_eq!(judge(found.iter(), &[PID]), ["task_…: … pid differs no more (a holder's)"]);
    }

    #[test]
    fn a_step_that_only_one_came_to_is_a_difference() {
        let mut ours = played(json!(1), "x");
        ours.remove(0);
        let found = differences("task_a", &played(json!(1), "x"), &ours);
        assert_eq!(judge(found.iter(), &[]), ["task_a: 0 Create taken: true → none"]);
    }
}
