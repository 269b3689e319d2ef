//! One container: its init, its execs, what of it lives in the guest's file system.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use libcontainer::oci_spec::runtime::{LinuxIdMapping, LinuxSeccomp, Process as ProcessSpec, Spec};
use tokio::time::timeout;

use super::{
    exec::Exec,
    huge::{self, HugePages, Reserved},
    oom::{OomQueue, OomWatch},
    phase::{Operation, Phase},
    process::{Launched, Process},
    shared::{Joining, Memories},
    volumes::{Room, Volumes},
};
use crate::{
    cgroup::{self, Cgroup},
    error::{During, GuestError, Result},
    oci::{self, Request, Streams, adapt, places, process, tmpfs, workdir},
    reaper::{Claimed, Exit, Reaper},
    stdio::{
        self, Pipes, StdioNames, StreamSource,
        pty::{ConsoleSocket, Master},
    },
    sysctl,
};

/// The library has sent the terminal before it answers; this is for the event loop to get to it.
const CONSOLE_LIMIT: Duration = Duration::from_secs(5);
/// How long init's exit is held back for execs that were killed with it.
const EXECS_LIMIT: Duration = Duration::from_secs(2);
/// An exec that was being started enters the cgroup after it was killed: it is killed again so often.
const KILL_PAUSE: Duration = Duration::from_millis(50);
/// For the OCI helper, of which a start takes some tenths of a second. What holds it longer is a share that does not answer, or a file
/// of the image that blocks who opens it.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// Where things are in the guest.
#[derive(Clone, Debug)]
pub struct Layout {
    /// This program, to be executed as the OCI helper.
    pub program: PathBuf,
    /// The share: `<container>/{config.json,rootfs}`.
    pub share: PathBuf,
    /// Our own directory, on a tmpfs.
    pub run: PathBuf,
    /// How long the OCI helper may take.
    pub helper_limit: Duration,
}

impl Layout {
    /// The guest's.
    pub fn guest() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            share: "/run/vgpu/share".into(),
            run: "/run/vgpu".into(),
            helper_limit: HELPER_LIMIT,
        }
    }

    /// What is kept of one container.
    pub fn container(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// Where the memories are that containers share.
    pub fn memories(&self) -> PathBuf {
        self.run.join("memories")
    }

    /// The OCI library's state directory.
    pub fn oci_state(&self) -> PathBuf {
        self.run.join("oci")
    }
}

/// What a container needs of the program around it.
pub struct Host {
    /// Where things are.
    pub layout: Layout,
    /// Tells exits.
    pub reaper: Arc<Reaper>,
    /// Opens stdio.
    pub streams: Arc<dyn StreamSource>,
    /// Takes OOM kills.
    pub oom: Arc<OomQueue>,
    /// For copies of volumes.
    pub room: Room,
    /// Gives containers their GPU socket. None: no container of this guest can have a GPU.
    pub gpu: Option<Arc<dyn GpuDoors>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for OpenDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenDoor").field("binds", &self.binds).finish_non_exhaustive()
    }
}

/// Opens a GPU socket for a container that was granted a GPU (`gpu/door.rs`).
pub trait GpuDoors: Send + Sync {
    /// Listens in `directory`; gives what to bind into the container whose root file system is `rootfs`, and the door, which closes when it
    /// is dropped.
    /// # Errors
    /// The socket cannot be made.
    fn open(&self, container: &str, directory: &Path, rootfs: &Path) -> Result<OpenDoor>;
}

/// An open door and what belongs to it.
pub struct OpenDoor {
    /// (source, destination) of bind mounts.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Closes the door when dropped.
    pub keep: Box<dyn Send + Sync>,
}

/// See the module.
pub struct Container {
    /// containerd's id.
    pub id: String,
    /// The bundle's path as the request named it: State answers it.
    pub bundle: String,
    /// Below [`Layout::container`].
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

/// A container to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// containerd's id, already checked to be one path component.
    pub id: String,
    /// As in the request.
    pub bundle: String,
    /// Init's streams.
    pub stdio: StdioNames,
    /// Init of each container of the pod.
    pub inits: BTreeMap<String, Arc<Process>>,
    /// The pod's.
    pub memories: Arc<Memories>,
    /// The guest's.
    pub huge_pages: Arc<HugePages>,
}

impl Container {
    /// Makes the container up to the point where its program could be executed. A failure leaves nothing.
    /// # Errors
    /// A spec that cannot be used, a command that cannot be executed, streams that are not there, the library's own.
    pub async fn create(host: Arc<Host>, plan: Plan) -> Result<Arc<Self>> {
        let directory = host.layout.container(&plan.id);
        let cgroup_path = cgroup::of_container(&plan.id);
        let made = Self::make(Arc::clone(&host), plan.clone(), directory.clone(), &cgroup_path).await;
        if made.is_err() {
            let _ = Cgroup::new(&cgroup_path).remove().await;
            let _ = fs::remove_dir_all(host.layout.oci_state().join(&plan.id));
            let _ = fs::remove_dir_all(&directory);
        }
        made
    }

