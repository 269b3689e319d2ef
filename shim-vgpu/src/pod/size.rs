//! The domain's memory follows the limits of its containers: it is never smaller than it was made, and larger by what limits need beyond that.
//!
//! Kubernetes raises a container's limit while it runs, and makes a restarted one with the new limit; the sandbox's annotations stay as they
//! were. A domain that was made for a pod's summed limits grows by what each container has come to have more than at first, not by their sum: where
//! the pod as a whole has a limit, kubelet gives that to each. Another one grows by what does not fit into it. It grows before a limit does, and
//! shrinks after it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use containerd_shim_protos::api::UpdateTaskRequest;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;
use vgpu_config::Guest;

use super::{Creation, Pod};
use crate::{
    error::{Error, Result, blocking},
    spec::Spec,
    toolstack::Toolstack,
};

const MIB: u64 = 1 << 20;
/// Of memory that comes later, one part in as many is what the kernel keeps about its pages. Source: Linux, `struct page`: 64 bytes of 4096.
const PAGES_PART: u64 = 64;

/// A domain's memory, and who may use how much of it.
pub(super) struct Size {
    toolstack: Arc<dyn Toolstack>,
    domid: u16,
    made_mib: u64,
    overhead_mib: u64,
    /// It was made for the pod's summed limits.
    is_for_all: bool,
    /// By Kubernetes' name of the container, which it keeps when it is restarted, or by its id.
    limits: Mutex<HashMap<String, Limits>>,
    /// What was set last, none if that is not known. Held by who is at the toolstack, which may take long.
    set_mib: AsyncMutex<Option<u64>>,
}

/// What a container may use, in bytes.
#[derive(Debug, Clone, Default)]
struct Limits {
    id: String,
    /// Of its memory, at first and now. 0 if it has no limit: then it has what there is.
    first: u64,
    memory: u64,
    /// Of huge pages, beside its memory.
    huge: u64,
}

impl std::fmt::Debug for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Size")
            .field("domid", &self.domid)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Size {
    /// Of a domain made with `mib` for the container of this spec.
    pub(super) fn new(
        toolstack: Arc<dyn Toolstack>,
        domid: u16,
        mib: u64,
        guest: &Guest,
        spec: &Spec,
    ) -> Arc<Size> {
        Arc::new(Size {
            toolstack,
            domid,
            made_mib: mib,
            overhead_mib: guest.memory_overhead_mib,
            is_for_all: spec.pod_memory().is_some(),
            limits: Mutex::default(),
            set_mib: AsyncMutex::new(Some(mib)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Limits>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn comes(&self, id: &str, spec: &Spec) {
        let memory = spec.memory_limit().unwrap_or(0);
        let mut limits = self.lock();
        let one = limits
            .entry(spec.container_name().unwrap_or(id).to_owned())
            .or_insert_with(|| Limits { first: memory, ..Limits::default() });
        *one = Limits { id: id.to_owned(), first: one.first, memory, huge: spec.huge_bytes() };
    }

    /// False if it was not there.
    fn goes(&self, id: &str) -> bool {
        let mut limits = self.lock();
        let gone = limits.values_mut().find(|one| one.id == id);
        let was_there = gone.is_some();
        if let Some(one) = gone {
            // What it had at first is remembered: it may come again.
            *one = Limits { first: one.first, ..Limits::default() };
        }
        was_there
    }

    /// Gives back what it was before. None: there is no such container.
    fn change(&self, id: &str, memory: u64) -> Option<u64> {
        let mut limits = self.lock();
        let one = limits.values_mut().find(|one| one.id == id)?;
        Some(std::mem::replace(&mut one.memory, memory))
    }

    fn wanted_mib(&self) -> u64 {
        let limits = self.lock();
        let sum = |of: fn(&Limits) -> u64| limits.values().map(of).fold(0, u64::saturating_add).div_ceil(MIB);
        let more = if self.is_for_all {
            sum(|one| one.memory.saturating_sub(one.first))
        } else {
            sum(|one| one.memory).saturating_add(self.overhead_mib).saturating_sub(self.made_mib)
        };
        let more = more.saturating_add(sum(|one| one.huge));
        self.made_mib.saturating_add(more).saturating_add(more.div_ceil(PAGES_PART))
    }

    /// Has the domain as large as the limits ask for, which hold when it is this call's turn.
    async fn fit(self: Arc<Self>) -> Result<()> {
        let mut set = self.set_mib.lock().await;
        let mib = self.wanted_mib();
        if *set == Some(mib) {
            return Ok(());
        }
        *set = None;
        let (toolstack, domid) = (self.toolstack.clone(), self.domid);
        blocking(move || toolstack.set_memory(domid, mib)).await?;
        log::info!("the domain is to have {mib} MiB of memory");
        *set = Some(mib);
        Ok(())
    }

    /// The same, with nobody who waits for it: what the domain keeps is told to the log.
    fn fit_beside(self: &Arc<Self>) {
        let size = self.clone();
        tokio::spawn(async move {
            if let Err(error) = size.fit().await {
                log::warn!("the domain's memory stays as it is: {}", error.report());
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
        size.comes(id, spec);
        // In a task: who gives up leaves nothing half done.
        let fit = tokio::spawn(size.clone().fit());
        tokio::select! {
            fitted = fit => fitted.unwrap_or_else(|_| Err(Error::new(vgpu_codes::Code::HostFailure, "it panicked"))),
            () = creation.cancelled() => Err(creation.refusal()),
        }
    }

    /// It is gone, or was never made. Waits for nobody.
    pub(super) fn give_room_back(&self, id: &str) {
        if let Some(size) = self.size().filter(|size| size.goes(id)) {
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
        let (Some(new), Some(size)) = (memory_limit(request), self.size()) else { return change.await };
        let Some(had) = size.change(&request.id, new) else { return change.await };
        let fitted = if had < new { size.clone().fit().await } else { Ok(()) };
        let changed = match fitted {
            Ok(()) => change.await,
            Err(error) => Err(error),
        };
        if changed.is_err() {
            size.change(&request.id, had);
        }
        if changed.is_err() || new < had {
            size.fit_beside();
        }
        changed
    }

    fn size(&self) -> Option<Arc<Size>> {
        self.living().as_ref().map(|living| living.size.clone())
    }
}

/// The limit that an Update asks for, in bytes. None is set, or it is taken off: then the domain stays as it is.
fn memory_limit(request: &UpdateTaskRequest) -> Option<u64> {
    let resources: Value = serde_json::from_slice(&request.resources.as_ref()?.value).ok()?;
    resources.pointer("/memory/limit").and_then(Value::as_u64).filter(|&bytes| bytes > 0)
}
