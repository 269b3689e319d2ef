//! containerd's Sandbox API: from a request to the pod and back. Nothing is decided here, as in `service`.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use containerd_shim_protos::{sandbox_api as api, sandbox_async::Sandbox, types::platform::Platform};
use protobuf::MessageField;
use ttrpc::r#async::TtrpcContext;
use vgpu_codes::Code;

use crate::{
    container::timestamp,
    error::Error,
    pod::Pod,
    service::{LettingGo, owned},
};

/// CRI's words for what a sandbox is. Source: Kubernetes, `cri-api`, `PodSandboxState`.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// The Sandbox service of one shim.
#[derive(Debug, Clone)]
pub struct SandboxService {
    pod: Arc<Pod>,
    config: Option<PathBuf>,
    letting_go: LettingGo,
}

impl SandboxService {
    /// The service of `pod`, whose runtime handler names this configuration.
    pub fn new(pod: Arc<Pod>, config: Option<PathBuf>, letting_go: LettingGo) -> SandboxService {
        SandboxService { pod, config, letting_go }
    }
}

#[async_trait]
impl Sandbox for SandboxService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::CreateSandboxRequest,
    ) -> ttrpc::Result<api::CreateSandboxResponse> {
        log::info!("create sandbox {}", request.sandbox_id);
        owned(self.pod.clone().create_sandbox(request, self.config.clone())).await?;
        Ok(api::CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::StartSandboxRequest,
    ) -> ttrpc::Result<api::StartSandboxResponse> {
        let started = owned(self.pod.clone().start_sandbox(request.sandbox_id)).await?;
        Ok(api::StartSandboxResponse {
            pid: started.pid,
            created_at: timestamp(started.created_at),
            ..api::StartSandboxResponse::default()
        })
    }

    /// For the specs of its containers: what a Go program calls the guest's kernel and processor.
    async fn platform(
        &self,
        _: &TtrpcContext,
        request: api::PlatformRequest,
    ) -> ttrpc::Result<api::PlatformResponse> {
        self.pod.sandbox_status(&request.sandbox_id)?;
        let platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
        Ok(api::PlatformResponse { platform: MessageField::some(platform), ..Default::default() })
    }

    /// Its containers have ended, or end with it: at once, where no time for it is named.
    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::StopSandboxRequest,
    ) -> ttrpc::Result<api::StopSandboxResponse> {
        log::info!("stop sandbox {}", request.sandbox_id);
        let grace = Duration::from_secs(request.timeout_secs.into());
        owned(self.pod.clone().stop_sandbox(request.sandbox_id, grace)).await?;
        Ok(api::StopSandboxResponse::default())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::WaitSandboxRequest,
    ) -> ttrpc::Result<api::WaitSandboxResponse> {
        let exit = self.pod.wait_sandbox(&request.sandbox_id).await?;
        Ok(api::WaitSandboxResponse {
            exit_status: exit.status,
            exited_at: timestamp(exit.at),
            ..api::WaitSandboxResponse::default()
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: api::SandboxStatusRequest,
    ) -> ttrpc::Result<api::SandboxStatusResponse> {
        let status = self.pod.sandbox_status(&request.sandbox_id)?;
        Ok(api::SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: status.pid,
            state: if status.ready { READY } else { NOT_READY }.into(),
            created_at: timestamp(status.created_at),
            exited_at: status.exit.map_or_else(MessageField::none, |exit| timestamp(exit.at)),
            ..api::SandboxStatusResponse::default()
        })
    }

    /// A probe: it must not need the guest.
    async fn ping_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::PingRequest,
    ) -> ttrpc::Result<api::PingResponse> {
        let status = self.pod.sandbox_status(&request.sandbox_id)?;
        match status.exit {
            None => Ok(api::PingResponse::default()),
            Some(_) => Err(Error::new(Code::GuestGone, "the sandbox has ended").into()),
        }
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::ShutdownSandboxRequest,
    ) -> ttrpc::Result<api::ShutdownSandboxResponse> {
        log::info!("shut down sandbox {}", request.sandbox_id);
        owned(self.pod.clone().shutdown_sandbox(request.sandbox_id)).await?;
        self.letting_go.now();
        Ok(api::ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: api::SandboxMetricsRequest,
    ) -> ttrpc::Result<api::SandboxMetricsResponse> {
        let data = owned(self.pod.clone().sandbox_stats(request.sandbox_id.clone())).await?;
        let mut answer = api::SandboxMetricsResponse::default();
        let metric = answer.metrics.mut_or_insert_default();
        (metric.timestamp, metric.id, metric.data) =
            (timestamp(SystemTime::now()), request.sandbox_id, MessageField::some(data));
        Ok(answer)
    }
}
