//! Port-forward: what containerd dials at the loopback of the pod's network namespace on the node reaches the guest's loopback.
//!
//! containerd dials in the namespace, where with runc the pod's programs listen; ours listen in the guest. [`vgpu_forward::Loopback`] has the
//! kernel give us what nobody in the namespace listens for; the shim asks the guest to connect, and carries the bytes. The dialler is
//! accepted before the guest has answered, so where that refuses, the dialler's connection is reset.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};
use vgpu_agent_api::version;
use vgpu_codes::Code;
use vgpu_forward::{Loopback, carry, reset};
use vgpu_netlink::Namespace;

use crate::{
    error::{OrFail, Result, blocking},
    guest::Guest,
};

/// Connections of a pod at once: each costs the guest 33 pages, and us their mapping. One more is reset.
const CONNECTIONS_MAX: usize = 64;
/// For a process of the node's to have room for a connection, as the guest has.
const LIMIT: Duration = Duration::from_secs(15);
/// Until a connection is accepted again after one could not be.
const AGAIN: Duration = Duration::from_millis(100);

/// One address of the pod's loopback on the node.
#[derive(Debug)]
pub struct Door {
    loopback: Arc<Loopback>,
    listener: TcpListener,
}

/// Those of a pod's namespace. Where there can be none the log says so, once: the pod runs without.
pub async fn doors(guest: &Guest, namespace: &Namespace) -> Vec<Door> {
    catch(guest, namespace).await.unwrap_or_else(|error| {
        log::warn!("there is no port-forward to this pod: {}", error.report());
        Vec::new()
    })
}

/// Serves them to the guest's end.
pub async fn serve(guest: Arc<Guest>, doors: Vec<Door>) {
    tokio::select! {
        () = guest.death() => {}
        () = forward(&guest, &doors) => {}
    }
}

async fn catch(guest: &Guest, namespace: &Namespace) -> Result<Vec<Door>> {
    guest.require(version::FORWARD_SINCE, "port-forward")?;
    let what = || "cannot listen at the loopback of the pod's network namespace".to_owned();
    let namespace = namespace.try_clone().or_fail(Code::NetworkFailed, what)?;
    let loopbacks = blocking(move || Loopback::both(&namespace).or_fail(Code::NetworkFailed, what));
    let door = |loopback: Loopback| -> io::Result<Door> {
        let listener = TcpListener::from_std(loopback.listener().try_clone()?)?;
        Ok(Door { loopback: Arc::new(loopback), listener })
    };
    loopbacks.await?.into_iter().map(door).collect::<io::Result<_>>().or_fail(Code::NetworkFailed, what)
}

/// Accepts without an end. What it has accepted ends with it.
async fn forward(guest: &Arc<Guest>, doors: &[Door]) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = poll_fn(|cx| accept(doors, cx)).await;
        // Those that have ended meanwhile.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((_, connection)) if connections.len() >= CONNECTIONS_MAX => {
                log::debug!("port-forward: {CONNECTIONS_MAX} connections are all that a pod has");
                reset(connection);
            }
            Ok((loopback, connection)) => {
                connections.spawn(connect(Arc::clone(guest), loopback, connection));
            }
            Err(error) => {
                log::debug!("port-forward: cannot accept a connection: {error}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn accept(doors: &[Door], cx: &mut Context<'_>) -> Poll<io::Result<(Arc<Loopback>, TcpStream)>> {
    for door in doors {
        if let Poll::Ready(accepted) = door.listener.poll_accept(cx) {
            return Poll::Ready(accepted.map(|(connection, _)| (Arc::clone(&door.loopback), connection)));
        }
    }
    Poll::Pending
}

/// Connects one that was accepted with who it is for, and moves its bytes.
async fn connect(guest: Arc<Guest>, loopback: Arc<Loopback>, connection: TcpStream) {
    let Ok(at) = connection.local_addr() else { return };
    match tokio::time::timeout(LIMIT, of_the_namespace(&loopback, at)).await {
        Ok(Ok(own)) => return carry(connection, own).await,
        // Nobody of the node's.
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        late_or_failed => {
            log::debug!("port-forward to {}, where the node listens: {late_or_failed:?}", at.port());
            return reset(connection);
        }
    }
    match guest.forward(at.port(), at.is_ipv6()).await {
        Ok(stream) => carry(connection, stream).await,
        Err(error) => {
            log::debug!("port-forward to {}: {}", at.port(), error.report());
            reset(connection);
        }
    }
}

/// A connection to a process on the node that listens there, in the pod's namespace: it goes before the guest.
async fn of_the_namespace(loopback: &Arc<Loopback>, at: SocketAddr) -> io::Result<TcpStream> {
    if loopback.listener().local_addr()?.port() == at.port() {
        // That is ours, and would come back to us.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let loopback = Arc::clone(loopback);
    let (socket, _past) = tokio::task::spawn_blocking(move || loopback.past()).await??;
    if socket.local_addr()?.port() == at.port() {
        // It would be connected with itself.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    TcpSocket::from_std_stream(socket).connect(at).await
}
