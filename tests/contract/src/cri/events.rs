//! What containerd tells of a container, in the form of outcomes.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Node;
use crate::{
    events::told,
    outcome::{Names, Outcome},
    play::Played,
};

/// An event that has not come by then does not come.
const LATE: Duration = Duration::from_secs(5);

/// Waits for the last event of a task, if there was one and as long as it may take.
pub async fn wait(node: &Node, id: &str, last: &str) {
    let begun = Instant::now();
    let has = |wanted: &str| node.events_of(id).iter().any(|event| event.topic == wanted);
    while has("create") && !has(last) && begun.elapsed() < LATE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Each event of a container, which is called `of`, until the last, and their order.
pub fn events(node: &Node, id: &str, of: &str, names: &Names, last: &str) -> Played {
    let (mut names, mut execs, mut named) = (names.clone(), 0, Played::new());
    let mut events = node.events_of(id);
    if let Some(at) = events.iter().position(|event| event.topic == last) {
        events.truncate(at + 1);
    }
    for event in events {
        if event.topic == "exec-added" {
            let added = told(&event, &Names::default());
            names.add(added["exec_id"].as_str().expect("a name"), format!("exec-{execs}"));
            execs += 1;
        }
        let mut fields = told(&event, &names);
        // Where its snapshots and its streams are is containerd's.
        fields.retain(|field, _| !field.starts_with("rootfs.") && !field.starts_with("io.std"));
        let of_exec = ["exec_id", "id"].into_iter().filter_map(|field| fields.get(field)?.as_str());
        let exec = of_exec.into_iter().find(|name| name.starts_with("exec-")).unwrap_or_default();
        let name = format!("event {} of {of} {exec}", event.topic);
        named.push((name.trim_end().to_owned(), fields));
    }
    let order: Vec<_> = named.iter().map(|(name, _)| name.trim_start_matches("event ").to_owned()).collect();
    named.push((format!("events of {of}"), Outcome::from([("order".into(), json!(order))])));
    named
}
