//! Makes the spec that containerd wrote for the node fit the guest.
//!
//! What names something of the node goes (namespaces by path, host CPUs, LSM profiles, hooks), what the guest has instead
//! comes in (its one network, the share as root, a cgroup below its own tree, the GPU's library and socket). The shim has already
//! refused what a pod in a domain cannot have. The rule: nothing is read or changed here but the spec and `/proc/sys/net`'s keys, so it can
//! be tested with plain files.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use libcontainer::oci_spec::runtime::{
    Linux, LinuxNamespace, LinuxNamespaceType, LinuxResources, Mount, MountBuilder, Process, Root, Spec,
};

use crate::error::{GuestError, Result};

/// What the guest adds to a spec.
#[derive(Debug)]
pub struct Guest {
    /// The container's root file system in the guest.
    pub rootfs: PathBuf,
    /// Its cgroup, below the guest's cgroup2 mount.
    pub cgroup: PathBuf,
    /// A process of the pod's sandbox container: its namespaces stand for the node's paths.
    pub sandbox_pid: Option<i32>,
    /// Where the kernel shows the sizes of huge pages: `/sys/kernel/mm/hugepages`.
    pub huge_pages: PathBuf,
    /// (source in the guest, destination in the container), bound after the spec's own mounts.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

/// The changed spec, and the network sysctls that the caller has to set in the guest's own network namespace.
#[derive(Debug)]
pub struct Adapted {
    /// For `libcontainer`.
    pub spec: Spec,
    /// File below `/proc/sys` → value.
    pub sysctls: BTreeMap<PathBuf, String>,
}

/// Changes `spec` to fit.
/// # Errors
/// A field that has no meaning in any container.
pub fn adapt(mut spec: Spec, guest: &Guest) -> Result<Adapted> {
    let read_only = spec.root().as_ref().and_then(Root::readonly).unwrap_or(false);
    let mut root = Root::default();
    root.set_path(guest.rootfs.clone()).set_readonly(Some(read_only));
    spec.set_root(Some(root));

    // Hooks name programs of the node. `startContainer` alone is executed in the container.
    if let Some(hooks) = spec.hooks_mut() {
        hooks.set_prestart(None).set_create_runtime(None).set_create_container(None);
        hooks.set_poststart(None).set_poststop(None);
        if hooks.start_container().is_none() {
            spec.set_hooks(None);
        }
    }
    if let Some(process) = spec.process_mut() {
        adapt_process(process);
    }
    let mut linux = spec.linux().clone().unwrap_or_default();
    let sysctls = adapt_linux(&mut linux, guest)?;
    let has_uts = has_namespace(&linux, LinuxNamespaceType::Uts);
    spec.set_linux(Some(linux));
    if !has_uts {
        // The library refuses a name without a UTS namespace; the pod's name is already set.
        spec.set_hostname(None).set_domainname(None);
    }

    let binds = guest.binds.iter().map(|(from, to)| bind(from, to)).collect::<Result<Vec<Mount>>>()?;
    let mut mounts = spec.mounts_mut().take().unwrap_or_default();
    mounts.extend(binds);
    spec.set_mounts(Some(mounts));
    Ok(Adapted { spec, sysctls })
}

/// Takes out what the guest's kernel does not have. Also for the process of an exec.
pub fn adapt_process(process: &mut Process) {
    process.set_apparmor_profile(None).set_selinux_label(None);
}

fn adapt_linux(linux: &mut Linux, guest: &Guest) -> Result<BTreeMap<PathBuf, String>> {
    linux.set_cgroups_path(Some(guest.cgroup.clone()));
    linux.set_namespaces(Some(namespaces(linux.namespaces().as_deref().unwrap_or_default(), guest)));
    // The library is built without libseccomp (C, not static); see README, "Not done".
    linux.set_seccomp(None).set_mount_label(None).set_intel_rdt(None).set_net_devices(None);
    if let Some(resources) = linux.resources_mut() {
        adapt_resources(resources, &guest.huge_pages);
    }
    let Some(all) = linux.sysctl_mut().as_mut() else { return Ok(BTreeMap::new()) };
    let network: Vec<String> = all.keys().filter(|key| is_network(key)).cloned().collect();
    network
        .into_iter()
        .filter_map(|key| all.remove(&key).map(|value| (key, value)))
        .map(|(key, value)| Ok((sysctl_file(&key)?, value)))
        .collect()
}

/// The pod's network is the guest's. A path to a namespace of the node means the sandbox's, which is the guest's own where no sandbox
/// container runs.
fn namespaces(asked: &[LinuxNamespace], guest: &Guest) -> Vec<LinuxNamespace> {
    let mut kept = Vec::new();
    for namespace in asked {
        let mut namespace = namespace.clone();
        let file = match namespace.typ() {
            LinuxNamespaceType::Network => continue,
            LinuxNamespaceType::Pid => "pid",
            LinuxNamespaceType::Ipc => "ipc",
            LinuxNamespaceType::Uts => "uts",
            _ => {
                namespace.set_path(None);
                kept.push(namespace);
                continue;
            }
        };
        if namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()) {
            let Some(pid) = guest.sandbox_pid else { continue };
            namespace.set_path(Some(PathBuf::from(format!("/proc/{pid}/ns/{file}"))));
        }
        kept.push(namespace);
    }
    if !kept.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Mount) {
        // Without one the library would chroot in the guest's own: never.
        let mut mount = LinuxNamespace::default();
        mount.set_typ(LinuxNamespaceType::Mount);
        kept.push(mount);
    }
    kept
}

fn has_namespace(linux: &Linux, typ: LinuxNamespaceType) -> bool {
    linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == typ)
}

