//! What a containerd has heard of a case's containers.

use containerd_shim_protos::events::task;
use protobuf::MessageFull;
use serde_json::{Value, json};

use crate::{
    cases::Case,
    mock::Event,
    outcome::{self, Names, Outcome},
    play::Played,
    step::{Step, TASK},
};

/// Each by its topic and whose it is, and their order: so one that comes late is one difference. Where steps were taken at the same time there
/// is none.
pub(crate) fn played(events: &[Event], names: &Names, case: &Case) -> Played {
    let (mut named, mut before) = (Played::new(), Vec::new());
    for event in events {
        let fields = told(event, names);
        let of = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        // An exec is named by either, init by its container's id or by nothing.
        let exec = [of("exec_id"), of("id")].into_iter().find(|name| !name.is_empty() && *name != TASK.id);
        let of = exec.map(|exec| format!(" of {exec}")).unwrap_or_default();
        let name = format!("event {}{of}", event.topic);
        let again = before.iter().filter(|other| **other == name).count();
        before.push(name.clone());
        named.push((if again > 0 { format!("{name} again {again}") } else { name }, fields));
    }
    let mut order: Vec<_> =
        named.iter().map(|(name, _)| name.trim_start_matches("event ").to_owned()).collect();
    if case.steps.iter().any(|step| matches!(step, Step::Beside(_))) {
        order.sort();
    }
    named.push(("events".into(), Outcome::from([("order".into(), json!(order))])));
    named
}

/// All fields of an event.
pub(crate) fn told(event: &Event, names: &Names) -> Outcome {
    match event.topic.as_str() {
        "create" => read::<task::TaskCreate>(event, names),
        "start" => read::<task::TaskStart>(event, names),
        "exec-added" => read::<task::TaskExecAdded>(event, names),
        "exec-started" => read::<task::TaskExecStarted>(event, names),
        "exit" => read::<task::TaskExit>(event, names),
        "oom" => read::<task::TaskOOM>(event, names),
        "paused" => read::<task::TaskPaused>(event, names),
        "resumed" => read::<task::TaskResumed>(event, names),
        "delete" => read::<task::TaskDelete>(event, names),
        topic => panic!("no form for {topic}"),
    }
}

fn read<M: MessageFull>(event: &Event, names: &Names) -> Outcome {
    outcome::fields(&M::parse_from_bytes(&event.message).expect("an event of its topic"), names)
}
