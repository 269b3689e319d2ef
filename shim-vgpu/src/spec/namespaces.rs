//! Whose namespaces a container has: its own, or those of another container of its pod.
//!
//! A spec names a namespace by a path on this host, as `/proc/<pid>/ns/ipc` of a pid that we have told, or a mount of it. What it means is
//! seen from the file's device and inode: the same as of a [holder](crate::holder), the host's stand-in of a container. The guest is told by
//! words (`vgpu_agent_api::pod`), since there is no such path in it.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
};

use rustix::fs::OFlags;
use serde_json::Value;
use vgpu_agent_api::pod::{SANDBOX, namespace_of};
use vgpu_codes::Code;

use super::{Spec, field, refuse::refused};
use crate::{
    error::{OrFail, Result},
    share::Process,
};

/// Source: Linux `include/uapi/linux/magic.h`, `NSFS_MAGIC`.
const NAMESPACE: rustix::fs::FsWord = 0x6e73_6673;

/// What a holder has of its own, or joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Network,
    Pid,
    Ipc,
    Uts,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Network, Kind::Pid, Kind::Ipc, Kind::Uts];

    /// By its name in a spec.
    pub fn of(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name in a spec. Source: OCI runtime specification, `config-linux.md`, Namespaces.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Network => "network",
            Kind::Pid => "pid",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
        }
    }

    /// Of this process. Source: `namespaces(7)`.
    pub fn path(self, pid: impl std::fmt::Display) -> String {
        let file = match self {
            Kind::Network => "net",
            other => other.name(),
        };
        format!("/proc/{pid}/ns/{file}")
    }
}

/// The namespaces of a container; those that are not here are its own, but for the network, which is the pod's.
#[derive(Debug, Default)]
pub struct Joined {
    /// By these files.
    pub files: BTreeMap<Kind, File>,
    /// Whose they are, for the guest. Never the network: a guest has one.
    pub containers: BTreeMap<Kind, String>,
}

impl Joined {
    /// The guest's words for them. `own` says that the pod's sandbox is no container.
    ///
    /// # Errors
    /// [`Code::SpecRefused`] for its pid namespace, where it has none.
    pub fn words(&self, own: Option<&GuestsOwn>) -> Result<BTreeMap<Kind, String>> {
        let word = |kind, id: &String| match own.filter(|own| own.sandbox == *id) {
            Some(_) if kind != Kind::Pid => Ok(SANDBOX.to_owned()),
            Some(own) if !own.shares_pids => refused(
                "linux.namespaces",
                "the pid namespace of its sandbox, whose containers were to have their own \
                 (linux.security_context.namespace_options.pid of RunPodSandbox)",
            ),
            _ => Ok(namespace_of(id)),
        };
        self.containers.iter().map(|(kind, id)| Ok((*kind, word(*kind, id)?))).collect()
    }
}

/// A pod whose sandbox is no container: what it shares are the guest's own namespaces, but for the pids, which a program of the guest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestsOwn {
    /// containerd's name for it.
    pub sandbox: String,
    /// Its containers may share their processes.
    pub shares_pids: bool,
}

