//! A containerd as the shim's program sees it: bundles, the command line, the reply, the socket.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use containerd_shim_protos::api::{ConnectRequest, ConnectResponse, Empty, ShutdownRequest};
use protobuf::{Message, MessageField, well_known_types::any::Any};
use ttrpc::{asynchronous::Client, proto::Request};

/// In the environment of all that this containerd runs: its address.
pub const MARK: &str = "VGPU_TEST_CONTAINERD";
pub const TASK_V2: &str = "containerd.task.v2.Task";
pub const TASK_V3: &str = "containerd.task.v3.Task";

/// One containerd, with an address of its own, so that no two tests meet at a socket.
pub struct Containerd {
    pub dir: tempfile::TempDir,
}

pub struct Bundle {
    pub path: PathBuf,
    pub id: String,
    pub namespace: String,
}

/// A `start` that went well.
pub struct Started {
    pub stdout: Vec<u8>,
    address: String,
}

impl Containerd {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let below = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let config = format!(
            "version = 1\n[shim]\nshared_dir = {:?}\nstate_dir = {:?}\n",
            below("shared"),
            below("sandboxes")
        );
        fs::write(dir.path().join("config.toml"), config).unwrap();
        Containerd { dir }
    }

    pub fn address(&self) -> String {
        self.dir.path().join("containerd.sock").to_string_lossy().into_owned()
    }

    /// The runtime options that name this test's configuration.
    pub fn options(&self) -> MessageField<Any> {
        let path = self.dir.path().join("config.toml").to_string_lossy().into_owned();
        let mut value = vec![0x12, u8::try_from(path.len()).unwrap()];
        value.extend_from_slice(path.as_bytes());
        MessageField::some(Any { type_url: "runtimeoptions.v1.Options".into(), value, ..Any::default() })
    }

    pub fn bundle(&self, id: &str, annotations: serde_json::Value) -> Bundle {
        let path = self.dir.path().join(id);
        fs::create_dir_all(path.join("rootfs")).unwrap();
        let namespaces =
            ["pid", "ipc", "uts", "mount", "network"].map(|kind| serde_json::json!({"type": kind}));
        let spec = serde_json::json!({
            "ociVersion": "1.1.0", "process": {"args": ["/x"], "cwd": "/"}, "root": {"path": "rootfs"},
            "annotations": annotations, "linux": {"namespaces": namespaces}
        });
        fs::write(path.join("config.json"), spec.to_string()).unwrap();
        Bundle { path, id: id.into(), namespace: "default".into() }
    }

    /// Runs the program to its end.
    pub fn run(&self, bundle: &Bundle, args: &[&str], stdin: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_containerd-shim-vgpu-v1"))
            .args([
                "-namespace",
                &bundle.namespace,
                "-address",
                &self.address(),
                "-publish-binary",
                "/bin/true",
                "-id",
                &bundle.id,
            ])
            .args(args)
            .current_dir(&bundle.path)
            .env_remove("TTRPC_ADDRESS")
            .env(MARK, self.address())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        // The server must not hold these pipes: containerd reads them to their end.
        child.wait_with_output().unwrap()
    }

    /// `start`, which must succeed with nothing on stderr.
    pub fn start(&self, bundle: &Bundle, stdin: &[u8]) -> Started {
        let output = self.run(bundle, &["start"], stdin);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let address = String::from_utf8_lossy(&output.stdout).into_owned();
        Started { stdout: output.stdout, address }
    }
}

impl Started {
    /// The same with the address from a message.
    pub fn at(self, address: String) -> Started {
        Started { address, ..self }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn socket(&self) -> PathBuf {
        PathBuf::from(self.address.trim_start_matches("unix://"))
    }

    pub async fn call<Q: Message, A: Message>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
    ) -> ttrpc::Result<A> {
        let client = Client::connect(&self.address).await?;
        let payload = request.write_to_bytes().unwrap();
        let request =
            Request { service: service.into(), method: method.into(), payload, ..Request::default() };
        client.request(request).await.map(|reply| A::parse_from_bytes(&reply.payload).unwrap())
    }

    pub async fn shim_pid(&self) -> u32 {
        self.call::<_, ConnectResponse>(TASK_V2, "Connect", &ConnectRequest::default())
            .await
            .unwrap()
            .shim_pid
    }

    /// Lets the shim go and waits for its end.
    pub async fn shut_down(&self) {
        let pid = self.shim_pid().await;
        let _: Empty = self.call(TASK_V2, "Shutdown", &ShutdownRequest::default()).await.unwrap();
        self.gone(pid).await;
    }

    pub async fn kill(&self, pid: u32) {
        let pid = i32::try_from(pid).unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        self.gone(pid.unsigned_abs()).await;
    }

    /// Waits for its end.
    pub async fn gone(&self, pid: u32) {
        for _ in 0..300 {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the shim {pid} is still there");
    }
}
