//! A guest on this machine: its services over a socket pair, containers in real namespaces with busybox as their image. Needs root
//! and busybox-static; the mounts stay in a namespace of the test's own.
#![allow(dead_code, reason = "each binary of tests uses its part of it")]

pub mod ground;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use containerd_shim_protos::{
    api::{
        CreateTaskRequest, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest, PidsRequest,
        ProcessInfo, StartRequest, StateRequest, Status, WaitRequest,
    },
    shim_async::TaskClient,
};
use guest_init::{
    agent::{
        self, AgentService,
        service::Machine,
        streams::{MakeStream, StdioStreams},
    },
    boot::mounts::SHARE_FLAGS,
    gpu::{
        door::Doors,
        ground::{Ground, Plot},
        proxy::Proxy,
    },
    reaper::Reaper,
    stdio::ByteStream,
    task::{
        gpu::GpuDoors,
        host::{Host, Layout},
        pod::Pod,
        volumes::Room,
    },
};
use protobuf::{MessageField, well_known_types::any::Any};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, DuplexStream},
    net::UnixStream,
    time::timeout,
};
use ttrpc::{
    r#async::transport::Socket,
    context::{Context, with_timeout},
};
use vgpu_agent_api::{
    agent::{ForwardRequest, HelloRequest, OpenStreamRequest},
    agent_ttrpc::AgentClient,
    network::Network,
};

use ground::StoryGround;

/// One reaper may live in a process: the stories of one binary run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Makes streams within this process; `port` says which far end belongs to an offer.
#[derive(Default, Clone)]
struct FarEnds(Arc<Mutex<Vec<Option<DuplexStream>>>>);

impl MakeStream for FarEnds {
    fn make(&self) -> guest_init::error::Result<(Box<dyn ByteStream>, Vec<u32>, u32)> {
        let (near, far) = tokio::io::duplex(4096);
        let mut ends = self.0.lock().unwrap();
        ends.push(Some(far));
        Ok((Box::new(near), vec![], u32::try_from(ends.len() - 1).unwrap()))
    }
}

/// Remembers what it was told.
#[derive(Default)]
struct Noted(Mutex<HashMap<&'static str, String>>);

impl Machine for Noted {
    fn set_hostname(&self, name: &str) -> guest_init::error::Result<()> {
        self.0.lock().unwrap().insert("hostname", name.into());
        Ok(())
    }
    fn set_clock(&self, unix_nanoseconds: u64) -> guest_init::error::Result<()> {
        self.0.lock().unwrap().insert("clock", unix_nanoseconds.to_string());
        Ok(())
    }
    fn seed(&self, bytes: &[u8]) -> guest_init::error::Result<()> {
        self.0.lock().unwrap().insert("seed", format!("{bytes:?}"));
        Ok(())
    }
    fn set_network(&self, network: &Network) -> guest_init::error::Result<()> {
        self.0.lock().unwrap().insert("network", format!("{network:?}"));
        Ok(())
    }
    fn set_cpus(&self, count: u32) -> guest_init::error::Result<()> {
        self.0.lock().unwrap().insert("cpus", count.to_string());
        Ok(())
    }
    fn power_off(&self) {
        self.0.lock().unwrap().insert("power", "off".into());
    }
}

/// There is no proxy in these stories: nobody gets as far as shared pages.
struct NoGround;

impl Ground for NoGround {
    fn make(&self, _: &idm::record::RegionSpec) -> guest_init::error::Result<Box<dyn Plot>> {
        unreachable!("a process was taken in without a proxy")
    }
}

/// What a world is made of, where a story wants it otherwise.
pub struct Setup {
    /// The OCI helper.
    pub program: PathBuf,
    /// What it may take.
    pub helper_limit: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self { program: env!("CARGO_BIN_EXE_guest-init").into(), helper_limit: Duration::from_secs(60) }
    }
}

/// See the module.
pub struct World {
    /// Speaks containerd's Task API.
    pub task: TaskClient,
    /// Speaks our own.
    pub agent: AgentClient,
    /// The guest's directories: `share`, `run`.
    pub root: TempDir,
    far_ends: FarEnds,
    machine: Arc<Noted>,
    streams_made: Mutex<u32>,
    _server: ttrpc::r#async::Server,
}

/// Runs a story in a world of its own.
pub fn story(tell: impl AsyncFnOnce(&World)) {
    story_in(Setup::default(), tell);
}

/// As [`story`], in another world.
pub fn story_in(setup: Setup, tell: impl AsyncFnOnce(&World)) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _ground = StoryGround::enter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new(setup).await;
        // Generous: the stories are also played in a guest under emulation.
        timeout(Duration::from_secs(120), tell(&world)).await.expect("the story hangs");
    });
}

/// Longer than any call takes, also on a busy machine.
pub fn soon() -> Context {
    with_timeout(20_000_000_000)
}

