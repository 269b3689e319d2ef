//! A pod that containerd makes by its Sandbox API: the spec that its sandbox container would have, and what its containers get of the pod.
//!
//! With a pause container containerd writes that spec, and makes the pod's files and its memory on the node. Here it does neither, and a
//! container's spec has no mounts of them: its /dev/shm would be its own, its /etc/hosts and /etc/resolv.conf the image's.

use std::{collections::BTreeMap, fs, path::Path};

use protobuf::{EnumOrUnknown, Message};
use serde_json::{Map, Value, json};
use vgpu_agent_api::pod::{self, Memory};
use vgpu_codes::Code;

use super::{
    CONTAINER_TYPE, SANDBOX_ID, SANDBOX_UID, Spec, field, guest::is_bind, memory, namespaces::Kind, size,
};
use crate::{
    cri::{DNSConfig, NamespaceMode, PodSandboxConfig},
    error::{Error, OrFail, Result},
};

/// The message's name, behind any host. Source: Kubernetes, `cri-api`.
const NAME: &str = "runtime.v1.PodSandboxConfig";
/// That of the pod, whose other memories are named by files of the node, of which none is 0.
const POD_MEMORY: u128 = 0;

/// A pod's sandbox, as CRI asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    /// Of its sandbox container.
    pub spec: Spec,
    /// What its containers are to find in /etc, by name.
    pub files: Files,
    /// Set in the guest, which is the pod.
    pub sysctls: BTreeMap<String, String>,
    /// Containers may ask for one pid namespace, which needs a first process.
    pub shares_pids: bool,
}

/// The pod's files, by their names below /etc. As containerd makes them beside a pause container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files(pub [(&'static str, String); 3]);

impl Sandbox {
    /// Of what CreateSandbox brings; empty options ask for nothing.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] if it is no PodSandboxConfig, [`Code::HostFailure`] if a file of the node can't be read.
    pub fn new(id: &str, type_url: &str, options: &[u8], network: &str) -> Result<Sandbox> {
        let what = || "CreateSandbox: options is no PodSandboxConfig".to_owned();
        if !options.is_empty() && type_url.rsplit('/').next() != Some(NAME) {
            let why = format!("{}, but {type_url:?}", what());
            return Err(Error::new(Code::SpecInvalid, why));
        }
        let config = PodSandboxConfig::parse_from_bytes(options).or_fail(Code::SpecInvalid, what)?;
        Sandbox::of(id, config, network)
    }

    fn of(id: &str, config: PodSandboxConfig, network: &str) -> Result<Sandbox> {
        let linux = config.linux.unwrap_or_default();
        let asked = linux.security_context.unwrap_or_default().namespace_options.unwrap_or_default();
        let mut hostname = config.hostname;
        if hostname.is_empty() {
            hostname = node_file("/proc/sys/kernel/hostname")?.trim().to_owned();
        }
        let is = |mode: EnumOrUnknown<NamespaceMode>, wanted: NamespaceMode| mode == wanted.into();
        let mut namespaces = vec![json!({"type": "uts"}), json!({"type": "mount"})];
        for (kind, mode) in [(Kind::Network, asked.network), (Kind::Pid, asked.pid), (Kind::Ipc, asked.ipc)] {
            // One that is missing is the node's, and is refused as such.
            if !is(mode, NamespaceMode::NODE) {
                let path = if kind == Kind::Network { network } else { "" };
                namespaces.push(json!({"type": kind.name(), "path": path}));
            }
        }
        if asked.userns_options.as_ref().is_some_and(|user| is(user.mode, NamespaceMode::POD)) {
            namespaces.push(json!({"type": "user"}));
        }
        let limits = linux.resources.unwrap_or_default();
        let mut annotations = Map::new();
        for (key, number) in [
            (size::SANDBOX_MEMORY, limits.memory_limit_in_bytes),
            (size::SANDBOX_CPU_QUOTA, limits.cpu_quota),
            (size::SANDBOX_CPU_PERIOD, limits.cpu_period),
        ] {
            annotations.insert(key.into(), number.to_string().into());
        }
        annotations.insert(CONTAINER_TYPE.into(), "sandbox".into());
        annotations.insert(SANDBOX_ID.into(), id.into());
        if let Some(uid) = config.metadata.into_option().map(|it| it.uid).filter(|uid| !uid.is_empty()) {
            annotations.insert(SANDBOX_UID.into(), uid.into());
        }
        let files = Files::new(&hostname, config.dns_config.as_ref())?;
        let spec = Spec::new(json!({
            "ociVersion": "1.1.0",
            "root": {"path": "rootfs", "readonly": true},
            "hostname": hostname,
            "annotations": annotations,
            "process": {"args": [pod::PAUSE], "cwd": "/", "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "mode=755", "size=64k"]},
            ],
            "linux": {"namespaces": namespaces},
        }))?;
        let shares_pids = is(asked.pid, NamespaceMode::POD);
        Ok(Sandbox { spec, files, sysctls: linux.sysctls.into_iter().collect(), shares_pids })
    }
}

impl Files {
    fn new(hostname: &str, dns: Option<&DNSConfig>) -> Result<Files> {
        let resolv = match dns {
            Some(dns) => resolv_conf(dns),
            None => node_file("/etc/resolv.conf")?,
        };
        Ok(Files([
            ("hostname", format!("{hostname}\n")),
            ("hosts", node_file("/etc/hosts")?),
            ("resolv.conf", resolv),
        ]))
    }
}

/// Source: `resolv.conf(5)`.
fn resolv_conf(dns: &DNSConfig) -> String {
    let line = |word: &str, of: &[String]| match of {
        [] => String::new(),
        of => format!("{word} {}\n", of.join(" ")),
    };
    let servers: String = dns.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    line("search", &dns.searches) + &servers + &line("options", &dns.options)
}

/// Nothing, where the node has none.
fn node_file(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.or_fail(Code::HostFailure, || format!("cannot read {path}")),
    }
}

impl Spec {
    /// The spec of a container of such a pod, with the pod's files, which are in `files`, and the pod's memory at /dev/shm; and the number of
    /// the mount that is the memory. What it has at these places by volumes of its own stays.
    #[must_use]
    pub fn in_sandbox(&self, files: &Files, folder: &Path) -> (Spec, Option<(usize, Memory)>) {
        let mut config = self.0.clone();
        let read_only = self.0.pointer("/root/readonly") == Some(&Value::Bool(true));
        let Some(mounts) = config.as_object_mut().map(|config| config.entry("mounts").or_insert(json!([])))
        else {
            return (self.clone(), None);
        };
        let Some(mounts) = mounts.as_array_mut() else { return (self.clone(), None) };
        for (name, _) in &files.0 {
            let destination = format!("/etc/{name}");
            if !mounts.iter().any(|mount| field(mount, "destination") == destination) {
                let access = if read_only { "ro" } else { "rw" };
                let options = ["rbind", "rprivate", access];
                mounts.push(json!({"destination": destination, "type": "bind", "source": folder.join(name), "options": options}));
            }
        }
        let shm =
            mounts.iter().position(|mount| field(mount, "destination") == "/dev/shm" && !is_bind(mount));
        let memory = shm.map(|number| {
            let memory = Memory::new(POD_MEMORY, memory::BYTES);
            let source = memory.to_string();
            mounts[number] = json!({"destination": "/dev/shm", "type": "bind", "source": source, "options": ["rbind", "nodev"]});
            (number, memory)
        });
        (Spec(config), memory)
    }
}
