//! Makes the spec that containerd wrote for the node fit the guest.
//!
//! What names something of the node goes (host CPUs, LSM profiles, hooks), what the guest has instead comes in (its one network, the share
//! as root, a cgroup below its own tree, the GPU's library and socket; [`super::shared`] has what is another container's). The shim has
//! already refused what a pod in a domain cannot have. The rule: nothing is read or changed here but the spec and `/proc/sys/net`'s keys,
//! so it can be tested with plain files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use libcontainer::oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxNamespaceType, LinuxSeccomp, Mount, MountBuilder, Process, Root, Spec,
};

use vgpu_agent_api::sysctl::Sysctl;

use super::{
    process, resources, seccomp,
    shared::{self, Shared},
};
use crate::{
    error::{GuestError, Result},
    sysctl,
};

/// What the guest adds to a spec.
#[derive(Debug)]
pub struct Guest {
    /// The container's root file system in the guest.
    pub rootfs: PathBuf,
    /// Its cgroup, below the guest's cgroup2 mount.
    pub cgroup: PathBuf,
    /// Where the kernel shows the sizes of huge pages: `/sys/kernel/mm/hugepages`.
    pub huge_pages: PathBuf,
    /// (source in the guest, destination in the container), bound after the spec's own mounts.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

/// The changed spec, and what the library does not do.
#[derive(Debug)]
pub struct Adapted {
    /// For `libcontainer`.
    pub spec: Spec,
    /// The network's, to be set in the guest's own network namespace, and their values.
    pub sysctls: BTreeMap<Sysctl, String>,
    /// To be applied when a program is executed ([`super::command`]). It can be compiled.
    pub seccomp: Option<LinuxSeccomp>,
}

/// Changes `spec` to fit. `pod` has what other containers share with it.
/// # Errors
/// A field that has no meaning in any container, or that means nothing of this pod.
pub fn adapt(mut spec: Spec, guest: &Guest, pod: &mut dyn Shared) -> Result<Adapted> {
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
        process::check(process)?;
        process::adapt(process);
    }
    let mut linux = spec.linux().clone().unwrap_or_default();
    // The library would need libseccomp: C, and not static.
    let seccomp = linux.seccomp().clone();
    if let Some(profile) = &seccomp {
        seccomp::compile(profile).map_err(|why| GuestError::Invalid { field: "linux.seccomp", why })?;
    }
    if !has_namespace(&linux, LinuxNamespaceType::Uts) {
        // Not one of its own was asked for: it has the pod's name, which is already set.
        spec.set_hostname(None).set_domainname(None);
    }
    let sysctls = adapt_linux(&mut linux, guest, pod)?;
    spec.set_linux(Some(linux));

    let binds = guest.binds.iter().map(|(from, to)| bind(from, to)).collect::<Result<Vec<Mount>>>()?;
    let mut mounts = spec.mounts_mut().take().unwrap_or_default();
    shared::memories(&mut mounts, pod)?;
    mounts.extend(binds);
    spec.set_mounts(Some(mounts));
    Ok(Adapted { spec, sysctls, seccomp })
}

/// How the users of a user namespace of its own are numbered outside of it; empty without one.
pub fn uid_mappings(spec: &Spec) -> Vec<LinuxIdMapping> {
    let linux = spec.linux().as_ref().filter(|linux| has_namespace(linux, LinuxNamespaceType::User));
    linux.and_then(|linux| linux.uid_mappings().clone()).unwrap_or_default()
}

/// The user of the guest that `process`'s user is. Root, for one that no mapping has: the library will refuse it.
pub fn owner(process: Option<&Process>, mappings: &[LinuxIdMapping]) -> u32 {
    let uid = process.map_or(0, |process| process.user().uid());
    if mappings.is_empty() {
        return uid;
    }
    let outside = |mapping: &LinuxIdMapping| {
        let offset = uid.checked_sub(mapping.container_id()).filter(|offset| *offset < mapping.size())?;
        mapping.host_id().checked_add(offset)
    };
    mappings.iter().find_map(outside).unwrap_or(0)
}

