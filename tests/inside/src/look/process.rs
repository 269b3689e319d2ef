//! Who this process is and what it may.

use std::{
    env, fs,
    io::{self, IsTerminal},
};

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::{failed, status::Status};

const LIMITS: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

pub fn seen() -> Value {
    let status = match Status::read() {
        Ok(status) => status,
        Err(error) => return failed(error),
    };
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    json!({
        "pid": std::process::id(),
        "parent": status.number("PPid"),
        // Real, effective, saved, of the file system.
        "uids": status.numbers("Uid"),
        "gids": status.numbers("Gid"),
        "groups": status.numbers("Groups"),
        "umask": status.word("Umask"),
        "capabilities": {
            "bounding": status.capabilities("CapBnd"),
            "effective": status.capabilities("CapEff"),
            "inheritable": status.capabilities("CapInh"),
            "permitted": status.capabilities("CapPrm"),
            "ambient": status.capabilities("CapAmb"),
        },
        "no_new_privileges": status.number("NoNewPrivs") == 1,
        // 0: none, 1: strict, 2: a filter.
        "seccomp": status.number("Seccomp"),
        "oom_score_adj": number_in("/proc/self/oom_score_adj"),
        "personality": fs::read_to_string("/proc/self/personality").map_or_else(failed, |text| json!(text.trim())),
        "rlimits": LIMITS.iter().map(|(name, which)| limit(name, *which)).collect::<Vec<_>>(),
        "cwd": env::current_dir().map_or_else(failed, |dir| json!(dir.to_string_lossy())),
        "args": env::args_os().map(text).collect::<Vec<_>>(),
        // In its order: "NAME=value".
        "env": env::vars_os().map(|(name, value)| format!("{}={}", text(name), text(value))).collect::<Vec<_>>(),
        "terminals": [
            io::stdin().is_terminal(),
            io::stdout().is_terminal(),
            io::stderr().is_terminal(),
        ],
    })
}

/// No limit is null.
fn limit(name: &str, which: Resource) -> Value {
    let limit = getrlimit(which);
    json!({"type": name, "soft": limit.current, "hard": limit.maximum})
}

fn number_in(path: &str) -> Value {
    let parsed = |text: String| text.trim().parse::<i64>().map_or(Value::Null, |number| json!(number));
    fs::read_to_string(path).map_or_else(failed, parsed)
}
