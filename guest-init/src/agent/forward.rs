//! Connections that were dialled at the pod's loopback on the node, to ports of the guest's.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{net::TcpStream, task::AbortHandle, time::timeout};
use vgpu_agent_api::{
    agent::{ForwardRequest, StreamOffer},
    stream::StreamName,
};
use vgpu_forward::carry;

use super::streams::{StdioStreams, key};
use crate::error::{During, GuestError, Result};

/// For who listens to have room for one more: the kernel asks again after 1, 3 and 7 s.
const LIMIT: Duration = Duration::from_secs(10);
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// See the module.
pub struct Forwards {
    streams: Arc<StdioStreams>,
    carried: Arc<Mutex<Carried>>,
}

/// What moves the bytes of each, by its stream.
type Carried = HashMap<NonZeroU32, AbortHandle>;

impl std::fmt::Debug for Forwards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forwards").finish_non_exhaustive()
    }
}

impl Forwards {
    /// Their streams are made as those of stdio are.
    pub fn new(streams: Arc<StdioStreams>) -> Self {
        Self { streams, carried: Arc::default() }
    }

    /// Connects, and then makes the stream. Inside the runtime.
    /// # Errors
    /// The id or the port is none, or taken; nobody accepts the connection; no stream is to be had.
    pub async fn open(&self, request: &ForwardRequest) -> Result<StreamOffer> {
        let id = key(request.id)?;
        let port = u16::try_from(request.port)
            .map_err(|_| GuestError::Invalid { field: "port", why: format!("{} is none", request.port) })?;
        let ips = if request.ipv6 { &[V6][..] } else { &[V4, V6] };
        let connection = connect(ips, port).await.during(|| format!("connect to port {port}"))?;
        let mut carried = lock(&self.carried);
        if carried.contains_key(&id) {
            return Err(GuestError::Taken(StreamName(id).to_string()));
        }
        let (stream, offer) = self.streams.make(id)?;
        let all = Arc::clone(&self.carried);
        let carrying = tokio::spawn(async move {
            carry(connection, stream).await;
            lock(&all).remove(&id);
        });
        carried.insert(id, carrying.abort_handle());
        Ok(offer)
    }

    /// Ends one that the shim has let go of. None is no error.
    pub fn close(&self, id: u32) {
        let carried = NonZeroU32::new(id).and_then(|id| lock(&self.carried).remove(&id));
        if let Some(carried) = carried {
            carried.abort();
        }
    }
}

fn lock(carried: &Mutex<Carried>) -> MutexGuard<'_, Carried> {
    carried.lock().unwrap_or_else(PoisonError::into_inner)
}

/// With the first address that does not refuse.
async fn connect(ips: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<_> = ips.iter().map(|ip| (*ip, port).into()).collect();
    timeout(LIMIT, TcpStream::connect(&addresses[..])).await.unwrap_or_else(|late| Err(late.into()))
}
