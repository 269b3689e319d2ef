//! Hooks: when they run, what they are told, and what becomes of who has one that fails.

use serde_json::{Value, json};

use super::{Case, cases};
use crate::step::{
    Step::{self, *},
    TASK,
};

/// The bundle's own: there is no program that both sides have at one path, and a hook begins in the bundle.
const PROGRAM: &str = "/proc/self/cwd/rootfs/bin/busybox";

/// A hook that is a script.
fn script(script: &str) -> Value {
    json!({"path": PROGRAM, "args": ["sh", "-c", script], "env": ["PATH=/proc/self/cwd/rootfs/bin"]})
}

/// One that writes a word, the status it is told and what a script says into the bundle's file `ran`.
fn notes(word: &str, and: &str) -> Value {
    script(&format!(
        r#"cat > state; echo {word} $(sed -E 's/.*"status":"([a-z]+)".*/\1/' state) $({and}) >> ran"#
    ))
}

/// One that notes its word and fails.
fn fails(word: &str) -> Value {
    script(&format!("echo {word} >> ran; exit 3"))
}

fn hooks(spec: &mut Value, hooks: Value) {
    spec["hooks"] = hooks;
}

/// Says whether the pid of the state has a network namespace of its own.
const OWN: &str = r#"pid=$(sed -E 's/.*"pid":([0-9]+).*/\1/' state)
    test $(readlink /proc/$pid/ns/net) = $(readlink /proc/self/ns/net) || echo own"#;

/// Writes what it is told of all but the pid, whose place is its own.
const TOLD: &str = r#"cat > state
    for field in id annotations; do grep -oE "\"$field\":(\"[a-z]*\"|\{[^}]*\})" state; done > ran
    grep -q "\"bundle\":\"$(pwd)\"" state && echo bundle >> ran"#;

/// One that stays, for a second.
fn hangs() -> Value {
    let mut hook = script("exec sleep 1000");
    hook["timeout"] = 1.into();
    hook
}

