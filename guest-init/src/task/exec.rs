//! A further process of a running container: registered by Exec, launched by Start.

use std::sync::{Arc, Mutex, PoisonError};

use libcontainer::oci_spec::runtime::Process as ProcessSpec;

use super::{
    container::Container,
    host::Host,
    launch::{Whose, launch},
    phase::Operation,
    process::Process,
};
use crate::{
    error::{During, GuestError, Result},
    oci::{Request, process},
    stdio::StdioNames,
};

/// The exit status of a process that never ran because its program cannot be executed (POSIX shells).
const NOT_FOUND: u32 = 127;

/// See the module.
#[derive(Debug)]
pub struct Exec {
    /// Its state.
    pub process: Arc<Process>,
    /// Taken by the one Start.
    spec: Mutex<Option<ProcessSpec>>,
    id: String,
}

impl Exec {
    /// Parses what containerd sends: the JSON of the OCI spec's `process`.
    /// # Errors
    /// It is none.
    pub fn parse(id: &str, json: &[u8], stdio: StdioNames) -> Result<Self> {
        let spec = serde_json::from_slice(json).and_then(|mut spec| {
            process::forget_unknown(&mut spec);
            serde_json::from_value::<ProcessSpec>(spec)
        });
        let mut spec = spec.map_err(|error| GuestError::Invalid { field: "spec", why: error.to_string() })?;
        process::check(&spec)?;
        process::adapt(&mut spec);
        spec.set_terminal(Some(stdio.terminal));
        let process = Process::new(format!("exec {id}"), stdio);
        Ok(Self { process, spec: Mutex::new(Some(spec)), id: id.to_owned() })
    }

    /// Whether its Start has come: from then on it ends, one way or another.
    pub fn begun(&self) -> bool {
        self.spec.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Runs it. A failure ends whoever waits for it.
    /// # Errors
    /// The container does not run, or its command cannot be executed.
    pub async fn start(self: Arc<Self>, host: &Host, container: &Container) -> Result<()> {
        self.process.phase().allow(Operation::Start)?;
        let container_phase = container.init.phase();
        if container_phase != super::phase::Phase::Running {
            return Err(container_phase.refuse("exec in"));
        }
        let spec = self.spec.lock().unwrap_or_else(PoisonError::into_inner).take();
        let spec = spec.ok_or(GuestError::WrongState { operation: "start", state: "being started" })?;
        // Asked only now: either this sees the container's end, or the end sees that this has begun.
        let result = if container.is_ending() {
            Err(GuestError::WrongState { operation: "exec in", state: "stopped" })
        } else {
            self.launch(host, container, &spec).await
        };
        if result.is_err() {
            self.process.start_failed(NOT_FOUND);
        }
        result
    }

    async fn launch(&self, host: &Host, container: &Container, spec: &ProcessSpec) -> Result<()> {
        let file = container.directory.join(format!("exec-{}.json", self.id));
        let json = serde_json::to_vec(spec)
            .map_err(|error| GuestError::Invalid { field: "spec", why: error.to_string() })?;
        std::fs::write(&file, json).during(|| format!("write {}", file.display()))?;
        let request = |console| Request::Exec {
            id: container.id.clone(),
            state: host.layout.oci_state(),
            process: file.clone(),
            console,
            seccomp: container.seccomp(),
        };
        // "exec-": the container's own names are apart from those that a client chooses.
        let name = format!("exec-{}", self.id);
        let whose = Whose { directory: &container.directory, name: &name, owner: container.owner_of(spec) };
        let launched = launch(host, &whose, self.process.stdio(), request).await;
        let _ = std::fs::remove_file(&file);
        let exited = self.process.launched(launched?);
        self.process.running();
        if container.is_ending() {
            // It may have entered the cgroup after that was killed.
            container.kill_all();
        }
        let process = Arc::clone(&self.process);
        let oom = Arc::clone(&container.oom);
        tokio::spawn(async move {
            if let Ok(exit) = exited.await {
                oom.check();
                process.stopped(exit);
            }
        });
        Ok(())
    }
}
