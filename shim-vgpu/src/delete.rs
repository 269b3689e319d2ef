//! `delete`: containerd's clean-up for a shim that is gone, from disk alone and within 5 s.
//!
//! containerd kills a `delete` that takes longer and never asks again. So the cleaning is a process of its own, the verb `clean`, which
//! nobody kills: on a node that is short of time it goes on after the answer, and tries again what failed (to syslog it says so).
//!
//! It also runs after each ordinary Delete, then with nothing to do, and for a container of a pod that lives on: only what belongs to its
//! id is touched. The domain ends with the sandbox's id, or with the last container of a pod whose shim is gone.

use std::{
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStderr, Command, Stdio},
    time::{Duration, SystemTime},
};

use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message;
use serde::{Deserialize, Serialize};
use vgpu_codes::Code;
use vgpu_config::Config;

use crate::{
    args::Args,
    ask, bootstrap, cleanup,
    container::{stage::Exit, timestamp},
    error::{Error, OrFail, Result},
    hooks, names,
    persist::{Record, Store},
    platform::PlatformSource,
    process,
    socket::Socket,
    spec::Role,
    zone,
};

/// For the other containers' cleaning to be over, or hooks that somebody else has run: as long as the toolstack may take for one of them.
const LOCK_LIMIT: Duration = Duration::from_secs(120);
/// Of containerd's 5 s, with time left to start and to be heard.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// For a child of a killed shim to execute its program. containerd gives a `delete` 5 s, for all that it does.
const HELD_LIMIT: Duration = Duration::from_secs(2);
/// Between the tries of a cleaning: containerd asks once, and the node may be short of something for a while.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];

/// What the bundle tells of a container, on the cleaning process's stdin: containerd removes the bundle as soon as it has the answer, and may
/// make another one in its place.
#[derive(Debug, Serialize, Deserialize)]
struct Dead {
    id: String,
    bundle: PathBuf,
    /// Of this life of the pod, if any was begun.
    store: Option<Store>,
    socket: Option<Socket>,
}

impl Dead {
    fn read(args: &Args, source: &dyn PlatformSource) -> Result<Dead> {
        let bundle = if args.bundle.is_empty() { bootstrap::bundle()? } else { PathBuf::from(&args.bundle) };
        names::check_id("container id", &args.id)?;
        names::check_id("namespace", &args.namespace)?;
        let store = match Store::pointed_from(&bundle) {
            Some(store) => Some(store),
            // Without the pointer nothing was begun in this bundle, but the bundle may be damaged.
            None => {
                let role = Role::of(&bundle).unwrap_or(Role::Alone);
                let sandbox = role.sandbox().unwrap_or(&args.id);
                let mut lives =
                    Store::lives(&config(source).shim.state_dir, &args.namespace, sandbox)?.into_iter();
                lives.find(|store| has(store, &args.id, &bundle))
            }
        };
        Ok(Dead { id: args.id.clone(), socket: Socket::of(&bundle), bundle, store })
    }

    /// Cleans up. What is not this life's is not touched.
    fn clean(&self, source: &dyn PlatformSource) -> Result<()> {
        let record = self.store.as_ref().and_then(|store| store.load().ok().flatten());
        let cleaned = match &self.store {
            Some(store) => {
                let cleaned = self.clean_pod(store, source);
                // Whatever the record says: the contract asks for this one by name.
                let root = cleanup::rootfs(store, &self.bundle);
                cleaned.and(root)
            }
            None => self.ask_living(),
        };
        if let Some(socket) = &self.socket {
            let is_gone = record.and_then(|record| record.shim).is_some_and(|shim| !shim.is_alive());
            socket.remove_if_stale(if is_gone { HELD_LIMIT } else { Duration::ZERO });
        }
        cleaned
    }