/// The three far ends of a process's streams.
#[derive(Debug)]
pub struct Stdio {
    pub stdin: Option<DuplexStream>,
    pub stdout: DuplexStream,
    pub stderr: Option<DuplexStream>,
}

impl Stdio {
    /// Everything the process writes to stdout, to its end.
    pub async fn output(&mut self) -> String {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).await.unwrap();
        text
    }
}

impl Stdio {
    /// What the process writes to stdout, up to the line with these words.
    pub async fn output_until(&mut self, words: &str) -> String {
        let mut text = Vec::new();
        loop {
            text.push(self.stdout.read_u8().await.expect("the words come before the end"));
            let so_far = String::from_utf8_lossy(&text);
            if so_far.ends_with('\n') && so_far.contains(words) {
                return so_far.into_owned();
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let memories = fs::read_dir(self.root.path().join("run/memories")).into_iter().flatten().flatten();
        for place in memories.map(|memory| memory.path()).chain([self.root.path().join("share")]) {
            let _ = unmount(place, UnmountFlags::DETACH);
        }
    }
}

impl World {
    async fn new(setup: Setup) -> Self {
        let root = TempDir::new().unwrap();
        let share = root.path().join("share");
        fs::create_dir(&share).unwrap();
        mount_bind(&share, &share).unwrap();
        mount_remount(&share, MountFlags::BIND | SHARE_FLAGS, "").unwrap();
        let libraries = root.path().join("libraries");
        fs::create_dir(&libraries).unwrap();
        fs::write(libraries.join("libcuda.so.1"), "ours").unwrap();
        let gpu: Arc<dyn GpuDoors> =
            Arc::new(Doors { proxy: Arc::new(Proxy::default()), ground: Arc::new(NoGround), libraries });
        let far_ends = FarEnds::default();
        let streams = Arc::new(StdioStreams::new(Box::new(far_ends.clone())));
        let machine = Arc::new(Noted::default());
        let host = Arc::new(Host {
            layout: Layout {
                program: setup.program,
                share,
                run: root.path().join("run"),
                helper_limit: setup.helper_limit,
            },
            reaper: Reaper::start().unwrap(),
            streams: Arc::clone(&streams) as _,
            oom: Arc::default(),
            room: Room::of_guest(),
            gpu: Some(gpu),
        });
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let pod = Pod::new(host);
        let service = AgentService::new(streams, Arc::clone(&pod), Arc::clone(&machine) as _);
        let server = agent::serve(near, pod, service).await.unwrap();
        let client = ttrpc::r#async::Client::new(Socket::new(far));
        Self {
            task: TaskClient::new(client.clone()),
            agent: AgentClient::new(client),
            root,
            far_ends,
            machine,
            streams_made: Mutex::new(0),
            _server: server,
        }
    }

    /// What the guest was asked to do to itself.
    pub fn noted(&self, what: &str) -> Option<String> {
        self.machine.0.lock().unwrap().get(what).cloned()
    }

    /// The shim's hello.
    pub async fn hello(&self, major: u32) -> ttrpc::Result<vgpu_agent_api::agent::HelloReply> {
        let (hostname, seed) = ("pod-1".into(), vec![1, 2]);
        let req = HelloRequest { major, hostname, unix_nanoseconds: 5, seed, ..Default::default() };
        self.agent.hello(soon(), &req).await
    }

    /// The files of a container as the shim puts them into the share: busybox, and `change` applied to a plain spec.
    pub fn bundle(&self, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.root.path().join("share").join(id);
        let rootfs = bundle.join("rootfs");
        for directory in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
            fs::create_dir_all(rootfs.join(directory)).unwrap();
        }
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("apt install busybox-static");
        for tool in [
            "sh", "cat", "sleep", "grep", "hostname", "id", "stty", "head", "ls", "mkdir", "mknod",
            "readlink", "rm", "tty", "wc", "true",
        ] {
            let _ = symlink("busybox", rootfs.join("bin").join(tool));
        }
        let caps = ["CAP_KILL", "CAP_SETUID", "CAP_SETGID"];
        let mut spec = json!({
            "ociVersion": "1.1.0",
            "root": {"path": "rootfs"},
            "hostname": "inside",
            "process": {
                "cwd": "/tmp", "args": args, "env": ["PATH=/bin", "WORD=hello"],
                "user": {"uid": 0, "gid": 0}, "noNewPrivileges": true,
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"},
                {"type": "network"}]},
        });
        change(&mut spec);
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        bundle
    }

    async fn stream(&self) -> (String, DuplexStream) {
        let id = {
            let mut made = self.streams_made.lock().unwrap();
            *made += 1;
            *made
        };
        let offer =
            self.agent.open_stream(soon(), &OpenStreamRequest { id, ..Default::default() }).await.unwrap();
        let far = self.far_ends.0.lock().unwrap()[offer.port as usize].take().unwrap();
        (format!("idm://{id}"), far)
    }

