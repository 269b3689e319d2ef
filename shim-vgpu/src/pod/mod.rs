//! A pod: its domain, and the containers in it.
//!
//! [`Pod`] holds what lives; [`plan`] reads what is asked for, [`create`] builds, by [`domain`] its domain, [`back`] takes away again, [`place`] has what a container is on the host, [`network`] the way of its network to the guest, [`sandbox`] a pod without a container of its own, [`tasks`] and [`freeze`] have the calls on containers that exist, [`size`] its memory and CPUs, [`clock`] keeps the guest's time, [`death`] notices its end,
//! [`proxy`] that of gpu-proxy, [`vifs`] a guest that keeps Dom0 busy, [`volumes`] what kubelet changes.
//! Calls that change something run in tasks of their own: ttrpc drops a handler at the request's deadline.
//! Six locks: `containers`, a map, and `living`, who answers calls, never held across a wait; `sandbox`, held while the host's side of
//! the pod is built or taken away, which may take long (a volume's file system, gpu-proxy): no call on a container that exists waits for it, but its Delete, and the Start of one that brought a network namespace of its own, which a kill of that gives up;
//! who waits for it for a Create or a StartSandbox gives up when that is not wanted any more, and hooks of the end run without it;
//! `dying`, held by who ends a guest until nothing of it runs any more, so that nobody tells of its end before; `destroying`, held by who is
//! at its domain: each try to stop it, its destruction, which nobody waits for but who takes away the rest, and that one;
//! that of the domain's `size`, held by who changes a container's limits, from the first look at what it has to the guest's answer, and by who has the domain
//! follow them: a Delete does not wait for it.

mod back;
mod clock;
mod create;
mod death;
mod domain;
mod freeze;
mod network;
mod place;
mod plan;
mod proxy;
mod sandbox;
mod size;
pub mod steps;
mod tasks;
#[cfg(test)]
mod tests;
mod vifs;
mod volumes;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, MutexGuard as AsyncMutexGuard, Notify, watch},
    task::AbortHandle,
};
use uuid::Uuid;
use vgpu_agent_api::sysctl::Sysctl;
use vgpu_codes::Code;
use vgpu_netlink::Namespace;

use crate::{
    container::Container,
    error::{Error, Result, blocking},
    events::Outbox,
    guest::Guest,
    network::PodNetwork,
    persist::{Record, Store},
    platform::{Platform, PlatformSource},
    share::{Process, ShareDir},
    spec::{self, memory::Memories},
};
use sandbox::OwnSandbox;
use steps::Cut;

/// The pod of this shim.
#[derive(Debug)]
pub struct Pod {
    platform: Arc<dyn PlatformSource>,
    namespace: String,
    outbox: Outbox,
    cut: Cut,
    containers: Mutex<HashMap<String, Slot>>,
    living: Mutex<Option<Living>>,
    sandbox: AsyncMutex<Option<Sandbox>>,
    dying: AsyncMutex<()>,
    destroying: Arc<AsyncMutex<()>>,
    /// The guest is to be told the time now.
    clock: Notify,
}

/// The guest, from its hello to its end, and who ends it.
#[derive(Debug, Clone)]
struct Living {
    guest: Arc<Guest>,
    platform: Platform,
    domain_uuid: Uuid,
    /// Who serves its share.
    backend: Process,
    size: Arc<size::Size>,
}

impl Living {
    /// From a SIGKILL to the exit.
    fn kill_limit(&self) -> Duration {
        Duration::from_secs(self.platform.config.shim.kill_timeout_s)
    }
}

#[derive(Debug, Clone)]
enum Slot {
    Creating(Arc<Creation>),
    Ready(Arc<Container>),
    /// The pod itself, where containerd's Sandbox API made it: none of the containers.
    Sandbox(Arc<OwnSandbox>),
}

/// A Create, or a StartSandbox, that is under way; a Delete or a StopSandbox that meets it asks it to stop, and waits for its rollback.
#[derive(Debug)]
struct Creation {
    /// What its caller is told then.
    refusal: &'static str,
    cancelled: watch::Sender<bool>,
    done: watch::Sender<bool>,
}

