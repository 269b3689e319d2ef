//! Mounts, devices, and paths that are masked or read-only.

use serde_json::{Value, json};

use super::{Found, each, texts};

/// Words of a mount's options that become its flags.
const FLAGS: [&str; 4] = ["nodev", "noexec", "nosuid", "ro"];
/// What each container has: name and minor number, of major 1 and 5. Source: the OCI runtime spec, "Default Devices".
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Source: the OCI runtime spec, `runtime-linux.md`, "Dev symbolic links".
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The last one on a path is the one that is seen.
fn mount_at<'a>(document: &'a Value, destination: &str) -> &'a Value {
    let mounts = document["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    mounts.iter().rev().find(|mount| mount["destination"] == destination).unwrap_or(&Value::Null)
}

pub fn mounts(spec: &Value, document: &Value, found: &mut Found) {
    for mount in each(&spec["mounts"]) {
        let destination = mount["destination"].as_str().unwrap_or_default();
        let (seen, asked) = (mount_at(document, destination), texts(&mount["options"]));
        let what = |part: &str| format!("{part} of the mount at {destination}");
        if seen.is_null() {
            found.holds(&what("presence"), false, seen);
            continue;
        }
        if mount["type"] == "cgroup" {
            cgroups(&asked, document, destination, found);
            continue;
        }
        // A bind has its source's flags, too.
        let exact = !asked.contains(&"bind") && !asked.contains(&"rbind");
        let flags = texts(&seen["options"]);
        if exact {
            found.same(&what("type"), mount["type"].clone(), seen["type"].clone());
        }
        for flag in FLAGS {
            let (wanted, has) = (asked.contains(&flag), flags.contains(&flag));
            found.holds(&what(flag), wanted == has || (has && !exact), &json!(flags));
        }
        if mount["type"] == "tmpfs" {
            tmpfs(&asked, &texts(&seen["super_options"]), &what, found);
        }
    }
    let root = &document["paths"]["/"]["write"];
    if spec["root"]["readonly"] == true {
        found.same("root.readonly", "EROFS", root.clone());
    } else if spec["process"]["user"]["uid"] == 0 {
        found.same("a root that is written", "ok", root.clone());
    }
}

/// One mount of version 2, or several of version 1 below.
fn cgroups(asked: &[&str], document: &Value, destination: &str, found: &mut Found) {
    let cgroup = |mount: &Value| mount["type"].as_str().is_some_and(|kind| kind.starts_with("cgroup"));
    let below =
        |mount: &Value| mount["destination"].as_str().is_some_and(|path| path.starts_with(destination));
    let all: Vec<_> = each(&document["mounts"]).filter(|mount| cgroup(mount) && below(mount)).collect();
    found.holds(&format!("cgroups at {destination}"), !all.is_empty(), &Value::Null);
    for mount in all {
        let seen = texts(&mount["options"]);
        let wanted = FLAGS.iter().filter(|flag| asked.contains(flag));
        let missing: Vec<_> = wanted.filter(|flag| !seen.contains(flag)).collect();
        found.same(&format!("flags missing at {}", mount["destination"]), json!([]), json!(missing));
    }
}

fn tmpfs(asked: &[&str], seen: &[&str], what: &impl Fn(&str) -> String, found: &mut Found) {
    let of = |options: &[&str], name: &str| {
        options.iter().find_map(|option| option.strip_prefix(name)).map(str::to_owned)
    };
    if let Some(size) = of(asked, "size=") {
        let seen = of(seen, "size=").and_then(|size| bytes(&size));
        found.same(&what("size"), json!(bytes(&size)), json!(seen));
    }
    if let Some(mode) = of(asked, "mode=") {
        // 1777 is what one has that says nothing.
        let seen = of(seen, "mode=").unwrap_or_else(|| "1777".into());
        found.same(&what("mode"), mode.trim_start_matches('0'), seen);
    }
}

/// "64k" is 65536.
fn bytes(size: &str) -> Option<u64> {
    let digits = size.trim_end_matches(|char: char| !char.is_ascii_digit());
    let shift = match size.strip_prefix(digits)?.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_shl(shift)
}

pub fn devices(spec: &Value, document: &Value, found: &mut Found) {
    let seen = |name: &str| document["devices"][format!("/dev/{name}")].clone();
    if each(&spec["mounts"]).any(|mount| mount["destination"] == "/dev" && mount["type"] == "tmpfs") {
        for (name, major, minor) in DEVICES {
            let asked =
                json!({"kind": "char", "mode": "0666", "uid": 0, "gid": 0, "major": major, "minor": minor});
            found.same(&format!("/dev/{name}"), asked, seen(name));
        }
        for (name, target) in LINKS {
            found.same(&format!("/dev/{name}"), target, seen(name)["target"].clone());
        }
    }
    if each(&spec["mounts"]).any(|mount| mount["type"] == "devpts") {
        let target = seen("ptmx")["target"].clone();
        found.holds("/dev/ptmx", ["pts/ptmx", "/dev/pts/ptmx"].iter().any(|right| target == *right), &target);
    }
}

pub fn paths(spec: &Value, document: &Value, found: &mut Found) {
    const NOTHING_THERE: &str = "ENOENT";
    let seen = |path: &str| &document["paths"][path];
    for path in texts(&spec["linux"]["maskedPaths"]) {
        let seen = seen(path);
        let masked = match seen["kind"].as_str() {
            Some("directory") => seen["entries"] == 0,
            Some("char") => (&seen["major"], &seen["minor"]) == (&json!(1), &json!(3)),
            _ => seen["error"] == NOTHING_THERE,
        };
        found.holds(&format!("masked {path}"), masked, seen);
    }
    for path in texts(&spec["linux"]["readonlyPaths"]) {
        let seen = seen(path);
        // Whom the mode forbids it already is told that. The mount says the same of everybody.
        let mounted =
            texts(&mount_at(document, path)["options"]).contains(&"ro") && seen["write"] == "EACCES";
        let kept = mounted || seen["write"] == "EROFS" || seen["error"] == NOTHING_THERE;
        found.holds(&format!("read-only {path}"), kept, seen);
    }
}
