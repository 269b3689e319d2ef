//! The guest's copy of the spec, and the binds on the host that it needs.
//!
//! Each bind mount of the spec becomes a place `mounts/<n>` in the container's folder of the share; the guest binds it from there.
//! Labels and annotations of ours don't cross, they mean something on this host only; nor do paths of namespaces ([`namespaces`]), and hooks of
//! the host, whose environments may be an administrator's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;
use vgpu_agent_api::pod::{Memory, PAUSE, VOLUMES};

use super::{
    Spec, field, gpu, hooks,
    namespaces::{self, Kind},
    volumes,
};

/// Where the guest mounts the share.
pub const SHARE_IN_GUEST: &str = "/run/vgpu/share";

/// One bind mount on the host, into the container's folder of the share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// Below the container's folder.
    pub target: String,
    /// With the mounts below it.
    pub recursive: bool,
    /// The guest can't write, whatever it tries, nor into what is mounted below it: it sees all of it as one mount.
    pub readonly: bool,
}

/// What crosses to the guest.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestSpec {
    /// Its config.json.
    pub config: Value,
    /// What it refers to.
    pub binds: Vec<Bind>,
    /// An absolute `root.path` of the host, for a container whose Create brings no mounts.
    pub root: PathBuf,
    /// It has words for what containers of a pod share.
    pub shares: bool,
}

impl GuestSpec {
    /// Says that this is no program but the first process of the pids that the pod's containers share.
    pub fn name_pause(&mut self) {
        self.config["annotations"][PAUSE] = "1".into();
    }

    /// Says that the guest will be told of changes of these binds.
    pub fn name_volumes(&mut self, numbers: &[usize]) {
        let numbers: Vec<_> = numbers.iter().map(usize::to_string).collect();
        self.config["annotations"][VOLUMES] = numbers.join(" ").into();
    }
}

impl Spec {
    /// The guest's copy for `container`; `gpu` says that a GPU was asked for and will be granted before the guest reads it, `joined` has
    /// the words for namespaces that it shares, `memories` which of its mounts are the guest's memory.
    pub fn for_guest(
        &self,
        container: &str,
        bundle: &Path,
        gpu: bool,
        joined: &BTreeMap<Kind, String>,
        memories: &BTreeMap<usize, Memory>,
    ) -> GuestSpec {
        let mut config = self.0.clone();
        let root = bundle.join(self.text("/root/path"));
        config["root"]["path"] = "rootfs".into();
        let mut binds = Vec::new();
        let shares = !joined.is_empty() || !memories.is_empty();
        let mounts = config.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten();
        for (number, mount) in mounts.enumerate().filter(|(_, mount)| is_bind(mount)) {
            let source = bundle.join(field(mount, "source"));
            forbid(mount, &source);
            mount["type"] = "bind".into();
            mount["source"] = match memories.get(&number) {
                Some(memory) => memory.to_string().into(),
                None => carry(mount, source, container, &mut binds).into(),
            };
        }
        self.drop_host_words(&mut config, gpu);
        namespaces::for_guest(&mut config, joined);
        GuestSpec { config, binds, root, shares }
    }

    fn drop_host_words(&self, config: &mut Value, gpu: bool) {
        if let Some(annotations) = config.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| !key.starts_with("vgpu.dev/"));
        }
        if gpu {
            config["annotations"][gpu::GPU] = "1".into();
        }
        for (place, name) in
            [("/process", "apparmorProfile"), ("/process", "selinuxLabel"), ("/linux", "mountLabel")]
        {
            if let Some(object) = config.pointer_mut(place).and_then(Value::as_object_mut) {
                object.remove(name);
            }
        }
        if let Some(hooks) = config.get_mut("hooks").and_then(Value::as_object_mut) {
            hooks.retain(|kind, _| kind == hooks::OF_THE_CONTAINER);
        }
    }
}

/// `type` is `bind`, or the options say so. Source: OCI runtime specification, `config.md`, Mounts.
pub fn is_bind(mount: &Value) -> bool {
    field(mount, "type") == "bind" || has_option(mount, &["bind", "rbind"])
}

fn has_option(mount: &Value, names: &[&str]) -> bool {
    let options = mount.get("options").and_then(Value::as_array);
    options.into_iter().flatten().filter_map(Value::as_str).any(|option| names.contains(&option))
}

/// Has a mount forbid what the host's does.
fn forbid(mount: &mut Value, source: &Path) {
    let forbidden: Vec<Value> = volumes::forbidden(source).map(Value::from).collect();
    match mount.get_mut("options").and_then(Value::as_array_mut) {
        Some(options) => options.extend(forbidden),
        None => mount["options"] = forbidden.into(),
    }
}

/// Adds one bind mount to the share. Gives its place there, as the guest sees it.
fn carry(mount: &Value, source: PathBuf, container: &str, binds: &mut Vec<Bind>) -> String {
    let target = format!("mounts/{}", binds.len());
    let place = format!("{SHARE_IN_GUEST}/{container}/{target}");
    binds.push(Bind {
        source,
        target,
        recursive: has_option(mount, &["rbind"]),
        readonly: has_option(mount, &["ro", "rro"]),
    });
    place
}

