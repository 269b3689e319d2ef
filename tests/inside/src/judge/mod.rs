//! What an OCI spec asked for and a document doesn't show. Where both runtimes of a pair pass, they differ in nothing that is asked here.
//!
//! Source: the OCI runtime spec, `config.md` and `config-linux.md`.

mod files;
mod process;

use serde_json::Value;

use files::{devices, mounts, paths};
use process::{capabilities, identity, namespaces, process, seccomp};

/// One line each. `outside` is the document's `namespaces` of a process outside of the container.
pub fn differences(spec: &Value, document: &Value, outside: &Value) -> Vec<String> {
    let mut found = Found::default();
    identity(spec, document, &mut found);
    process(spec, document, &mut found);
    capabilities(spec, document, &mut found);
    namespaces(spec, document, outside, &mut found);
    seccomp(spec, document, &mut found);
    mounts(spec, document, &mut found);
    devices(spec, document, &mut found);
    paths(spec, document, &mut found);
    limits(spec, document, &mut found);
    found.0
}

/// The differences so far.
#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn same(&mut self, what: &str, asked: impl Into<Value>, seen: impl Into<Value>) {
        let (asked, seen) = (asked.into(), seen.into());
        if asked != seen {
            self.0.push(format!("{what}: asked {asked}, seen {seen}"));
        }
    }

    fn holds(&mut self, what: &str, holds: bool, seen: &Value) {
        if !holds {
            self.0.push(format!("{what}: seen {seen}"));
        }
    }
}

/// What an array has; nothing where there is none.
fn each(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().into_iter().flatten()
}

/// The texts of an array.
fn texts(array: &Value) -> Vec<&str> {
    each(array).filter_map(Value::as_str).collect()
}

/// Of the cgroup, by the names of either version.
fn limits(spec: &Value, document: &Value, found: &mut Found) {
    let (asked, seen) = (&spec["linux"]["resources"], &document["cgroup"]["limits"]);
    let all = [
        ("memory.limit", &asked["memory"]["limit"], &seen["memory"], ["memory.limit_in_bytes", "memory.max"]),
        ("pids.limit", &asked["pids"]["limit"], &seen["pids"], ["pids.max", "pids.max"]),
    ];
    for (what, asked, seen, names) in all.into_iter().filter(|(_, asked, ..)| asked.is_number()) {
        let seen = names.iter().map(|name| &seen[*name]).find(|said| said.is_string());
        found.same(what, asked.to_string(), seen.cloned().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
