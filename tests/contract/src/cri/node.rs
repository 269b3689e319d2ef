//! A containerd with its CRI, in a root, a mount namespace and a directory of its own. Only what it starts is left of it when it ends.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use containerd_shim_protos::{api::Empty, shim::event::Envelope};
use protobuf::{Message, well_known_types::any::Any};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use vgpu_inside::rooted;

use super::Client;
use crate::{
    left,
    mock::{Event, SOON, until},
};

const CONFIG: &str = include_str!("config.toml");
const NETWORK: &str = r#"{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"pod"}]}"#;
/// Has containerd, which is started again in the same mount namespace by a SIGHUP, and ended by a SIGTERM.
const DAEMON: &str = r#"again=1
trap 'again=1; kill $pid' HUP
trap 'again=; kill $pid' TERM
while test "$again"; do
    again=
    containerd --config /test/config.toml & pid=$!
    while kill -0 $pid 2> /dev/null; do wait $pid; done
done"#;
const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";
const PLUGIN: &str = include_str!("cni.sh");
/// The plugin's names: containerd has the loopback by a network of its own.
const PLUGINS: [&str; 2] = ["loopback", "pod"];
/// Of the local shim, which lie beside each other.
const PROGRAMS: [&str; 2] = ["containerd-shim-vgpulocal-v1", "guest-local"];
/// Where the hierarchies are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Runc, util-linux and, where `containerd` has none, containerd.
    pub root: PathBuf,
    /// Another containerd's programs.
    pub containerd: Option<PathBuf>,
    /// The local shim.
    pub shim: PathBuf,
    /// What `ctr images import` takes.
    pub images: Vec<PathBuf>,
}

/// See the module. Panics where it cannot do its part.
#[derive(Debug)]
pub struct Node {
    dir: TempDir,
    parts: Parts,
    daemon: Mutex<Child>,
    /// Its socket's, whoever serves there.
    pub client: Client,
    events: Arc<Mutex<Vec<(String, Event)>>>,
    /// Who hears them.
    listener: Mutex<Option<JoinHandle<()>>>,
    lives: Mutex<BTreeSet<String>>,
    /// Nothing is left of it.
    stopped: bool,
}

impl Node {
    /// One that serves and has the images.
    pub async fn start(parts: Parts) -> Self {
        let dir = TempDir::new().expect("a directory");
        fill(dir.path(), &parts);
        let log = File::create(dir.path().join("containerd.log")).expect("a log");
        let mut command = command(&parts, dir.path(), "/busybox");
        command.args(["sh", "-c", DAEMON]).env("VGPU_LOCAL_DIR", "/test/node");
        if !has_limits() {
            command.env("VGPU_LOCAL_LIMITS", "none");
        }
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let mut daemon = command.spawn().expect("unshare of util-linux");
        let Some(client) = client(dir.path(), &mut daemon).await else {
            panic!("containerd does not serve: {}", said(dir.path()));
        };
        let (events, daemon) = (Arc::default(), Mutex::new(daemon));
        let (listener, lives) = (Mutex::default(), Mutex::default());
        let node = Node { dir, parts, daemon, client, events, listener, lives, stopped: false };
        node.listen();
        node
    }

