//! Volumes that kubelet changes while a container has them (ConfigMaps, Secrets, projected ones, the downward API's). Programs watch them by
//! inotify(7), which 9p does not carry: so the guest has copies, and is told here when to bring them up to date.
//!
//! One descriptor a container, as runc's shim has one of this kind for its cgroup's events; none where a container has no such volume. It is
//! closed at init's exit, and keeps nobody from unmounting a volume.

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe;
use vgpu_agent_api::version;

use super::Pod;
use crate::{
    container::{Container, life::Who},
    spec::guest::GuestSpec,
};

/// From a refresh that failed to the next: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));
/// Of an update of kubelet's, which is several changes.
const SETTLES: Duration = Duration::from_millis(100);
/// The folders of a pod's volumes that kubelet writes as a whole. Source: Kubernetes, `EscapeQualifiedName` of the plugins' names.
const PLUGINS: [&str; 4] = [
    "kubernetes.io~configmap",
    "kubernetes.io~secret",
    "kubernetes.io~projected",
    "kubernetes.io~downward-api",
];

/// Changes of the volumes of one container, from [`begin`] on.
#[derive(Debug)]
pub(super) struct Changes(File);

/// Watches those volumes of a container, and names them in its spec. None if it has none; if they cannot be watched, they stay binds of the share.
pub(super) fn begin(spec: &mut GuestSpec) -> Option<Changes> {
    let binds = spec.binds.iter().enumerate();
    let volumes = binds.filter(|(_, bind)| bind.readonly && is_kubelets(&bind.source));
    let (numbers, sources): (Vec<_>, Vec<_>) = volumes.map(|(number, bind)| (number, &*bind.source)).unzip();
    if sources.is_empty() {
        return None;
    }
    match watch(&sources) {
        Ok(changes) => {
            spec.name_volumes(&numbers);
            Some(Changes(changes))
        }
        Err(error) => {
            log::warn!("no program is told of changes of {sources:?}: they cannot be watched: {error}");
            None
        }
    }
}

/// `…/volumes/kubernetes.io~configmap/<name>` and its like, of the form that kubelet gives it.
fn is_kubelets(source: &Path) -> bool {
    let Some(plugin) = source.parent() else { return false };
    let is_below_volumes = plugin.parent().is_some_and(|volumes| volumes.ends_with("volumes"));
    let of_plugin = PLUGINS.iter().any(|name| plugin.ends_with(name));
    is_below_volumes && of_plugin && fs::read_link(source.join("..data")).is_ok()
}

fn watch(volumes: &[&Path]) -> io::Result<File> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let mask = WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE
        | WatchFlags::ATTRIB
        | WatchFlags::ONLYDIR;
    for volume in volumes {
        inotify::add_watch(&inotify, *volume, mask)?;
    }
    Ok(inotify.into())
}

