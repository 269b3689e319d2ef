//! Who the process is, what it may, and which namespaces it is in.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Found, each, texts};

pub fn identity(spec: &Value, document: &Value, found: &mut Found) {
    let (asked, seen) = (&spec["process"]["user"], &document["process"]);
    for (name, ids) in [("uid", "uids"), ("gid", "gids")] {
        found.same(name, vec![asked[name].clone(); 4], seen[ids].clone());
    }
    let numbers = |array: &Value| each(array).filter_map(Value::as_u64).collect::<BTreeSet<_>>();
    let (groups, has) = (numbers(&asked["additionalGids"]), numbers(&seen["groups"]));
    found.same("additionalGids", json!(groups), json!(has));
    if let Some(umask) = asked["umask"].as_u64() {
        found.same("umask", format!("{umask:04o}"), seen["umask"].clone());
    }
}

pub fn process(spec: &Value, document: &Value, found: &mut Found) {
    let (asked, seen) = (&spec["process"], &document["process"]);
    found.same("args", asked["args"].clone(), seen["args"].clone());
    found.same("cwd", asked["cwd"].clone(), seen["cwd"].clone());
    // A runtime adds what is not there: HOME.
    let wanted = texts(&asked["env"]);
    let env: Vec<&str> = texts(&seen["env"]).into_iter().filter(|one| wanted.contains(one)).collect();
    found.same("env", json!(wanted), json!(env));
    found.same(
        "noNewPrivileges",
        asked["noNewPrivileges"].as_bool().unwrap_or(false),
        seen["no_new_privileges"].clone(),
    );
    if asked["oomScoreAdj"].is_number() {
        found.same("oomScoreAdj", asked["oomScoreAdj"].clone(), seen["oom_score_adj"].clone());
    }
    for limit in each(&asked["rlimits"]) {
        let seen = each(&seen["rlimits"]).find(|seen| seen["type"] == limit["type"]);
        found.same("rlimits", limit.clone(), seen.cloned().unwrap_or_default());
    }
    for name in ["hostname", "domainname"].into_iter().filter(|name| spec[name].is_string()) {
        found.same(name, spec[name].clone(), document[name].clone());
    }
    for (name, value) in spec["linux"]["sysctl"].as_object().into_iter().flatten() {
        found.same(name, value.clone(), document["sysctls"][name].clone());
    }
}

/// After execve, whose rules decide what is left of the five sets. Source: `capabilities(7)`, "Transformation of capabilities during
/// execve()" and "Capabilities and execution of programs by root".
pub fn capabilities(spec: &Value, document: &Value, found: &mut Found) {
    let asked = &spec["process"]["capabilities"];
    let set = |name: &str| texts(&asked[name]).into_iter().collect::<BTreeSet<_>>();
    let (bounding, inheritable, ambient) = (set("bounding"), set("inheritable"), set("ambient"));
    let permitted = if spec["process"]["user"]["uid"] == 0 {
        let gained = inheritable.union(&bounding).copied().collect::<BTreeSet<_>>();
        // What is gained beyond what there was, no_new_privs takes away.
        let kept = spec["process"]["noNewPrivileges"] == true;
        if kept { gained.intersection(&set("permitted")).copied().collect() } else { gained }
    } else {
        ambient.clone()
    };
    let sets = [
        ("bounding", &bounding),
        ("inheritable", &inheritable),
        ("ambient", &ambient),
        ("permitted", &permitted),
        ("effective", &permitted),
    ];
    for (name, asked) in sets {
        let seen = texts(&document["process"]["capabilities"][name]).into_iter().collect::<BTreeSet<_>>();
        found.same(&format!("capabilities.{name}"), json!(asked), json!(seen));
    }
}

/// A new one differs from the one outside.
pub fn namespaces(spec: &Value, document: &Value, outside: &Value, found: &mut Found) {
    const NAMES: [(&str, &str); 2] = [("mount", "mnt"), ("network", "net")];
    for namespace in each(&spec["linux"]["namespaces"]).filter(|namespace| namespace["path"].is_null()) {
        let kind = namespace["type"].as_str().unwrap_or_default();
        let name = NAMES.iter().find(|(oci, _)| *oci == kind).map_or(kind, |(_, name)| name);
        let (own, outer) = (&document["namespaces"][name], &outside[name]);
        let new = own.is_string() && outer.is_string() && own != outer;
        found.holds(&format!("a {kind} namespace of its own"), new, own);
        if kind == "pid" {
            found.same("pid", 1, document["process"]["pid"].clone());
        }
    }
}

/// That there is a filter, and what it does to the calls of features that were tried.
pub fn seccomp(spec: &Value, document: &Value, found: &mut Found) {
    const FEATURE_CALLS: [(&str, &str); 3] =
        [("inotify", "inotify_init1"), ("memfd", "memfd_create"), ("pidfd", "pidfd_open")];
    let asked = &spec["linux"]["seccomp"];
    found.same("seccomp", if asked.is_null() { 0 } else { 2 }, document["process"]["seccomp"].clone());
    for rule in each(&asked["syscalls"]) {
        let error =
            rule["errnoRet"].as_i64().and_then(|number| i32::try_from(number).ok()).unwrap_or(libc::EPERM);
        let outcome = match rule["action"].as_str() {
            Some("SCMP_ACT_ERRNO") => crate::errors::name(&std::io::Error::from_raw_os_error(error)),
            Some("SCMP_ACT_KILL_PROCESS") => format!("signal {}", libc::SIGSYS),
            _ => continue,
        };
        let named = texts(&rule["names"]);
        for (feature, call) in FEATURE_CALLS.iter().filter(|(_, call)| named.contains(call)) {
            found.same(&format!("seccomp of {call}"), outcome.clone(), document["features"][feature].clone());
        }
    }
}