    /// Ends containerd, and starts it again on what it has left.
    pub async fn restart(&self) {
        self.signal(Signal::HUP);
        let ended = || self.listener().as_ref().is_none_or(JoinHandle::is_finished);
        until("containerd ends", ended, || said(self.dir.path())).await;
        let begun = Instant::now();
        // The first calls are over the connection that has ended.
        while self.client.cri::<_, Empty>("Version", Empty::new()).await.is_err() {
            assert!(begun.elapsed() < SOON, "containerd does not serve again: {}", said(self.dir.path()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.listen();
    }

    fn signal(&self, signal: Signal) {
        let daemon = self.daemon.lock().expect("nobody panics with it");
        kill_process(Pid::from_child(&daemon), signal).expect("it lives");
    }

    /// Its directory, which is /test in its root.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The events that came so far of a container, and their topics without what all have.
    pub fn events_of(&self, id: &str) -> Vec<Event> {
        let events = self.events.lock().expect("nobody panics with it");
        events.iter().filter(|(of, _)| of == id).map(|(_, event)| event.clone()).collect()
    }

    /// The parent of its pods' cgroups.
    pub fn cgroup(&self) -> String {
        let name = self.dir.path().file_name().unwrap_or_default().to_string_lossy();
        format!("vgpu-contract-{}", name.trim_start_matches('.'))
    }

    /// Remembers the domains that there are, for the end.
    pub fn note_lives(&self) {
        let lives = left::lives(&self.dir.path().join("node"));
        self.lives.lock().expect("nobody panics with it").extend(lives);
    }

    /// Ends it. Nothing is left of it and of what it has run.
    pub async fn stop(mut self) {
        let lives: Vec<_> = self.lives.lock().expect("nobody panics with it").iter().cloned().collect();
        assert!(!lives.is_empty(), "no domain was ever seen");
        let run = self.dir.path().join("run/containerd");
        let namespaces =
            || entries(&run).flat_map(|plugin| entries(&plugin.join("netns")).collect::<Vec<_>>()).count();
        until("no network namespace is left", || namespaces() == 0, || said(self.dir.path())).await;
        let tasks = || entries(&run.join("io.containerd.runtime.v2.task/k8s.io")).count();
        until("no bundle is left", || tasks() == 0, || said(self.dir.path())).await;
        self.assert_listening();
        self.signal(Signal::TERM);
        self.daemon.lock().expect("nobody panics with it").wait().expect("it is ours");
        // Of 2.1 runc's shim stays now and then when its pod is gone.
        left::end(self.dir.path(), "containerd-shim-runc-v2");
        assert_eq!(remove_cgroups(&self.cgroup()), [""; 0], "a container is left in them");
        left::assert_nothing(self.dir.path(), &self.dir.path().join("node"), &lives).await;
        self.stopped = true;
    }

    fn import(&self) {
        for image in &self.parts.images {
            fs::copy(image, self.dir.path().join("image.tar")).expect("a copy");
            let mut ctr = command(&self.parts, self.dir.path(), "ctr");
            ctr.args(["--namespace", "k8s.io", "images", "import"]);
            // 2.x would have its transfer service do it, which wants a configuration for that.
            ctr.args(self.is_of_2().then_some("--local")).arg("/test/image.tar");
            let output = ctr.output().expect("ctr runs");
            assert!(output.status.success(), "{output:?}");
        }
    }

    fn is_of_2(&self) -> bool {
        let output =
            command(&self.parts, self.dir.path(), "ctr").arg("--version").output().expect("ctr runs");
        String::from_utf8_lossy(&output.stdout)
            .split(' ')
            .any(|word| word.starts_with("2.") || word.starts_with("v2."))
    }

    /// Hears containerd's events to its end. Returns when it hears them: containerd says nothing before the first, an import's.
    fn listen(&self) {
        let (client, events) = (self.client.clone(), Arc::clone(&self.events));
        let heard = Arc::new(AtomicBool::new(false));
        let hears = Arc::clone(&heard);
        *self.listener() = Some(tokio::spawn(async move {
            let answer = client.listen::<_, Envelope>(SUBSCRIBE, Empty::new()).await;
            let mut told = answer.expect("events");
            while let Ok(Some(envelope)) = told.message().await {
                hears.store(true, Ordering::Release);
                let Some(topic) = envelope.topic.strip_prefix("/tasks/") else { continue };
                let Any { value: message, .. } = envelope.event.unwrap_or_default();
                let event = Event { topic: topic.to_owned(), message };
                events.lock().expect("nobody panics with it").push((container_of(&event.message), event));
            }
        }));
        while !heard.load(Ordering::Acquire) {
            self.assert_listening();
            self.import();
        }
    }

    fn listener(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.listener.lock().expect("nobody panics with it")
    }

    /// What is not heard would be alike for all runtimes.
    fn assert_listening(&self) {
        let ended = self.listener().as_ref().is_none_or(JoinHandle::is_finished);
        assert!(!ended, "containerd's events have ended: {}", said(self.dir.path()));
    }
}

impl Drop for Node {
    /// One that fails leaves nothing on the machine.
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        eprintln!("containerd said: {}", said(self.dir.path()));
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = daemon.kill();
        let _ = daemon.wait();
        let node = self.dir.path().join("node");
        // Who is ended last may have begun something meanwhile, and ends a moment later.
        for _ in 0..100 {
            let ended = left::end(self.dir.path(), "") + left::end_domains(&left::lives(&node));
            if ended == 0 && remove_cgroups(&self.cgroup()).is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        eprintln!("left: {:?}", remove_cgroups(&self.cgroup()));
    }
}

/// Every event of a task has its container's id as its first field.
fn container_of(message: &[u8]) -> String {
    let event = containerd_shim_protos::events::task::TaskStart::parse_from_bytes(message);
    event.expect("an event of a task").container_id
}

fn fill(dir: &Path, parts: &Parts) {
    for folder in ["bin", "cni", "logs", "var", "volumes"] {
        fs::create_dir(dir.join(folder)).expect("a folder");
    }
    let programs = PROGRAMS.map(|program| parts.shim.with_file_name(program));
    let others = parts.containerd.iter().flat_map(|folder| entries(folder));
    for program in programs.into_iter().chain(others) {
        let name = program.file_name().expect("a program has a name");
        fs::copy(&program, dir.join("bin").join(name))
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    }
    for plugin in PLUGINS.map(|name| dir.join("bin").join(name)) {
        fs::write(&plugin, PLUGIN).expect("written");
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    fs::write(dir.join("cni/pods.conflist"), NETWORK).expect("written");
    fs::write(dir.join("config.toml"), CONFIG).expect("written");
}

/// Whether this machine's controllers are those of cgroup version 2, so that a guest of it can have limits.
#[must_use]
pub fn has_limits() -> bool {
    let read = |place: &str| fs::read_to_string(format!("{CGROUPS}/{place}")).unwrap_or_default();
    read("cgroup.controllers").contains("memory")
}

/// A program in the node's root.
fn command(parts: &Parts, dir: &Path, program: &str) -> Command {
    let mut command = rooted::command(&parts.root, dir, Path::new("/"));
    command.arg(program).env("PATH", "/test/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// As soon as somebody serves CRI.
async fn client(dir: &Path, daemon: &mut Child) -> Option<Client> {
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if daemon.try_wait().ok().flatten().is_some() {
            return None;
        }
        if let Ok(client) = Client::connect(&dir.join("run/containerd/containerd.sock")).await
            && client.cri::<_, Empty>("Version", Empty::new()).await.is_ok()
        {
            return Some(client);
        }
    }
    None
}

fn said(dir: &Path) -> String {
    let log = fs::read_to_string(dir.join("containerd.log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().filter(|line| !line.contains("level=info")).collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Empty ones with those below, where runc leaves them. Which are not empty.
fn remove_cgroups(name: &str) -> Vec<String> {
    let places = entries(Path::new(CGROUPS)).chain([CGROUPS.into()]).map(|hierarchy| hierarchy.join(name));
    places.filter(|cgroup| cgroup.is_dir()).filter_map(|cgroup| remove_cgroup(&cgroup).err()).collect()
}

fn remove_cgroup(cgroup: &Path) -> Result<(), String> {
    entries(cgroup).filter(|below| below.is_dir()).try_for_each(|below| remove_cgroup(&below))?;
    fs::remove_dir(cgroup).map_err(|error| format!("{}: {error}", cgroup.display()))
}
