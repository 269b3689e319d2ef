//! The limits that this process's cgroup says it has, of whichever version its controllers are.

use std::{collections::BTreeMap, fs};

use serde_json::{Map, Value, json};

use super::{failed, mounts};

/// Files that say a limit: controller, version 1's, version 2's.
const FILES: &[(&str, &[&str], &[&str])] = &[
    (
        "memory",
        &["memory.limit_in_bytes", "memory.soft_limit_in_bytes"],
        &["memory.max", "memory.low", "memory.swap.max"],
    ),
    ("pids", &["pids.max"], &["pids.max"]),
    ("cpu", &["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares"], &["cpu.max", "cpu.weight"]),
    ("cpuset", &["cpuset.cpus", "cpuset.mems"], &["cpuset.cpus", "cpuset.mems"]),
];

pub fn seen() -> Value {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}"));
    match (read("cgroup"), read("mountinfo")) {
        (Ok(own), Ok(table)) => {
            let own = membership(&own);
            json!({"membership": own, "limits": limits(&own, &mounts::parse(&table))})
        }
        (Err(error), _) | (_, Err(error)) => failed(error),
    }
}

/// The path below each controller of version 1, and below "" of version 2. Source: `cgroups(7)`, "/proc/pid/cgroup".
fn membership(table: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1).map(String::from);
        Some((parts.next()?, parts.next()?))
    };
    let all = table.lines().filter_map(line);
    all.flat_map(|(controllers, path)| {
        controllers.split(',').map(|one| (one.to_owned(), path.clone())).collect::<Vec<_>>()
    })
    .collect()
}

/// The files that are there, with what they say, by controllers.
fn limits(own: &BTreeMap<String, String>, mounts: &[mounts::Mount]) -> Value {
    let limits = FILES.iter().filter_map(|(controller, version_1, version_2)| {
        let (path, files) = match own.get(*controller) {
            Some(path) => (place(mounts, "cgroup", Some(controller), path)?, version_1),
            None => (place(mounts, "cgroup2", None, own.get("")?)?, version_2),
        };
        let said: Map<_, _> = files
            .iter()
            .filter_map(|file| {
                let said = fs::read_to_string(format!("{path}/{file}")).ok()?;
                Some(((*file).to_owned(), json!(said.trim_end())))
            })
            .collect();
        (!said.is_empty()).then(|| ((*controller).to_owned(), said.into()))
    });
    limits.collect::<Map<_, _>>().into()
}

/// Where a cgroup is seen: the last mount of its hierarchy counts. A mount without a namespace of its own begins at the cgroup itself.
fn place(mounts: &[mounts::Mount], kind: &str, controller: Option<&str>, path: &str) -> Option<String> {
    let right = |mount: &&mounts::Mount| {
        mount.kind == kind
            && controller.is_none_or(|name| mount.super_options.iter().any(|option| option == name))
    };
    let mount = mounts.iter().rev().find(right)?;
    let below = path.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or_default();
    Some(format!("{}/{}", mount.destination.trim_end_matches('/'), below.trim_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_has_its_path() {
        let own = membership("4:cpu,cpuacct:/a\n1:name=systemd:/\n0::/b:c\n");
        let of = |name: &str| own.get(name).map(String::as_str);
        assert_eq!((of("cpu"), of("cpuacct"), of("")), (Some("/a"), Some("/a"), Some("/b:c")));
    }

    #[test]
    fn a_cgroup_is_found_below_the_mount_that_shows_it() {
        let table = "1 0 0:1 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                     2 0 0:2 /pod/a /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let mounts = mounts::parse(table);
        let version_1 = |path| place(&mounts, "cgroup", Some("pids"), path);
        assert_eq!(version_1("/pod/a").as_deref(), Some("/sys/fs/cgroup/pids/pod/a"));
        assert_eq!(place(&mounts, "cgroup", Some("memory"), "/pod/a"), None);
        assert_eq!(place(&mounts, "cgroup2", None, "/pod/a").as_deref(), Some("/sys/fs/cgroup/"));
        assert_eq!(place(&mounts, "cgroup2", None, "/pod/a/b").as_deref(), Some("/sys/fs/cgroup/b"));
    }
}
