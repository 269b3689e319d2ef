//! The real [`Link`]: `idm`'s `xen` transport, over one connection to xenstored.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use idm::xen::{
    DomId,
    domain::{Identity, Uuid as XenUuid},
    xenstore::{Client, Store as _, Watch},
};
use tokio::sync::Notify;
use uuid::Uuid;
use vgpu_agent_api::agent::StreamOffer;
use vgpu_codes::Code;

use crate::{
    error::{Error, OrFail, Result, blocking},
    link::{AnyStream, Link},
};

/// How long the watching thread sleeps at most before it looks whether it is still wanted.
const WATCH_TURN: Duration = Duration::from_secs(5);

/// Connects lazily: a shim that is asked for nothing of Xen touches nothing of Xen.
#[derive(Debug, Default)]
pub struct XenLink {
    xenstore: Mutex<Option<Client>>,
    ended: OnceLock<Arc<Notify>>,
}

impl XenLink {
    /// The connection to xenstored, made at its first use.
    ///
    /// # Errors
    /// [`Code::NoXen`].
    pub fn xenstore(&self) -> Result<Client> {
        let mut held = self.xenstore.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = held.as_ref() {
            return Ok(client.clone());
        }
        let client = Client::connect().or_fail(Code::NoXen, || "cannot connect to xenstored".into())?;
        Ok(held.insert(client).clone())
    }

    /// Removes nodes that carry a domain's id, unless the id is another domain's by now.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn remove_if_ours(&self, domid: u16, uuid: Uuid, paths: &[String]) -> Result<()> {
        let what = || format!("cannot remove what xenstore holds of domain {domid}");
        let xenstore = match self.xenstore() {
            Ok(xenstore) => xenstore,
            // Without Xen there are no nodes.
            Err(error) if error.code() == Some(Code::NoXen) => return Ok(()),
            Err(error) => return Err(error),
        };
        let owner =
            xenstore.read_if_there(&format!("/local/domain/{domid}/vm")).or_fail(Code::HostFailure, what)?;
        if owner.is_some_and(|owner| owner != format!("/vm/{uuid}").as_bytes()) {
            return Ok(());
        }
        paths.iter().try_for_each(|path| xenstore.remove(path)).or_fail(Code::HostFailure, what)
    }
}

#[async_trait]
impl Link for XenLink {
    fn make_devices(&self, domid: u16, driver_domain: u16) -> Result<()> {
        let _ = (domid, driver_domain);
        Err(Error::new(Code::HostFailure, "wip"))
    }
    fn remove_devices(&self, domid: u16, uuid: Uuid, driver_domain: u16) -> Result<()> {
        let _ = driver_domain;
        self.remove_if_ours(domid, uuid, &[])
    }
    async fn agent(&self, _domid: u16) -> Result<AnyStream> {
        Err(Error::new(Code::HostFailure, "wip"))
    }
    async fn accept(&self, _domid: u16, _offer: &StreamOffer) -> Result<AnyStream> {
        Err(Error::new(Code::HostFailure, "wip"))
    }
    async fn domain_ended(&self) {
        let notify = self.ended.get_or_init(|| Arc::new(Notify::new())).clone();
        notify.notified().await;
    }
}
