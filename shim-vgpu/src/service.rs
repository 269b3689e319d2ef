//! containerd's Task API: from a request to the pod and back. Nothing is decided here.
//!
//! Every method of the trait is here: its defaults answer NOT_FOUND, which containerd takes for success. What changes something runs in
//! a task of its own ([`owned`]).

use std::{future::Future, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use containerd_shim_protos::{api, shim_async::Task};
use tokio::sync::watch;
use ttrpc::r#async::TtrpcContext;
use vgpu_codes::Code;

use crate::{
    container::{life::Who, timestamp},
    error::{Error, Result, to_its_end},
    pod::Pod,
};

/// The Task service of one shim.
#[derive(Debug, Clone)]
pub struct Service {
    pod: Arc<Pod>,
    letting_go: LettingGo,
}

impl Service {
    /// The service of `pod`.
    pub fn new(pod: Arc<Pod>, letting_go: LettingGo) -> Service {
        Service { pod, letting_go }
    }
}

/// What happens when containerd lets the shim go.
#[derive(Debug, Clone)]
pub struct LettingGo {
    socket: Option<PathBuf>,
    exit: Arc<watch::Sender<bool>>,
}

impl LettingGo {
    /// Of a shim that listens at `socket`; `exit` becomes true.
    pub fn new(socket: Option<PathBuf>, exit: Arc<watch::Sender<bool>>) -> LettingGo {
        LettingGo { socket, exit }
    }

    /// Before the answer: a `start` of the same id would take us for its shim, and later the name may be the next one's.
    pub fn now(&self) {
        if let Some(socket) = &self.socket
            && !*self.exit.borrow()
        {
            let _ = std::fs::remove_file(socket);
        }
        self.exit.send_replace(true);
    }
}

/// Runs `work` to its end, whatever happens to the request: ttrpc drops handlers at deadlines and lost connections.
pub async fn owned<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> ttrpc::Result<T> {
    to_its_end(work).await.map_err(Into::into)
}

#[async_trait]
impl Task for Service {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        log::info!("create {}", request.id);
        owned(self.pod.clone().create(request)).await
    }

    async fn start(&self, _: &TtrpcContext, request: api::StartRequest) -> ttrpc::Result<api::StartResponse> {
        owned(self.pod.clone().start(request)).await
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: api::DeleteRequest,
    ) -> ttrpc::Result<api::DeleteResponse> {
        log::info!("delete {} {}", request.id, request.exec_id);
        owned(self.pod.clone().delete(request)).await
    }

    async fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> ttrpc::Result<api::Empty> {
        owned(self.pod.clone().exec(request)).await.map(|_| api::Empty::default())
    }

    async fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<api::Empty> {
        owned(self.pod.clone().kill(request)).await
    }

    async fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> ttrpc::Result<api::Empty> {
        owned(self.pod.clone().freeze(request.id, true)).await
    }

    async fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> ttrpc::Result<api::Empty> {
        owned(self.pod.clone().freeze(request.id, false)).await
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: api::ResizePtyRequest,
    ) -> ttrpc::Result<api::Empty> {
        owned(self.pod.clone().resize(request)).await
    }

    async fn update(&self, _: &TtrpcContext, request: api::UpdateTaskRequest) -> ttrpc::Result<api::Empty> {
        owned(self.pod.clone().update(request)).await
    }

    async fn stats(&self, _: &TtrpcContext, request: api::StatsRequest) -> ttrpc::Result<api::StatsResponse> {
        owned(self.pod.clone().stats(request)).await
    }

    async fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> ttrpc::Result<api::PidsResponse> {
        owned(self.pod.clone().pids(request)).await
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: api::CheckpointTaskRequest,
    ) -> ttrpc::Result<api::Empty> {
        self.pod.container(&request.id)?;
        Err(Error::new(Code::NotImplemented, "checkpoints of a domain are not supported").into())
    }

    async fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> ttrpc::Result<api::Empty> {
        let container = self.pod.container(&request.id)?;
        if request.stdin {
            container.pumps(&Who::of(&request.exec_id))?.close_stdin();
        }
        Ok(api::Empty::default())
    }

    async fn state(&self, _: &TtrpcContext, request: api::StateRequest) -> ttrpc::Result<api::StateResponse> {
        Ok(self.pod.container(&request.id)?.state(&Who::of(&request.exec_id))?)
    }

    async fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> ttrpc::Result<api::WaitResponse> {
        let exit = self.pod.container(&request.id)?.wait(&Who::of(&request.exec_id)).await?;
        Ok(api::WaitResponse {
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..api::WaitResponse::default()
        })
    }

    /// A probe: it must not need the guest.
    async fn connect(
        &self,
        _: &TtrpcContext,
        request: api::ConnectRequest,
    ) -> ttrpc::Result<api::ConnectResponse> {
        let task_pid = self.pod.container(&request.id).map_or(0, |container| container.task_pid());
        Ok(api::ConnectResponse { shim_pid: std::process::id(), task_pid, ..api::ConnectResponse::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> ttrpc::Result<api::Empty> {
        if self.pod.is_empty() {
            self.letting_go.now();
        }
        Ok(api::Empty::default())
    }
}
