//! The document: each file here has one of its members.
//!
//! What differs between two runs of one container by chance is left out or brought into one form: numbers of mounts and propagation groups,
//! the order of options. What cannot be read is the name of its error, in the place of the value.

mod cgroup;
mod mounts;
mod network;
mod paths;
mod process;
mod status;

use std::fs;

use serde_json::{Map, Value, json};

use crate::{errors, kernel};

/// What is looked at beyond what each process has.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Processes whose namespaces may be the same as this one's, as this one numbers them.
    pub pids: Vec<u32>,
    /// Paths that may be read and written.
    pub paths: Vec<String>,
    /// Names with points, as the OCI spec has them.
    pub sysctls: Vec<String>,
    /// Whether the kernel's features are tried: a process each.
    pub features: bool,
}

/// What this process sees.
pub fn document(wanted: &Wanted) -> Value {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let mut document = json!({
        "process": process::seen(),
        "namespaces": namespaces("self"),
        "same_namespaces": same_namespaces(&wanted.pids),
        "hostname": text(uname.nodename()),
        "domainname": text(uname.domainname()),
        "kernel": text(uname.release()),
        "mounts": fs::read_to_string("/proc/self/mountinfo").map_or_else(failed, |table| mounts::seen(&table)),
        "sysctls": named(&wanted.sysctls, sysctl),
        "devices": paths::below_dev(),
        "paths": named(&wanted.paths, paths::probe),
        "cgroup": cgroup::seen(),
        "network": network::seen(),
    });
    if wanted.features {
        document["features"] = kernel::seen();
    }
    document
}

/// The name of an error in the place of a value.
fn failed(error: std::io::Error) -> Value {
    json!({"error": errors::name(&error)})
}

fn named(names: &[String], see: impl Fn(&str) -> Value) -> Value {
    names.iter().map(|name| (name.clone(), see(name))).collect::<Map<_, _>>().into()
}

/// Source: `sysctl(8)`: a point is a slash and a slash is a point.
fn sysctl(name: &str) -> Value {
    let turned = |char| match char {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path = format!("/proc/sys/{}", name.chars().map(turned).collect::<String>());
    fs::read_to_string(path).map_or_else(failed, |value| json!(value.trim_end()))
}

/// Each kind of namespace of a process: "pid:[4026531836]".
fn namespaces(pid: &str) -> Value {
    const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let of = |kind: &str| match fs::read_link(format!("/proc/{pid}/ns/{kind}")) {
        Ok(name) => json!(name.to_string_lossy()),
        Err(error) => failed(error),
    };
    KINDS.iter().map(|kind| ((*kind).to_owned(), of(kind))).collect::<Map<_, _>>().into()
}

/// Of each process, which of its namespaces are ours, too.
fn same_namespaces(pids: &[u32]) -> Value {
    let own = namespaces("self");
    let same = |pid: &u32| {
        let others = namespaces(&pid.to_string());
        let same = |(kind, name): (&String, &Value)| {
            let same = if name.is_string() { json!(*name == own[kind]) } else { name.clone() };
            (kind.clone(), same)
        };
        (pid.to_string(), others.as_object().into_iter().flatten().map(same).collect::<Map<_, _>>().into())
    };
    pids.iter().map(same).collect::<Map<_, _>>().into()
}
