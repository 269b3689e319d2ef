//! What a worker may, and where it is kept.

use std::path::Path;

use super::common::status;
use super::*;

#[test]
fn a_worker_is_in_its_sandbox() {
    let proxy = Proxy::start("soft");
    let _guest = proxy.guest();
    let pid = proxy.workers()[0].pid;
    let gaps = proxy.list().node.sandbox_gaps;
    let lacks = |what: &str| gaps.iter().any(|gap| gap.contains(what));
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, set).trim_start_matches('0'), "", "{set}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max core file size        0 ")), "{limits}");
    assert!(fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
    // The socket, /dev/null, the log, the pages of the grant and of turns, the exchange, liveness, the bell, the ear. No memory, no other zone.
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(fds <= 9, "{fds} descriptors");
    // Its log is not the supervisor's own, which it could write into in the name of others.
    let log = fs::read_link(format!("/proc/{pid}/fd/2")).unwrap();
    assert!(log.to_string_lossy().starts_with("pipe:"), "{}", log.display());
    // A wall that this machine cannot give is a gap that is said, and no other is missing.
    for (namespace, gap) in [
        ("user", "no user namespace"),
        ("mnt", "no mount, pid, net and ipc"),
        ("pid", "no mount, pid, net and ipc"),
        ("net", "no mount, pid, net and ipc"),
        ("ipc", "no mount, pid, net and ipc"),
        ("uts", "no mount, pid, net and ipc"),
    ] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_eq!(of(pid) == of(proxy.pid()), lacks(gap), "{namespace}: {gaps:?}");
    }
    let files = fs::read_dir(format!("/proc/{pid}/root")).unwrap().count();
    assert_eq!(files > 0, lacks("see the node's file system"), "its root has {files} files: {gaps:?}");
    let uid = status(pid, "Uid");
    assert_eq!(uid.starts_with("790000\t"), !lacks("not root"), "{uid}: {gaps:?}");
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let pod = format!("pod{}", proxy.list().zones[0].pod_uid);
    let is_in_its_own = cgroup.split(['/', '\n']).any(|component| component == pod);
    assert_eq!(is_in_its_own, !lacks("no cgroup:"), "{cgroup}: {gaps:?}");
    assert!(!lacks("no Landlock"), "{gaps:?}");
    proxy.stop();
}

/// A cgroup of the test's own, gone with it. None where none can be made.
struct Service(PathBuf);

impl Service {
    fn new() -> Option<Self> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists())?;
        let path = root.join(format!("vgpu-test-{}.service", std::process::id()));
        fs::create_dir(&path).ok().map(|()| Self(path))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for path in [&self.0.join("supervisor"), &self.0] {
            let _ = fs::remove_dir(path);
        }
    }
}

#[test]
fn a_service_keeps_its_workers_in_its_own_cgroup_and_itself_beside_them() {
    let Some(service) = Service::new() else {
        eprintln!("NOT TRIED: {}: no cgroup of version 2 can be made here", file!());
        return;
    };
    let proxy = Proxy::start_as_service("null", &service.0);
    let _guest = proxy.guest();
    let gaps = proxy.list().node.sandbox_gaps;
    assert!(!gaps.iter().any(|gap| gap.contains("no cgroup:")), "{gaps:?}");
    let cgroup = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)).unwrap()
    };
    let own = format!("/{}", service.0.file_name().unwrap().display());
    let zone = proxy.list().zones[0].pod_uid.clone();
    assert_eq!(cgroup(proxy.pid()), format!("{own}/supervisor"));
    assert_eq!(cgroup(proxy.workers()[0].pid), format!("{own}/pod{zone}/worker-1"));
    proxy.stop();
    let left = fs::read_dir(&service.0).unwrap().flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(left.map(|entry| entry.file_name()).collect::<Vec<_>>(), ["supervisor"]);
}
