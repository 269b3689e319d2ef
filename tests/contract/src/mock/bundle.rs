//! Bundles of busybox, what their programs write, and what Create and Exec of them are asked.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest};
use protobuf::{MessageField, well_known_types::any::Any};
use serde_json::{Value, json};

use super::{Containerd, runtime};

/// What a bundle's root has of busybox by name.
const TOOLS: [&str; 32] = [
    "cat", "chmod", "chown", "cp", "cut", "env", "grep", "head", "hostname", "id", "kill", "ln", "ls",
    "mkdir", "mount", "mv", "ps", "readlink", "rm", "sed", "seq", "sh", "sleep", "sort", "stat", "stty",
    "tail", "touch", "tr", "tty", "umount", "wc",
];

impl Containerd {
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
            "process": process(script),
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
        self.logs.lock().expect("nobody panics with it").remove(id);
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

    /// What Create is asked.
    pub fn asked(&self, id: &str) -> CreateTaskRequest {
        let (bundle, out) = (self.told(self.bundle_of(id)), self.out(id, ""));
        CreateTaskRequest { id: id.into(), bundle, stdout: out.clone(), stderr: out, ..Default::default() }
    }

    /// What Exec of a script is asked, with `change` made to its process. The process travels in an Any, as containerd's typeurl has it.
    pub fn asked_exec(
        &self,
        id: &str,
        exec: &str,
        script: &str,
        change: impl FnOnce(&mut Value),
    ) -> ExecProcessRequest {
        let mut process = process(script);
        change(&mut process);
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: process.to_string().into_bytes(),
            ..Any::default()
        };
        let out = self.out(id, exec);
        ExecProcessRequest {
            id: id.into(),
            exec_id: exec.into(),
            stdout: out.clone(),
            stderr: out,
            spec: MessageField::some(spec),
            ..Default::default()
        }
    }
}

/// Of a shell, as root.
fn process(script: &str) -> Value {
    json!({
        "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
        "noNewPrivileges": true
    })
}