    async fn make(host: Arc<Host>, plan: Plan, directory: PathBuf, cgroup_path: &Path) -> Result<Arc<Self>> {
        fs::create_dir_all(&directory).during(|| format!("make {}", directory.display()))?;
        let bundle = host.layout.share.join(&plan.id);
        let rootfs = bundle.join("rootfs");
        let looking = (Arc::clone(&host), plan.id.clone(), directory.clone(), rootfs.clone());
        let pools = Arc::clone(&plan.huge_pages);
        // The share is another domain's file system: it may be slow, and this thread serves the whole pod.
        let (spec, door, huge_pages, (volumes, places)) = tokio::task::spawn_blocking(move || {
            let (host, id, directory, rootfs) = looking;
            let mut spec = read_spec(&bundle.join("config.json"))?;
            places::resolve(&mut spec, &rootfs);
            tmpfs::add_modes(&mut spec, &rootfs);
            let door = open_door(&host, &id, &directory, &rootfs, &spec)?;
            let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
            let limits = resources.and_then(|resources| resources.hugepage_limits().as_deref());
            let huge_pages = pools.reserve(limits.unwrap_or_default())?;
            let copied = Volumes::copy(&mut spec, &bundle, &directory, &host.room);
            Ok::<_, GuestError>((spec, door, huge_pages, copied))
        })
        .await
        .map_err(|_| GuestError::Oci { operation: "read the spec", text: "it panicked".into() })??;
        let guest = adapt::Guest {
            rootfs,
            cgroup: cgroup_path.to_owned(),
            huge_pages: huge::POOLS.into(),
            binds: door.as_ref().map(|door| door.binds.clone()).unwrap_or_default(),
        };
        let mut joining = Joining::new(&plan.inits, &plan.memories);
        let adapted = adapt::adapt(spec, &guest, &mut joining)?;
        for (sysctl, value) in &adapted.sysctls {
            sysctl::set(sysctl, value)?;
        }
        let seccomp = adapted.seccomp.map(|profile| save_seccomp(&directory, &profile)).transpose()?;
        let mut spec = adapted.spec;
        workdir::add_hook(&mut spec, &host.layout.program, &directory)?;
        if let Some(process) = spec.process_mut() {
            process.set_terminal(Some(plan.stdio.terminal));
        }
        let uid_mappings = adapt::uid_mappings(&spec);
        let owner = adapt::owner(spec.process().as_ref(), &uid_mappings);
        let config = directory.join("config.json");
        spec.save(&config)
            .map_err(|error| GuestError::Oci { operation: "write the spec", text: error.to_string() })?;

        let request = |console| Request::Create {
            id: plan.id.clone(),
            bundle: directory.clone(),
            state: host.layout.oci_state(),
            console,
            seccomp: seccomp.clone(),
        };
        fs::create_dir_all(host.layout.oci_state()).during(|| "make the OCI state directory".into())?;
        let place = Place { directory: &directory, name: "init", owner };
        let launched = launch(&host, &place, &plan.stdio, request).await;
        let launched = launched.map_err(|error| workdir::explained(error, &directory))?;
        drop((joining, places));

        let cgroup = Cgroup::new(cgroup_path);
        let oom = Arc::new(OomWatch::new(plan.id.clone(), cgroup.clone(), Arc::clone(&host.oom)));
        let following = Arc::clone(&oom);
        let init = Process::new(format!("container {}", plan.id), plan.stdio);
        let exited = init.launched(launched);
        let container = Arc::new(Self {
            id: plan.id,
            bundle: plan.bundle,
            directory,
            cgroup,
            init,
            oom,
            volumes,
            _huge_pages: huge_pages,
            execs: Mutex::new(HashMap::new()),
            ending: AtomicBool::new(false),
            uid_mappings,
            seccomp,
            // Without the watch an OOM kill is still told with the exit.
            oom_task: tokio::spawn(async move { drop(following.follow().await) }),
            _door: door,
        });
        let watched = Arc::clone(&container);
        tokio::spawn(async move {
            if let Ok(exit) = exited.await {
                watched.init_ended(exit).await;
            }
        });
        Ok(container)
    }

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

    /// The exec of this id.
    /// # Errors
    /// `NotFound`.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        self.execs().get(id).cloned().ok_or_else(|| GuestError::NotFound(format!("exec {id} of {}", self.id)))
    }

    /// Init for an empty id, else the exec's process.
    /// # Errors
    /// `NotFound`.
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        self.exec(exec_id).map(|exec| Arc::clone(&exec.process))
    }

    /// Registers an exec.
    /// # Errors
    /// Its id is taken, or the container has ended or is paused.
    pub fn add_exec(&self, id: &str, exec: Exec) -> Result<()> {
        self.init.phase().allow(Operation::Exec)?;
        if self.is_ending() {
            return Err(GuestError::WrongState { operation: "exec in", state: "stopped" });
        }
        let mut execs = self.execs();
        if execs.contains_key(id) {
            return Err(GuestError::Taken(format!("exec {id} of {}", self.id)));
        }
        execs.insert(id.to_owned(), Arc::new(exec));
        Ok(())
    }

    /// Forgets an exec that never ran or has ended.
    /// # Errors
    /// It is running, or unknown.
    pub async fn delete_exec(&self, id: &str) -> Result<Arc<Process>> {
        let process = self.process(id)?;
        process.phase().allow(Operation::Delete)?;
        process.release().await;
        self.execs().remove(id);
        Ok(process)
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

    /// The exec that `pid` started as, for Pids.
    pub fn exec_of_pid(&self, pid: u32) -> Option<String> {
        self.execs().iter().find(|(_, exec)| exec.process.pid() == pid).map(|(id, _)| id.clone())
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.oom_task.abort();
    }
}

