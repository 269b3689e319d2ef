//! A containerd as a shim sees it: bundles of busybox, the shim's verbs, its socket, and a sink for its events. No daemon: a container
//! takes milliseconds.

mod flavour;
mod runtime;
mod shim;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{OpenOptionsExt, symlink},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{CreateTaskRequest, CreateTaskResponse, Empty},
    shim::events::ForwardRequest,
    shim_async::{Events, create_events},
};
use rustix::{
    fs::{CWD, Mode, OFlags, mkfifoat},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use ttrpc::r#async::{Server, TtrpcContext, transport::Listener};

pub use flavour::Flavour;
pub use runtime::Runtime;
pub use shim::Shim;

/// What a bundle's root has of busybox by name.
const TOOLS: [&str; 32] = [
    "cat", "chmod", "chown", "cp", "cut", "env", "grep", "head", "hostname", "id", "kill", "ln", "ls",
    "mkdir", "mount", "mv", "ps", "readlink", "rm", "sed", "seq", "sh", "sleep", "sort", "stat", "stty",
    "tail", "touch", "tr", "tty", "umount", "wc",
];

/// For what takes milliseconds, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// An event as it came: the topic without what all have, and the message.
#[derive(Debug, Clone)]
pub struct Event {
    /// "create", "exit".
    pub topic: String,
    /// The message's bytes.
    pub message: Vec<u8>,
}

/// Remembers the events.
#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

#[async_trait]
impl Events for Heard {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope.unwrap_or_default();
        let topic = envelope.topic.trim_start_matches("/tasks/").to_owned();
        let message = envelope.event.unwrap_or_default().value;
        self.0.lock().expect("nobody panics with it").push(Event { topic, message });
        Ok(Empty::default())
    }
}

/// See the module. Panics where it cannot do its part: it is a test's.
pub struct Containerd {
    /// Bundles, sockets, and what the shims of a runtime keep.
    pub dir: TempDir,
    runtime: Runtime,
    flavour: Flavour,
    heard: Arc<Heard>,
    _events: Server,
    /// What the shims say, a fifo each: one that nobody reads would fail a shim's start.
    logs: Mutex<Vec<File>>,
    /// The processes of the shims that were started.
    shims: Mutex<BTreeSet<i32>>,
}

impl std::fmt::Debug for Containerd {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Containerd")
            .field("dir", &self.dir)
            .field("runtime", &self.runtime)
            .finish_non_exhaustive()
    }
}

impl Containerd {
    /// One of its own for each test, as the oldest that are known.
    pub async fn new(runtime: Runtime) -> Self {
        Self::of(runtime, Flavour::V1).await
    }