    /// A shim that containerd cannot reach may live all the same, and no record say so: it was asked for nothing yet, or is about to write
    /// the first one. It lets go of this container, and goes itself, if it has no other.
    fn ask_living(&self) -> Result<()> {
        match &self.socket {
            Some(socket) if socket.is_served() => ask::remove(socket.path(), &self.id),
            _ => Ok(()),
        }
    }

    fn clean_pod(&self, store: &Store, source: &dyn PlatformSource) -> Result<()> {
        // Nothing was begun, or all of it is over.
        let Some(record) = store.load()? else {
            self.ask_living()?;
            return store.remove();
        };
        let platform = source.platform(config(source));
        let in_record = record.containers.contains_key(&self.id);
        // The record's word, not the bundle's: its spec may be damaged, and the pod of others would end.
        if record.sandbox == self.id {
            // After an ordinary Delete of the sandbox's own container, while the others of the pod go on.
            if is_served(&record) && !in_record && !record.containers.is_empty() {
                return Ok(());
            }
            // containerd calls this when it can't reach the shim: one that still lives would go on building.
            end_shim(&record)?;
            // Before our turn: another container's cleaning may hang with its mounts, and the guest must not go on. What fails is told below.
            let _ = cleanup::guest(&platform, store, &record);
        } else if is_served(&record) {
            // The record is the shim's while it serves the pod.
            match &record.socket {
                _ if !in_record => return Ok(()),
                Some(socket) => ask::remove(socket, &self.id)?,
                None => {
                    let what = "nobody knows where the pod's living shim listens";
                    return Err(Error::new(Code::HostFailure, what));
                }
            }
            if is_served(&record) {
                return Ok(());
            }
        }
        // containerd calls this for all containers of a pod at once.
        let Some(lock) = store.lock(LOCK_LIMIT)? else { return Ok(()) };
        // What was written last.
        let Some(mut record) = store.load()? else { return Ok(()) };
        // One that still lives has let go of the pod, and left all of this.
        let has_let_go = record.shim.is_some_and(|shim| shim.is_alive());
        end_shim(&record)?;
        // The sandbox's own `delete` may have been before, when the shim lived: nobody comes after the last container's.
        if has_let_go || record.sandbox == self.id || record.containers.keys().all(|other| *other == self.id)
        {
            cleanup::sandbox(&platform, store, &record)?;
            drop(lock);
            return cleanup::last_hooks(store, LOCK_LIMIT, hooks::OWN_TIME);
        }
        let had = record.clone();
        let cleaned = cleanup::container(store, &mut record, &self.id);
        drop(lock);
        zone::revoke(&had, &self.id, cleanup::PROXY_LIMIT);
        cleaned?;
        hooks::run_last(&store.hooks_of(&self.id), LOCK_LIMIT, hooks::OWN_TIME, || false).map(drop)
    }
}

/// Has `args.id` cleaned up after, and returns the bytes of the answer.
///
/// # Errors
/// What could not be taken away, if that is known in time.
pub fn delete(args: &Args, source: &dyn PlatformSource) -> Result<Vec<u8>> {
    let dead = Dead::read(args, source)?;
    let what = || format!("cannot clean up after {}", dead.id);
    let record = dead.store.as_ref().and_then(|store| store.load().ok().flatten());
    let told = serde_json::to_vec(&dead).or_fail(Code::HostFailure, what)?;
    let program = std::env::current_exe().or_fail(Code::HostFailure, what)?;
    let cleaner = Command::new(program)
        .arg("clean")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Its own pipe: containerd reads ours until nobody holds it.
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    match cleaner {
        Ok(mut cleaner) => {
            if let Some(mut stdin) = cleaner.stdin.take() {
                // Less than a pipe holds. One that has ended already says why by itself.
                let _ = stdin.write_all(&told);
            }
            let over = process::ends_within(&cleaner, ANSWER_LIMIT).or_fail(Code::HostFailure, what)?;
            let said = cleaner.stderr.take().map(said_so_far).unwrap_or_default();
            // One that is at it again has said why.
            let failed = if over {
                !cleaner.wait().or_fail(Code::HostFailure, what)?.success()
            } else {
                !said.is_empty()
            };
            if failed {
                let other = || Error::caused(Code::HostFailure, what(), said.clone());
                return Err(Error::relayed(&said).unwrap_or_else(other));
            }
        }
        // Better within containerd's 5 s than not at all.
        Err(_) => dead.clean(source)?,
    }
    let told = record.and_then(|record| record.containers.get(&dead.id)?.holder);
    let answer = DeleteResponse {
        pid: told.map_or(0, |holder| holder.pid.unsigned_abs()),
        exit_status: Exit::KILLED,
        exited_at: timestamp(SystemTime::now()),
        ..DeleteResponse::default()
    };
    answer.write_to_bytes().or_fail(Code::HostFailure, || "cannot write the answer".into())
}