/// What [`launch`] needs to know of a process beyond its request.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The container's.
    pub directory: &'a Path,
    /// Unique in it.
    pub name: &'a str,
    /// The user of the guest who owns its streams: a program may open `/dev/stdout` only if they are its user's.
    pub owner: u32,
}

/// Opens the streams, runs the helper, and gives the process with its pumps running. A failure leaves no process that was started.
pub async fn launch(
    host: &Host,
    place: &Place<'_>,
    names: &StdioNames,
    request: impl FnOnce(Option<PathBuf>) -> Request,
) -> Result<Launched> {
    let opened = stdio::open(host.streams.as_ref(), names)?;
    let answer = place.directory.join(format!("{}.answer", place.name));
    if names.terminal {
        let console = ConsoleSocket::bind(&host.layout.run).during(|| "make the console socket".into())?;
        let request = request(Some(console.path().to_owned()));
        let (pid, claimed) = begin(host, &request, &answer, Streams::null()).await?;
        let master = match terminal(&console, place.owner).await {
            Ok(master) => master,
            Err(error) => {
                claimed.kill();
                return Err(error);
            }
        };
        let pumps = stdio::start_terminal(opened, &master);
        return Ok(Launched { pid, claimed, pumps, master: Some(master) });
    }
    let (pipes, streams) = Pipes::make(opened, place.owner)?;
    let (pid, claimed) = begin(host, &request(None), &answer, streams).await?;
    Ok(Launched { pid, claimed, pumps: pipes.start(), master: None })
}

/// Has the helper make the process, and claims it.
async fn begin(host: &Host, request: &Request, answer: &Path, streams: Streams) -> Result<(i32, Claimed)> {
    let expecting = host.reaper.expect();
    let ran = oci::run(host, request, answer, streams).await;
    let made = oci::take_pid(answer);
    let claim = |pid| expecting.claim(pid).during(|| format!("watch process {pid}"));
    match (ran, made) {
        (Ok(()), Some(pid)) => Ok((pid, claim(pid)?)),
        (Ok(()), None) => {
            Err(GuestError::Oci { operation: "launch", text: "the library gave no pid".into() })
        }
        // The helper failed, but its process may be about to execute the program, or execute it already.
        (Err(error), Some(pid)) => {
            if let Ok(claimed) = claim(pid) {
                claimed.kill();
            }
            Err(error)
        }
        (Err(error), None) => Err(error),
    }
}

async fn terminal(console: &ConsoleSocket, owner: u32) -> Result<Master> {
    let master = timeout(CONSOLE_LIMIT, console.receive()).await;
    let master = master.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).flatten();
    let master = master.during(|| "receive the terminal".into())?;
    master.give_to(owner).during(|| "give the terminal to its user".into())?;
    Ok(master)
}

fn read_spec(file: &Path) -> Result<Spec> {
    let bytes = fs::read(file).during(|| format!("read {}", file.display()))?;
    let spec = serde_json::from_slice(&bytes).and_then(|mut spec: serde_json::Value| {
        spec.get_mut("process").into_iter().for_each(process::forget_unknown);
        serde_json::from_value(spec)
    });
    spec.map_err(|error| GuestError::Invalid { field: "config.json", why: error.to_string() })
}

fn save_seccomp(directory: &Path, profile: &LinuxSeccomp) -> Result<PathBuf> {
    let file = directory.join("seccomp.json");
    let json = serde_json::to_vec(profile).map_err(io::Error::from);
    json.and_then(|json| fs::write(&file, json)).during(|| format!("write {}", file.display()))?;
    Ok(file)
}

fn annotation<'a>(spec: &'a Spec, key: &str) -> Option<&'a str> {
    spec.annotations().as_ref()?.get(key).map(String::as_str)
}

/// The shim leaves the annotation only where a grant was made; without the GPU stream it is an error to have it.
fn open_door(
    host: &Host,
    id: &str,
    directory: &Path,
    rootfs: &Path,
    spec: &Spec,
) -> Result<Option<OpenDoor>> {
    match annotation(spec, "vgpu.dev/gpu") {
        None | Some("" | "0") => Ok(None),
        Some(_) => match &host.gpu {
            Some(doors) => doors.open(id, directory, rootfs).map(Some),
            None => Err(GuestError::Invalid {
                field: "annotation vgpu.dev/gpu",
                why: "this guest has no stream to gpu-proxy".into(),
            }),
        },
    }
}
