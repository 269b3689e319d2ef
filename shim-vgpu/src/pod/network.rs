//! The pod's network on its way to the guest: what its namespace has before the domain is built, or, where the spec asks for a new one, at Start.
//!
//! A new namespace is of the first container's holder, and empty at first. Hooks at Create, and `ctr run --cni` after it, find it by the
//! task's pid and put interfaces there; the guest's devices are made when its program is about to run, which is when runc's would see them.
//! One that is still empty then costs nothing.

use std::{path::Path, sync::Arc};

use vgpu_codes::Code;
use vgpu_netlink::Namespace;

use super::{Pod, Sandbox, vifs::Changes};
use crate::{
    container::Container,
    error::{Error, Result, blocking},
    forward,
    guest::Guest,
    network::PodNetwork,
};

impl Pod {
    /// Gives the guest what is in the namespace by now, if that is the container's own and nothing was given before.
    ///
    /// # Errors
    /// `WrongState` if the container ends meanwhile, `SpecRefused` for what cannot be a guest's, `NetworkFailed`, or the guest's.
    pub(super) async fn take_network(self: &Arc<Self>, container: &Container) -> Result<()> {
        let Some(path) = container.own_network() else { return Ok(()) };
        let mut slot = tokio::select! {
            slot = self.sandbox.lock() => slot,
            ended = container.ended_early() => return Err(ended),
        };
        let Some(sandbox) = slot.as_mut() else { return Ok(()) };
        let Some(namespace) = sandbox.find_network(&path).await? else { return Ok(()) };
        let Some(network) = sandbox.network.clone() else { return Ok(()) };
        let guest = self.guest()?;
        if let Some(changes) = sandbox.make_vifs().await? {
            // Also where the Start fails: they are there until the pod ends.
            sandbox.watch(self.clone().watch_vifs(changes));
        }
        tokio::select! {
            made = guest.set_network(network.network()) => made?,
            ended = container.ended_early() => return Err(ended),
        }
        self.follow_network(sandbox, &guest, Some(&namespace), None).await;
        Ok(())
    }

    /// Carries connections from the namespace to the guest, and watches what that does to its devices.
    pub(super) async fn follow_network(
        self: &Arc<Self>,
        sandbox: &mut Sandbox,
        guest: &Arc<Guest>,
        namespace: Option<&Namespace>,
        changes: Option<Changes>,
    ) {
        if let Some(changes) = changes {
            sandbox.watch(self.clone().watch_vifs(changes));
        }
        if let Some(namespace) = namespace {
            let doors = forward::doors(guest, namespace).await;
            sandbox.watch(forward::serve(guest.clone(), doors));
        }
    }
}

impl Sandbox {
    /// Reads what the namespace has, which others find at `path`, and notes it before anything is made of it. None if that was done before.
    pub(super) async fn find_network(&mut self, path: &Path) -> Result<Option<Namespace>> {
        let Some(namespace) = self.namespace.take() else { return Ok(None) };
        let (path, sysctls) = (path.to_owned(), self.sysctls.clone());
        let (namespace, network) = blocking(move || {
            let network = PodNetwork::scan(&path, &namespace, &sysctls)?;
            Ok((namespace, network))
        })
        .await?;
        self.record.network = network.as_ref().map(|network| network.record().clone());
        self.save().await?;
        self.network = network.map(Arc::new);
        Ok(Some(namespace))
    }

    /// The guest's devices, if it is to have any, and what it does to them from then on.
    pub(super) async fn make_vifs(&self) -> Result<Option<Changes>> {
        let Some(network) = self.network.clone() else { return Ok(None) };
        let gone = || Error::new(Code::GuestGone, "the pod's domain is gone");
        let (link, domid, uuid) =
            (self.platform.link.clone(), self.record.domid.ok_or_else(gone)?, self.record.domain_uuid);
        blocking(move || {
            // A guest that runs may begin at once.
            let changes = Changes::from_now(&*link, domid, network.network().interfaces.len());
            network.join(&*link, domid, uuid)?;
            Ok(Some(changes))
        })
        .await
    }

    /// Has it done until the sandbox ends.
    pub(super) fn watch(&mut self, watching: impl Future<Output = ()> + Send + 'static) {
        self.watchers.push(tokio::spawn(watching).abort_handle());
    }
}
