//! The domain follows the limits of its containers: its memory is never less than it was made with, and more by what limits need beyond that; its
//! guest uses as many CPUs as they need, and Xen gives it no more time of them than they allow.
//!
//! Kubernetes raises a container's limit while it runs, and makes a restarted one with the new limit; the sandbox's annotations stay as they
//! were. So a domain that was made for a pod's summed limits follows what each container has come to have more than at first, and not their sum;
//! another one their sum ([`limits`]). It grows before a limit does, and shrinks after it.
//!
//! Memory is refused where there is none, since a container would die for want of it. CPUs are not: fewer make it slower, and the log says so.

mod limits;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use containerd_shim_protos::api::UpdateTaskRequest;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;
use vgpu_config::Guest as GuestConfig;

use super::{Creation, Pod};
use crate::{
    error::{Error, Result, blocking},
    guest::Guest,
    spec::{
        Spec,
        size::{DomainSize, vcpus},
    },
    toolstack::Toolstack,
};
use limits::Containers;

const MIB: u64 = 1 << 20;
/// Of memory that comes later, one part in as many is what the kernel keeps about its pages. Source: Linux, `struct page`: 64 bytes of 4096.
const PAGES_PART: u64 = 64;
/// What Xen gives a guest beyond the limits of its containers, in hundredths of one CPU: its kernel and guest-init have to answer the shim in time
/// while containers use all that is theirs. No setting: how long the shim waits is none of the node's either.
const KERNEL_PERCENT: u64 = 25;

/// A domain, and who may use how much of it.
pub(super) struct Size {
    toolstack: Arc<dyn Toolstack>,
    guest: Arc<Guest>,
    domid: u16,
    made: DomainSize,
    config: GuestConfig,
    /// The pod's summed limits that it was made for: in bytes, and in hundredths of one CPU.
    pod_memory: Option<u64>,
    pod_cpu: Option<u64>,
    containers: Mutex<Containers>,
    /// Held by who is at the toolstack, which may take long.
    set: AsyncMutex<Set>,
}

/// What was set last, none if that is not known.
#[derive(Debug)]
struct Set {
    memory_mib: Option<u64>,
    vcpus: Option<u32>,
    cap_percent: u32,
}

impl std::fmt::Debug for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Size")
            .field("domid", &self.domid)
            .field("containers", &self.containers)
            .finish_non_exhaustive()
    }
}

