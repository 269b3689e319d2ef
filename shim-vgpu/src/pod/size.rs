//! The domain's memory follows the limits of its containers: never below what it was made with, and never below what they may use together.
//!
//! Kubernetes raises a container's limit while it runs, and makes a restarted one with the new limit; the sandbox's annotations stay as they
//! were. So the limits that hold are added up here. A domain grows before the limit does, and shrinks after it.

use std::{collections::HashMap, sync::Arc};

use containerd_shim_protos::api::UpdateTaskRequest;
use serde_json::Value;
use vgpu_config::Guest;

use super::Pod;
use crate::{
    error::{Result, blocking},
    toolstack::Toolstack,
};

const MIB: u64 = 1 << 20;

/// A domain's memory, and who may use how much of it.
pub(super) struct Size {
    toolstack: Arc<dyn Toolstack>,
    domid: u16,
    least_mib: u64,
    overhead_mib: u64,
    now_mib: u64,
    limits: HashMap<String, Limits>,
}

/// What a container may use, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Its memory; 0 if it has no limit: then it has what there is.
    pub(super) memory: u64,
    /// Huge pages, beside its memory.
    pub(super) huge: u64,
}

impl std::fmt::Debug for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Size")
            .field("now_mib", &self.now_mib)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Size {
    /// Of a domain made with `mib`.
    pub(super) fn new(toolstack: Arc<dyn Toolstack>, domid: u16, mib: u64, guest: &Guest) -> Size {
        let (least_mib, now_mib, overhead_mib) = (mib, mib, guest.memory_overhead_mib);
        Size { toolstack, domid, least_mib, overhead_mib, now_mib, limits: HashMap::new() }
    }

    /// With this container's limits. Of an error nothing stays.
    async fn set(&mut self, id: &str, limits: Limits) -> Result<()> {
        let had = self.note(id, Some(limits));
        let result = self.fit().await;
        if result.is_err() {
            self.note(id, had);
        }
        result
    }

    fn note(&mut self, id: &str, limits: Option<Limits>) -> Option<Limits> {
        match limits {
            Some(limits) => self.limits.insert(id.to_owned(), limits),
            None => self.limits.remove(id),
        }
    }

    async fn fit(&mut self) -> Result<()> {
        let sum =
            |of: fn(&Limits) -> u64| self.limits.values().map(of).fold(0, u64::saturating_add).div_ceil(MIB);
        let memory_mib = sum(|limits| limits.memory).saturating_add(self.overhead_mib).max(self.least_mib);
        let mib = memory_mib.saturating_add(sum(|limits| limits.huge));
        if mib != self.now_mib {
            let (toolstack, domid) = (self.toolstack.clone(), self.domid);
            blocking(move || toolstack.set_memory(domid, mib)).await?;
            log::info!("the domain's memory is {mib} MiB now, after {}", self.now_mib);
            self.now_mib = mib;
        }
        Ok(())
    }
}

impl Pod {
    /// A container comes, with these limits.
    ///
    /// # Errors
    /// [`vgpu_codes::Code::HostResource`] if Xen has not as much.
    pub(super) async fn make_room(&self, id: &str, limits: Limits) -> Result<()> {
        match self.size() {
            Some(size) => size.lock().await.set(id, limits).await,
            None => Ok(()),
        }
    }

    /// It is gone, or was never made. Nobody waits for xl, which may not answer: what the domain keeps is told to the log.
    pub(super) async fn give_room_back(&self, id: &str) {
        let Some(size) = self.size() else { return };
        let mut size = size.lock_owned().await;
        // At once: the next container of this id has a limit of its own.
        if size.note(id, None).is_some() {
            tokio::spawn(async move {
                if let Err(error) = size.fit().await {
                    log::warn!("the domain keeps memory of a container that is gone: {}", error.report());
                }
            });
        }
    }

    /// Has the limits of a container changed by `change`, with a domain that is large enough at each moment. One after the other.
    ///
    /// # Errors
    /// As [`Pod::make_room`], and `change`'s.
    pub(super) async fn with_room<T>(
        &self,
        request: &UpdateTaskRequest,
        change: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (Some(new), Some(size)) = (memory_limit(request), self.size()) else { return change.await };
        let mut size = size.lock().await;
        let had = size.limits.get(&request.id).copied().unwrap_or_default();
        let new = Limits { memory: new, ..had };
        if had.memory < new.memory {
            size.set(&request.id, new).await?;
        }
        let changed = change.await;
        let holds = if changed.is_ok() { new } else { had };
        if let Err(error) = size.set(&request.id, holds).await {
            log::warn!("the domain keeps memory that {} has not any more: {}", request.id, error.report());
        }
        changed
    }

    fn size(&self) -> Option<Arc<tokio::sync::Mutex<Size>>> {
        self.living().as_ref().map(|living| living.size.clone())
    }
}

/// The limit that an Update asks for, in bytes. None is set, or it is taken off: then the domain stays as it is.
fn memory_limit(request: &UpdateTaskRequest) -> Option<u64> {
    let resources: Value = serde_json::from_slice(&request.resources.as_ref()?.value).ok()?;
    resources.pointer("/memory/limit").and_then(Value::as_u64).filter(|&bytes| bytes > 0)
}