impl Creation {
    async fn cancel_and_wait(&self) {
        self.cancelled.send_replace(true);
        // The sender lives in `self`.
        let _ = self.done.subscribe().wait_for(|done| *done).await;
    }

    fn new(refusal: &'static str) -> Arc<Creation> {
        Arc::new(Creation { refusal, cancelled: watch::Sender::new(false), done: watch::Sender::new(false) })
    }

    fn check(&self) -> Result<()> {
        if *self.cancelled.borrow() { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(&self) -> Error {
        Error::new(Code::WrongState, self.refusal)
    }

    async fn cancelled(&self) {
        let _ = self.cancelled.subscribe().wait_for(|cancelled| *cancelled).await;
    }
}

/// What the pod has on the host.
#[derive(Debug)]
struct Sandbox {
    platform: Platform,
    store: Store,
    record: Record,
    share: ShareDir,
    /// Its network namespace, until somebody looks what is in it.
    namespace: Option<Namespace>,
    network: Option<Arc<PodNetwork>>,
    /// Of the network, those that its first container sets itself, whatever plugins have set.
    sysctls: BTreeSet<Sysctl>,
    memories: Memories,
    /// What its containers have of it, where it has no container of its own.
    own: Option<spec::sandbox::Sandbox>,
    watchers: Vec<AbortHandle>,
    /// Held while gpu-proxy is told something of the zone, so that it hears it in the order in which it became true.
    zone_turn: Arc<AsyncMutex<()>>,
    zone_kept: bool,
}

impl Sandbox {
    /// Writes the record: before each side effect.
    async fn save(&self) -> Result<()> {
        let (store, record) = (self.store.clone(), self.record.clone());
        blocking(move || store.save(&record)).await
    }

    /// Nobody is to notice the end that we make ourselves.
    fn stop_watching(&mut self) {
        for watcher in self.watchers.drain(..) {
            watcher.abort();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop_watching();
    }
}

impl Pod {
    /// A pod of which nothing exists yet.
    pub fn new(platform: Arc<dyn PlatformSource>, namespace: &str, outbox: Outbox, cut: Cut) -> Arc<Pod> {
        Arc::new(Pod {
            platform,
            namespace: namespace.into(),
            outbox,
            cut,
            containers: Mutex::default(),
            living: Mutex::default(),
            sandbox: AsyncMutex::default(),
            dying: AsyncMutex::default(),
            destroying: Arc::default(),
            clock: Notify::new(),
        })
    }

    /// Whether nothing is left to serve.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The container `id`.
    ///
    /// # Errors
    /// `NoSuchTask`, also while it is being created.
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        match self.lock().get(id) {
            Some(Slot::Ready(container)) => Ok(container.clone()),
            // As with runc, nothing is there before Create has answered: containerd lists tasks and loads shims by this answer.
            Some(Slot::Creating(_) | Slot::Sandbox(_)) | None => {
                Err(Error::new(Code::NoSuchTask, format!("there is no container {id} in this pod")))
            }
        }
    }

    /// The guest, while it lives.
    fn guest(&self) -> Result<Arc<Guest>> {
        let guest = self.living().as_ref().map(|living| living.guest.clone());
        guest.ok_or_else(|| Error::new(Code::GuestGone, "the pod's domain is gone"))
    }

    /// What the pod has on the host, for a Create or a start, unless that is given up while another one has it.
    async fn sandbox_for(&self, creation: &Creation) -> Result<AsyncMutexGuard<'_, Option<Sandbox>>> {
        let slot = tokio::select! {
            slot = self.sandbox.lock() => slot,
            () = creation.cancelled() => return Err(creation.refusal()),
        };
        creation.check()?;
        Ok(slot)
    }

    fn living(&self) -> MutexGuard<'_, Option<Living>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The containers that exist.
    fn ready(&self) -> Vec<Arc<Container>> {
        let containers = self.lock();
        let ready = containers.values().filter_map(|slot| match slot {
            Slot::Ready(container) => Some(container.clone()),
            Slot::Creating(_) | Slot::Sandbox(_) => None,
        });
        ready.collect()
    }
}
