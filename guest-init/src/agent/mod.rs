//! What the shim speaks to: ttrpc over the agent stream, with containerd's Task service and our own Agent service.
//!
//! [`serve`] puts both on one byte stream; [`service`] is the Agent service; [`streams`] keeps the stdio streams between OpenStream and
//! the Create or Exec that takes them; `forward` connects to the guest's ports. Not here: how the agent stream comes to be (`boot`, idm).

mod forward;
pub mod service;
pub mod streams;
pub mod xen;

use std::{io, sync::Arc};

use containerd_shim_protos::shim_async::create_task;
use tokio::io::{AsyncRead, AsyncWrite};
use ttrpc::r#async::{Server, transport::Listener};
use vgpu_agent_api::agent_ttrpc::create_agent;

use crate::task::{pod::Pod, service::TaskService};
pub use service::AgentService;

/// Serves the shim on `stream` until it ends. Keep the server: its end is the connection's.
/// # Errors
/// ttrpc's own.
pub async fn serve<S>(stream: S, pod: Arc<Pod>, agent: AgentService) -> ttrpc::Result<Server>
where
    S: AsyncRead + AsyncWrite + Send + Sync + 'static,
{
    let task = Arc::new(TaskService::new(pod));
    let one = futures_util::stream::iter([io::Result::Ok(stream)]);
    let mut server = Server::new()
        .add_listener(Listener::new(one))
        // Both names of the same messages: generated clients know only version 3's.
        .register_service(vgpu_agent_api::task_v2(Arc::clone(&task) as _))
        .register_service(create_task(task))
        .register_service(create_agent(Arc::new(agent)));
    server.start().await?;
    Ok(server)
}
