//! containerd's Task API in terms of [`Pod`]: one method per call, no behaviour of its own.

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
        ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
        StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    shim::oci::ProcessDetails,
    shim_async::Task,
};
use libcontainer::oci_spec::runtime::LinuxResources;
use protobuf::{
    Message, MessageField,
    well_known_types::{any::Any, timestamp::Timestamp},
};
use ttrpc::r#async::TtrpcContext;
use vgpu_agent_api::wire::ANSWER_BYTES_MAX;

use super::{container::Container, exec::Exec, phase::Phase, pod::Pod};
use crate::{
    error::{During, GuestError, Result},
    reaper::Exit,
    stdio::StdioNames,
    sys::SIGKILL,
};

/// What a container that was never started reports when it is deleted.
const KILLED: u32 = 128 + SIGKILL;
/// The only types that containerd's CRI takes for statistics and a pid's details.
const METRICS_TYPE: &str = "io.containerd.cgroups.v2.Metrics";
const DETAILS_TYPE: &str = "containerd.runc.v1.ProcessDetails";

/// Of an answer to Pids: room is left for what ttrpc adds.
const PIDS_BYTES_MAX: u64 = ANSWER_BYTES_MAX as u64 - 1024;

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TaskService {
    pod: Arc<Pod>,
}

impl TaskService {
    /// Serves the containers of `pod`.
    pub fn new(pod: Arc<Pod>) -> Self {
        Self { pod }
    }
}

/// Runs a change to its end, whatever becomes of the request: ttrpc drops its handler at the deadline.
async fn owned<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> ttrpc::Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(GuestError::Oci { operation: "serve the request", text: "it panicked".into() }.into()),
    }
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, req: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        let pod = Arc::clone(&self.pod);
        let stdio =
            StdioNames { stdin: req.stdin, stdout: req.stdout, stderr: req.stderr, terminal: req.terminal };
        let container = owned(async move { pod.create(&req.id, req.bundle, stdio).await }).await?;
        Ok(CreateTaskResponse { pid: container.init.pid(), ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, req: StartRequest) -> ttrpc::Result<StartResponse> {
        let container = self.pod.get(&req.id)?;
        let process = container.process(&req.exec_id)?;
        let host = Arc::clone(self.pod.host());
        owned(async move {
            if req.exec_id.is_empty() {
                return container.start(&host).await;
            }
            container.exec(&req.exec_id)?.start(&host, &container).await
        })
        .await?;
        Ok(StartResponse { pid: process.pid(), ..Default::default() })
    }

    async fn state(&self, _: &TtrpcContext, req: StateRequest) -> ttrpc::Result<StateResponse> {
        let container = self.pod.get(&req.id)?;
        Ok(state(&container, &req.exec_id)?)
    }

    async fn delete(&self, _: &TtrpcContext, req: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let pod = Arc::clone(&self.pod);
        let (pid, exit) = owned(async move {
            if req.exec_id.is_empty() && pod.take_back(&req.id).await? {
                return Ok((0, None));
            }
            let container = pod.get(&req.id)?;
            if !req.exec_id.is_empty() {
                let process = container.delete_exec(&req.exec_id).await?;
                return Ok((process.pid(), process.phase().exit()));
            }
            let exit = container.delete(pod.host()).await?;
            pod.forget(&container);
            Ok((container.init.pid(), Some(exit)))
        })
        .await?;
        let exit = exit.unwrap_or(Exit { status: KILLED, at: SystemTime::now() });
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..Default::default()
        })
    }

    async fn exec(&self, _: &TtrpcContext, req: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.pod.get(&req.id)?;
        if vgpu_zone_api::guest::ContainerId::new(&req.exec_id).is_none() {
            let why = format!("{:?} is no exec id", req.exec_id);
            return Err(GuestError::Invalid { field: "exec_id", why }.into());
        }
        let json = req.spec.into_option().unwrap_or_default().value;
        let stdio =
            StdioNames { stdin: req.stdin, stdout: req.stdout, stderr: req.stderr, terminal: req.terminal };
        container.add_exec(&req.exec_id, Exec::parse(&req.exec_id, &json, stdio)?)?;
        Ok(Empty::new())
    }

    async fn kill(&self, _: &TtrpcContext, req: KillRequest) -> ttrpc::Result<Empty> {
        let container = self.pod.get(&req.id)?;
        let process = container.process(&req.exec_id)?;
        if req.all && req.exec_id.is_empty() {
            kill_all(&container, req.signal)?;
        } else {
            process.kill(req.signal)?;
        }
        Ok(Empty::new())
    }

    async fn pids(&self, _: &TtrpcContext, req: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let container = self.pod.get(&req.id)?;
        let pids = container.cgroup.pids().during(|| format!("list the processes of {}", req.id))?;
        let processes = first_of(pids.into_iter().map(|pid| process_info(&container, pid)), PIDS_BYTES_MAX);
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, req: PauseRequest) -> ttrpc::Result<Empty> {
        let container = self.pod.get(&req.id)?;
        // In this step and no later: State is asked behind us.
        container.begin_freeze(true)?;
        owned(async move { container.finish_freeze(true).await }).await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, req: ResumeRequest) -> ttrpc::Result<Empty> {
        let container = self.pod.get(&req.id)?;
        container.begin_freeze(false)?;
        owned(async move { container.finish_freeze(false).await }).await?;
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(GuestError::NotSupported("a checkpoint").into())
    }

    async fn resize_pty(&self, _: &TtrpcContext, req: ResizePtyRequest) -> ttrpc::Result<Empty> {
        self.pod.get(&req.id)?.process(&req.exec_id)?.resize(req.width, req.height)?;
        Ok(Empty::new())
    }

    /// The end of stdin travels in its stream, behind the last byte: an order beside it could overtake data. So the shim ends the
    /// stream, and this only says whether there is such a process.
    async fn close_io(&self, _: &TtrpcContext, req: CloseIORequest) -> ttrpc::Result<Empty> {
        self.pod.get(&req.id)?.process(&req.exec_id)?;
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, req: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = self.pod.get(&req.id)?;
        let json = req.resources.into_option().unwrap_or_default().value;
        let resources: LinuxResources = serde_json::from_slice(&json)
            .map_err(|error| GuestError::Invalid { field: "resources", why: error.to_string() })?;
        owned(async move { container.update(resources).await }).await?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, req: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let process = self.pod.get(&req.id)?.process(&req.exec_id)?;
        let exit = process.wait().await;
        Ok(WaitResponse { exit_status: exit.status, exited_at: timestamp(exit.at), ..Default::default() })
    }

    async fn stats(&self, _: &TtrpcContext, req: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = self.pod.get(&req.id)?;
        // A container that has ended has no figures: containerd expects NotFound.
        let metrics =
            container.cgroup.metrics().map_err(|_| GuestError::NotFound(format!("cgroup of {}", req.id)))?;
        Ok(StatsResponse { stats: any(METRICS_TYPE, &metrics), ..Default::default() })
    }

    async fn connect(&self, _: &TtrpcContext, req: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let task_pid = self.pod.get(&req.id).map(|container| container.init.pid()).unwrap_or(0);
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..Default::default() })
    }

    /// The pod's end is the shim's decision: `Agent.PowerOff`.
    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        Ok(Empty::new())
    }
}

