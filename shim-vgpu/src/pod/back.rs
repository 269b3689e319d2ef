//! What is given back to the host: one container's, or all that the pod has on it. Then the container's hooks of the end run.
//!
//! The latter take their time, so nothing waits for them but who asked for that container's end: when they begin, mounts and GPU are given back
//! and no lock of the pod is held.

use std::time::Duration;

use super::{Pod, Sandbox};
use crate::{
    cleanup,
    error::{Result, blocking},
    hooks,
    persist::hooks::HookNotes,
    zone,
};

/// For who else has a container's hooks run: StopSandbox and a Delete may meet.
const HOOKS_LIMIT: Duration = Duration::from_secs(600);

impl Pod {
    /// Takes back what a failed Create of `id` made. A guest that lives on may have made the container without saying so in time.
    pub(super) async fn take_back(&self, id: &str) {
        if let Ok(guest) = self.guest() {
            guest.forget(id, "").await;
        }
        let taken = match self.give_back(id).await {
            Ok(Some(notes)) => self.run_last_hooks(notes).await,
            given_back => given_back.map(drop),
        };
        if let Err(error) = taken {
            log::warn!("taking back {id}: {}", error.report());
        }
    }

    /// Takes the container from the host, and the sandbox with it if it was the last one. Where its hooks are noted, which nobody has run yet;
    /// none if the sandbox was taken away before.
    pub(super) async fn give_back(&self, id: &str) -> Result<Option<HookNotes>> {
        let mut slot = self.sandbox.lock().await;
        let Some(sandbox) = slot.as_mut() else { return Ok(None) };
        let notes = sandbox.store.hooks_of(id);
        if sandbox.record.containers.keys().any(|other| other != id) {
            self.give_room_back(id);
            let (store, mut record, id) = (sandbox.store.clone(), sandbox.record.clone(), id.to_owned());
            let turn = sandbox.zone_turn.clone().lock_owned().await;
            let (record, result) = blocking(move || {
                let had = record.clone();
                let result = cleanup::container(&store, &mut record, &id);
                zone::revoke(&had, &id, cleanup::PROXY_LIMIT);
                drop(turn);
                Ok((record, result))
            })
            .await?;
            sandbox.record = record;
            result?;
        } else {
            self.take_away(&mut slot).await?;
        }
        Ok(Some(notes))
    }

    /// Runs the hooks of a container's end, of which nothing else is left, or waits until who is at them is done.
    ///
    /// # Errors
    /// One could not be begun: once more tries again.
    pub(super) async fn run_last_hooks(&self, notes: HookNotes) -> Result<()> {
        let store = notes.store.clone();
        if !blocking(move || hooks::run_last(&notes, HOOKS_LIMIT, hooks::OWN_TIME)).await? {
            return Ok(());
        }
        let slot = self.sandbox.lock().await;
        if slot.as_ref().is_none_or(|sandbox| sandbox.store != store) {
            // Only they were left.
            blocking(move || store.settle()).await?;
        }
        Ok(())
    }

    /// Takes away all that the pod has on the host.
    pub(super) async fn take_away(&self, slot: &mut Option<Sandbox>) -> Result<()> {
        let Some(sandbox) = slot.as_mut() else { return Ok(()) };
        let (platform, store, record) =
            (sandbox.platform.clone(), sandbox.store.clone(), sandbox.record.clone());
        let turn = sandbox.zone_turn.clone().lock_owned().await;
        // Who ends the guest already is not disturbed.
        let _destroying = self.destroying.lock().await;
        sandbox.stop_watching();
        // Hooks of the end find no namespace that only we hold.
        (sandbox.namespace, sandbox.network) = (None, None);
        blocking(move || {
            let cleaned = cleanup::sandbox(&platform, &store, &record);
            drop(turn);
            cleaned
        })
        .await?;
        // Not before: who hears of its end meanwhile tells of it when it is true.
        *self.living() = None;
        *slot = None;
        Ok(())
    }
}
