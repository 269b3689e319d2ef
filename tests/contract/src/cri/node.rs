//! A containerd with its CRI and a directory of its own, in a [`Place`]. Nothing is left of it when it ends.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use containerd_shim_protos::{api::Empty, shim::event::Envelope};
use protobuf::{Message, well_known_types::any::Any};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{Client, Place};
use crate::{
    left,
    mock::{Event, SOON, until},
};

/// Has containerd, which is started again in the same mount namespace by a SIGUSR1, and ended by a SIGTERM.
const DAEMON: &str = r#"again=1
trap 'again=1; kill $pid' USR1
trap 'again=; kill $pid' TERM
while test "$again"; do
    again=
    containerd --config /test/config.toml & pid=$!
    while kill -0 $pid 2> /dev/null; do wait $pid; done
done"#;
const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";
/// As its programs see it.
const SOCKET: &str = "/test/run/containerd/containerd.sock";
/// Of the node's ports that cases choose.
const FIRST_PORT: u16 = 20000;
/// Where the hierarchies are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What a node is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Its programs.
    pub place: Place,
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
    next_port: AtomicU16,
    /// Nothing is left of it.
    stopped: bool,
}

impl Node {
    /// One that serves and has the images.
    pub async fn start(parts: Parts) -> Self {
        let dir = parts.place.dir();
        let log = File::create(dir.path().join("containerd.log")).expect("a log");
        let mut command = parts.place.command_in_network(dir.path());
        command.args([parts.place.busybox(), "sh", "-c", DAEMON]).env("VGPU_LOCAL_DIR", "/test/node");
        if !has_limits() {
            command.env("VGPU_LOCAL_LIMITS", "none");
        }
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let mut daemon = command.spawn().expect("unshare of util-linux");
        let Some(client) = client(dir.path(), &mut daemon).await else {
            panic!("containerd does not serve: {}", said(dir.path()));
        };
        let (events, daemon) = (Arc::default(), Mutex::new(daemon));
        let (listener, lives, next_port) = (Mutex::default(), Mutex::default(), FIRST_PORT.into());
        let node = Node { dir, parts, daemon, client, events, listener, lives, next_port, stopped: false };
        node.listen();
        node
    }

    /// Ends containerd, and starts it again on what it has left.
    pub async fn restart(&self) {
        self.signal(Signal::USR1);
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

    /// Who has its network.
    pub fn pid(&self) -> u32 {
        self.daemon.lock().expect("nobody panics with it").id()
    }

    /// One that nobody else has been given.
    pub fn next_port(&self) -> u16 {
        self.next_port.fetch_add(1, Ordering::Relaxed)
    }

    /// What a script says in the node's network, and its exit code.
    pub fn run(&self, script: &str) -> (String, Option<i32>) {
        let mut command = self.parts.place.busybox_in_network_of(self.dir.path(), self.pid());
        let output = command.args(["timeout", "120", "sh", "-c", script]).output().expect("busybox runs");
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&said).into_owned(), output.status.code())
    }

    /// Remembers the domains that there are, for the end.
    pub fn note_lives(&self) {
        let lives = left::lives(&self.parts.place.node(self.dir.path()));
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
        let links = || self.run("ip -o link | grep -e veth -e vif -e bwp").0;
        until("no link of a pod is left", || links().is_empty(), links).await;
        // Of Dom0's network; its own ends with it.
        self.run("for bridge in cni0 cni1; do ip link delete $bridge; done");
        self.assert_listening();
        self.signal(Signal::TERM);
        self.daemon.lock().expect("nobody panics with it").wait().expect("it is ours");
        if self.parts.place.is_own() {
            // Of 2.1 runc's shim stays now and then when its pod is gone.
            left::end(self.dir.path(), "containerd-shim-runc-v2");
        }
        assert_eq!(remove_cgroups(&self.cgroup()), [""; 0], "a container is left in them");
        // What is left of Dom0, its stories look for.
        if self.parts.place.is_own() {
            left::assert_nothing(self.dir.path(), &self.parts.place.node(self.dir.path()), &lives).await;
        }
        self.stopped = true;
    }

    fn import(&self) {
        for image in &self.parts.images {
            fs::copy(image, self.dir.path().join("image.tar")).expect("a copy");
            let mut ctr = self.parts.place.command(self.dir.path());
            ctr.args(["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import"]);
            // 2.x would have its transfer service do it, which wants a configuration for that.
            ctr.args(self.is_of_2().then_some("--local")).arg("/test/image.tar");
            let output = ctr.output().expect("ctr runs");
            assert!(output.status.success(), "{output:?}");
        }
    }

    fn is_of_2(&self) -> bool {
        let output =
            self.parts.place.command(self.dir.path()).args(["ctr", "--version"]).output().expect("ctr runs");
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
        // By its name nothing is found that the node's others have not, too: its stories clean up.
        if !self.parts.place.is_own() {
            return;
        }
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

/// Whether this machine's controllers are those of cgroup version 2, so that a guest of it can have limits.
#[must_use]
pub fn has_limits() -> bool {
    let read = |place: &str| fs::read_to_string(format!("{CGROUPS}/{place}")).unwrap_or_default();
    read("cgroup.controllers").contains("memory")
}

/// As soon as somebody serves CRI.
async fn client(dir: &Path, daemon: &mut Child) -> Option<Client> {
    let begun = Instant::now();
    while begun.elapsed() < SOON {
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

pub(super) fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
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
