//! A gpu-proxy of the test's own, and a guest process without a CUDA program around it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use idm::arena::Arena;
use idm::hello::Hello;
use idm::record::{RECORD_LIMIT_MAX, Reply, Submitter};
use tempfile::TempDir;
use vgpu_api::wire::WireError;
use vgpu_api::{ContextId, CuError, CuResult, Op, PRINTED, Reader, Transport, WIRE_HASH, Writer, ask};
use vgpu_zone_api::guest::facts::{self, Facts};
use vgpu_zone_api::shim::{Client, Listing, WorkerInfo};

pub const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(20);

/// The primary context of the only device.
pub const C: ContextId = ContextId::primary(0);

/// A running gpu-proxy in its local mode. What it leaves behind fails the test.
pub struct Proxy {
    pub child: Child,
    pub dir: TempDir,
}

impl Proxy {
    pub fn start(device: &str) -> Self {
        Self::start_with(device, &[])
    }

    pub fn start_with(device: &str, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-proxy"));
        command.args(["--device", device, "--memory-mib", "64"]).args(more);
        Self::run(command)
    }

    /// With a zone for each share; the first one's socket is [`Proxy::socket`].
    pub fn start_zones(device: &str, shares: &[Option<u32>]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-proxy"));
        command.args(["--device", device, "--memory-mib", "64"]);
        for (number, share) in shares.iter().enumerate() {
            command.arg("--local").arg(socket_of(&dir, number));
            if let Some(share) = share {
                command.args(["--share", &share.to_string()]);
            }
        }
        Self::run_in(command, dir)
    }

    /// As systemd starts it: in a cgroup of its own.
    pub fn start_as_service(device: &str, cgroup: &Path) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(cgroup);
        command.args([env!("CARGO_BIN_EXE_gpu-proxy"), "--device", device, "--memory-mib", "64"]);
        command.env("INVOCATION_ID", "1");
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        command.arg("--local").arg(socket_of(&dir, 0));
        Self::run_in(command, dir)
    }

    pub fn run_in(mut command: Command, dir: TempDir) -> Self {
        command.arg("--socket").arg(dir.path().join("zones.sock")).stdin(Stdio::null());
        let proxy = Self { child: command.spawn().unwrap(), dir };
        until("gpu-proxy listens", || proxy.socket().exists() && proxy.zones_socket().exists());
        proxy
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> PathBuf {
        socket_of(&self.dir, 0)
    }

    pub fn zones_socket(&self) -> PathBuf {
        self.dir.path().join("zones.sock")
    }

    pub fn list(&self) -> Listing {
        Client::connect(self.zones_socket(), LIMIT).unwrap().list().unwrap()
    }

    /// None before the local zone is made, which the door does not wait for.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.list().zones.into_iter().next().map_or_else(Vec::new, |zone| zone.workers)
    }

    pub fn device_bytes(&self) -> u64 {
        self.list().zones[0].device_bytes
    }

    /// A new guest process with its primary context.
    pub fn guest(&self) -> Guest {
        let guest = self.guest_of_hash(WIRE_HASH).unwrap();
        ask::cuDevicePrimaryCtxRetain(&guest, ContextId::NONE, 0, 0).unwrap();
        guest
    }

    /// A guest process of another zone, by its number.
    pub fn guest_of_zone(&self, number: usize) -> Guest {
        let hello = Hello::new(RECORD_LIMIT_MAX, WIRE_HASH);
        let connected = idm::connect::connect(&socket_of(&self.dir, number), &hello, LIMIT).unwrap();
        let guest = Guest { channel: connected.submitter, arena: connected.arena };
        ask::cuDevicePrimaryCtxRetain(&guest, ContextId::NONE, 0, 0).unwrap();
        guest
    }

    pub fn guest_of_hash(&self, hash: u64) -> Result<Guest, idm::ChannelError> {
        let hello = Hello::new(RECORD_LIMIT_MAX, hash);
        let connected = idm::connect::connect(&self.socket(), &hello, LIMIT)?;
        Ok(Guest { channel: connected.submitter, arena: connected.arena })
    }

    /// What a process that asks is told.
    pub fn facts(&self) -> Result<Facts, idm::ChannelError> {
        let hello = Hello::new(RECORD_LIMIT_MAX, facts::APPLICATION);
        let told = idm::connect::ask(&self.socket(), &hello, facts::BYTES_MAX, LIMIT);
        told.map(|(bytes, _)| Facts::decode(&bytes).unwrap())
    }

    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Ends it as systemd does, and looks that nothing is left.
    pub fn stop(mut self) {
        signal(self.pid(), libc::SIGTERM);
        assert!(self.child.wait().unwrap().success());
        assert!(!self.socket().exists() && !self.zones_socket().exists(), "a socket is left");
        assert_eq!(cgroups_of(self.pid()), Vec::<PathBuf>::new());
    }
}

pub fn socket_of(dir: &TempDir, number: usize) -> PathBuf {
    dir.path().join(format!("gpu{number}.sock"))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let workers = children(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            until("its workers are gone", || workers.iter().all(|pid| !alive(*pid)));
        }
    }
}

/// A guest process: libvgpu's way of sending calls, and nothing else of it.
pub struct Guest {
    pub channel: Submitter,
    pub arena: Option<Arena>,
}

impl Transport for Guest {
    fn send(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> CuResult<()> {
        let bytes = packed(size, fill);
        self.channel
            .submit_bytes(op as u16, context.0, &bytes)
            .map(drop)
            .map_err(|_| CuError::DEVICE_UNAVAILABLE)
    }

    fn call<T>(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
        take: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
    ) -> CuResult<T> {
        let (bytes, mut reply) = (packed(size, fill), [0; vgpu_api::wire::REPLY_BYTES_MAX]);
        let answer: Reply = self
            .channel
            .call(op as u16, context.0, &bytes, &mut reply, None)
            .map_err(|_| CuError::DEVICE_UNAVAILABLE)?;
        CuError::check(answer.status & !PRINTED)?;
        take(&mut Reader::new(&reply[..answer.len])).map_err(|_| CuError::UNKNOWN)
    }
}

fn packed(size: usize, fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut writer = Writer::new(&mut bytes);
    fill(&mut writer);
    assert_eq!(writer.finish(), Some(size));
    bytes
}

/// Waits at most ten seconds.
pub fn until(what: &str, done: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

pub fn signal(pid: u32, signal: i32) {
    // SAFETY: a signal to a process that the test started.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

pub fn alive(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !state.is_empty() && !state.contains("State:\tZ")
}

/// Field of `/proc/<pid>/status`.
pub fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t").map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {field}"))
}

pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// The cgroup folders of one supervisor.
pub fn cgroups_of(pid: u32) -> Vec<PathBuf> {
    let roots = ["/sys/fs/cgroup/vgpu-proxy", "/sys/fs/cgroup/unified/vgpu-proxy"];
    let entries = roots.iter().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
    let its_own = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split('-').next() == Some(&pid.to_string())
    };
    entries.map(|entry| entry.path()).filter(its_own).collect()
}
