//! A living shim asked by another process of this program, as containerd would.

use std::{path::Path, time::Duration};

use containerd_shim_protos::{
    api::{DeleteRequest, KillRequest, ShutdownRequest},
    sandbox_api::ShutdownSandboxRequest,
    sandbox_async::SandboxClient,
    shim_async::TaskClient,
};
use tokio::{net::UnixStream, time};
use ttrpc::{Code as Rpc, Error as TtrpcError, asynchronous::Client, context};
use vgpu_codes::Code;

use crate::{
    error::{Error, OrFail, Result},
    guest::SIGKILL,
};

/// For all of it: a Kill may wait for a guest, a Delete for output.
const LIMIT: Duration = Duration::from_secs(30);
/// Until a Delete is tried again while the program is still dying.
const AGAIN: Duration = Duration::from_millis(100);

/// A connection to who serves `socket`. Not by ttrpc's own way, whose connect(2) waits, and a thread of the runtime with it: one that hangs takes nobody in,
/// and no time limit ends that.
///
/// # Errors
/// connect(2)'s, at once.
pub async fn connect(socket: &Path) -> ttrpc::Result<Client> {
    let stream = UnixStream::connect(socket).await;
    Ok(Client::new(stream.map_err(|error| TtrpcError::Socket(error.to_string()))?.into()))
}

/// Has the shim at `socket` kill its container `id` and delete it; a Create of it that is under way is taken back. Blocks.
///
/// # Errors
/// [`Code::HostFailure`] if it does not answer or does not do it in time.
pub fn remove(socket: &Path, id: &str) -> Result<()> {
    let what = || format!("the living shim at {} does not remove {id}", socket.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let removed = runtime.or_fail(Code::HostFailure, what)?.block_on(async {
        let asked = async {
            let client = connect(socket).await?;
            let task = TaskClient::new(client.clone());
            let kill = KillRequest { id: id.into(), signal: SIGKILL, all: true, ..KillRequest::default() };
            // Dead, or not made yet: the Delete tells.
            let _ = task.kill(context::with_duration(LIMIT), &kill).await;
            let delete = DeleteRequest { id: id.into(), ..DeleteRequest::default() };
            loop {
                match task.delete(context::with_duration(LIMIT), &delete).await {
                    Ok(_) => break,
                    Err(TtrpcError::RpcStatus(status)) if status.code() == Rpc::NOT_FOUND => break,
                    Err(TtrpcError::RpcStatus(status)) if status.code() == Rpc::FAILED_PRECONDITION => {
                        time::sleep(AGAIN).await;
                    }
                    Err(error) => return Err(error),
                }
            }
            // A pod of the Sandbox API is no container, and would keep the shim; of others it knows none.
            let sandbox =
                ShutdownSandboxRequest { sandbox_id: id.into(), ..ShutdownSandboxRequest::default() };
            let _ =
                SandboxClient::new(client).shutdown_sandbox(context::with_duration(LIMIT), &sandbox).await;
            // Nobody else tells it that it may go; with other containers it stays.
            task.shutdown(context::with_duration(LIMIT), &ShutdownRequest::default()).await.map(drop)
        };
        time::timeout(LIMIT, asked).await
    });
    match removed {
        Ok(removed) => removed.or_fail(Code::HostFailure, what),
        Err(_) => Err(Error::new(Code::HostFailure, format!("{} within {} s", what(), LIMIT.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::{UnixListener, UnixStream},
        sync::mpsc,
        thread,
    };

    use super::*;

    /// containerd's, too: the shim tells it of events.
    #[tokio::test]
    async fn who_takes_nobody_in_any_more_is_no_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        assert!(connect(&path).await.is_err());
    }

    #[test]
    fn a_shim_that_takes_nobody_in_any_more_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        // One waits and no more.
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let (tells, told) = mpsc::channel();
        thread::spawn(move || tells.send(remove(&path, "run")));
        let removed = told.recv_timeout(LIMIT * 2).expect("it waits");
        assert_eq!(removed.unwrap_err().code(), Some(Code::HostFailure));
    }
}
