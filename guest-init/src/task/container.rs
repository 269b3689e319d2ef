//! One container: its init, its execs, what of it lives in the guest's file system.
//!
//! ```text
//! Plan ──create──► Container ──start──► exec, pause, resume ──init exits──► init_ended ──delete──► nothing
//!      create.rs                        execs.rs, freeze.rs
//! ```
//! Its processes are made in `launch.rs`; what they are from then on is `process.rs`.

mod create;
mod execs;
mod freeze;
mod spec;

use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use libcontainer::oci_spec::runtime::{LinuxIdMapping, LinuxResources, Process as ProcessSpec};
use tokio::{sync::Mutex as AsyncMutex, time::timeout};

use super::{
    exec::Exec,
    gpu::OpenDoor,
    host::Host,
    huge::Reserved,
    oom::OomWatch,
    phase::{Operation, Phase},
    process::Process,
    volumes::Volumes,
};
use crate::{
    cgroup::Cgroup,
    error::{During, Result},
    limits,
    oci::{self, Request, Streams, adapt},
    reaper::Exit,
};
pub use create::Plan;

/// How long init's exit is held back for execs that were killed with it.
const EXECS_LIMIT: Duration = Duration::from_secs(2);
/// An exec that was being started enters the cgroup after it was killed: it is killed again so often.
const KILL_PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub struct Container {
    /// containerd's id.
    pub id: String,
    /// The bundle's path as the request named it: State answers it.
    pub bundle: String,
    /// Below [`super::host::Layout::container`].
    pub directory: PathBuf,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Its first process.
    pub init: Arc<Process>,
    /// Sees its OOM kills.
    pub oom: Arc<OomWatch>,
    /// Those that it may watch.
    pub volumes: Volumes,
    execs: Mutex<HashMap<String, Arc<Exec>>>,
    /// Init has ended, though nobody was told yet: no exec may begin.
    ending: AtomicBool,
    /// Held while limits are changed, so that they are as the last Update has them, and while the cgroup goes.
    updates: AsyncMutex<()>,
    uid_mappings: Vec<LinuxIdMapping>,
    /// The file of its seccomp profile.
    seccomp: Option<PathBuf>,
    oom_task: tokio::task::JoinHandle<()>,
    _door: Option<OpenDoor>,
    _huge_pages: Reserved,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("id", &self.id).field("init", &self.init).finish_non_exhaustive()
    }
}

impl Container {
    /// Lets init execute its program.
    /// # Errors
    /// It is not in the state for it.
    pub async fn start(&self, host: &Host) -> Result<()> {
        self.init.phase().allow(Operation::Start)?;
        let request = Request::Start { id: self.id.clone(), state: host.layout.oci_state() };
        self.helper(host, &request, "start").await?;
        self.init.running();
        Ok(())
    }

    async fn helper(&self, host: &Host, request: &Request, name: &str) -> Result<()> {
        let answer = self.directory.join(format!("{name}.answer"));
        oci::run(host, request, &answer, Streams::null()).await
    }

    /// Init's exit is the last of the container: no exec begins any more, and the rest is killed, and told, before it.
    async fn init_ended(&self, exit: Exit) {
        self.ending.store(true, Ordering::SeqCst);
        self.oom.check();
        let begun: Vec<_> = self.execs().values().filter(|exec| exec.begun()).map(Arc::clone).collect();
        let ended = async {
            for exec in begun {
                exec.process.wait().await;
            }
        };
        tokio::pin!(ended);
        let killed = async {
            self.kill_all();
            while timeout(KILL_PAUSE, &mut ended).await.is_err() {
                self.kill_all();
            }
        };
        let _ = timeout(EXECS_LIMIT, killed).await;
        self.init.stopped(exit);
    }

    /// Changes what `resources` names of its limits, after the changes that were asked for before.
    /// # Errors
    /// Wrong state, or a value that the kernel refuses.
    pub async fn update(&self, resources: LinuxResources) -> Result<()> {
        let _turn = self.updates.lock().await;
        // Not before: it may have ended meanwhile, and its cgroup be another one's.
        self.init.phase().allow(Operation::Update)?;
        let id = self.id.clone();
        // Below the memory that is used the kernel reclaims and kills before it answers, and PID 1 has to reap meanwhile.
        let applied = tokio::task::spawn_blocking(move || limits::apply(&id, resources));
        applied.await.map_err(io::Error::other).during(|| format!("update the limits of {}", self.id))?
    }

    /// SIGKILL to every process of it.
    pub fn kill_all(&self) {
        // Fails only when the cgroup is gone, and then nothing is left to kill.
        let _ = self.cgroup.kill();
    }

    /// Whether init has ended, also if that was not told yet.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// The file of its seccomp profile, which its execs have as well.
    pub fn seccomp(&self) -> Option<PathBuf> {
        self.seccomp.clone()
    }

    /// The user of the guest that `process`'s user is.
    pub fn owner_of(&self, process: &ProcessSpec) -> u32 {
        adapt::owner(Some(process), &self.uid_mappings)
    }

    /// Ends a created container, delivers the output of an ended one, and removes what the guest keeps of it.
    /// # Errors
    /// It is running, or its processes do not die.
    pub async fn delete(&self, host: &Host) -> Result<Exit> {
        let phase = self.init.phase();
        phase.allow(Operation::Delete)?;
        if phase == Phase::Created {
            self.cgroup.kill().during(|| format!("kill {}", self.id))?;
        }
        let exit = self.init.wait().await;
        self.init.release().await;
        let execs: Vec<_> = self.execs().drain().map(|(_, exec)| exec).collect();
        for exec in execs {
            exec.process.release().await;
        }
        // An Update that is at it would reach the cgroup of the next container of this id. The kernel removes none of whose files one is written,
        // so without this it is PID 1 that waits.
        let _turn = self.updates.lock().await;
        self.cgroup.remove().await.during(|| format!("remove the cgroup of {}", self.id))?;
        for directory in [host.layout.oci_state().join(&self.id), self.directory.clone()] {
            match fs::remove_dir_all(&directory) {
                // Another Delete was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.during(|| format!("remove {}", directory.display()))?,
            }
        }
        Ok(exit)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.oom_task.abort();
    }
}
