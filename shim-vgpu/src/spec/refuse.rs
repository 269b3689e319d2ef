//! What a pod in a domain of its own can't have: refused with a sentence that names the field.
//!
//! Silently dropping one of these would run something else than was asked for.

use std::{fs, os::unix::fs::MetadataExt};

use serde_json::Value;
use vgpu_agent_api::sysctl::{BadSysctl, Sysctl};
use vgpu_codes::Code;

use super::{Spec, field, namespaces::Kind};
use crate::error::{Error, Result};

/// Namespaces whose absence means "the host's".
const OWN: [Kind; 3] = [Kind::Network, Kind::Pid, Kind::Ipc];
/// Device nodes of programs, and their numbers: those that every container has, and what a file system or a network interface that is a
/// program is made with. guest-init makes them in the guest, of the guest's kernel; the host's are never touched.
/// Source: Linux, `Documentation/admin-guide/devices.txt`.
const DEVICES: [(&str, [u64; 2]); 10] = [
    ("/dev/null", [1, 3]),
    ("/dev/zero", [1, 5]),
    ("/dev/full", [1, 7]),
    ("/dev/random", [1, 8]),
    ("/dev/urandom", [1, 9]),
    ("/dev/tty", [5, 0]),
    ("/dev/console", [5, 1]),
    ("/dev/ptmx", [5, 2]),
    ("/dev/net/tun", [10, 200]),
    ("/dev/fuse", [10, 229]),
];
/// Mount options that tie a container's mounts to the host's.
const PROPAGATION: [&str; 4] = ["shared", "rshared", "slave", "rslave"];
/// AppArmor profiles that runtimes add unasked: they guard the host, which the domain's border does here.
const DEFAULT_PROFILES: [&str; 5] =
    ["cri-containerd.apparmor.d", "nerdctl-default", "docker-default", "unconfined", ""];

impl Spec {
    /// Refuses what the pod can't have.
    ///
    /// # Errors
    /// [`Code::SpecRefused`] with the field; [`Code::SpecInvalid`] for a namespace that is there twice.
    pub fn refuse_host_things(&self) -> Result<()> {
        self.refuse_namespaces()?;
        self.refuse_mounts()?;
        self.refuse_devices()?;
        let sysctls = self.0.pointer("/linux/sysctl").and_then(Value::as_object);
        refuse_sysctls("linux.sysctl", sysctls.into_iter().flatten().map(|(name, _)| &**name))?;
        let profile = self.text("/process/apparmorProfile");
        if !DEFAULT_PROFILES.contains(&profile) {
            return refused(
                "process.apparmorProfile",
                &format!("the host's profile {profile:?}: the guest doesn't have it"),
            );
        }
        Ok(())
    }

    fn refuse_namespaces(&self) -> Result<()> {
        let namespaces = self.list("/linux/namespaces");
        for (number, namespace) in namespaces.iter().enumerate() {
            let name = field(namespace, "type");
            // Of two it would not be clear which is meant. Source: OCI runtime specification, `config-linux.md`, Namespaces.
            if namespaces[..number].iter().any(|earlier| field(earlier, "type") == name) {
                let what = format!("linux.namespaces[{number}] is a second {name} namespace: name one");
                return Err(Error::new(Code::SpecInvalid, what));
            }
        }
        let missing =
            OWN.into_iter().find(|kind| !namespaces.iter().any(|n| field(n, "type") == kind.name()));
        if let Some(kind) = missing {
            return refused("linux.namespaces", &format!("the host's {} namespace", kind.name()));
        }
        for (number, namespace) in namespaces.iter().enumerate() {
            let name = field(namespace, "type");
            if Kind::of(name).is_some_and(|kind| is_the_hosts(kind, field(namespace, "path"))) {
                let place = format!("linux.namespaces[{number}].path");
                return refused(&place, &format!("the host's {name} namespace, by its path"));
            }
        }
        let mapped = !self.list("/linux/uidMappings").is_empty();
        if mapped || namespaces.iter().any(|n| field(n, "type") == "user") {
            return refused(
                "linux.uidMappings",
                "a user namespace with ids of the host: the domain has its own ids",
            );
        }
        Ok(())
    }

    /// By their numbers, too: under them the guest's kernel may have something else than the name says, its way to Xen above all.
    fn refuse_devices(&self) -> Result<()> {
        for device in self.list("/linux/devices") {
            let path = field(device, "path");
            let Some((_, numbers)) = DEVICES.iter().find(|(known, _)| *known == path) else {
                return refused(
                    "linux.devices",
                    &format!("the host's device {path}: a pod in a domain has no devices of the host"),
                );
            };
            let asked = ["major", "minor"].map(|number| device.get(number).and_then(Value::as_u64));
            if !["c", "u"].contains(&field(device, "type")) || asked != numbers.map(Some) {
                let [major, minor] = numbers;
                return refused("linux.devices", &format!("another device as {path} than c {major}:{minor}"));
            }
        }
        Ok(())
    }

    fn refuse_mounts(&self) -> Result<()> {
        for (number, mount) in self.list("/mounts").iter().enumerate() {
            let options = mount.get("options").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let tied = options.iter().filter_map(Value::as_str).find(|o| PROPAGATION.contains(o));
            if let (true, Some(option)) = (super::guest::is_bind(mount), tied) {
                let place = field(mount, "destination");
                return refused(
                    &format!("mounts[{number}].options"),
                    &format!("mounts of the host to appear at {place} later ({option})"),
                );
            }
        }
        if ["shared", "rshared"].contains(&self.text("/linux/rootfsPropagation")) {
            return refused("linux.rootfsPropagation", "its mounts to appear on the host");
        }
        Ok(())
    }
}