impl Spec {
    /// What the container shares, by its spec. `pod` has the holders of the containers that there are; the first container of a pod brings the
    /// pod's network.
    ///
    /// # Errors
    /// [`Code::SpecRefused`] with the field, for a namespace of somebody else; [`Code::SpecInvalid`] for none.
    pub fn joined(&self, pod: &BTreeMap<String, Process>) -> Result<Joined> {
        let mut joined = Joined::default();
        for (number, namespace) in self.list("/linux/namespaces").iter().enumerate() {
            let path = field(namespace, "path");
            if path.is_empty() {
                continue;
            }
            let place = format!("linux.namespaces[{number}].path");
            let name = field(namespace, "type");
            let Some(kind) = Kind::of(name) else {
                return refused(
                    &place,
                    &format!("the {name} namespace {path}: no containers of a pod share one"),
                );
            };
            let file = open(path).or_fail(Code::SpecInvalid, || format!("{place}: cannot open {path}"))?;
            if !rustix::fs::fstatfs(&file).is_ok_and(|found| found.f_type == NAMESPACE) {
                return refused(&place, &format!("{path} as its {name} namespace, which is none"));
            }
            let is =
                identity(&file).or_fail(Code::HostFailure, || format!("{place}: cannot ask for {path}"))?;
            let whose = pod.iter().find(|(_, holder)| has(holder, kind, is)).map(|(id, _)| id.clone());
            match (kind, whose) {
                (Kind::Network, Some(_)) => {}
                (Kind::Network, None) if pod.is_empty() => {}
                (_, Some(container)) => {
                    joined.containers.insert(kind, container);
                }
                (_, None) => {
                    let what = format!(
                        "the {name} namespace {path}, which is of no container of this pod that runs"
                    );
                    return refused(&place, &what);
                }
            }
            joined.files.insert(kind, file);
        }
        if !joined.files.contains_key(&Kind::Network) {
            // One that runs is enough: it has the pod's.
            let files =
                pod.values().filter_map(|holder| Some((holder, open(&Kind::Network.path(holder.pid)).ok()?)));
            let pods = files.filter(|(holder, _)| holder.is_alive()).map(|(_, file)| file).next();
            joined.files.extend(pods.map(|file| (Kind::Network, file)));
        }
        Ok(joined)
    }
}

/// Writes the words for the guest into a copy of a spec. The pod's network is the guest's.
pub fn for_guest(config: &mut Value, words: &BTreeMap<Kind, String>) {
    let Some(namespaces) = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) else {
        return;
    };
    namespaces.retain(|namespace| field(namespace, "type") != Kind::Network.name());
    for namespace in namespaces {
        let word = Kind::of(field(namespace, "type")).and_then(|kind| words.get(&kind));
        let Some(namespace) = namespace.as_object_mut() else { continue };
        match word {
            Some(word) => namespace.insert("path".into(), word.as_str().into()),
            None => namespace.remove("path"),
        };
    }
}

/// Not waiting: a path of a spec may be a pipe's.
fn open(path: &str) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path)
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|found| (found.dev(), found.ino()))
}

