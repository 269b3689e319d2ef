//! The domain follows the limits of its containers: its memory is never less than it was made with, and more by what limits need beyond that; its
//! guest uses as many CPUs as they need, and Xen gives it no more time of them than they allow.
//!
//! Kubernetes raises a container's limit while it runs, and makes a restarted one with the new limit; the sandbox's annotations stay as they
//! were. So a domain that was made for a pod's summed limits follows what each container has come to have more than at first, and not their sum;
//! another one their sum ([`limits`]). It grows before a limit does, and shrinks after it.
//!
//! Memory is refused where there is none, since a container would die for want of it. CPUs are not: fewer make it slower, and the log says so.

mod fit;
mod limits;

use std::sync::Arc;

use containerd_shim_protos::api::UpdateTaskRequest;
use serde_json::Value;

use super::{Creation, Pod};
use crate::{
    error::{Error, Result, to_its_end},
    spec::Spec,
};
pub(super) use fit::Size;

impl Pod {
    /// A container comes. Not waited for by who does not want it any more.
    ///
    /// # Errors
    /// [`vgpu_codes::Code::HostResource`] if Xen has not as much as it needs.
    pub(super) async fn make_room(&self, id: &str, spec: &Spec, creation: &Creation) -> Result<()> {
        let Some(size) = self.size() else { return Ok(()) };
        let mut set = tokio::select! {
            set = size.turn() => set,
            () = creation.cancelled() => return Err(creation.refusal()),
        };
        size.lock().comes(id, spec);
        let id = id.to_owned();
        // To its end: who gives up leaves nothing half done.
        let fit = to_its_end(async move {
            let fitted = size.fit_for(&mut set, &id, None).await;
            if fitted.is_err() {
                size.fit_beside();
            }
            fitted
        });
        tokio::select! {
            fitted = fit => fitted,
            () = creation.cancelled() => Err(creation.refusal()),
        }
    }

    /// It is gone, or was never made. Waits for nobody.
    pub(super) fn give_room_back(&self, id: &str) {
        if let Some(size) = self.size().filter(|size| size.lock().goes(id)) {
            size.fit_beside();
        }
    }

    /// Has the limits of a container changed by `change`, with a domain that is large enough before and after. One change of a pod comes after the other:
    /// the domain is one, and a change that is still to be refused must not count for another.
    ///
    /// # Errors
    /// As [`Pod::make_room`], and `change`'s.
    pub(super) async fn with_room<T>(
        &self,
        request: &UpdateTaskRequest,
        change: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (Some(resources), Some(size)) = (resources(request), self.size()) else { return change.await };
        let mut set = size.turn().await;
        let had = size.lock().get(&request.id);
        let Some(had) = had else {
            drop(set);
            return change.await;
        };
        let new = had.changed(&resources);
        let most = had.or_more(new);
        size.lock().set(&request.id, Some(most));
        let takes_memory = most.memory > had.memory;
        // What it has is not refused, and CPUs never are.
        let else_has = if takes_memory { had } else { most };
        if let Err(error) = size.fit_for(&mut set, &request.id, Some(else_has)).await {
            if takes_memory {
                size.fit_beside();
                return Err(error);
            }
            log::warn!("the domain's memory stays as it is: {}", error.report());
        }
        let changed = change.await;
        let now = match &changed {
            Ok(_) => new,
            Err(Error::Guest { .. }) => had,
            // It was not answered, and may be done.
            Err(_) => most,
        };
        size.lock().set(&request.id, Some(now));
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
