//! A judge that finds nothing would pass everything: each value that it looks at is made wrong once.

use serde_json::json;

use super::*;
use crate::specs;

/// Of the container "locked", with limits and a volume.
fn asked() -> Value {
    let (_, mut spec) = specs::all().into_iter().find(|(name, _)| *name == "locked").expect("it is there");
    spec["linux"]["resources"] = json!({"memory": {"limit": 1 << 20}, "pids": {"limit": 7}});
    spec["process"]["user"]["additionalGids"] = json!([5, 6]);
    spec["domainname"] = json!("domain");
    let cgroup = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro", "nosuid"]});
    let volume = json!({"destination": "/data", "type": "bind", "source": "/data", "options": ["rbind", "ro", "nodev"]});
    spec["mounts"].as_array_mut().expect("mounts").extend([cgroup, volume]);
    spec
}

fn mount(destination: &str, kind: &str, options: &[&str], super_options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "options": options, "super_options": super_options})
}

fn device(major: u64, minor: u64) -> Value {
    json!({"kind": "char", "mode": "0666", "uid": 0, "gid": 0, "major": major, "minor": minor})
}

/// All that was asked for.
fn seen(spec: &Value) -> Value {
    let given = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "process": {
            "pid": 1, "uids": [0, 0, 0, 0], "gids": [0, 0, 0, 0], "groups": [6, 5], "umask": "0027",
            "args": spec["process"]["args"], "cwd": "/", "env": spec["process"]["env"],
            "no_new_privileges": true, "oom_score_adj": 500, "seccomp": 2,
            "rlimits": [
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024},
            ],
            "capabilities": {
                "bounding": given, "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": [], "ambient": [],
            },
        },
        "hostname": "inside", "domainname": "domain",
        "namespaces": {"pid": "pid:[2]", "ipc": "ipc:[2]", "uts": "uts:[2]", "mnt": "mnt:[2]", "net": "net:[2]"},
        "sysctls": {"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "80"},
        "features": {"inotify": "EPERM", "pidfd": "ENXIO", "memfd": "signal 31"},
        "mounts": [
            mount("/dev", "ext4", &[], &[]),
            mount("/proc", "proc", &["nodev", "noexec", "nosuid", "rw"], &["rw"]),
            mount("/dev", "tmpfs", &["nosuid", "rw"], &["mode=755", "rw", "size=65536k"]),
            mount("/dev/pts", "devpts", &["noexec", "nosuid", "rw"], &["mode=620"]),
            mount("/dev/shm", "tmpfs", &["nodev", "noexec", "nosuid", "rw"], &["size=2048k"]),
            mount("/dev/mqueue", "mqueue", &["nodev", "noexec", "nosuid", "rw"], &[]),
            mount("/sys", "sysfs", &["nodev", "noexec", "nosuid", "ro"], &[]),
            mount("/tmp", "tmpfs", &["nodev", "rw"], &["size=1024k"]),
            mount("/proc/sys", "proc", &["ro"], &[]),
            mount("/sys/fs/cgroup", "tmpfs", &["rw"], &[]),
            mount("/sys/fs/cgroup/pids", "cgroup", &["nosuid", "ro"], &[]),
            // A bind has the flags of its source's mount, too.
            mount("/data", "ext4", &["nodev", "nosuid", "ro"], &["rw"]),
        ],
        "devices": {
            "/dev/null": device(1, 3), "/dev/zero": device(1, 5), "/dev/full": device(1, 7),
            "/dev/random": device(1, 8), "/dev/urandom": device(1, 9), "/dev/tty": device(5, 0),
            "/dev/fd": {"target": "/proc/self/fd"}, "/dev/stdin": {"target": "/proc/self/fd/0"},
            "/dev/stdout": {"target": "/proc/self/fd/1"}, "/dev/stderr": {"target": "/proc/self/fd/2"},
            "/dev/ptmx": {"target": "pts/ptmx"},
        },
        "paths": {
            "/": {"write": "EROFS"},
            "/etc/secret": {"kind": "char", "major": 1, "minor": 3},
            "/srv/hidden": {"kind": "directory", "entries": 0},
            "/proc/keys": {"error": "ENOENT"},
            "/sys/firmware": {"kind": "directory", "entries": 0},
            "/no/such": {"error": "ENOENT"},
            "/etc/kept": {"kind": "directory", "write": "EROFS"},
            "/proc/sys": {"kind": "directory", "write": "EACCES"},
        },
        "cgroup": {"limits": {"memory": {"memory.limit_in_bytes": "1048576"}, "pids": {"pids.max": "7"}}},
    })
}

fn outside() -> Value {
    json!({"pid": "pid:[1]", "ipc": "ipc:[1]", "uts": "uts:[1]", "mnt": "mnt:[1]", "net": "net:[1]"})
}