    /// The shim's end of a connection to a port of the guest.
    pub async fn forward(&self, id: u32, port: u32, ipv6: bool) -> ttrpc::Result<DuplexStream> {
        let request = ForwardRequest { id, port, ipv6, ..Default::default() };
        let offer = self.agent.forward(soon(), &request).await?;
        Ok(self.far_ends.0.lock().unwrap()[offer.port as usize].take().unwrap())
    }

    /// Creates the task of a bundle that is there, with stdin, stdout and stderr.
    pub async fn create(&self, id: &str, terminal: bool) -> ttrpc::Result<Stdio> {
        let ((i, stdin), (o, stdout), (e, stderr)) =
            (self.stream().await, self.stream().await, self.stream().await);
        let req = CreateTaskRequest {
            id: id.into(),
            bundle: "/bundle".into(),
            stdin: i,
            stdout: o,
            stderr: if terminal { String::new() } else { e },
            terminal,
            ..Default::default()
        };
        self.task.create(soon(), &req).await?;
        Ok(Stdio { stdin: Some(stdin), stdout, stderr: (!terminal).then_some(stderr) })
    }

    /// Bundle, Create and Start of a plain command.
    pub async fn run(&self, id: &str, args: &[&str]) -> Stdio {
        self.bundle(id, args, |_| {});
        let stdio = self.create(id, false).await.unwrap();
        self.start(id, "").await.unwrap();
        stdio
    }

    /// Starts init or an exec; gives the pid.
    pub async fn start(&self, id: &str, exec_id: &str) -> ttrpc::Result<u32> {
        let req = StartRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.task.start(soon(), &req).await.map(|reply| reply.pid)
    }

    /// The exit status.
    pub async fn wait(&self, id: &str, exec_id: &str) -> u32 {
        let req = WaitRequest { id: id.into(), exec_id: exec_id.into(), ..Default::default() };
        self.task.wait(soon(), &req).await.unwrap().exit_status
    }

    /// Its state.
    pub async fn status(&self, id: &str) -> Status {
        let req = StateRequest { id: id.into(), ..Default::default() };
        self.task.state(soon(), &req).await.unwrap().status.unwrap()
    }

    /// Its processes.
    pub async fn processes(&self, id: &str) -> Vec<ProcessInfo> {
        let req = PidsRequest { id: id.into(), ..Default::default() };
        self.task.pids(soon(), &req).await.unwrap().processes
    }

    /// Sends a signal.
    pub async fn kill(&self, id: &str, signal: u32, all: bool) -> ttrpc::Result<()> {
        let req = KillRequest { id: id.into(), signal, all, ..Default::default() };
        self.task.kill(soon(), &req).await.map(drop)
    }

    /// Deletes a task.
    pub async fn delete(&self, id: &str) -> ttrpc::Result<DeleteResponse> {
        self.task.delete(soon(), &DeleteRequest { id: id.into(), ..Default::default() }).await
    }

    /// As soon as the container is known, however long its Create takes to get there. The answer, and how long that took.
    pub async fn delete_when_known(&self, id: &str) -> (ttrpc::Result<DeleteResponse>, Duration) {
        for _ in 0..1000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let began = Instant::now();
            match self.delete(id).await {
                Err(ttrpc::Error::RpcStatus(status)) if status.code() == ttrpc::Code::NOT_FOUND => {}
                answer => return (answer, began.elapsed()),
            }
        }
        panic!("{id} is never known");
    }

    /// Registers an exec with stdout only.
    pub async fn exec(&self, id: &str, exec_id: &str, args: &[&str]) -> ttrpc::Result<Stdio> {
        self.exec_in(id, exec_id, args, false).await
    }

    /// As [`World::exec`], with a terminal or without.
    pub async fn exec_in(
        &self,
        id: &str,
        exec_id: &str,
        args: &[&str],
        terminal: bool,
    ) -> ttrpc::Result<Stdio> {
        let (o, stdout) = self.stream().await;
        let process = json!({"cwd": "/", "args": args, "env": ["PATH=/bin", "WHO=exec"], "user": {"uid": 1000, "gid": 1000}});
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: process.to_string().into_bytes(),
            ..Default::default()
        };
        let req = ExecProcessRequest {
            id: id.into(),
            exec_id: exec_id.into(),
            stdout: o,
            terminal,
            spec: MessageField::some(spec),
            ..Default::default()
        };
        self.task.exec(soon(), &req).await?;
        Ok(Stdio { stdin: None, stdout, stderr: None })
    }

    /// That the guest keeps nothing of a container.
    pub fn assert_nothing_left_of(&self, id: &str) {
        for place in
            [self.root.path().join("run/containers").join(id), self.root.path().join("run/oci").join(id)]
        {
            assert!(!place.exists(), "{place:?} is left");
        }
        assert!(!PathBuf::from("/sys/fs/cgroup/vgpu").join(id).exists(), "a cgroup is left");
    }
}

/// The code and text of a refusal.
pub fn refusal<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (ttrpc::Code, String) {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message().to_owned()),
        other => panic!("no refusal: {other:?}"),
    }
}