/// What a pipe holds.
fn said_so_far(pipe: ChildStderr) -> String {
    let mut said = Vec::new();
    if rustix::io::ioctl_fionbio(&pipe, true).is_ok() {
        // Read to its end, or to what there is now; what came before an error is still worth telling.
        let _ = { pipe }.read_to_end(&mut said);
    }
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// Cleans up after the container that `delete` names on stdin. After a failure it says so and tries again.
///
/// # Errors
/// What could not be taken away.
pub fn clean_up(source: &dyn PlatformSource) -> Result<()> {
    let dead: Dead = serde_json::from_reader(std::io::stdin())
        .or_fail(Code::HostFailure, || "the verb clean is for the verb delete's own use".into())?;
    // After the answer nobody reads our stderr.
    crate::log::init_syslog();
    for pause in PAUSES {
        match dead.clean(source) {
            // Time does not mend it.
            Err(error) if error.code() == Some(Code::StateUnreadable) => return Err(error),
            Err(error) => {
                crate::report(&error);
                std::thread::sleep(pause);
            }
            Ok(()) => return Ok(()),
        }
    }
    dead.clean(source)
}

/// Whether a shim lives that has containers. One that lets go has removed its socket: what is still noted is left then, and nobody else comes for it.
fn is_served(record: &Record) -> bool {
    let lets_go = record.socket.as_ref().is_some_and(|socket| !socket.exists());
    !lets_go && record.shim.is_some_and(|shim| shim.is_alive())
}

fn end_shim(record: &Record) -> Result<()> {
    let ended = record.shim.map_or(Ok(()), |shim| shim.kill());
    ended.or_fail(Code::HostFailure, || "cannot end the pod's shim".into())
}

/// Whether it is the life in which this container had this bundle: one of the same id may live that another containerd has made.
fn has(store: &Store, id: &str, bundle: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let record = store.load().ok().flatten();
    let container = record.as_ref().and_then(|record| record.containers.get(id));
    container.is_some_and(|container| real(&container.bundle) == real(bundle))
}

/// The node's configuration, or the default one: an invalid file must not keep anything from being cleaned up.
fn config(source: &dyn PlatformSource) -> Config {
    source.config(None).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::persist::ContainerRecord;

    #[test]
    fn without_its_pointer_a_bundle_has_the_life_that_knows_it_and_no_other_of_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, others) = (dir.path().join("ours"), dir.path().join("others"));
        std::fs::create_dir(&ours).unwrap();
        std::os::unix::fs::symlink(&ours, dir.path().join("link")).unwrap();
        let store = Store::at(dir.path().join("state"));
        assert!(!has(&store, "a", &ours), "no record");
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let mut record = Record::new("default", "a", None, Uuid::from_u128(1), "/share".into());
        record
            .containers
            .insert("a".into(), ContainerRecord { bundle: ours.clone(), gpu: None, holder: None });
        store.save(&record).unwrap();
        assert!(has(&store, "a", &ours));
        assert!(has(&store, "a", &dir.path().join("link")), "by another path");
        assert!(!has(&store, "a", &others), "the bundle of another containerd");
        assert!(!has(&store, "b", &ours), "another container");
    }
}