fn adapt_linux(linux: &mut Linux, guest: &Guest, pod: &mut dyn Shared) -> Result<BTreeMap<Sysctl, String>> {
    linux.set_cgroups_path(Some(guest.cgroup.clone()));
    let namespaces = shared::namespaces(linux.namespaces().as_deref().unwrap_or_default(), pod)?;
    linux.set_namespaces(Some(namespaces));
    linux.set_seccomp(None).set_mount_label(None).set_intel_rdt(None).set_net_devices(None);
    if let Some(resources) = linux.resources_mut() {
        resources::adapt(resources, &guest.huge_pages);
    }
    let Some(all) = linux.sysctl_mut().as_mut() else { return Ok(BTreeMap::new()) };
    let mut network = BTreeMap::new();
    for (name, value) in std::mem::take(all) {
        let sysctl = sysctl::parse(&name)?;
        if sysctl.is_network() {
            network.insert(sysctl, value);
        } else {
            // As the library takes it.
            all.insert(sysctl.file().replace('/', "."), value);
        }
    }
    Ok(network)
}

fn has_namespace(linux: &Linux, typ: LinuxNamespaceType) -> bool {
    linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == typ)
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

    use super::{super::shared::tests::Pod, *};

    fn guest() -> Guest {
        Guest {
            rootfs: "/share/c1/rootfs".into(),
            cgroup: "/vgpu/c1".into(),
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

    fn adapted(linux: serde_json::Value) -> Result<Adapted> {
        adapt(spec(linux), &guest(), &mut Pod)
    }

    #[test]
    fn nothing_of_the_node_is_left() {
        let adapted = adapted(json!({
            "cgroupsPath": "kubepods.slice:cri:1",
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "network"}, {"type": "mount"}],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
            "resources": {"cpu": {"cpus": "6-7", "shares": 512}, "memory": {"limit": 1000, "swap": 1000},
                "hugepageLimits": [{"pageSize": "1GB", "limit": 0}]},
        }))
        .unwrap();
        let text = serde_json::to_string(&adapted.spec).unwrap();
        for gone in
            ["kubepods", "node-hook", "seccomp", "6-7", "swap", "1GB", "apparmor", "/var/lib", "hostname"]
        {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        assert!(
            text.contains(r#""readonly":true"#) && text.contains("/share/c1/rootfs") && text.contains("512")
        );
        assert_eq!(
            adapted.spec.mounts().as_ref().unwrap()[1].destination(),
            Path::new("/usr/lib/libcuda.so.1")
        );
    }

    #[test]
    fn a_user_has_the_number_of_its_mapping() {
        let of = |uid: u32| {
            let process = json!({"cwd": "/", "user": {"uid": uid, "gid": 0}});
            serde_json::from_value::<Process>(process).unwrap()
        };
        assert_eq!(owner(Some(&of(33)), &[]), 33);
        assert_eq!(owner(None, &[]), 0);
        let mapping = json!([{"containerID": 0, "hostID": 70000, "size": 100}]);
        let own = [json!({"type": "user"}), json!({"type": "pid"}), json!({"type": "ipc"})];
        let mapped = adapted(json!({"namespaces": own, "uidMappings": mapping})).unwrap();
        let mappings = uid_mappings(&mapped.spec);
        assert_eq!(owner(Some(&of(33)), &mappings), 70033);
        assert_eq!(owner(Some(&of(100)), &mappings), 0);
        let plain = adapted(json!({"namespaces": own[1..], "uidMappings": mapping})).unwrap();
        assert!(uid_mappings(&plain.spec).is_empty(), "without a namespace they mean nothing");
    }

    #[test]
    fn network_sysctls_are_for_the_guest_and_cannot_leave_their_tree() {
        let of =
            |sysctl| adapted(json!({"namespaces": [{"type": "pid"}, {"type": "ipc"}], "sysctl": sysctl}));
        let right = of(json!({"net.ipv4.ip_forward": "1", "kernel/shmmax": "5"})).unwrap();
        let forward = Sysctl::parse("net.ipv4.ip_forward").unwrap();
        assert_eq!(right.sysctls, BTreeMap::from([(forward, "1".into())]));
        let linux = right.spec.linux().clone().unwrap();
        assert!(linux.sysctl().as_ref().unwrap().contains_key("kernel.shmmax"));
        for none in ["net/../../kernel", "kernel.core_pattern", "/etc/passwd"] {
            let refused = of(json!({none: "1"})).unwrap_err();
            assert!(refused.to_string().starts_with("linux.sysctl"), "{refused}");
        }
    }
}
