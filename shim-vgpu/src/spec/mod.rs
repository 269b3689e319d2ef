//! The OCI runtime spec of a container, as containerd wrote it and as the guest gets it.
//!
//! It stays JSON: fields that we don't know reach the guest as they came. Start at [`Spec`]; [`refuse`] says what a pod in a domain of
//! its own can't have, [`guest`] makes the guest's copy and the binds it needs, [`namespaces`] what it shares with others of its pod, [`hooks`] what the node runs for it, [`sandbox`] what a pod without a sandbox container has, [`size`] the domain's memory and CPUs, [`gpu`] reads the
//! `vgpu.dev/` annotations. Not here: applying it (guest-init).

pub mod gpu;
pub mod guest;
pub mod hooks;
pub mod memory;
pub mod namespaces;
pub mod refuse;
pub mod sandbox;
pub mod size;
mod volumes;

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use vgpu_agent_api::sysctl::Sysctl;
use vgpu_codes::Code;

use crate::{
    error::{Error, OrFail, Result},
    names,
};

const CONFIG: &str = "config.json";
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";

/// A container's spec. Source: OCI runtime specification, `config.md`.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec(Value);

/// What a container is in its pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// `ctr run`, nerdctl: a sandbox with one container.
    Alone,
    /// The pod's first container (pause), or what containerd's Sandbox API makes in its place; the domain lives with it.
    Sandbox,
    /// A container in a pod that exists.
    Container {
        /// The pod.
        sandbox: String,
    },
}

impl Role {
    /// Of the container whose bundle this is. containerd's Sandbox API writes no config.json (containerd #11640).
    ///
    /// # Errors
    /// As [`Spec::load`] and [`Spec::role`].
    pub fn of(bundle: &Path) -> Result<Role> {
        if !bundle.join(CONFIG).exists() {
            return Ok(Role::Sandbox);
        }
        Spec::load(bundle)?.role()
    }

    /// The pod of an application container; the others are their own.
    pub fn sandbox(&self) -> Option<&str> {
        match self {
            Role::Container { sandbox } => Some(sandbox),
            Role::Alone | Role::Sandbox => None,
        }
    }
}

impl Spec {
    /// Reads `<bundle>/config.json`.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] if it can't be read or is no JSON object.
    pub fn load(bundle: &Path) -> Result<Spec> {
        let file = bundle.join(CONFIG);
        let what = || format!("cannot use {}", file.display());
        let text = fs::read(&file).or_fail(Code::SpecInvalid, what)?;
        let value: Value = serde_json::from_slice(&text).or_fail(Code::SpecInvalid, what)?;
        Spec::new(value)
    }

    /// A spec that was parsed already.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] if it is no object.
    pub fn new(value: Value) -> Result<Spec> {
        match value {
            Value::Object(_) => Ok(Spec(value)),
            _ => Err(Error::new(Code::SpecInvalid, "config.json is not a JSON object")),
        }
    }

    /// What this container is in its pod.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] for a type that is not known or a container that names no sandbox.
    pub fn role(&self) -> Result<Role> {
        match self.annotation(CONTAINER_TYPE) {
            None => Ok(Role::Alone),
            Some("sandbox") => Ok(Role::Sandbox),
            Some("container") => {
                let sandbox = self.annotation(SANDBOX_ID).unwrap_or_default().to_owned();
                names::check_id("sandbox id", &sandbox)?;
                Ok(Role::Container { sandbox })
            }
            Some(other) => Err(Error::new(
                Code::SpecInvalid,
                format!("the annotation {CONTAINER_TYPE} is {other:?}, neither sandbox nor container"),
            )),
        }
    }

    /// The pod's uid, where Kubernetes made it.
    pub fn pod_uid(&self) -> Option<&str> {
        self.annotation(SANDBOX_UID)
    }

    /// The UTS name that the pod wants.
    pub fn hostname(&self) -> &str {
        self.text("/hostname")
    }

    /// The network namespace that was made for the pod.
    pub fn network(&self) -> Option<&Path> {
        let networks = self.list("/linux/namespaces").iter().filter(|n| field(n, "type") == "network");
        networks.map(|namespace| field(namespace, "path")).find(|path| !path.is_empty()).map(Path::new)
    }

    /// The sysctls of the network that it sets itself.
    pub fn network_sysctls(&self) -> BTreeSet<Sysctl> {
        let asked = self.0.pointer("/linux/sysctl").and_then(Value::as_object);
        let parsed = asked.into_iter().flatten().filter_map(|(name, _)| Sysctl::parse(name).ok());
        parsed.filter(Sysctl::is_network).collect()
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.0.get("annotations")?.get(key)?.as_str()
    }

    fn annotations(&self) -> impl Iterator<Item = (&str, &Value)> {
        let map = self.0.get("annotations").and_then(Value::as_object);
        map.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }

    /// The text at a JSON pointer, or nothing.
    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The list at a JSON pointer, or nothing.
    fn list(&self, pointer: &str) -> &[Value] {
        self.0.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The number at a JSON pointer, if it is one above 0.
    fn positive(&self, pointer: &str) -> Option<u64> {
        self.0.pointer(pointer).and_then(Value::as_u64).filter(|&number| number > 0)
    }
}

/// A text field of an object in the spec, or nothing.
fn field<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// What `ctr run` writes, shortened.
    pub(crate) fn ctr() -> Value {
        json!({
            "ociVersion": "1.1.0",
            "process": {"args": ["/hello"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "hostname": "demo",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}]}
        })
    }

    pub(crate) fn spec(change: impl FnOnce(&mut Value)) -> Spec {
        let mut value = ctr();
        change(&mut value);
        Spec::new(value).unwrap()
    }

    #[test]
    fn a_container_without_cri_is_alone_in_its_pod() {
        assert_eq!(spec(|_| ()).role().unwrap(), Role::Alone);
    }

    #[test]
    fn a_container_of_a_pod_names_its_sandbox() {
        let with = |id: &str| {
            spec(|s| s["annotations"] = json!({CONTAINER_TYPE: "container", SANDBOX_ID: id})).role()
        };
        assert_eq!(with("pod1").unwrap(), Role::Container { sandbox: "pod1".into() });
        assert!(with("../etc").is_err());
        assert!(with("").is_err());
    }
}
