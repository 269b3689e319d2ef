//! The way to the guest by sockets: `agent` carries ttrpc, `streams` gives out the far ends of stdio ([`crate::handover`]).
//!
//! In the place of idm's rings, so without their hello.

use std::{fs, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use shim_vgpu::seams::{AnyStream, Error, Link, Result};
use tokio::{net::UnixStream, sync::watch};
use uuid::Uuid;
use vgpu_agent_api::agent::StreamOffer;
use vgpu_codes::Code;

use crate::{
    handover,
    node::{Node, failed, remove},
};

/// Until a guest that boots is looked for again.
const PAUSE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub struct LocalLink {
    pub node: Node,
    pub endings: Arc<watch::Sender<u64>>,
}

impl LocalLink {
    fn known(&self, domid: u16) -> Result<Option<Uuid>> {
        let known = self.node.known(domid).map_err(failed(format!("cannot read what domain {domid} is")))?;
        Ok(known.map(|domain| domain.uuid))
    }
}

#[async_trait]
impl Link for LocalLink {
    fn make_devices(&self, domid: u16, _: u16) -> Result<()> {
        let devices = self.node.devices(domid);
        // An earlier domain's of this id, which its shim has not got to yet.
        remove(&devices)?;
        fs::create_dir_all(&devices).map_err(failed(format!("cannot make {}", devices.display())))
    }

    fn remove_devices(&self, domid: u16, uuid: Uuid, _: u16) -> Result<()> {
        match self.known(domid)? {
            Some(other) if other != uuid => Ok(()),
            _ => remove(&self.node.devices(domid)),
        }
    }

    async fn agent(&self, domid: u16) -> Result<AnyStream> {
        loop {
            if let Ok(stream) = UnixStream::connect(self.node.agent(domid)).await {
                return Ok(Box::new(stream));
            }
            if self.known(domid)?.is_none() {
                return Err(Error::new(Code::GuestGone, format!("domain {domid} is gone")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn accept(&self, domid: u16, offer: &StreamOffer) -> Result<AnyStream> {
        let (socket, port) = (self.node.streams(domid), offer.port);
        let received = tokio::task::spawn_blocking(move || handover::receive(&socket, port)).await;
        let stream = received
            .map_err(io::Error::other)
            .flatten()
            .and_then(|stream| {
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream)
            })
            .map_err(|error| Error::caused(Code::GuestGone, format!("a stream of domain {domid}"), error))?;
        Ok(Box::new(stream))
    }

    fn endings(&self) -> watch::Receiver<u64> {
        self.endings.subscribe()
    }
}
