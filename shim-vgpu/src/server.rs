//! The server process: one Task implementation under both names, and the Sandbox API, on the socket that `start` bound.

use std::{
    os::{fd::AsFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use containerd_shim_protos::{
    sandbox_async::create_sandbox,
    shim_async::{Task, create_task},
};
use tokio::sync::watch;
use ttrpc::r#async::{Server, transport::Listener};
use vgpu_codes::Code;

use crate::{
    args::Args,
    error::{Error, OrFail, Result},
    events::Outbox,
    platform::PlatformSource,
    pod::{Pod, steps::Cut},
    sandbox_service::SandboxService,
    service::{LettingGo, Service},
};

/// Shutdown has 3 s in all.
const EVENTS_LIMIT: Duration = Duration::from_secs(2);
/// For the answer to Shutdown to leave.
const LAST_ANSWER: Duration = Duration::from_millis(100);
/// containerd asks little of a shim; stdio is moved by whichever is free.
const WORKER_THREADS: usize = 2;

/// Serves until containerd lets go.
///
/// # Errors
/// If there is no socket on stdin.
pub fn run(args: &Args, bundle: &Path, source: Arc<dyn PlatformSource>) -> Result<()> {
    crate::log::init(bundle, &args.namespace, &args.id, args.debug);
    let listener = inherited()?;
    let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_path_buf));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .or_fail(Code::HostFailure, || "cannot start the runtime".into())?;
    let served = runtime.block_on(serve(args, listener, path.clone(), source));
    if let (Err(_), Some(path)) = (&served, &path) {
        let _ = std::fs::remove_file(path);
    }
    // A thread that waits for a dead peer must not keep the process.
    runtime.shutdown_background();
    served
}

/// Our stdin, which `start` made the bound socket.
fn inherited() -> Result<UnixListener> {
    let stdin = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .or_fail(Code::HostFailure, || "stdin is closed".into())?;
    let accepts = rustix::net::sockopt::socket_acceptconn(&stdin).unwrap_or(false);
    if !accepts {
        return Err(Error::new(
            Code::HostFailure,
            "this program is started by containerd, by its verb start",
        ));
    }
    Ok(UnixListener::from(stdin))
}

async fn serve(
    args: &Args,
    listener: UnixListener,
    socket: Option<PathBuf>,
    source: Arc<dyn PlatformSource>,
) -> Result<()> {
    let what = || "cannot serve the shim's socket".to_owned();
    let outbox = Outbox::new(&args.namespace, &std::env::var("TTRPC_ADDRESS").unwrap_or_default());
    let pod = Pod::new(source, &args.namespace, outbox.clone(), Cut::default());
    let exit = Arc::new(watch::Sender::new(false));
    let letting_go = LettingGo::new(socket, exit.clone());
    let config = Some(&args.config).filter(|path| !path.is_empty()).map(PathBuf::from);
    let sandbox = Arc::new(SandboxService::new(pod.clone(), config, letting_go.clone()));
    let task: Arc<dyn Task + Send + Sync> = Arc::new(Service::new(pod, letting_go));
    let listener = Listener::try_from(listener).or_fail(Code::HostFailure, what)?;
    let mut server = Server::new()
        .add_listener(listener)
        .register_service(create_task(task.clone()))
        .register_service(vgpu_agent_api::task_v2(task))
        .register_service(create_sandbox(sandbox));
    server.start().await.or_fail(Code::HostFailure, what)?;
    log::info!("serving, version {}", env!("CARGO_PKG_VERSION"));
    // The sender lives in `exit`.
    let _ = exit.subscribe().wait_for(|exit| *exit).await;
    outbox.drain(EVENTS_LIMIT).await;
    tokio::time::sleep(LAST_ANSWER).await;
    Ok(())
}
