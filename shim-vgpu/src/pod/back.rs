//! What is given back to the host: one container's, or all that the pod has on it. Then the container's hooks of the end run.
//!
//! The latter take their time, so nothing waits for them but who asked for that container's end, or asks for the next one of its id: when they begin, mounts and GPU are given back
//! and no lock of the pod is held.

use std::{sync::Arc, time::Duration};

use vgpu_codes::Code;

use super::{Creation, Pod, Sandbox, Slot};
use crate::{
    cleanup,
    error::{OrFail, Result, blocking},
    hooks,
    persist::{Store, hooks::HookNotes},
    zone,
};

/// For who else has a container's hooks run: StopSandbox and a Delete may meet.
const HOOKS_LIMIT: Duration = Duration::from_secs(600);

/// What was given back.
pub(super) struct GivenBack {
    /// Where the container's hooks are noted, which nobody has run yet; none if the sandbox was taken away before.
    notes: Option<HookNotes>,
    /// The pod has nothing on the host any more, and nobody else sees to the hooks that it owes.
    pub(super) ends_pod: bool,
}

impl Pod {
    /// Takes back what a failed Create of `id` made. A guest that lives on may have made the container without saying so in time.
    pub(super) async fn take_back(&self, id: &str) {
        if let Ok(guest) = self.guest() {
            guest.forget(id, "").await;
        }
        let taken = match self.give_back(id).await {
            Ok(GivenBack { notes: Some(notes), ends_pod }) => self.run_last_hooks(notes, ends_pod).await,
            given_back => given_back.map(drop),
        };
        if let Err(error) = taken {
            log::warn!("taking back {id}: {}", error.report());
        }
    }

    /// Finishes what a failed Create of `id` has left, for the next one: takes away what could not be taken back, and runs the hooks that it owes,
    /// since ours would be noted in their place. They are not of the next one: when that is given up, they run on, and nobody waits.
    ///
    /// # Errors
    /// Something stays, a hook cannot be begun, or `creation` is given up.
    pub(super) async fn finish_earlier(self: &Arc<Self>, id: &str, creation: &Creation) -> Result<()> {
        let notes = {
            let mut slot = self.sandbox_for(creation).await?;
            match slot.as_ref() {
                Some(sandbox) if sandbox.record.containers.contains_key(id) => {
                    self.give_back_from(&mut slot, id).await?.notes
                }
                made => made.map(|sandbox| sandbox.store.hooks_of(id)),
            }
        };
        let Some(notes) = notes else { return Ok(()) };
        let (pod, cancelled) = (Arc::clone(self), creation.cancelled.subscribe());
        let running = tokio::spawn(async move {
            pod.run_noted_hooks(notes, hooks::TURN_LIMIT, hooks::LIMIT, move || *cancelled.borrow()).await
        });
        tokio::select! {
            run = running => run.or_fail(Code::HostFailure, || "a task of the shim panicked".into())?,
            () = creation.cancelled() => Err(creation.refusal()),
        }
    }

    /// Takes the container from the host, and the sandbox with it if it was the last one.
    pub(super) async fn give_back(&self, id: &str) -> Result<GivenBack> {
        let mut slot = self.sandbox.lock().await;
        self.give_back_from(&mut slot, id).await
    }

    async fn give_back_from(&self, slot: &mut Option<Sandbox>, id: &str) -> Result<GivenBack> {
        let Some(sandbox) = slot.as_mut() else {
            // Who stops a sandbox of its own sees to what that owes, and tries again what fails.
            return Ok(GivenBack { notes: None, ends_pod: self.any_sandbox().is_none() });
        };
        let notes = sandbox.store.hooks_of(id);
        let has_others = {
            let there = self.lock();
            // What a failed Create has left keeps no pod: nobody would come for it after the last one's Delete.
            sandbox.record.containers.keys().any(|other| other != id && there.contains_key(other))
        };
        if has_others {
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
            self.take_away(slot).await?;
        }
        Ok(GivenBack { notes: Some(notes), ends_pod: slot.is_none() })
    }

    /// Runs the hooks of a container's end, of which nothing else is left, or waits until who is at them is done. With a pod that has ended, those
    /// that are owed, too.
    ///
    /// # Errors
    /// One could not be begun: once more tries again.
    pub(super) async fn run_last_hooks(&self, notes: HookNotes, ends_pod: bool) -> Result<()> {
        let store = notes.store.clone();
        let run = self.run_noted_hooks(notes, HOOKS_LIMIT, hooks::OWN_TIME, || false).await;
        // One's that cannot be begun keep no other's from it.
        if ends_pod { run.and(self.run_owed_hooks(&store).await) } else { run }
    }

    /// Runs those that Creates which failed have left: in a pod that has ended no next one of their ids comes.
    ///
    /// # Errors
    /// As [`Pod::run_last_hooks`].
    pub(super) async fn run_owed_hooks(&self, store: &Store) -> Result<()> {
        let listed = store.clone();
        let all = blocking(move || listed.hooks()).await?;
        let mut first = Ok(());
        for notes in all {
            // Else who ends that container runs them. A Create of its id, which may be at them, fails with the pod's end, and would leave them.
            if matches!(self.lock().get(&notes.container), Some(Slot::Ready(_))) {
                continue;
            }
            let what = format!("the hooks that container {} owes", notes.container);
            let run = self.run_noted_hooks(notes, HOOKS_LIMIT, hooks::OWN_TIME, || false).await;
            if let Err(error) = &run {
                log::warn!("{what}: {}", error.report());
            }
            first = first.and(run);
        }
        first
    }

    async fn run_noted_hooks(
        &self,
        notes: HookNotes,
        turn_limit: Duration,
        hook_limit: Duration,
        given_up: impl Fn() -> bool + Send + 'static,
    ) -> Result<()> {
        let store = notes.store.clone();
        if !blocking(move || hooks::run_last(&notes, turn_limit, hook_limit, given_up)).await? {
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
