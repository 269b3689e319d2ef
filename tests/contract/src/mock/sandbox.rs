//! A pod by the Sandbox API: the messages of containerd's shim controller, and containers as CRI asks for them in such a pod.

use containerd_shim_protos::sandbox_api::{
    CreateSandboxRequest, CreateSandboxResponse, SandboxStatusRequest, SandboxStatusResponse,
    ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse,
    StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
};
use protobuf::{Message, MessageField, well_known_types::any::Any};
use serde_json::json;

use super::{Containerd, Shim};
use crate::cri_api::PodSandboxConfig;

impl Shim {
    /// CreateSandbox, in its bundle.
    /// # Errors
    /// The shim's.
    pub async fn create_sandbox(
        &self,
        containerd: &Containerd,
        id: &str,
        config: &PodSandboxConfig,
    ) -> ttrpc::Result<()> {
        let options = Any {
            type_url: "runtime.v1.PodSandboxConfig".into(),
            value: config.write_to_bytes().expect("a message"),
            ..Any::default()
        };
        let request = CreateSandboxRequest {
            sandbox_id: id.into(),
            bundle_path: containerd.told(containerd.bundle_of(id)),
            options: MessageField::some(options),
            ..CreateSandboxRequest::default()
        };
        self.sandbox::<_, CreateSandboxResponse>("CreateSandbox", &request).await.map(drop)
    }

    /// StartSandbox. Gives its pid.
    /// # Errors
    /// The shim's.
    pub async fn start_sandbox(&self, id: &str) -> ttrpc::Result<u32> {
        let request = StartSandboxRequest { sandbox_id: id.into(), ..StartSandboxRequest::default() };
        self.sandbox::<_, StartSandboxResponse>("StartSandbox", &request).await.map(|started| started.pid)
    }

    /// StopSandbox.
    /// # Errors
    /// The shim's.
    pub async fn stop_sandbox(&self, id: &str) -> ttrpc::Result<()> {
        let request = StopSandboxRequest { sandbox_id: id.into(), ..StopSandboxRequest::default() };
        self.sandbox::<_, StopSandboxResponse>("StopSandbox", &request).await.map(drop)
    }

    /// Its exit status, by WaitSandbox.
    pub async fn wait_sandbox(&self, id: &str) -> u32 {
        let request = WaitSandboxRequest { sandbox_id: id.into(), ..WaitSandboxRequest::default() };
        let ended: WaitSandboxResponse = self.sandbox("WaitSandbox", &request).await.expect("WaitSandbox");
        ended.exit_status
    }

    /// Its state and its pid, by SandboxStatus.
    pub async fn sandbox_state(&self, id: &str) -> (String, u32) {
        let request = SandboxStatusRequest { sandbox_id: id.into(), ..SandboxStatusRequest::default() };
        let status: SandboxStatusResponse =
            self.sandbox("SandboxStatus", &request).await.expect("SandboxStatus");
        (status.state, status.pid)
    }

    /// ShutdownSandbox.
    pub async fn shut_down_sandbox(&self, id: &str) {
        let request = ShutdownSandboxRequest { sandbox_id: id.into(), ..ShutdownSandboxRequest::default() };
        let answer = self.sandbox::<_, ShutdownSandboxResponse>("ShutdownSandbox", &request).await;
        answer.expect("ShutdownSandbox");
    }
}

impl Containerd {
    /// A bundle of a sandbox that is no container: containerd writes no config.json.
    pub fn bundle_of_sandbox(&self, id: &str) {
        std::fs::create_dir_all(self.bundle_of(id).join("rootfs")).expect("a directory");
    }

    /// One of a container that has namespaces of these kinds by the pid of its sandbox, and a /dev/shm, as CRI's have.
    pub fn bundle_in_sandbox(&self, id: &str, script: &str, sandbox: &str, pid: u32, kinds: &[&str]) {
        self.bundle(id, script, |spec| {
            spec["annotations"] = json!({
                "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": sandbox,
            });
            spec.as_object_mut().expect("an object").remove("hostname");
            let shm = json!({
                "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            });
            spec["mounts"].as_array_mut().expect("mounts").push(shm);
            for namespace in spec["linux"]["namespaces"].as_array_mut().expect("namespaces") {
                let kind = namespace["type"].as_str().expect("a type").to_owned();
                if kinds.contains(&kind.as_str()) {
                    let file = if kind == "network" { "net" } else { &kind };
                    namespace["path"] = format!("/proc/{pid}/ns/{file}").into();
                }
            }
        });
    }
}
