//! The guest's copy of the spec, and the binds on the host that it needs.
//!
//! Each bind mount of the spec becomes a place `mounts/<n>` in the container's folder of the share; the guest binds it from there.
//! Labels and annotations of ours don't cross, they mean something on this host only; nor do paths of namespaces ([`namespaces`]).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Spec, field, gpu, memory,
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

impl Spec {
    /// The guest's copy for `container`; `gpu` says that a GPU was asked for and will be granted before the guest reads it, `joined` whose
    /// namespaces it has.
    pub fn for_guest(
        &self,
        container: &str,
        bundle: &Path,
        gpu: bool,
        joined: &BTreeMap<Kind, String>,
    ) -> GuestSpec {
        let mut config = self.0.clone();
        let root = bundle.join(self.text("/root/path"));
        config["root"]["path"] = "rootfs".into();
        let mut binds = Vec::new();
        let mut shares = !joined.is_empty();
        for mount in config.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
            if is_bind(mount) {
                shares |= is_shared_memory(mount);
                carry(mount, container, bundle, &mut binds);
            }
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
    }
}

/// `type` is `bind`, or the options say so. Source: OCI runtime specification, `config.md`, Mounts.
pub fn is_bind(mount: &Value) -> bool {
    field(mount, "type") == "bind" || has_option(mount, &["bind", "rbind"])
}

/// Memory of the host's cannot be a guest's: containers have the guest's in its place.
pub fn is_shared_memory(mount: &Value) -> bool {
    field(mount, "destination") == "/dev/shm"
}

fn has_option(mount: &Value, names: &[&str]) -> bool {
    let options = mount.get("options").and_then(Value::as_array);
    options.into_iter().flatten().filter_map(Value::as_str).any(|option| names.contains(&option))
}

/// Rewrites one bind mount to its place in the share, or to the guest's memory where it is the host's.
fn carry(mount: &mut Value, container: &str, bundle: &Path, binds: &mut Vec<Bind>) {
    let source = bundle.join(field(mount, "source"));
    let forbidden: Vec<Value> = volumes::forbidden(&source).map(Value::from).collect();
    match mount.get_mut("options").and_then(Value::as_array_mut) {
        Some(options) => options.extend(forbidden),
        None => mount["options"] = forbidden.into(),
    }
    if is_shared_memory(mount) {
        mount["type"] = "bind".into();
        mount["source"] = memory::of(&source).to_string().into();
        return;
    }
    let target = format!("mounts/{}", binds.len());
    binds.push(Bind {
        source,
        target: target.clone(),
        recursive: has_option(mount, &["rbind"]),
        readonly: has_option(mount, &["ro", "rro"]),
    });
    mount["type"] = "bind".into();
    mount["source"] = format!("{SHARE_IN_GUEST}/{container}/{target}").into();
}

#[cfg(test)]
mod tests {
    use rustix::mount::MountFlags;
    use serde_json::json;

    use super::*;
    use crate::spec::tests::spec;

    fn guest(spec: &Spec, container: &str, gpu: bool) -> GuestSpec {
        spec.for_guest(container, Path::new("/b"), gpu, &BTreeMap::new())
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
    fn memory_of_the_host_becomes_the_guests() {
        let mount = |options| json!({"destination": "/dev/shm", "source": "/run/x/shm", "options": options});
        let guest = with_mount(mount(json!(["rbind", "ro"])));
        assert_eq!((guest.binds, guest.shares), (vec![], true));
        let source = memory::of(Path::new("/run/x/shm")).to_string();
        // The folder cannot be asked.
        let options = ["rbind", "ro", "nosuid", "noexec"];
        let right = json!({"destination": "/dev/shm", "type": "bind", "source": source, "options": options});
        assert_eq!(guest.config["mounts"][2], right);
    }

    #[test]
    fn what_means_something_on_this_host_only_does_not_cross() {
        let spec = spec(|s| {
            s["annotations"] = json!({"vgpu.dev/gpu": "1", "vgpu.dev/share": "5", "other": "x"});
            s["linux"]["namespaces"][0]["path"] = "/proc/7/ns/pid".into();
            s["process"]["selinuxLabel"] = "system_u".into();
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
    }

    #[test]
    fn a_relative_root_is_the_bundles_and_an_absolute_one_stays() {
        let root = |path: &str| guest(&spec(|s| s["root"]["path"] = path.into()), "c", false);
        assert_eq!(root("rootfs").root, Path::new("/b/rootfs"));
        assert_eq!(root("/srv/image").root, Path::new("/srv/image"));
        assert_eq!(root("/srv/image").config["root"]["path"], "rootfs");
    }
}