fn state(container: &Container, exec_id: &str) -> Result<StateResponse> {
    let process = container.process(exec_id)?;
    let mut phase = process.phase();
    let init = container.init.phase();
    if phase == Phase::Running && matches!(init, Phase::Pausing | Phase::Paused) {
        // The freezer stops the whole container.
        phase = init;
    }
    let stdio = process.stdio().clone();
    let exit = phase.exit();
    Ok(StateResponse {
        id: container.id.clone(),
        exec_id: exec_id.to_owned(),
        bundle: container.bundle.clone(),
        pid: process.pid(),
        status: status(phase).into(),
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
        terminal: stdio.terminal,
        exit_status: exit.map_or(0, |exit| exit.status),
        exited_at: exit.map_or_else(MessageField::none, |exit| timestamp(exit.at)),
        ..Default::default()
    })
}

fn status(phase: Phase) -> Status {
    match phase {
        Phase::Created => Status::CREATED,
        Phase::Running => Status::RUNNING,
        Phase::Pausing => Status::PAUSING,
        Phase::Paused => Status::PAUSED,
        Phase::Stopped(_) => Status::STOPPED,
    }
}

fn kill_all(container: &Container, signal: u32) -> Result<()> {
    if signal == SIGKILL {
        return container
            .cgroup
            .kill()
            .map_err(|_| GuestError::NotFound(format!("container {}", container.id)));
    }
    let pids =
        container.cgroup.pids().map_err(|_| GuestError::NotFound(format!("container {}", container.id)))?;
    for pid in pids {
        // One that ended since the list was read is what was asked for.
        let _ = crate::sys::kill(pid.cast_signed(), signal);
    }
    Ok(())
}

fn process_info(container: &Container, pid: u32) -> ProcessInfo {
    let details = container.exec_of_pid(pid).map(|exec_id| ProcessDetails { exec_id, ..Default::default() });
    ProcessInfo {
        pid,
        info: details.map_or_else(MessageField::none, |details| any(DETAILS_TYPE, &details)),
        ..Default::default()
    }
}

/// As many of them as fit.
fn first_of(processes: impl Iterator<Item = ProcessInfo>, mut room: u64) -> Vec<ProcessInfo> {
    /// What the list adds to each: a tag and a length.
    const AROUND: u64 = 6;
    let fits = |process: &ProcessInfo| {
        let left = room.checked_sub(process.compute_size() + AROUND);
        room = left.unwrap_or(0);
        left.is_some()
    };
    processes.take_while(fits).collect()
}

fn any(type_url: &str, message: &impl Message) -> MessageField<Any> {
    // Writing into memory fails only for a message that was built wrongly: then there is none.
    let value = message.write_to_bytes().unwrap_or_default();
    MessageField::some(Any { type_url: type_url.to_owned(), value, ..Default::default() })
}

fn timestamp(at: SystemTime) -> MessageField<Timestamp> {
    MessageField::some(at.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_pids_is_never_longer_than_the_shim_takes() {
        let exec = ProcessDetails { exec_id: "e".repeat(128), ..Default::default() };
        for info in [MessageField::none(), any(DETAILS_TYPE, &exec)] {
            let process = |pid| ProcessInfo { pid, info: info.clone(), ..Default::default() };
            let processes = first_of((1..=1 << 22).map(process), PIDS_BYTES_MAX);
            assert_eq!(processes[0].pid, 1);
            let answer = PidsResponse { processes, ..Default::default() };
            let bytes = answer.compute_size();
            assert!((PIDS_BYTES_MAX / 2..=PIDS_BYTES_MAX).contains(&bytes), "{bytes} bytes");
        }
    }
}