/// The shim runs in the host's namespaces.
fn is_the_hosts(kind: Kind, path: &str) -> bool {
    let inode = |path: &str| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    inode(path).is_some_and(|found| Some(found) == inode(&kind.path("self")))
}

/// Those of no namespace of a pod. `field` says where they are asked for.
pub(super) fn refuse_sysctls<'a>(field: &str, mut names: impl Iterator<Item = &'a str>) -> Result<()> {
    names.try_for_each(|name| match Sysctl::parse(name) {
        Ok(_) => Ok(()),
        Err(why @ BadSysctl::NoName(_)) => {
            Err(Error::new(Code::SpecInvalid, format!("{field}[{name:?}]: {why}")))
        }
        Err(why) => refused(&format!("{field}[{name:?}]"), &format!("what no pod has of its own: {why}")),
    })
}

pub(super) fn refused<T>(field: &str, what: &str) -> Result<T> {
    Err(Error::new(Code::SpecRefused, format!("{field} asks for {what}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::tests::spec;

    #[track_caller]
    fn check(change: impl FnOnce(&mut Value), field: &str) {
        let error = spec(change).refuse_host_things().unwrap_err();
        assert_eq!(error.code(), Some(Code::SpecRefused));
        assert!(error.to_string().starts_with(field), "{error}");
    }

    #[test]
    fn what_ctr_run_writes_is_accepted() {
        spec(|_| ()).refuse_host_things().unwrap();
        spec(|s| s["process"]["apparmorProfile"] = "cri-containerd.apparmor.d".into())
            .refuse_host_things()
            .unwrap();
    }

    #[test]
    fn the_hosts_namespaces_are_refused() {
        for missing in OWN {
            check(
                |s| s["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != missing.name()),
                "linux.namespaces",
            );
        }
        for (at, kind) in [(0, Kind::Pid), (1, Kind::Ipc), (2, Kind::Uts), (4, Kind::Network)] {
            for path in [kind.path("self"), kind.path(std::process::id())] {
                let place = format!("linux.namespaces[{at}].path");
                check(|s| s["linux"]["namespaces"][at]["path"] = path.into(), &place);
            }
        }
        check(
            |s| s["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"})),
            "linux.uidMappings",
        );
    }

    #[test]
    fn sysctls_that_are_no_pods_are_refused_by_their_names() {
        spec(|s| {
            s["linux"]["sysctl"] =
                json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "1", "fs.mqueue.msg_max": "7"})
        })
        .refuse_host_things()
        .unwrap();
        for name in ["kernel.core_pattern", "vm.swappiness", "kernel.hostname"] {
            check(
                |s| s["linux"]["sysctl"] = json!({"net.core.somaxconn": "1", name: "1"}),
                &format!("linux.sysctl[{name:?}]"),
            );
        }
        for name in ["net/../x", "..", "/etc/passwd"] {
            let error = spec(|s| s["linux"]["sysctl"] = json!({name: "1"})).refuse_host_things().unwrap_err();
            assert_eq!(error.code(), Some(Code::SpecInvalid));
            assert!(error.to_string().starts_with(&format!("linux.sysctl[{name:?}]")), "{error}");
        }
    }

    #[test]
    fn a_second_namespace_of_a_type_is_refused() {
        for kind in ["network", "pid", "ipc", "uts", "mount"] {
            for path in ["", "/run/netns/cni-1"] {
                let second = json!({"type": kind, "path": path});
                let asked = spec(|s| s["linux"]["namespaces"].as_array_mut().unwrap().push(second));
                let error = asked.refuse_host_things().unwrap_err();
                assert_eq!(error.code(), Some(Code::SpecInvalid));
                let said = format!("linux.namespaces[5] is a second {kind} namespace: name one");
                assert_eq!(error.to_string(), said);
            }
        }
    }

    #[test]
    fn a_network_by_path_is_accepted() {
        spec(|s| s["linux"]["namespaces"][4]["path"] = "/run/netns/cni-1".into())
            .refuse_host_things()
            .unwrap();
    }

    #[test]
    fn only_devices_of_programs_are_accepted_and_under_their_own_numbers() {
        let asked = |path: &str, kind: &str, [major, minor]: [u64; 2]| {
            let device = json!({"path": path, "type": kind, "major": major, "minor": minor, "fileMode": 438});
            move |s: &mut Value| s["linux"]["devices"] = json!([device])
        };
        for (path, numbers) in DEVICES {
            spec(asked(path, "c", numbers)).refuse_host_things().unwrap();
            check(asked(path, "b", numbers), "linux.devices");
            check(asked(path, "c", [numbers[0], numbers[1] + 1]), "linux.devices");
            check(asked(path, "c", [numbers[0] + 1, numbers[1]]), "linux.devices");
            check(|s| s["linux"]["devices"] = json!([{"path": path, "type": "c"}]), "linux.devices");
        }
        for path in
            ["/dev/kvm", "/dev/nvidia0", "/dev/xen/evtchn", "/dev/fuse/", "/dev/net/../fuse", "/dev/mem"]
        {
            check(asked(path, "c", [10, 229]), "linux.devices");
        }
    }

    #[test]
    fn devices_profiles_and_propagation_are_refused() {
        check(|s| s["linux"]["devices"] = json!([{"path": "/dev/nvidia0"}]), "linux.devices");
        check(|s| s["process"]["apparmorProfile"] = "mine".into(), "process.apparmorProfile");
        check(
            |s| {
                s["mounts"].as_array_mut().unwrap().push(json!({"destination": "/d", "type": "bind", "source": "/", "options": ["rbind", "rslave"]}))
            },
            "mounts[2].options",
        );
        check(|s| s["linux"]["rootfsPropagation"] = "rshared".into(), "linux.rootfsPropagation");
    }
}
