//! Containers whose specs ask for what the judge judges, and the root that they share.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// Where the program is in the root.
pub const PROGRAM: &str = "/inside";

/// A container's name and its spec. What ends in `limited` wants controllers of its cgroup.
pub fn all() -> Vec<(&'static str, Value)> {
    [("root", root()), ("user", user()), ("locked", locked()), ("cwd", cwd()), ("limited", limited())]
        .into_iter()
        .map(|(name, spec)| (name, looking(spec)))
        .collect()
}

/// Makes a bundle of a directory that is not there yet, with the program, which is static, as its init.
/// # Errors
/// Those of the file system.
pub fn bundle(dir: &Path, program: &Path, spec: &Value) -> io::Result<()> {
    let root = dir.join("rootfs");
    let folders = ["dev", "etc", "etc/kept", "proc", "srv", "srv/hidden", "sys", "tmp"];
    for folder in folders.map(|folder| root.join(folder)) {
        fs::create_dir_all(folder)?;
    }
    fs::copy(program, inside(&root))?;
    for file in ["etc/secret", "etc/kept/file", "srv/hidden/file"] {
        fs::write(root.join(file), "there\n")?;
    }
    for path in [dir.to_path_buf(), root.clone(), inside(&root)] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(dir.join("config.json"), spec.to_string())
}

fn inside(root: &Path) -> PathBuf {
    root.join(PROGRAM.trim_start_matches('/'))
}

/// Has init look at what the spec speaks of.
fn looking(mut spec: Value) -> Value {
    let linux = &spec["linux"];
    let texts = |name: &str| linux[name].as_array().into_iter().flatten().filter_map(Value::as_str);
    let paths = ["/"].into_iter().chain(texts("maskedPaths")).chain(texts("readonlyPaths"));
    let mut args = vec![PROGRAM.to_owned(), "look".to_owned()];
    args.extend(paths.map(|path| format!("path={path}")));
    args.extend(linux["sysctl"].as_object().into_iter().flatten().map(|(name, _)| format!("sysctl={name}")));
    args.extend(linux["seccomp"].is_object().then(|| "features".to_owned()));
    spec["process"]["args"] = json!(args);
    spec
}

/// As containerd's default, with few capabilities.
fn root() -> Value {
    const CAPABILITIES: [&str; 4] = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.1.0",
        "root": {"path": "rootfs"},
        "hostname": "inside",
        "process": {
            "cwd": "/srv",
            "env": ["PATH=/", "Z=1", "A=two words", "EMPTY=", "K=2", "B=3", "Y=4", "C=5"],
            "user": {"uid": 0, "gid": 0, "umask": 0o027},
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ],
            "oomScoreAdj": 500,
        },
        "mounts": mounts(),
        "linux": {
            "namespaces": namespaces(),
            "sysctl": {"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "80"},
        },
    })
}

/// Whose working directory the image doesn't have.
fn cwd() -> Value {
    let mut spec = root();
    spec["process"]["cwd"] = json!("/made/for/it");
    spec
}

/// Of a user with groups, and a capability that lasts.
fn user() -> Value {
    let mut spec = root();
    let all = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let lasting = json!(["CAP_NET_BIND_SERVICE"]);
    spec["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 1002]});
    spec["process"]["capabilities"] = json!({
        "bounding": all, "effective": all, "permitted": all, "inheritable": lasting, "ambient": lasting,
    });
    spec["process"]["noNewPrivileges"] = json!(true);
    spec["process"]["cwd"] = json!("/tmp");
    spec
}

/// With all that can be shut.
fn locked() -> Value {
    let mut spec = root();
    let gained = json!(["CAP_KILL"]);
    spec["root"]["readonly"] = json!(true);
    spec["process"]["cwd"] = json!("/");
    spec["process"]["noNewPrivileges"] = json!(true);
    // no_new_privs has execve give root what there was, not the whole bounding set.
    spec["process"]["capabilities"]["permitted"] = gained.clone();
    spec["process"]["capabilities"]["effective"] = gained;
    spec["linux"]["maskedPaths"] =
        json!(["/etc/secret", "/srv/hidden", "/proc/keys", "/sys/firmware", "/no/such"]);
    spec["linux"]["readonlyPaths"] = json!(["/etc/kept", "/proc/sys", "/no/such"]);
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["inotify_init1"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["pidfd_open"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENXIO},
            {"names": ["memfd_create"], "action": "SCMP_ACT_KILL_PROCESS"},
        ],
    });
    spec
}

/// With limits of its cgroup, which it sees.
fn limited() -> Value {
    let mut spec = root();
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    let mount =
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.push(mount);
    }
    spec["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 77}});
    spec
}

fn namespaces() -> Value {
    ["pid", "ipc", "uts", "mount", "network"].iter().map(|kind| json!({"type": kind})).collect()
}

fn mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=2m"],
        },
        {
            "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nodev", "size=1m"]},
    ])
}