    /// One of some age.
    pub async fn of(runtime: Runtime, flavour: Flavour) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make containers: run them as root");
        let (dir, heard) = (TempDir::new().expect("a directory"), Arc::new(Heard::default()));
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("events")).expect("a socket");
        let mut events = Server::new()
            .add_listener(Listener::try_from(listener).expect("a listener"))
            .register_service(create_events(heard.clone()));
        events.start().await.expect("the sink serves");
        Containerd {
            dir,
            runtime,
            flavour,
            heard,
            _events: events,
            logs: Mutex::default(),
            shims: Mutex::default(),
        }
    }

    /// What came so far.
    pub fn events(&self) -> Vec<Event> {
        self.heard.0.lock().expect("nobody panics with it").clone()
    }

    /// Their topics.
    pub fn topics(&self) -> Vec<String> {
        self.events().into_iter().map(|event| event.topic).collect()
    }

    /// Where a container's bundle lies.
    pub fn bundle_of(&self, id: &str) -> PathBuf {
        self.dir.path().join(id)
    }

    /// Where the local shim keeps its node.
    pub fn node(&self) -> PathBuf {
        runtime::node(self.dir.path())
    }

    /// A path below the directory as the shim has it.
    pub fn told(&self, path: PathBuf) -> String {
        self.runtime.inner(self.dir.path(), &path).to_string_lossy().into_owned()
    }

    /// A bundle whose init is `script`, with `change` made to its spec.
    pub fn bundle(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) {
        let root = self.bundle_of(id).join("rootfs");
        for folder in ["bin", "dev", "proc", "tmp"] {
            fs::create_dir_all(root.join(folder)).expect("a directory");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("apt install busybox-static");
        for tool in TOOLS {
            symlink("busybox", root.join("bin").join(tool)).expect("a link");
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
                {
                    "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
                },
            ],
            "linux": {"namespaces": namespaces}
        });
        change(&mut spec);
        fs::write(self.bundle_of(id).join("config.json"), spec.to_string()).expect("a spec");
    }

    /// As containerd does when it has `delete`'s answer.
    pub fn remove_bundle(&self, id: &str) {
        fs::remove_dir_all(self.bundle_of(id)).expect("removed");
    }

    /// What the container's init has written so far.
    pub fn output(&self, id: &str) -> String {
        self.written(id, "")
    }

    /// What an exec has written so far; an empty one is init.
    pub fn written(&self, id: &str, exec: &str) -> String {
        fs::read_to_string(self.stem(id, exec) + "out").unwrap_or_default()
    }

    /// What the names of a process's files begin with.
    pub fn stem(&self, id: &str, exec: &str) -> String {
        format!("{}/{exec}", self.bundle_of(id).display())
    }

    /// The same as the shim has it.
    pub fn told_stem(&self, id: &str, exec: &str) -> String {
        format!("{}/{exec}", self.told(self.bundle_of(id)))
    }

    /// Where all output of one goes, as `ctr --log-uri` has it.
    pub fn out(&self, id: &str, exec: &str) -> String {
        format!("file://{}out", self.told_stem(id, exec))
    }

    /// A verb of the shim's program, to its end.
    pub fn run(&self, id: &str, args: &[&str]) -> Output {
        self.run_with(id, args, &[])
    }

    fn run_with(&self, id: &str, args: &[&str], stdin: &[u8]) -> Output {
        let mut command = self.command(id);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the shim's program runs");
        let written = child.stdin.take().expect("a pipe").write_all(stdin);
        let output = child.wait_with_output().expect("it ends");
        written.unwrap_or_else(|error| panic!("its input was not read: {error}, {output:?}"));
        output
    }

    fn address(&self) -> String {
        self.told(self.dir.path().join("containerd.sock"))
    }

    fn sink(&self) -> String {
        self.told(self.dir.path().join("events"))
    }

    fn command(&self, id: &str) -> Command {
        let mut command = self.runtime.command(self.dir.path(), &self.bundle_of(id));
        command
            .args(["-namespace", "default", "-id", id, "-publish-binary", "/bin/true", "-address"])
            .arg(self.address())
            .env("TTRPC_ADDRESS", self.sink());
        command
    }

    /// The verb `start`.
    pub async fn start(&self, id: &str) -> Shim {
        self.listen(id);
        let output = self.run_with(id, &["start"], &self.flavour.asks(id, &self.address(), &self.sink()));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let address = self.flavour.address(&output.stdout);
        let address = self.runtime.outer(self.dir.path(), &address);
        let shim = Shim::at(address, self.flavour.service()).await;
        self.shims.lock().expect("nobody panics with it").insert(shim.pid);
        shim
    }

    /// As containerd reads what a shim says of itself: by `log` in the bundle.
    fn listen(&self, id: &str) {
        let path = self.bundle_of(id).join("log");
        if !path.exists() {
            mkfifoat(CWD, &path, Mode::RWXU).expect("a fifo");
        }
        // For both, so that its end does not come with each writer's. What is said here fits.
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(&path)
            .expect("a log");
        self.logs.lock().expect("nobody panics with it").push(log);
    }

    /// The verb `delete`.
    pub fn delete(&self, id: &str) {
        let bundle = self.told(self.bundle_of(id));
        let output = self.run(id, &["-bundle", &bundle, "delete"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }

    /// What Create is asked.
    pub fn asked(&self, id: &str) -> CreateTaskRequest {
        let (bundle, out) = (self.told(self.bundle_of(id)), self.out(id, ""));
        CreateTaskRequest { id: id.into(), bundle, stdout: out.clone(), stderr: out, ..Default::default() }
    }

    /// Create and Start.
    pub async fn create(&self, shim: &Shim, id: &str) {
        let request = self.asked(id);
        let _: CreateTaskResponse = shim.call("Create", &request).await.expect("Create");
        shim.begin(id).await;
    }
}

impl Drop for Containerd {
    /// A test that fails leaves neither processes nor mounts on the machine.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in std::mem::take(&mut *self.logs.lock().expect("nobody panics with it")) {
            let mut said = Vec::new();
            // Ends with an error: there is no more now.
            let _ = (&log).read_to_end(&mut said);
            eprintln!("a shim said: {}", String::from_utf8_lossy(&said));
        }
        for pid in std::mem::take(&mut *self.shims.lock().expect("nobody panics with it")) {
            let ended = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
            eprintln!("ended the shim {pid}: {ended:?}");
        }
        let ids = fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        for id in ids.filter(|id| id.path().join("config.json").exists()) {
            let id = id.file_name().to_string_lossy().into_owned();
            let output = self.run(&id, &["-bundle", &self.told(self.bundle_of(&id)), "delete"]);
            eprintln!("deleted {id}: {output:?}");
        }
    }
}

/// Waits until `done`.
pub async fn until(what: &str, mut done: impl FnMut() -> bool, but: impl Fn() -> String) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "not yet: {what}; {}", but());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