#[cfg(test)]
mod tests {
    use rustix::mount::MountFlags;
    use serde_json::json;

    use super::*;
    use crate::spec::tests::spec;

    fn guest(spec: &Spec, container: &str, gpu: bool) -> GuestSpec {
        spec.for_guest(container, Path::new("/b"), gpu, &BTreeMap::new(), &BTreeMap::new())
    }

    fn with_mount(mount: Value) -> GuestSpec {
        guest(&spec(|s| s["mounts"].as_array_mut().unwrap().push(mount)), "c1", false)
    }

    #[test]
    fn a_volume_is_bound_from_the_share() {
        let guest = with_mount(
            json!({"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind", "ro"]}),
        );
        assert_eq!(
            guest.binds,
            [Bind { source: "/srv/data".into(), target: "mounts/0".into(), recursive: true, readonly: true }]
        );
        assert_eq!(guest.config["mounts"][2]["source"], "/run/vgpu/share/c1/mounts/0");
        assert_eq!(guest.config["mounts"][0]["type"], "proc");
    }

    #[test]
    fn what_the_hosts_mount_forbids_the_guest_forbids() {
        let dir = tempfile::tempdir().unwrap();
        let [free, shut] = ["free", "shut"].map(|name| dir.path().join(name));
        for (place, flags) in [(&free, MountFlags::empty()), (&shut, MountFlags::NOSUID | MountFlags::NOEXEC)]
        {
            std::fs::create_dir(place).unwrap();
            rustix::mount::mount("none", place, "tmpfs", flags, None).unwrap();
        }
        let options = |source: &Path| {
            let bind =
                json!({"destination": "/data", "type": "bind", "source": source, "options": ["rbind"]});
            with_mount(bind).config["mounts"][2]["options"].clone()
        };
        let found = [options(&free), options(&shut), options(&dir.path().join("none"))];
        let without = with_mount(json!({"destination": "/data", "type": "bind", "source": &shut}));
        crate::mount::take_away(dir.path()).unwrap();
        let both = json!(["rbind", "nosuid", "noexec"]);
        assert_eq!(found, [json!(["rbind"]), both.clone(), both], "what cannot be asked forbids both");
        assert_eq!(without.config["mounts"][2]["options"], json!(["nosuid", "noexec"]));
    }

    #[test]
    fn memory_of_the_host_becomes_the_guests_where_it_was_found_to_be() {
        let mount = json!({"destination": "/dev/shm", "source": "/run/x/shm", "options": ["rbind", "ro"]});
        let spec = spec(|s| s["mounts"].as_array_mut().unwrap().extend([mount.clone(), mount]));
        let memory = Memory::new(7, 4096.try_into().unwrap());
        let memories = BTreeMap::from([(2, memory)]);
        let guest = spec.for_guest("c1", Path::new("/b"), false, &BTreeMap::new(), &memories);
        assert_eq!((guest.binds.len(), guest.shares), (1, true));
        // The folder cannot be asked.
        let options = ["rbind", "ro", "nosuid", "noexec"];
        let right = |source: &str| json!({"destination": "/dev/shm", "type": "bind", "source": source, "options": options});
        assert_eq!(guest.config["mounts"][2], right(&memory.to_string()));
        assert_eq!(guest.config["mounts"][3], right("/run/vgpu/share/c1/mounts/0"));
    }

    #[test]
    fn what_means_something_on_this_host_only_does_not_cross() {
        let spec = spec(|s| {
            s["annotations"] = json!({"vgpu.dev/gpu": "1", "vgpu.dev/share": "5", "other": "x"});
            s["linux"]["namespaces"][0]["path"] = "/proc/7/ns/pid".into();
            s["process"]["selinuxLabel"] = "system_u".into();
            let hook = json!([{"path": "/x", "env": ["TOKEN=of-an-administrator"]}]);
            s["hooks"] = json!({"createRuntime": hook, "poststop": hook, "startContainer": hook});
        });
        let granted = guest(&spec, "c", true).config;
        assert_eq!(granted["annotations"], json!({"other": "x", "vgpu.dev/gpu": "1"}));
        let refused = guest(&spec, "c", false).config;
        assert_eq!(refused["annotations"], json!({"other": "x"}));
        assert_eq!(
            refused["linux"]["namespaces"],
            json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}])
        );
        assert_eq!(refused["process"].get("selinuxLabel"), None);
        assert_eq!(refused["hooks"].as_object().unwrap().keys().collect::<Vec<_>>(), ["startContainer"]);
    }

    #[test]
    fn a_relative_root_is_the_bundles_and_an_absolute_one_stays() {
        let root = |path: &str| guest(&spec(|s| s["root"]["path"] = path.into()), "c", false);
        assert_eq!(root("rootfs").root, Path::new("/b/rootfs"));
        assert_eq!(root("/srv/image").root, Path::new("/srv/image"));
        assert_eq!(root("/srv/image").config["root"]["path"], "rootfs");
    }
}
