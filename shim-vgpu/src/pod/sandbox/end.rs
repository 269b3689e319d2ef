//! The end of a pod without a container of its own: asked for by containerd, or noticed.

use std::{sync::Arc, time::Duration};

use containerd_shim_protos::api::KillRequest;
use tokio::task::JoinSet;
use vgpu_codes::Code;

use super::own::OwnSandbox;
use crate::{
    container::{life::Who, stage},
    error::Result,
    pod::{Creation, Pod, Slot},
};

/// What a program is asked to end by. An image may name another, which containerd does not tell us. Source: `signal(7)`.
const SIGTERM: u32 = 15;

impl Pod {
    /// Ends the guest, tells its tasks' ends and then its own, and takes away all that the pod has on the host. Programs that run are asked to
    /// end before, and have `grace` for it. Once more is no error.
    ///
    /// # Errors
    /// `NoSuchTask`, or what could not be taken away.
    pub async fn stop_sandbox(self: Arc<Self>, id: String, grace: Duration) -> Result<()> {
        let own = self.own_sandbox(&id)?;
        self.stop_own(&own, grace).await
    }

    async fn stop_own(self: &Arc<Self>, own: &OwnSandbox, grace: Duration) -> Result<()> {
        // In one step: a start that comes a moment later would be waited for until its guest is up.
        if let Some(creation) = own.begin_stop() {
            creation.cancel_and_wait().await;
        }
        if !grace.is_zero() && tokio::time::timeout(grace, self.clone().end_programs()).await.is_err() {
            log::info!("programs of the sandbox run on after {} s: they are killed", grace.as_secs());
        }
        self.end_sandbox().await
    }

    /// Asks the first process of each container that runs to end, and waits until all have.
    async fn end_programs(self: Arc<Self>) {
        let mut ending = JoinSet::new();
        for container in self.ready() {
            let is_there = matches!(
                container.stage(&Who::Init),
                Ok(stage::Stage::Starting(_)
                    | stage::Stage::Running(_)
                    | stage::Stage::Pausing(_)
                    | stage::Stage::Paused(_))
            );
            if !is_there {
                continue;
            }
            let pod = self.clone();
            ending.spawn(async move {
                let request =
                    KillRequest { id: container.id.clone(), signal: SIGTERM, ..KillRequest::default() };
                if let Err(error) = pod.kill(request).await {
                    // It has ended meanwhile, or does not answer.
                    log::debug!("container {}: {error}", container.id);
                }
                // One that is deleted has ended.
                let _ = container.wait(&Who::Init).await;
            });
        }
        ending.join_all().await;
    }

    pub(super) async fn end_sandbox(self: &Arc<Self>) -> Result<()> {
        self.clone().guest_died().await;
        // They hold what is taken away for as long as their hooks and their guest take.
        for creation in self.creations() {
            creation.cancel_and_wait().await;
        }
        {
            let mut slot = self.sandbox.lock().await;
            self.take_away(&mut slot).await?;
        }
        // One's that cannot be begun keep no other's from it.
        let mut first = Ok(());
        for container in self.ready() {
            let run = self.run_last_hooks(container.notes.clone(), false).await;
            if let Err(error) = &run {
                log::warn!("the end of container {}: {}", container.id, error.report());
            }
            first = first.and(run);
        }
        match self.any_sandbox() {
            Some(own) => first.and(self.run_owed_hooks(&own.store).await),
            None => first,
        }
    }

    /// Stops it, if it is there, and forgets it: the shim may go.
    ///
    /// # Errors
    /// As [`Pod::stop_sandbox`], but for one that was never made or is forgotten; `NoSuchTask` while there is another.
    pub async fn shutdown_sandbox(self: Arc<Self>, id: String) -> Result<()> {
        // containerd lets a shim go whose CreateSandbox it does not wait for any more.
        let creating = match self.lock().get(&id) {
            Some(Slot::Creating(creation)) => Some(creation.clone()),
            _ => None,
        };
        if let Some(creation) = creating {
            creation.cancel_and_wait().await;
        }
        match self.clone().stop_sandbox(id, Duration::ZERO).await {
            Err(error) if error.code() == Some(Code::NoSuchTask) && self.is_empty() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                // With it all that was in it: who has not deleted a container does not ask for it any more.
                self.lock().clear();
                Ok(())
            }
        }
    }

    /// Who kills the pid that we have told ends it. What it has on the host goes when its guest has died: nobody may ask for that.
    pub(super) async fn watch_sandbox(self: Arc<Self>, own: Arc<OwnSandbox>) {
        match own.holder.ended() {
            // Nothing is ever sent.
            Ok(ended) => drop(ended.await),
            Err(error) => return log::warn!("nobody watches the sandbox's holder: {error}"),
        }
        if own.status().exit.is_none() {
            log::warn!("somebody has killed {}: the sandbox ends", own.status().pid);
        }
        if let Err(error) = self.stop_own(&own, Duration::ZERO).await {
            log::warn!("what the sandbox has left: {}", error.report());
        }
    }

    /// Its guest runs no more.
    pub(in crate::pod) fn sandbox_ended(&self) {
        if let Some(own) = self.any_sandbox() {
            own.end();
        }
    }

    fn creations(&self) -> Vec<Arc<Creation>> {
        let slots = self.lock();
        let under_way = slots.values().filter_map(|slot| match slot {
            Slot::Creating(creation) => Some(creation.clone()),
            Slot::Sandbox(_) | Slot::Ready(_) => None,
        });
        under_way.collect()
    }
}
