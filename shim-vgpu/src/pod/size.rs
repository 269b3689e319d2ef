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
mod wanted;

use std::sync::Arc;

use containerd_shim_protos::api::UpdateTaskRequest;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::{Creation, Pod};
use crate::{
    error::{Error, Result, to_its_end},
    spec::Spec,
};
use fit::Set;
pub(super) use fit::Size;
pub(super) use wanted::{Wanted, wanted};

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
            if let Err(error) = size.fit_memory(&mut set).await {
                // From now on, so that nobody after it asks in vain.
                size.lock().set(&id, None);
                size.fit_beside();
                return Err(error);
            }
            size.fit_cpus(&mut set).await;
            Ok(())
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

    /// Waits until it is this Update's turn to change the pod's limits. None: the domain does not follow it.
    pub(super) async fn turn_for(&self, request: &UpdateTaskRequest) -> Option<Turn> {
        let (resources, size) = (resources(request)?, self.size()?);
        let set = size.turn().await;
        Some(Turn { size, set, resources })
    }

    fn size(&self) -> Option<Arc<Size>> {
        self.living().as_ref().map(|living| living.size.clone())
    }
}

/// An Update's. One change of a pod comes after the other: the domain is one, and a change that is still to be refused must not count for another.
pub(super) struct Turn {
    size: Arc<Size>,
    set: OwnedMutexGuard<Set>,
    resources: Value,
}

impl Turn {
    /// Has the limits of the container changed by `change`, with a domain that is large enough before and after. Once nobody wants it any more no limit
    /// rises: what has been asked of the guest by then is all that may still be done, and a cap that is just being set falls again at the next fit.
    ///
    /// # Errors
    /// As [`Pod::make_room`], and `change`'s.
    pub(super) async fn with_room<T>(
        self,
        id: &str,
        wanted: &Wanted,
        change: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Turn { size, mut set, resources } = self;
        let had = size.lock().get(id);
        let Some(had) = had else {
            drop(set);
            return change.await;
        };
        let new = had.changed(&resources);
        let most = had.or_more(new);
        size.lock().set(id, Some(most));
        if let Err(error) = size.grow(&mut set, most.memory > had.memory, wanted).await {
            // From now on, so that nobody after it asks in vain.
            size.lock().set(id, Some(had));
            size.fit_beside();
            return Err(error);
        }
        let changed = change.await;
        let now = match &changed {
            Ok(_) => new,
            Err(error) if changed_nothing(error) => had,
            // It was not answered, and may be done; or the guest's kernel refused a part of it, and may have taken another.
            Err(_) => most,
        };
        size.lock().set(id, Some(now));
        if now != most {
            size.fit_beside();
        }
        changed
    }
}

/// The guest refused it before it tried. Source: guest-init, `GuestError::code`: what a kernel refuses is `GuestRefused`.
fn changed_nothing(error: &Error) -> bool {
    use ttrpc::Code::{FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND};
    matches!(error, Error::Guest { rpc: NOT_FOUND | FAILED_PRECONDITION | INVALID_ARGUMENT, .. })
}

/// What an Update asks for.
fn resources(request: &UpdateTaskRequest) -> Option<Value> {
    serde_json::from_slice(&request.resources.as_ref()?.value).ok()
}