/// Takes out limits that name the node's hardware or that this kernel has no file for: writing them would fail the container.
pub fn adapt_resources(resources: &mut LinuxResources, huge_pages: &Path) {
    resources.set_devices(None).set_block_io(None).set_network(None).set_rdma(None);
    if let Some(cpu) = resources.cpu_mut() {
        // CPU numbers of the node. The pod has its own vCPUs.
        cpu.set_cpus(None).set_mems(None).set_realtime_period(None).set_realtime_runtime(None);
    }
    if let Some(memory) = resources.memory_mut() {
        memory.set_swap(None);
    }
    let here = resources.hugepage_limits_mut().take().map(|limits| {
        limits.into_iter().filter(|limit| has_huge_page(huge_pages, limit.page_size())).collect()
    });
    resources.set_hugepage_limits(here);
}

/// `page_size` as in the spec: "2MB", "1GB", "64KB".
fn has_huge_page(huge_pages: &Path, page_size: &str) -> bool {
    let digits = page_size.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &page_size[digits.len()..] {
        "KB" => 1,
        "MB" => 1 << 10,
        "GB" => 1 << 20,
        _ => return false,
    };
    let kib = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    kib.is_some_and(|kib| huge_pages.join(format!("hugepages-{kib}kB")).exists())
}

fn is_network(key: &str) -> bool {
    key.starts_with("net.") || key.starts_with("net/")
}

/// The file of a sysctl, below /proc/sys. `a.b` and `a/b` are the same; in the second form a dot belongs to a name (`eth0.1`).
fn sysctl_file(key: &str) -> Result<PathBuf> {
    let path = PathBuf::from(if key.contains('/') { key.to_owned() } else { key.replace('.', "/") });
    if path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(path);
    }
    Err(GuestError::Invalid { field: "linux.sysctl", why: format!("{key:?} is no name of a sysctl") })
}

fn bind(from: &Path, to: &Path) -> Result<Mount> {
    MountBuilder::default()
        .source(from)
        .destination(to)
        .typ("bind")
        .options(["bind", "ro", "nosuid", "nodev"].map(String::from).to_vec())
        .build()
        .map_err(|error| GuestError::Invalid { field: "mounts", why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn guest() -> Guest {
        Guest {
            rootfs: "/share/c1/rootfs".into(),
            cgroup: "/vgpu/c1".into(),
            sandbox_pid: None,
            huge_pages: "/no/huge/pages".into(),
            binds: vec![("/usr/lib/vgpu/libcuda.so.1".into(), "/usr/lib/libcuda.so.1".into())],
        }
    }

    fn spec(linux: serde_json::Value) -> Spec {
        serde_json::from_value(json!({
            "ociVersion": "1.1.0",
            "root": {"path": "/var/lib/x/rootfs", "readonly": true},
            "hostname": "h",
            "process": {"cwd": "/", "args": ["/a"], "apparmorProfile": "p", "user": {"uid": 0, "gid": 0}},
            "hooks": {"prestart": [{"path": "/usr/bin/node-hook"}]},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": linux,
        }))
        .unwrap()
    }

    fn kinds(adapted: &Adapted) -> Vec<(String, Option<PathBuf>)> {
        let namespaces = adapted.spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        namespaces.iter().map(|n| (n.typ().to_string(), n.path().clone())).collect()
    }

    #[test]
    fn nothing_of_the_node_is_left() {
        let adapted = adapt(
            spec(json!({
                "cgroupsPath": "kubepods.slice:cri:1",
                "namespaces": [{"type": "pid"}, {"type": "uts", "path": "/proc/1/ns/uts"},
                    {"type": "network", "path": "/var/run/netns/x"}, {"type": "mount"}],
                "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
                "resources": {"cpu": {"cpus": "6-7", "shares": 512}, "memory": {"limit": 1000, "swap": 1000},
                    "hugepageLimits": [{"pageSize": "1GB", "limit": 0}]},
            })),
            &guest(),
        )
        .unwrap();
        let text = serde_json::to_string(&adapted.spec).unwrap();
        for gone in [
            "kubepods",
            "netns",
            "node-hook",
            "seccomp",
            "6-7",
            "swap",
            "1GB",
            "apparmor",
            "/var/lib",
            "hostname",
        ] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        assert_eq!(kinds(&adapted), [("pid".into(), None), ("mnt".into(), None)]);
        assert!(
            text.contains(r#""readonly":true"#) && text.contains("/share/c1/rootfs") && text.contains("512")
        );
        assert_eq!(
            adapted.spec.mounts().as_ref().unwrap()[1].destination(),
            Path::new("/usr/lib/libcuda.so.1")
        );
    }

    #[test]
    fn paths_of_the_node_become_the_sandboxs_namespaces() {
        let asked = json!({"namespaces": [{"type": "ipc", "path": "/proc/9/ns/ipc"}, {"type": "mount"}]});
        let adapted = adapt(spec(asked), &Guest { sandbox_pid: Some(42), ..guest() }).unwrap();
        assert_eq!(kinds(&adapted), [("ipc".into(), Some("/proc/42/ns/ipc".into())), ("mnt".into(), None)]);
    }

    #[test]
    fn network_sysctls_are_for_the_guest_and_cannot_leave_their_tree() {
        let adapted =
            adapt(spec(json!({"sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "5"}})), &guest())
                .unwrap();
        assert_eq!(adapted.sysctls, BTreeMap::from([("net/ipv4/ip_forward".into(), "1".into())]));
        assert!(
            adapted.spec.linux().as_ref().unwrap().sysctl().as_ref().unwrap().contains_key("kernel.shmmax")
        );
        assert!(adapt(spec(json!({"sysctl": {"net/../../kernel": "1"}})), &guest()).is_err());
    }
}