cases! {
    hooks_in_their_order: CreateOf("echo runs", |spec| hooks(spec, json!({
            "poststop": [notes("poststop", ""), notes("second", "")], "createRuntime": [notes("createRuntime", "")],
            "prestart": [notes("prestart", ""), notes("second", "")]
        }))), Node("ran"), Start(TASK), Wait(TASK), Node("ran"), Delete(TASK), Node("ran"), Output(TASK);
    hooks_after_the_start: CreateOf("echo runs", |spec| hooks(spec, json!({"poststart": [notes("poststart", "")]}))),
        Start(TASK), Wait(TASK), Delete(TASK), Node("ran"), Output(TASK);
    hooks_of_start_container: CreateOf("cat /tmp/made", |spec| {
            hooks(spec, json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo hooked > /tmp/made"], "env": ["PATH=/bin"]}]}));
        }), Start(TASK), Wait(TASK), Delete(TASK), Output(TASK);
    hooks_of_create_container: CreateOf("echo runs", |spec| hooks(spec, json!({"createContainer": [{"path": "/proc/self/cwd/bin/busybox", "args": ["true"]}]}))),
        Start(TASK), Wait(TASK), Delete(TASK), Output(TASK);
    hooks_empty: CreateOf("echo runs", |spec| hooks(spec, json!({"prestart": [], "poststop": null}))), Start(TASK), Wait(TASK), Delete(TASK), Output(TASK);
    hooks_of_a_kind_that_is_none: CreateOf("echo runs", |spec| hooks(spec, json!({"postnothing": [script("true")]}))), Start(TASK), Wait(TASK), Delete(TASK), Output(TASK);
    hooks_are_told_of_the_container: CreateOf("echo runs", |spec| {
            spec["annotations"]["of.mine/key"] = "value".into();
            hooks(spec, json!({"createRuntime": [script(TOLD)]}));
        }), Node("ran"), Start(TASK), Wait(TASK), Delete(TASK);
    hooks_have_the_pid_of_a_process_with_namespaces: CreateOf("echo runs", |spec| hooks(spec, json!({
            "prestart": [notes("prestart", OWN)], "createRuntime": [notes("createRuntime", OWN)]
        }))), Node("ran"), Start(TASK), Wait(TASK), Delete(TASK);
    hooks_have_their_arguments: CreateOf("echo runs", |spec| hooks(spec, json!({"prestart": [
            {"path": PROGRAM, "args": ["sh", "-c", "echo $0 $1 >> ran", "zero", "one"]}, {"path": PROGRAM}
        ]}))), Node("ran"), Start(TASK), Wait(TASK), Delete(TASK);
    hooks_have_their_environment: CreateOf("echo runs", |spec| hooks(spec, json!({"prestart": [
            {"path": PROGRAM, "args": ["sh", "-c", "echo $WORD $TTRPC_ADDRESS >> ran"], "env": ["WORD=a=b"]},
            {"path": PROGRAM, "args": ["sh", "-c", "test -n \"$TTRPC_ADDRESS\" && echo inherited >> ran"]},
            {"path": PROGRAM, "args": ["sh", "-c", "test -n \"$TTRPC_ADDRESS\" || echo empty >> ran"], "env": []}
        ]}))), Node("ran"), Start(TASK), Wait(TASK), Delete(TASK);
    hooks_before_that_fail: CreateOf("echo runs", |spec| hooks(spec, json!({
            "prestart": [fails("prestart"), fails("second")], "createRuntime": [fails("createRuntime")], "poststop": [notes("poststop", "")]
        }))), Node("ran"), State(TASK);
    hooks_of_create_runtime_that_fail: CreateOf("echo runs", |spec| hooks(spec, json!({
            "createRuntime": [fails("createRuntime")], "poststop": [notes("poststop", "")]
        }))), Node("ran"), State(TASK);
    hooks_of_start_container_that_fail: CreateOf("echo runs", |spec| hooks(spec, json!({
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}], "poststop": [notes("poststop", "")]
        }))), Start(TASK), Wait(TASK), Delete(TASK), Node("ran");
    hooks_after_the_start_that_fail: CreateOf("exec sleep 1000", |spec| hooks(spec, json!({
            "poststart": [fails("poststart")], "poststop": [notes("poststop", "")]
        }))), Node("ran"), Start(TASK), Delete(TASK), Node("ran");
    hooks_at_the_end_that_fail: CreateOf("echo runs", |spec| hooks(spec, json!({
            "poststop": [fails("poststop"), notes("second", "")]
        }))), Start(TASK), Wait(TASK), Delete(TASK), Node("ran"), State(TASK);
    hooks_of_one_that_is_deleted_unstarted: CreateOf("echo runs", |spec| hooks(spec, json!({"poststop": [notes("poststop", "")]}))),
        Delete(TASK), Node("ran");
    hooks_before_that_hang: CreateOf("echo runs", |spec| hooks(spec, json!({"createRuntime": [hangs()], "poststop": [notes("poststop", "")]}))), Node("ran"), State(TASK);
    hooks_at_the_end_that_hang: CreateOf("echo runs", |spec| hooks(spec, json!({"poststop": [hangs()]}))), Start(TASK), Wait(TASK), Delete(TASK), State(TASK);
    hooks_without_a_program: CreateOf("echo runs", |spec| hooks(spec, json!({"prestart": [{"path": "/none"}]}))), State(TASK);
    hooks_of_a_relative_path: CreateOf("echo runs", |spec| hooks(spec, json!({"prestart": [{"path": "rootfs/bin/busybox", "args": ["busybox", "true"]}]}))),
        Start(TASK), Wait(TASK), Delete(TASK), Output(TASK);
    hooks_of_another_form: CreateOf("echo runs", |spec| hooks(spec, json!({"prestart": [{"path": 7}]}))), Start(TASK), Wait(TASK), Delete(TASK), Output(TASK);
}
