//! A containerd as a shim sees it: bundles of busybox, the shim's verbs, its socket, and a sink for its events. No daemon: a container
//! takes milliseconds.

mod bundle;
mod flavour;
mod runtime;
mod sandbox;
mod shim;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{CreateTaskResponse, Empty},
    shim::events::ForwardRequest,
    shim_async::{Events, create_events},
};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use tempfile::TempDir;
use ttrpc::r#async::{Server, TtrpcContext, transport::Listener};

pub use flavour::Flavour;
pub use runtime::Runtime;
pub use shim::Shim;

use crate::left;

/// For what takes milliseconds, and seconds on a busy machine that emulates Xen.
pub(crate) const SOON: Duration = Duration::from_secs(120);

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
    /// Serves until this is dropped. Nobody takes the lock: with it pods beside each other can share the containerd.
    _events: Mutex<Server>,
    /// What the shims say, a fifo a bundle: one that nobody reads would fail a shim's start.
    logs: Mutex<BTreeMap<String, File>>,
    /// Where the shims that were started serve.
    sockets: Mutex<BTreeSet<PathBuf>>,
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
        Self::at(&std::env::temp_dir(), runtime, flavour).await
    }

    /// One whose directory is in this one.
    pub async fn at(place: &Path, runtime: Runtime, flavour: Flavour) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests make containers: run them as root");
        let (dir, heard) = (TempDir::new_in(place).expect("a directory"), Arc::new(Heard::default()));
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
            _events: Mutex::new(events),
            logs: Mutex::default(),
            sockets: Mutex::default(),
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

    /// The sockets of shims that were started here and are there still.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let told = self.sockets.lock().expect("nobody panics with it");
        told.iter().filter(|socket| socket.exists()).cloned().collect()
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

    fn namespace(&self) -> String {
        self.runtime.namespace(self.dir.path())
    }

    fn command(&self, id: &str) -> Command {
        let mut command = self.runtime.command(self.dir.path(), &self.bundle_of(id));
        command
            .args(["-namespace", &self.namespace(), "-id", id, "-publish-binary", "/bin/true", "-address"])
            .arg(self.address())
            .env("TTRPC_ADDRESS", self.sink());
        command
    }

    /// The verb `start`.
    pub async fn start(&self, id: &str) -> Shim {
        self.listen(id);
        let output = self.run_with(
            id,
            &["start"],
            &self.flavour.asks(&self.namespace(), id, &self.address(), &self.sink()),
        );
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let address = self.flavour.address(&output.stdout);
        let address = self.runtime.outer(self.dir.path(), &address);
        let socket = address.trim_start_matches("unix://").into();
        self.sockets.lock().expect("nobody panics with it").insert(socket);
        Shim::at(address, self.flavour.service()).await
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
        self.logs.lock().expect("nobody panics with it").insert(id.into(), log);
    }

    /// The verb `delete`.
    pub fn delete(&self, id: &str) {
        let bundle = self.told(self.bundle_of(id));
        let output = self.run(id, &["-bundle", &bundle, "delete"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }

    /// Create and Start.
    pub async fn create(&self, shim: &Shim, id: &str) {
        let request = self.asked(id);
        let _: CreateTaskResponse = shim.call("Create", &request).await.expect("Create");
        shim.begin(id).await;
    }
}

impl Drop for Containerd {
    /// A test that fails leaves neither processes nor mounts on the machine. Another thread's may hold it for longer than its panic.
    fn drop(&mut self) {
        if !std::thread::panicking() && self.sockets().is_empty() {
            return;
        }
        for (id, log) in std::mem::take(&mut *self.logs.lock().expect("nobody panics with it")) {
            let mut said = Vec::new();
            // Ends with an error: there is no more now.
            let _ = (&log).read_to_end(&mut said);
            eprintln!("the shim of {id} said: {}", String::from_utf8_lossy(&said));
        }
        left::end(self.dir.path(), "containerd-shim");
        let ids = fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        for id in ids.filter(|id| id.path().join("rootfs").exists()) {
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
