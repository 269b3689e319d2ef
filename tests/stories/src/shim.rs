//! The shim as containerd calls it, without containerd: so that a story can stop it anywhere, kill it, and run `delete` itself.
//!
//! Everything is in [`DIR`]: a bundle, an image, a configuration, and a program `xl` which does what `xl` does, and waits where it is
//! told to ([`Held`]).

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::command::{SOON, must, run, until};
use crate::node::kill_9;
use crate::traces::{Process, processes};
use crate::wire;

/// Where these stories keep their things: a file system in memory.
pub const DIR: &str = "/tmp/story-shim";
const SHIM: &str = "/usr/bin/containerd-shim-vgpu-v1";
const NAMESPACE: &str = "stories";
/// A pipe opened for writing without a reader is an error instead of a wait. Source: Linux, `asm-generic/fcntl.h`.
const O_NONBLOCK: i32 = 0o4000;

/// `xl`, which waits at the place that the file `hold` names until somebody opens the pipe `gate`.
const XL: &str = r#"#!/bin/sh
PATH=${PATH#*:}
read -r at < /tmp/story-shim/hold
hold() { [ "$at" != "$1" ] || { : > /tmp/story-shim/held; read -r go < /tmp/story-shim/gate; }; }
hold "before $1"
[ "$at" = "after $1" ] || exec xl "$@"
xl "$@"
code=$?
hold "after $1"
exit $code
"#;

/// A server of the shim, started for one container.
#[derive(Debug)]
pub struct Shim {
    id: String,
    pid: u32,
    socket: PathBuf,
}

impl Shim {
    /// The verb `start` for a container with a GPU or without; gpu-proxy is asked at `proxy`.
    pub fn start(id: &str, gpu: bool, proxy: &str) -> Self {
        make_files(id, gpu, proxy);
        let started = call(id, &["start"]);
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        assert!(started.status.success() && said.is_empty(), "start: {said}");
        let address = String::from_utf8_lossy(&started.stdout).into_owned();
        let socket = PathBuf::from(address.strip_prefix("unix://").expect("an address"));
        Self { id: id.into(), pid: server_of(id).expect("start leaves a server"), socket }
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The folder of the pod's record.
    pub fn record(&self) -> String {
        let life = format!("{NAMESPACE}+{}+", self.id);
        let folders = fs::read_dir("/run/vgpu/sandboxes").into_iter().flatten().flatten();
        let folder = folders
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&life)));
        folder.and_then(|folder| fs::read_to_string(folder.join("state.json")).ok()).unwrap_or_default()
    }

    /// Asks for Create. The answer comes in a thread of its own: nothing when the server died first, an error's text otherwise.
    pub fn create(&self) -> JoinHandle<Option<Result<(), String>>> {
        let request =
            wire::create(&self.id, &bundle(&self.id), &format!("{DIR}/image"), &format!("{DIR}/config.toml"));
        let stream = UnixStream::connect(&self.socket).expect("the shim listens");
        thread::spawn(move || wire::ask(stream, &request))
    }

    /// kill -9 of the server.
    pub fn kill(&self) {
        kill_9(self.pid);
        let gone = until(SOON, || (!Path::new(&format!("/proc/{}/fd/0", self.pid)).exists()).then_some(()));
        gone.expect("kill -9 works");
    }

    /// The verb `delete`, in a new process as containerd runs it.
    pub fn delete(&self) -> Output {
        call(&self.id, &["-bundle", &bundle(&self.id), "delete"])
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // What a failed story left.
        if server_of(&self.id) == Some(self.pid) {
            kill_9(self.pid);
        }
        run(&["umount", "-l", &format!("{}/rootfs", bundle(&self.id))], SOON);
        let _ = fs::remove_dir_all(DIR);
    }
}

/// A place at which the `xl` of [`Shim`] waits: "before create", "after unpause".
#[derive(Debug)]
pub struct Held;

impl Held {
    /// To be called before Create.
    pub fn at(place: &str) -> Self {
        fs::write(format!("{DIR}/hold"), format!("{place}\n")).expect("/tmp is writable");
        Self
    }

    /// Waits until `xl` waits there.
    pub fn wait(&self) {
        let held = until(Duration::from_secs(60), || Path::new(DIR).join("held").exists().then_some(()));
        held.expect("Create calls xl");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nobody waits there any more: fine.
        let _ = fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(format!("{DIR}/gate"));
    }
}

/// The process that serves the container.
fn server_of(id: &str) -> Option<u32> {
    let words = [NAMESPACE, id, "serve"];
    let serves = |process: &Process| words.iter().all(|word| process.words.iter().any(|w| w == word));
    processes().into_iter().find(serves).map(|process| process.pid)
}

fn bundle(id: &str) -> String {
    format!("{DIR}/bundles/{id}")
}

fn make_files(id: &str, gpu: bool, proxy: &str) {
    let _ = fs::remove_dir_all(DIR);
    for dir in [
        "bin",
        "image/bin",
        "image/proc",
        "image/dev",
        "image/usr/lib",
        "image/run",
        &format!("bundles/{id}/rootfs"),
    ] {
        fs::create_dir_all(format!("{DIR}/{dir}")).expect("/tmp is writable");
    }
    let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(program.expect("Dom0 has busybox-static"), format!("{DIR}/image/bin/sleep"))
        .expect("/tmp has room");
    fs::write(format!("{DIR}/bin/xl"), XL).expect("/tmp is writable");
    fs::set_permissions(format!("{DIR}/bin/xl"), fs::Permissions::from_mode(0o755)).expect("our own file");
    fs::write(format!("{DIR}/hold"), "nowhere\n").expect("/tmp is writable");
    must(&["busybox", "mkfifo", &format!("{DIR}/gate")]);
    let config = fs::read_to_string("/etc/vgpu/config.toml").expect("it is installed");
    let lines = config.lines().map(|line| {
        if line.starts_with("socket =") { format!("socket = \"{proxy}\"\n") } else { format!("{line}\n") }
    });
    fs::write(format!("{DIR}/config.toml"), lines.collect::<String>()).expect("/tmp is writable");
    let annotations = if gpu { r#"{"vgpu.dev/gpu": "1"}"# } else { "{}" };
    let spec = format!(
        r#"{{"ociVersion": "1.1.0", "root": {{"path": "rootfs"}}, "annotations": {annotations},
            "process": {{"args": ["/bin/sleep", "1000"], "cwd": "/", "user": {{"uid": 0, "gid": 0}}, "env": ["PATH=/bin"]}},
            "mounts": [{{"destination": "/proc", "type": "proc", "source": "proc"}},
                       {{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}}],
            "linux": {{"namespaces": [{{"type": "pid"}}, {{"type": "ipc"}}, {{"type": "uts"}}, {{"type": "mount"}}, {{"type": "network"}}]}}}}"#
    );
    fs::write(format!("{}/config.json", bundle(id)), spec).expect("/tmp is writable");
}

fn call(id: &str, words: &[&str]) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    let socket = format!("{DIR}/containerd.sock");
    let mut command = Command::new(SHIM);
    command.args(["-namespace", NAMESPACE, "-address", &socket, "-publish-binary", "/bin/true", "-id", id]);
    command.args(words).current_dir(bundle(id)).env("PATH", format!("{DIR}/bin:{path}")).stdin(Stdio::null());
    command.output().expect("the shim is installed")
}