impl Pod {
    /// Tells the guest of changes, until the container's init has ended. A guest of before binds the share, and is told nothing.
    pub(super) async fn watch_volumes(self: Arc<Self>, container: Arc<Container>, changes: Changes) {
        let Ok(guest) = self.guest() else { return };
        if let Err(error) = guest.require(version::VOLUMES_SINCE, "a volume that programs can watch") {
            return log::info!("container {}: {}", container.id, error.report());
        }
        let told = async {
            // Read as a pipe is: what tokio has for any descriptor is unsafe code.
            let changes = pipe::Receiver::from_file_unchecked(changes.0)?;
            // What they are is for the guest to see; they are many in one read.
            let mut events = [0; 4096];
            // Until the next try of what has failed, and what was said of it.
            let (mut again, mut said) = (None, String::new());
            loop {
                match again {
                    None => changes.readable().await?,
                    Some(pause) => tokio::time::timeout(pause, changes.readable()).await.unwrap_or(Ok(()))?,
                }
                tokio::time::sleep(SETTLES).await;
                while changes.try_read(&mut events).is_ok_and(|read| read > 0) {}
                let refreshed = guest.refresh_volumes(&container.id).await;
                let why = refreshed.err().map(|error| error.report());
                // It may be so for long: a version that finds no room in the guest stays as it is until kubelet has another.
                if let Some(why) = why.as_ref().filter(|why| **why != said) {
                    log::warn!("container {}: {why}", container.id);
                }
                again =
                    why.as_ref().map(|_| again.map_or(AGAIN.0, |pause: Duration| (pause * 2).min(AGAIN.1)));
                said = why.unwrap_or_default();
            }
        };
        tokio::select! {
            _ = container.wait(&Who::Init) => {}
            told = told => {
                let told: io::Result<()> = told;
                log::warn!("container {}: nobody watches its volumes any more: {told:?}", container.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::symlink, path::PathBuf};

    use serde_json::{Value, json};
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::spec::tests::spec;

    /// A pod's folder with one volume.
    fn volume(plugin: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volumes").join(plugin).join("name");
        fs::create_dir_all(volume.join("..one")).unwrap();
        symlink("..one", volume.join("..data")).unwrap();
        (dir, volume)
    }

    fn asked(sources: &[&Path], options: Value) -> GuestSpec {
        let mounts = sources
            .iter()
            .map(|source| json!({"destination": "/v", "type": "bind", "source": source, "options": options}));
        let spec = spec(|s| s["mounts"].as_array_mut().unwrap().extend(mounts));
        spec.for_guest("c", Path::new("/b"), false, &BTreeMap::new(), &BTreeMap::new())
    }

    /// What the guest is told of them.
    fn named(sources: &[&Path], options: Value) -> Value {
        let mut spec = asked(sources, options);
        let watched = begin(&mut spec).is_some();
        let named = spec.config["annotations"]["vgpu.dev/volumes"].take();
        assert_eq!(watched, named.is_string());
        named
    }

    #[test]
    fn volumes_that_kubelet_writes_as_a_whole_are_named_by_their_places() {
        let ro = || json!(["rbind", "rprivate", "ro"]);
        for plugin in PLUGINS {
            let (_pod, volume) = volume(plugin);
            let other = Path::new("/proc");
            assert_eq!(named(&[other, &volume, other, &volume], ro()), "1 3", "{plugin}");
            assert_eq!(
                named(&[&volume], json!(["rbind", "rw"])),
                json!(null),
                "what is written goes to the node"
            );
            assert_eq!(named(&[&volume.join("..one")], ro()), json!(null), "a part of it");
            fs::remove_file(volume.join("..data")).unwrap();
            assert_eq!(named(&[&volume], ro()), json!(null), "nothing is swapped in it");
        }
        let (_pod, volume) = volume("kubernetes.io~empty-dir");
        assert_eq!(named(&[&volume, Path::new("/")], ro()), json!(null));
    }

    #[tokio::test]
    async fn each_step_of_kubelet_is_a_change_and_a_look_is_none() {
        let (_pod, volume) = volume(PLUGINS[0]);
        let Changes(changes) = begin(&mut asked(&[&volume], json!(["ro"]))).unwrap();
        let mut changes = pipe::Receiver::from_file_unchecked(changes).unwrap();
        let mut seen = async || {
            let mut events = [0; 4096];
            let read = changes.read(&mut events);
            tokio::time::timeout(Duration::from_millis(200), read).await.is_ok_and(|read| read.unwrap() > 0)
        };
        fs::read_dir(&volume).unwrap().for_each(drop);
        fs::read_link(volume.join("..data")).unwrap();
        assert!(!seen().await);
        fs::create_dir(volume.join("..two")).unwrap();
        assert!(seen().await);
        symlink("..two", volume.join("..data_tmp")).unwrap();
        assert!(seen().await);
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        assert!(seen().await);
        fs::remove_dir(volume.join("..one")).unwrap();
        assert!(seen().await);
    }
}
