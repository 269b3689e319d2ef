//! What a container has in common with others of its pod, by the shim's words in its spec (`vgpu_agent_api::pod`).
//!
//! Any other path is refused, and so is what a namespace that is missing would mean: the guest's own, with PID 1 in it and all that is
//! PID 1's. The network is the exception: the pod has one, the guest's.

use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Kind, Mount};
use vgpu_agent_api::pod::{Memory, SANDBOX, container_of};

use crate::error::{GuestError, Result};

/// What the pod's other containers have.
pub trait Shared {
    /// A path of the namespace that init of `container` is in; `file` is its name in `/proc/<pid>/ns`.
    /// # Errors
    /// No such container runs.
    fn namespace(&mut self, container: &str, file: &'static str) -> Result<PathBuf>;

    /// The same of the guest's own, which are the pod's where it has no sandbox container.
    fn guests(&mut self, file: &'static str) -> PathBuf;

    /// A folder with this memory, which is made if nobody has it yet.
    /// # Errors
    /// It cannot be made.
    fn memory(&mut self, memory: Memory) -> Result<PathBuf>;
}

/// The namespaces that were asked for, each its own or another container's.
/// # Errors
/// One that would be the guest's, or a path that means nothing of this pod.
pub fn namespaces(asked: &[LinuxNamespace], pod: &mut dyn Shared) -> Result<Vec<LinuxNamespace>> {
    let (mut kept, mut seen) = (Vec::new(), Vec::new());
    for asked in asked {
        if seen.contains(&asked.typ()) {
            return Err(refused(format!("its {} namespace is named twice", asked.typ())));
        }
        seen.push(asked.typ());
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(asked.typ());
        if let Some(path) = asked.path().as_deref().filter(|path| !path.as_os_str().is_empty()) {
            namespace.set_path(Some(joined(asked.typ(), path, pod)?));
        }
        if asked.typ() != Kind::Network {
            kept.push(namespace);
        }
    }
    let has = |kept: &[LinuxNamespace], kind| kept.iter().any(|namespace| namespace.typ() == kind);
    for (kind, name) in [(Kind::Pid, "pid"), (Kind::Ipc, "ipc")] {
        if !has(&kept, kind) {
            return Err(refused(format!("without one its {name} namespace would be the guest's own")));
        }
    }
    for kind in [Kind::Uts, Kind::Mount] {
        if !has(&kept, kind) {
            // A copy of the guest's, which nobody else sees.
            let mut own = LinuxNamespace::default();
            own.set_typ(kind);
            kept.push(own);
        }
    }
    Ok(kept)
}

fn joined(kind: Kind, path: &Path, pod: &mut dyn Shared) -> Result<PathBuf> {
    let file = match kind {
        Kind::Pid => Some("pid"),
        Kind::Ipc => Some("ipc"),
        Kind::Uts => Some("uts"),
        _ => None,
    };
    // Not the pids: PID 1 is among them.
    if path == Path::new(SANDBOX)
        && let Some(file) = file.filter(|_| kind != Kind::Pid)
    {
        return Ok(pod.guests(file));
    }
    let (Some(file), Some(container)) = (file, container_of(path)) else {
        return Err(refused(format!(
            "the path {} of its {kind} namespace is nothing of this pod",
            path.display()
        )));
    };
    pod.namespace(container, file).map_err(|error| {
        refused(format!("the {kind} namespace of container {container} cannot be joined: {error}"))
    })
}

fn refused(why: String) -> GuestError {
    GuestError::Invalid { field: "linux.namespaces", why }
}

/// Has mounts of memory that containers have in common lead to it.
/// # Errors
/// Words that are none of the shim's, or the memory cannot be made.
pub fn memories(mounts: &mut [Mount], pod: &mut dyn Shared) -> Result<()> {
    for mount in mounts {
        let Some(source) = mount.source().as_deref().and_then(Path::to_str) else { continue };
        if !source.starts_with("vgpu:") {
            continue;
        }
        let memory: Memory = source.parse().map_err(|error| GuestError::Invalid {
            field: "mounts",
            why: format!("the source {source:?} of {}: {error}", mount.destination().display()),
        })?;
        let folder = pod.memory(memory)?;
        mount.set_source(Some(folder));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use vgpu_agent_api::pod::namespace_of;

    use super::*;

    /// Of a pod in which container "other" runs alone.
    pub(in crate::oci) struct Pod;

    impl Shared for Pod {
        fn namespace(&mut self, container: &str, file: &'static str) -> Result<PathBuf> {
            match container {
                "other" => Ok(format!("/other/{file}").into()),
                _ => Err(GuestError::NotFound(container.into())),
            }
        }

        fn guests(&mut self, file: &'static str) -> PathBuf {
            format!("/guest/{file}").into()
        }

        fn memory(&mut self, memory: Memory) -> Result<PathBuf> {
            Ok(format!("/memory/{}", memory.name()).into())
        }
    }

    fn of(asked: serde_json::Value) -> Result<Vec<(String, Option<PathBuf>)>> {
        let asked: Vec<LinuxNamespace> = serde_json::from_value(asked).unwrap();
        let kept = namespaces(&asked, &mut Pod)?;
        Ok(kept.iter().map(|namespace| (namespace.typ().to_string(), namespace.path().clone())).collect())
    }

    fn refusal(asked: serde_json::Value) -> String {
        let error = of(asked).unwrap_err();
        assert!(matches!(error, GuestError::Invalid { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn a_container_has_its_own_namespaces_or_those_of_another_one() {
        let other = namespace_of("other");
        let kept = of(json!([
            {"type": "pid", "path": other}, {"type": "ipc"}, {"type": "network"}, {"type": "uts", "path": other},
        ]));
        let right = [("pid", Some("/other/pid")), ("ipc", None), ("uts", Some("/other/uts")), ("mnt", None)];
        assert_eq!(kept.unwrap(), right.map(|(kind, path)| (kind.to_owned(), path.map(PathBuf::from))));
    }

    #[test]
    fn a_pod_without_a_sandbox_container_shares_the_guests_own_but_not_its_pids() {
        let kept =
            of(json!([{"type": "pid"}, {"type": "ipc", "path": SANDBOX}, {"type": "uts", "path": SANDBOX}]));
        let right = [("pid", None), ("ipc", Some("/guest/ipc")), ("uts", Some("/guest/uts")), ("mnt", None)];
        assert_eq!(kept.unwrap(), right.map(|(kind, path)| (kind.to_owned(), path.map(PathBuf::from))));
        for kind in ["pid", "mount", "cgroup", "user"] {
            let mut asked = json!([{"type": "ipc"}, {"type": kind, "path": SANDBOX}]);
            if kind != "pid" {
                asked.as_array_mut().unwrap().push(json!({"type": "pid"}));
            }
            assert!(refusal(asked).starts_with("linux.namespaces: the path vgpu:sandbox"), "{kind}");
        }
    }

    #[test]
    fn no_path_leads_anywhere_else() {
        let none = namespace_of("none");
        let paths = [
            "/proc/1/ns/pid",
            "/proc/self/ns/pid",
            "vgpu:pod",
            "vgpu:container/",
            "other",
            "/other/pid",
            &none,
        ];
        for path in paths {
            for (at, kind) in ["pid", "ipc", "uts"].into_iter().enumerate() {
                let mut asked = json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}]);
                asked[at]["path"] = path.into();
                let said = refusal(asked);
                assert!(said.starts_with("linux.namespaces: the ") && said.contains(kind), "{path} {said}");
            }
        }
        for kind in ["mount", "cgroup", "network", "user", "time"] {
            let asked =
                json!([{"type": "pid"}, {"type": "ipc"}, {"type": kind, "path": namespace_of("other")}]);
            assert!(refusal(asked).starts_with("linux.namespaces: the path vgpu:container/other"), "{kind}");
        }
    }

    #[test]
    fn what_is_missing_is_not_the_guests() {
        assert!(refusal(json!([{"type": "ipc"}])).contains("its pid namespace"));
        assert!(refusal(json!([{"type": "pid"}])).contains("its ipc namespace"));
        assert!(
            refusal(json!([{"type": "pid"}, {"type": "ipc"}, {"type": "pid"}]))
                .contains("its pid namespace is named twice")
        );
        let kept = of(json!([{"type": "pid"}, {"type": "ipc"}])).unwrap();
        let kinds: Vec<_> = kept.iter().map(|(kind, path)| (kind.as_str(), path.is_some())).collect();
        assert_eq!(kinds, [("pid", false), ("ipc", false), ("uts", false), ("mnt", false)]);
    }

    #[test]
    fn a_memory_of_the_pod_is_found_by_its_name() {
        let mounts = |source: &str| -> Vec<Mount> {
            serde_json::from_value(json!([
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev/shm", "type": "bind", "source": source},
            ]))
            .unwrap()
        };
        let memory = Memory::new(0xa1, 4096.try_into().unwrap());
        let mut right = mounts(&memory.to_string());
        memories(&mut right, &mut Pod).unwrap();
        let place = format!("/memory/{}", memory.name());
        assert_eq!(right[1].source().as_deref(), Some(Path::new(&place)));
        for wrong in ["vgpu:memory/..", "vgpu:other", "vgpu:memory/../../1"] {
            let error = memories(&mut mounts(wrong), &mut Pod).unwrap_err().to_string();
            assert!(error.starts_with("mounts: the source ") && error.contains(wrong), "{error}");
        }
    }
}
