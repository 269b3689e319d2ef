//! A pod that containerd makes by its Sandbox API: the spec that its sandbox container would have, and what its containers get of the pod.
//!
//! With a pause container containerd writes that spec, and makes the pod's files and its memory on the node. Here it does neither, and a
//! container's spec has no mounts of them: its /dev/shm would be its own, its /etc/hosts and /etc/resolv.conf the image's.

use std::{collections::BTreeMap, fs, path::Path};

use protobuf::{EnumOrUnknown, Message};
use serde_json::{Map, Value, json};
use vgpu_agent_api::pod::Memory;
use vgpu_codes::Code;

use super::{
    CONTAINER_TYPE, SANDBOX_ID, SANDBOX_UID, Spec, field, guest::is_bind, memory, namespaces::Kind,
    refuse::refuse_sysctls, size,
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
    /// [`Code::SpecInvalid`] if it is no PodSandboxConfig, [`Code::SpecRefused`] for a sysctl that is no pod's, [`Code::HostFailure`] if a file of the node can't be read.
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
        // In no order of their own: of several the same one is named each time.
        let sysctls: BTreeMap<String, String> = linux.sysctls.into_iter().collect();
        refuse_sysctls("linux.sysctls", sysctls.keys().map(String::as_str))?;
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
            "process": {"args": ["pause"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "mode=755", "size=64k"]},
            ],
            "linux": {"namespaces": namespaces},
        }))?;
        let shares_pids = is(asked.pid, NamespaceMode::POD);
        Ok(Sandbox { spec, files, sysctls, shares_pids })
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

#[cfg(test)]
mod tests {
    use super::{super::tests::spec, *};

    fn sandbox(change: impl FnOnce(&mut PodSandboxConfig)) -> Sandbox {
        let mut config = PodSandboxConfig::default();
        change(&mut config);
        Sandbox::new("pod", NAME, &config.write_to_bytes().unwrap(), "/run/netns/1").unwrap()
    }

    #[test]
    fn what_cri_says_of_a_pod_is_in_the_spec_that_its_sandbox_container_would_have() {
        let pod = sandbox(|config| {
            config.metadata.mut_or_insert_default().uid = "uid".into();
            let resources = &mut config.linux.mut_or_insert_default().resources;
            resources.mut_or_insert_default().memory_limit_in_bytes = 256 << 20;
        });
        assert_eq!((pod.spec.pod_uid(), pod.spec.network()), (Some("uid"), Some(Path::new("/run/netns/1"))));
        assert_eq!(pod.spec.domain_size(&vgpu_config::Guest::default()).unwrap().memory_mib, 256 + 64);
        assert_eq!(
            format!("{}\n", pod.spec.hostname()),
            pod.files.0[0].1,
            "the node's, where none is asked for"
        );
        assert!(pod.shares_pids, "POD is CRI's default");
        pod.spec.refuse_host_things().unwrap();
    }

    #[test]
    fn each_namespace_of_the_node_is_refused_by_its_name() {
        type Modes = [NamespaceMode; 3];
        use NamespaceMode::{NODE, POD};
        for (name, [network, pid, ipc]) in
            [("network", [NODE, POD, POD] as Modes), ("pid", [POD, NODE, POD]), ("ipc", [POD, POD, NODE])]
        {
            let pod = sandbox(|config| {
                let context = &mut config.linux.mut_or_insert_default().security_context;
                let asked = context.mut_or_insert_default().namespace_options.mut_or_insert_default();
                (asked.network, asked.pid, asked.ipc) = (network.into(), pid.into(), ipc.into());
            });
            let refused = pod.spec.refuse_host_things().unwrap_err().to_string();
            assert!(refused.contains(&format!("the host's {name} namespace")), "{refused}");
        }
    }

