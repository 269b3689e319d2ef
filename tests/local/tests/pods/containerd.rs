//! A containerd with a node of its own: bundles of busybox, the local shim started and called as containerd does, and what it hears.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{self, ConnectRequest, ConnectResponse, Empty, ShutdownRequest},
    shim::events::ForwardRequest,
    shim_async::{Events, create_events},
};
use protobuf::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde_json::{Value, json};
use tempfile::TempDir;
use ttrpc::{
    r#async::{Server, TtrpcContext, transport::Listener},
    asynchronous::Client,
    proto::Request,
};

const TASK: &str = "containerd.task.v2.Task";
/// For what takes milliseconds, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Remembers the events.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

#[async_trait]
impl Events for Heard {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        self.0.lock().unwrap().push(request.envelope.topic.trim_start_matches("/tasks/").to_owned());
        Ok(Empty::default())
    }
}

/// See the module.
pub struct Containerd {
    pub dir: TempDir,
    heard: Arc<Heard>,
    _events: Server,
}

/// A pod's shim.
pub struct Shim {
    address: String,
    pub pid: i32,
}

impl Containerd {
    pub async fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make containers: run them as root");
        let (dir, heard) = (TempDir::new().unwrap(), Arc::new(Heard::default()));
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("events")).unwrap();
        let mut events = Server::new()
            .add_listener(Listener::try_from(listener).unwrap())
            .register_service(create_events(heard.clone()));
        events.start().await.unwrap();
        Containerd { dir, heard, _events: events }
    }

    pub fn events(&self) -> Vec<String> {
        self.heard.0.lock().unwrap().clone()
    }

    pub fn node(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    /// Where a container's bundle lies.
    pub fn bundle_of(&self, id: &str) -> PathBuf {
        self.dir.path().join(id)
    }

    /// A bundle whose init is `script`, with `change` made to its spec.
    pub fn bundle(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) {
        let root = self.bundle_of(id).join("rootfs");
        for folder in ["bin", "dev", "proc", "tmp"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("apt install busybox-static");
        for tool in ["sh", "cat", "sleep", "hostname", "ps"] {
            symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
        let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
        let mut spec = json!({
            "ociVersion": "1.1.0", "root": {"path": "rootfs"}, "hostname": "inside", "annotations": {},
            "process": {
                "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
                "noNewPrivileges": true
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            ],
            "linux": {"namespaces": namespaces}
        });
        change(&mut spec);
        fs::write(self.bundle_of(id).join("config.json"), spec.to_string()).unwrap();
    }

    /// As containerd does when it has `delete`'s answer.
    pub fn remove_bundle(&self, id: &str) {
        fs::remove_dir_all(self.bundle_of(id)).unwrap();
    }

    /// What the container's init has written so far.
    pub fn output(&self, id: &str) -> String {
        fs::read_to_string(self.bundle_of(id).join("out")).unwrap_or_default()
    }

    pub fn run(&self, id: &str, args: &[&str]) -> Output {
        let bundle = self.bundle_of(id);
        Command::new(env!("CARGO_BIN_EXE_containerd-shim-vgpulocal-v1"))
            .args(["-namespace", "default", "-id", id, "-publish-binary", "/bin/true", "-address"])
            .arg(self.dir.path().join("containerd.sock"))
            .args(args)
            .current_dir(&bundle)
            .env("VGPU_LOCAL_DIR", self.node())
            .env("TTRPC_ADDRESS", self.dir.path().join("events"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The verb `start`.
    pub async fn start(&self, id: &str) -> Shim {
        let output = self.run(id, &["start"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let mut shim = Shim { address: String::from_utf8(output.stdout).unwrap(), pid: 0 };
        let connected: ConnectResponse = shim.call("Connect", &ConnectRequest::default()).await.unwrap();
        shim.pid = connected.shim_pid.cast_signed();
        shim
    }

    /// The verb `delete`.
    pub fn delete(&self, id: &str) {
        let bundle = self.bundle_of(id).to_string_lossy().into_owned();
        let output = self.run(id, &["-bundle", &bundle, "delete"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }

    pub async fn create(&self, shim: &Shim, id: &str) {
        let bundle = self.bundle_of(id).to_string_lossy().into_owned();
        let stdout = format!("file://{bundle}/out");
        let request = api::CreateTaskRequest { id: id.into(), bundle, stdout, ..Default::default() };
        let _: api::CreateTaskResponse = shim.call("Create", &request).await.unwrap();
        let request = api::StartRequest { id: id.into(), ..Default::default() };
        let _: api::StartResponse = shim.call("Start", &request).await.unwrap();
    }

    /// The UUIDs of the lives that the shim has on disk.
    pub fn lives(&self) -> Vec<String> {
        let lives = fs::read_dir(self.node().join("sandboxes")).into_iter().flatten().flatten();
        let names = lives.map(|life| life.file_name().into_string().unwrap());
        names.map(|name| name.rsplit('+').next().unwrap().to_owned()).collect()
    }

    /// The cgroup of the only domain.
    pub fn cgroup(&self) -> PathBuf {
        let lives = self.lives();
        let [uuid] = &lives[..] else { panic!("one pod: {lives:?}") };
        cgroup_of(uuid).expect("the domain has a cgroup")
    }

    /// No domain, process, cgroup, mount or file is left of a node that had these lives.
    pub async fn assert_nothing_left(&self, lives: &[String]) {
        let dir = self.dir.path().to_str().unwrap();
        let left = || {
            let folders = ["domains", "devices", "shared", "sandboxes"].map(|name| self.node().join(name));
            let mut left: Vec<PathBuf> = folders
                .iter()
                .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
                .map(|entry| entry.path())
                .collect();
            left.extend(lives.iter().filter_map(|uuid| cgroup_of(uuid)));
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            left.extend(mounts.lines().filter(|line| line.contains(dir)).map(PathBuf::from));
            left.extend(processes(dir));
            left
        };
        // `delete` may go on after its answer.
        until("nothing is left", || left().is_empty(), || format!("{:?}", left())).await;
    }
}

impl Drop for Containerd {
    /// A test that fails leaves neither processes nor mounts on the machine.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ids = fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
            for id in ids.filter(|id| id.path().join("config.json").exists()) {
                let id = id.file_name().to_string_lossy().into_owned();
                let bundle = self.bundle_of(&id).to_string_lossy().into_owned();
                let output = self.run(&id, &["-bundle", &bundle, "delete"]);
                eprintln!("deleted {id}: {output:?}");
            }
        }
    }
}

impl Shim {
    pub async fn call<Q: Message, A: Message>(&self, method: &str, request: &Q) -> ttrpc::Result<A> {
        let client = Client::connect(&self.address).await?;
        let payload = request.write_to_bytes().unwrap();
        let request = Request { service: TASK.into(), method: method.into(), payload, ..Request::default() };
        let answer = tokio::time::timeout(SOON, client.request(request)).await.expect("an answer");
        answer.map(|reply| A::parse_from_bytes(&reply.payload).unwrap())
    }

    pub async fn wait(&self, id: &str) -> u32 {
        let request = api::WaitRequest { id: id.into(), ..Default::default() };
        let reply: api::WaitResponse = self.call("Wait", &request).await.unwrap();
        reply.exit_status
    }

    pub async fn delete(&self, id: &str) -> u32 {
        let request = api::DeleteRequest { id: id.into(), ..Default::default() };
        let reply: api::DeleteResponse = self.call("Delete", &request).await.unwrap();
        reply.exit_status
    }

    pub async fn signal(&self, id: &str, signal: u32) {
        let request = api::KillRequest { id: id.into(), signal, ..Default::default() };
        let _: Empty = self.call("Kill", &request).await.unwrap();
    }

    pub async fn shut_down(&self) {
        let _: Empty = self.call("Shutdown", &ShutdownRequest::default()).await.unwrap();
    }

    pub async fn kill(&self) {
        let pid = Pid::from_raw(self.pid).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        kill(self.pid);
        // Its first thread is a zombie before the last one lets go of its sockets: the next shim of that name would find one that listens.
        let gone = || {
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&at_once)).unwrap() > 0
        };
        until("the shim is gone", gone, String::new).await;
    }
}

fn cgroup_of(uuid: &str) -> Option<PathBuf> {
    let name = format!("vgpu-local-{uuid}");
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|place| Path::new(place).join(&name));
    places.into_iter().find(|place| place.exists())
}

/// The guest's first process, by its pid here. Source: `proc_pid_status(5)`, `NSpid`.
pub fn pid_1(cgroup: &Path) -> i32 {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    let is_first = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        inside.is_some_and(|pids| pids.split_whitespace().nth(1) == Some("1"))
    };
    pids.lines().find(|pid| is_first(pid)).expect("the guest has a PID 1").parse().unwrap()
}

/// SIGKILL.
pub fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

/// SIGSTOP.
pub fn stop(pid: i32) {
    signal(pid, Signal::STOP);
}

fn signal(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The processes that have a word in their environment or among their arguments, as all of a node have its folder; not this one.
fn processes(word: &str) -> Vec<PathBuf> {
    let has = |path: PathBuf| {
        fs::read(path).is_ok_and(|bytes| bytes.windows(word.len()).any(|part| part == word.as_bytes()))
    };
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let others = all.filter(|path| !path.ends_with(std::process::id().to_string()));
    others.filter(|path| has(path.join("environ")) || has(path.join("cmdline"))).collect()
}

/// Waits until `done`.
pub async fn until(what: &str, mut done: impl FnMut() -> bool, but: impl Fn() -> String) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "not yet: {what}; {}", but());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