/// A runtime adds HOME.
#[test]
fn a_variable_more_is_no_difference_and_another_order_is() {
    let spec = asked();
    let mut document = seen(&spec);
    let env = document["process"]["env"].as_array_mut().expect("variables");
    env.push(json!("HOME=/"));
    assert_eq!(differences(&spec, &document, &outside()), [""; 0]);
    document["process"]["env"].as_array_mut().expect("variables").reverse();
    assert_eq!(differences(&spec, &document, &outside()).len(), 1);
}

#[test]
fn what_was_asked_for_is_no_difference() {
    let spec = asked();
    assert_eq!(differences(&spec, &seen(&spec), &outside()), [""; 0]);
}

/// Places and values that are each one difference.
#[test]
fn each_value_that_is_wrong_is_found() {
    let spec = asked();
    let wrong = [
        ("/process/pid", json!(2)),
        ("/process/uids/2", json!(1)),
        ("/process/gids/3", json!(1)),
        ("/process/groups", json!([5])),
        ("/process/umask", json!("0022")),
        ("/process/args", json!(["/inside", "look"])),
        ("/process/cwd", json!("/tmp")),
        ("/process/env/1", json!("Z=2")),
        ("/process/no_new_privileges", json!(false)),
        ("/process/oom_score_adj", json!(0)),
        ("/process/seccomp", json!(0)),
        ("/process/rlimits/1/hard", Value::Null),
        ("/process/capabilities/bounding", json!(["CAP_KILL"])),
        ("/process/capabilities/permitted", json!(["CAP_KILL", "CAP_CHOWN"])),
        ("/process/capabilities/effective", json!([])),
        ("/process/capabilities/inheritable", json!(["CAP_KILL"])),
        ("/process/capabilities/ambient", json!(["CAP_KILL"])),
        ("/hostname", json!("outside")),
        ("/domainname", json!("(none)")),
        ("/namespaces/ipc", json!("ipc:[1]")),
        ("/namespaces/mnt", Value::Null),
        ("/sysctls/kernel.shm_rmid_forced", json!("0")),
        ("/features/inotify", json!("ok")),
        ("/features/pidfd", json!("EPERM")),
        ("/features/memfd", json!("ok")),
        ("/mounts/1/type", json!("tmpfs")),
        ("/mounts/1/options", json!(["nodev", "noexec", "rw"])),
        ("/mounts/2/options", json!(["noexec", "nosuid", "rw"])),
        ("/mounts/2/super_options", json!(["mode=777", "size=65536k"])),
        ("/mounts/4/super_options", json!(["size=2049k"])),
        ("/mounts/6/options", json!(["nodev", "noexec", "nosuid", "rw"])),
        ("/mounts/7/destination", json!("/temp")),
        ("/mounts/8/options", json!(["rw"])),
        ("/mounts/10/options", json!(["nosuid", "rw"])),
        ("/mounts/10/type", json!("tmpfs")),
        ("/mounts/11/options", json!(["nodev", "rw"])),
        ("/mounts/11/options", json!(["nosuid", "ro"])),
        ("/mounts/11/destination", json!("/date")),
        ("/devices/~1dev~1null/minor", json!(5)),
        ("/devices/~1dev~1tty/mode", json!("0600")),
        ("/devices/~1dev~1stdin/target", json!("/proc/self/fd/1")),
        ("/devices/~1dev~1ptmx/target", json!("/ptmx")),
        ("/paths/~1/write", json!("ok")),
        ("/paths/~1etc~1secret/minor", json!(5)),
        ("/paths/~1srv~1hidden/entries", json!(1)),
        ("/paths/~1etc~1kept/write", json!("ok")),
        ("/paths/~1proc~1sys", Value::Null),
        ("/cgroup/limits/memory/memory.limit_in_bytes", json!("1048577")),
        ("/cgroup/limits/pids", json!({})),
    ];
    for (place, value) in wrong {
        let mut document = seen(&spec);
        let at = document.pointer_mut(place).unwrap_or_else(|| panic!("{place} is there"));
        *at = value;
        let found = differences(&spec, &document, &outside());
        assert_eq!(found.len(), 1, "{place}: {found:?}");
    }
}

/// What root gains by execve is the bounding set, and a user has what is ambient. Source: `capabilities(7)`.
#[test]
fn execve_decides_which_capabilities_are_seen() {
    let mut spec = asked();
    spec["process"]["noNewPrivileges"] = json!(false);
    let mut document = seen(&spec);
    document["process"]["no_new_privileges"] = json!(false);
    let found = differences(&spec, &document, &outside());
    assert_eq!(found.len(), 2, "permitted and effective are all of the bounding set: {found:?}");
    spec["process"]["user"]["uid"] = json!(1);
    document["process"]["uids"] = json!([1, 1, 1, 1]);
    let found = differences(&spec, &document, &outside());
    assert_eq!(found.len(), 2, "a user has none: {found:?}");
}