    #[test]
    fn its_names_servers_are_written_as_the_resolver_reads_them() {
        let dns = DNSConfig {
            servers: ["192.0.2.1", "192.0.2.2"].map(String::from).into(),
            searches: ["a.test", "b.test"].map(String::from).into(),
            options: vec!["ndots:5".into()],
            ..DNSConfig::default()
        };
        let text = "search a.test b.test\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns), text);
        assert_eq!(resolv_conf(&DNSConfig::default()), "");
    }

    /// It is of the node's accounts: the domain has `guest.memory_overhead_mib` of it already.
    #[test]
    fn the_overhead_of_its_class_is_not_the_guests() {
        let limits = sandbox(|config| {
            let resources = &mut config.linux.mut_or_insert_default().resources;
            let resources = resources.mut_or_insert_default();
            (resources.memory_limit_in_bytes, resources.cpu_quota, resources.cpu_period) =
                (256 << 20, 100_000, 100_000);
        });
        let mut config = PodSandboxConfig::default();
        let linux = config.linux.mut_or_insert_default();
        let resources = linux.resources.mut_or_insert_default();
        (resources.memory_limit_in_bytes, resources.cpu_quota, resources.cpu_period) =
            (256 << 20, 100_000, 100_000);
        // `overhead = 4`, of the same type.
        let overhead = resources.write_to_bytes().unwrap();
        linux.special_fields.mut_unknown_fields().add_length_delimited(4, overhead);
        let with = Sandbox::new("pod", NAME, &config.write_to_bytes().unwrap(), "/run/netns/1").unwrap();
        let size = |pod: &Sandbox| pod.spec.domain_size(&vgpu_config::Guest::default()).unwrap();
        assert_eq!((size(&with), size(&with).vcpus), (size(&limits), 1));
    }

    #[test]
    fn a_sysctl_that_is_no_pods_is_refused_by_its_field() {
        for (name, code) in [("kernel.core_pattern", Code::SpecRefused), ("net/../x", Code::SpecInvalid)] {
            let mut config = PodSandboxConfig::default();
            config.linux.mut_or_insert_default().sysctls.insert(name.into(), "1".into());
            let error = Sandbox::new("pod", NAME, &config.write_to_bytes().unwrap(), "").unwrap_err();
            assert_eq!(error.code(), Some(code));
            assert!(error.to_string().starts_with(&format!("linux.sysctls[{name:?}]")), "{error}");
        }
    }

    #[test]
    fn options_of_another_kind_are_refused() {
        for (name, bytes) in [("x.Other", &b"\x0a\x00"[..]), (NAME, b"\xff")] {
            let error = Sandbox::new("pod", name, bytes, "").unwrap_err();
            assert_eq!(error.code(), Some(Code::SpecInvalid), "{name}");
        }
        assert!(Sandbox::new("pod", "", b"", "").is_ok(), "none ask for nothing");
    }

    #[test]
    fn a_volume_of_a_containers_own_stays_where_the_pod_has_a_file_or_its_memory() {
        let own = json!([
            {"destination": "/etc/hosts", "type": "bind", "source": "/own"},
            {"destination": "/dev/shm", "type": "bind", "source": "/own"},
        ]);
        let files = sandbox(|_| ()).files;
        let (with, memory) = spec(|s| s["mounts"] = own.clone()).in_sandbox(&files, Path::new("/files"));
        let mounts = with.list("/mounts");
        assert_eq!((memory, &mounts[..2]), (None, own.as_array().unwrap().as_slice()));
        let added: Vec<_> = mounts[2..].iter().map(|mount| field(mount, "source")).collect();
        assert_eq!(added, ["/files/hostname", "/files/resolv.conf"]);
        let read_only = spec(|s| s["root"]["readonly"] = true.into());
        let (with, _) = read_only.in_sandbox(&files, Path::new("/files"));
        let last = with.list("/mounts").last().unwrap();
        assert_eq!(last["options"], json!(["rbind", "rprivate", "ro"]));
    }
}