/// Whether a holder that lives is in this namespace. Asked in this order: the file's process may be another one by now.
fn has(holder: &Process, kind: Kind, is: (u64, u64)) -> bool {
    let its = open(&kind.path(holder.pid)).and_then(|file| identity(&file));
    its.is_ok_and(|its| its == is) && holder.is_alive()
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        process::{Child, Command, Stdio},
    };

    use serde_json::json;

    use super::*;
    use crate::{holder::Holder, spec::tests::spec};

    fn holder(joined: Joined) -> Holder {
        Holder::begin(Command::new("cat"), joined).unwrap().0
    }

    fn pod(holders: &[(&str, &Holder)]) -> BTreeMap<String, Process> {
        holders.iter().map(|(id, holder)| ((*id).to_owned(), holder.process())).collect()
    }

    /// The namespaces of spec `ctr` at these places have paths.
    fn with(paths: &[(usize, String)]) -> Spec {
        spec(|s| {
            for (at, path) in paths {
                s["linux"]["namespaces"][*at]["path"] = path.as_str().into();
            }
        })
    }

    const PID: usize = 0;
    const IPC: usize = 1;
    const UTS: usize = 2;
    const MOUNT: usize = 3;
    const NETWORK: usize = 4;

    #[test]
    fn a_path_means_the_container_whose_holder_is_there() {
        let first = holder(with(&[]).joined(&BTreeMap::new()).unwrap());
        let of = first.process().pid;
        let asked =
            with(&[(PID, Kind::Pid.path(of)), (UTS, Kind::Uts.path(of)), (NETWORK, Kind::Network.path(of))]);
        let joined = asked.joined(&pod(&[("pod", &first)])).unwrap();
        let containers = [(Kind::Pid, "pod".to_owned()), (Kind::Uts, "pod".to_owned())];
        assert_eq!(joined.containers, BTreeMap::from(containers));
        let mut config = asked.0.clone();
        for_guest(&mut config, &joined.words(None).unwrap());
        let marker = namespace_of("pod");
        let words = json!([{"type": "pid", "path": marker}, {"type": "ipc"}, {"type": "uts", "path": marker}, {"type": "mount"}]);
        assert_eq!(config["linux"]["namespaces"], words);

        let second = holder(joined);
        let link = |kind: Kind, holder: &Holder| std::fs::read_link(kind.path(holder.process().pid)).unwrap();
        let same = Kind::ALL.map(|kind| link(kind, &first) == link(kind, &second));
        assert_eq!(same, [true, false, false, true], "network and uts: a pid namespace is each holder's own");
        // The first one's name, by the second.
        let asked = with(&[(UTS, Kind::Uts.path(second.process().pid))]);
        first.end();
        let containers = asked.joined(&pod(&[("pod", &first), ("app", &second)])).unwrap().containers;
        assert_eq!(containers, BTreeMap::from([(Kind::Uts, "app".to_owned())]));
    }

    #[test]
    fn what_is_nobodys_of_the_pod_is_refused_by_name() {
        let first = holder(Joined::default());
        let other = holder(Joined::default());
        let pod = pod(&[("pod", &first)]);
        let refusal = |at: usize, path: String| {
            let error = with(&[(at, path)]).joined(&pod).unwrap_err();
            let place = format!("linux.namespaces[{at}].path");
            assert!(error.to_string().starts_with(&place), "{error}");
            error.code()
        };
        for (at, kind) in [(PID, Kind::Pid), (IPC, Kind::Ipc), (UTS, Kind::Uts), (NETWORK, Kind::Network)] {
            assert_eq!(refusal(at, kind.path("self")), Some(Code::SpecRefused), "the host's");
            assert_eq!(refusal(at, kind.path(other.process().pid)), Some(Code::SpecRefused), "another pod's");
            assert_eq!(refusal(at, "/dev/null".into()), Some(Code::SpecRefused), "no namespace");
            assert_eq!(refusal(at, "/no/such".into()), Some(Code::SpecInvalid));
        }
        assert_eq!(refusal(MOUNT, Kind::Ipc.path(first.process().pid)), Some(Code::SpecRefused));
        // As with runc: it is gone with its process.
        let gone = Kind::Ipc.path(first.process().pid);
        first.end();
        assert_eq!(refusal(IPC, gone), Some(Code::SpecInvalid));
    }

    #[test]
    fn the_first_container_brings_the_network_and_the_others_have_it() {
        let error = with(&[(NETWORK, "/dev/null".into())]).joined(&BTreeMap::new()).unwrap_err();
        assert!(error.to_string().starts_with("linux.namespaces[4].path asks for /dev/null as"), "{error}");
        let netns = holder(Joined::default());
        let path = Kind::Network.path(netns.process().pid);
        let first = holder(with(&[(NETWORK, path.clone())]).joined(&BTreeMap::new()).unwrap());
        let second = holder(with(&[]).joined(&pod(&[("pod", &first)])).unwrap());
        let of = |holder: &Holder| std::fs::read_link(Kind::Network.path(holder.process().pid)).unwrap();
        assert_eq!((of(&first), of(&second)), (of(&netns), of(&netns)));
    }

    #[test]
    fn a_holder_ends_with_who_has_it_and_is_not_seen_any_more() {
        let held = holder(Joined::default());
        let process = held.process();
        assert!(process.is_alive() && Path::new(&format!("/proc/{}", process.pid)).exists());
        held.end();
        assert!(!Path::new(&format!("/proc/{}", process.pid)).exists(), "not even as a zombie");
        assert_eq!(held.process(), process, "its pid stays what was told");
        let dropped = holder(Joined::default()).process();
        assert!(!dropped.is_alive());
        // And with a shim that was killed: it reads until nobody can write.
        let mut cat: Child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        drop(cat.stdin.take());
        assert!(cat.wait().unwrap().success());
    }
}