impl Size {
    /// Of a domain made for the container of this spec, whose guest is up. Nobody's program runs in it yet, and nothing holds it back.
    pub(super) fn new(
        toolstack: Arc<dyn Toolstack>,
        domid: u16,
        guest: Arc<Guest>,
        config: &GuestConfig,
        spec: &Spec,
    ) -> Result<Arc<Size>> {
        let made = spec.domain_size(config)?;
        let set = Set { memory_mib: Some(made.memory_mib), vcpus: Some(made.vcpus), cap_percent: 0 };
        Ok(Arc::new(Size {
            toolstack,
            guest,
            domid,
            made,
            config: config.clone(),
            pod_memory: spec.pod_memory(),
            pod_cpu: spec.pod_cpu(),
            containers: Mutex::default(),
            set: AsyncMutex::new(set),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted_mib(&self) -> u64 {
        let containers = self.lock();
        let asked = containers.memory(self.pod_memory).div_ceil(MIB);
        let beyond =
            asked.saturating_add(self.config.memory_overhead_mib).saturating_sub(self.made.memory_mib);
        let more = beyond.saturating_add(containers.huge().div_ceil(MIB));
        self.made.memory_mib.saturating_add(more).saturating_add(more.div_ceil(PAGES_PART))
    }

    /// How many CPUs its guest is to use, and Xen's cap.
    fn wanted_cpus(&self) -> (u32, u32) {
        let containers = self.lock();
        let asked = containers.cpu(self.pod_cpu);
        let needs = vcpus(asked).max(self.made.vcpus);
        if containers.has_all_cpus() {
            return (needs.max(self.config.vcpus).min(self.made.vcpus_max), 0);
        }
        let cap = match asked {
            0 => 0,
            _ => asked.min(100 * u64::from(self.made.vcpus_max)) + KERNEL_PERCENT,
        };
        (needs.min(self.made.vcpus_max), u32::try_from(cap).unwrap_or(0))
    }

    /// Has the domain be as large as the limits ask for, which hold when it is this call's turn.
    async fn fit(self: Arc<Self>) -> Result<()> {
        let mut set = self.set.lock().await;
        self.fit_memory(&mut set).await?;
        self.fit_cpus(&mut set).await;
        Ok(())
    }

    async fn fit_memory(&self, set: &mut Set) -> Result<()> {
        let mib = self.wanted_mib();
        if set.memory_mib == Some(mib) {
            return Ok(());
        }
        set.memory_mib = None;
        let (toolstack, domid) = (self.toolstack.clone(), self.domid);
        blocking(move || toolstack.set_memory(domid, mib)).await?;
        log::info!("the domain is to have {mib} MiB of memory");
        set.memory_mib = Some(mib);
        Ok(())
    }

    async fn fit_cpus(&self, set: &mut Set) {
        let (vcpus, cap) = self.wanted_cpus();
        if set.cap_percent != cap {
            // One that Xen does not take is not tried again: its scheduler stays the same.
            set.cap_percent = cap;
            let (toolstack, domid) = (self.toolstack.clone(), self.domid);
            match blocking(move || toolstack.set_cap(domid, cap)).await {
                Ok(()) => log::info!("the domain's cap is {cap} % of a CPU (0: it has none)"),
                Err(error) => {
                    log::warn!("Xen does not hold the domain to its CPU limits: {}", error.report())
                }
            }
        }
        if set.vcpus != Some(vcpus) {
            let done = self.guest.set_cpus(vcpus).await;
            match &done {
                Ok(()) => log::info!("the guest uses {vcpus} CPUs"),
                Err(error) => log::warn!("the guest does not use {vcpus} CPUs: {}", error.report()),
            }
            set.vcpus = done.ok().map(|()| vcpus);
        }
    }

    /// The same, with nobody who waits for it: what stays as it is is told to the log.
    fn fit_beside(self: &Arc<Self>) {
        let size = self.clone();
        tokio::spawn(async move {
            if let Err(error) = size.fit().await {
                log::warn!("the domain stays as it is: {}", error.report());
            }
        });
    }
}

impl Pod {
    /// A container comes. Not waited for by who does not want it any more.
    ///
    /// # Errors
    /// [`vgpu_codes::Code::HostResource`] if Xen has not as much as it needs.
    pub(super) async fn make_room(&self, id: &str, spec: &Spec, creation: &Creation) -> Result<()> {
        let Some(size) = self.size() else { return Ok(()) };
        size.lock().comes(id, spec);
        // In a task: who gives up leaves nothing half done.
        let fit = tokio::spawn(size.clone().fit());
        tokio::select! {
            fitted = fit => fitted.unwrap_or_else(|_| Err(Error::new(vgpu_codes::Code::HostFailure, "it panicked"))),
            () = creation.cancelled() => Err(creation.refusal()),
        }
    }

    /// It is gone, or was never made. Waits for nobody.
    pub(super) fn give_room_back(&self, id: &str) {
        if let Some(size) = self.size().filter(|size| size.lock().goes(id)) {
            size.fit_beside();
        }
    }

    /// Has the limits of a container changed by `change`, with a domain that is large enough before and after.
    ///
    /// # Errors
    /// As [`Pod::make_room`], and `change`'s.
    pub(super) async fn with_room<T>(
        &self,
        request: &UpdateTaskRequest,
        change: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (Some(resources), Some(size)) = (resources(request), self.size()) else { return change.await };
        let Some(had) = size.lock().get(&request.id) else { return change.await };
        let new = had.changed(&resources);
        let most = had.or_more(new);
        size.lock().set(&request.id, most);
        let fitted = if most == had { Ok(()) } else { size.clone().fit().await };
        let changed = match fitted {
            Ok(()) => change.await,
            Err(error) => Err(error),
        };
        let now = if changed.is_ok() { new } else { had };
        size.lock().set(&request.id, now);
        if now != most {
            size.fit_beside();
        }
        changed
    }

    fn size(&self) -> Option<Arc<Size>> {
        self.living().as_ref().map(|living| living.size.clone())
    }
}

/// What an Update asks for.
fn resources(request: &UpdateTaskRequest) -> Option<Value> {
    serde_json::from_slice(&request.resources.as_ref()?.value).ok()
}
