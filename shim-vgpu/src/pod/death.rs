//! The guest's end: noticed by the toolstack's notice of ended domains, by calls that the lost connection answers, and by the end of who
//! serves its share. And that of a container whose holder somebody has killed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use containerd_shim_protos::api::KillRequest;
use tokio::sync::oneshot;
use ttrpc::Code as Rpc;
use uuid::Uuid;

use super::{Living, Pod, tasks::END_PART};
use crate::{
    container::{
        Container,
        life::{Event, Who},
        stage::Stage,
    },
    error::{Error, Result, blocking},
    guest::{Guest, SIGKILL},
    platform::Platform,
};

/// Between two events of a guest: ten a second are more than a kernel kills in earnest.
const EVENT_PAUSE: Duration = Duration::from_millis(100);
/// For it to say how many an event was.
const COUNT_LIMIT: Duration = Duration::from_secs(10);
/// Until the toolstack is asked again that could not end a domain.
const AGAIN: Duration = Duration::from_secs(1);
/// Of the time from a SIGKILL to the exit, in hundredths: what is left for the domain's halt, when the guest has had its part.
const HALT_PART: u32 = 100 - END_PART;

impl Pod {
    /// Watches the pod's domain until it ends.
    pub(super) async fn watch_domain(self: Arc<Self>, platform: Platform, uuid: Uuid) {
        let mut endings = platform.link.endings();
        loop {
            endings.mark_unchanged();
            let toolstack = platform.toolstack.clone();
            match blocking(move || toolstack.runs(uuid)).await {
                Ok(true) => {}
                Ok(false) => {
                    log::warn!("the pod's domain {uuid} has ended");
                    // In a task of its own: ending the sandbox aborts this one.
                    tokio::spawn(self.guest_died());
                    return;
                }
                Err(error) => log::warn!("cannot ask for the pod's domain: {}", error.report()),
            }
            if endings.changed().await.is_err() {
                log::error!("nobody tells of ended domains any more");
                return;
            }
        }
    }

    /// Watches who serves the share: without it each program of the guest hangs at its next file, and nobody could serve it anew.
    pub(super) async fn watch_backend(self: Arc<Self>, end: oneshot::Receiver<()>) {
        let _ = end.await;
        // Not if its end is ours: the guest was found dead.
        if self.living().is_some() {
            log::warn!("the share's backend has ended: the pod ends with it");
        }
        // In a task of its own: ending the sandbox aborts this one.
        tokio::spawn(self.guest_died());
    }

    /// Watches a container's holder: who kills the pid that we have told, kills the container's init.
    pub(super) async fn watch_holder(self: Arc<Self>, container: Arc<Container>) {
        match container.holder_ended() {
            // Nothing is ever sent.
            Ok(ended) => drop(ended.await),
            Err(error) => {
                return log::warn!("container {}: nobody watches its holder: {error}", container.id);
            }
        }
        let stage = container.stage(&Who::Init);
        if container.is_deleting(&Who::Init) || matches!(stage, Ok(Stage::Stopped(_)) | Err(_)) {
            return;
        }
        log::warn!(
            "container {}: somebody has killed {}: its init is killed",
            container.id,
            container.task_pid()
        );
        let request = KillRequest { id: container.id.clone(), signal: SIGKILL, ..KillRequest::default() };
        if let Err(error) = self.kill(request).await {
            // It has ended meanwhile.
            log::debug!("container {}: {error}", container.id);
        }
    }

    /// Passes on what the guest tells of itself, until it is gone.
    pub(super) async fn watch_guest(self: Arc<Self>) {
        loop {
            let Ok(guest) = self.guest() else { return };
            match guest.next_event().await {
                // Nothing for a while.
                Ok(event) if event.container_id.is_empty() => tokio::time::sleep(EVENT_PAUSE).await,
                Ok(event) => {
                    let told = self.tell_event(&guest, &event.container_id).await;
                    // A guest that tells without end shall not fill containerd with it.
                    tokio::time::sleep(EVENT_PAUSE * told.max(1)).await;
                }
                // A guest of an older minor, or one that is gone: the domain's watcher sees to the latter.
                Err(error) => {
                    log::debug!("no events from the guest: {error}");
                    return;
                }
            }
        }
    }

    /// An event says that there was a kill, and the count how many: those that an exit waited for are told already. Gives how many were told.
    async fn tell_event(&self, guest: &Guest, id: &str) -> u32 {
        let Ok(container) = self.container(id) else { return 0 };
        match guest.oom_kills(id, COUNT_LIMIT).await {
            Ok(count) => container.oom_kills(count),
            // A guest of protocol 1.0: the event is all that it tells.
            Err(Error::Guest { rpc: Rpc::UNIMPLEMENTED, .. }) => {
                container.out_of_memory();
                1
            }
            Err(error) => {
                log::debug!("container {id}: {error}");
                0
            }
        }
    }

    /// Nothing more will come from the guest: every task ends with 137, and the share's backend and the domain go if they are still there.
    ///
    /// The tasks' ends are told as soon as nothing of the guest runs any more, and not before, however long nobody can say so. That the
    /// domain is taken away is not waited for: it may take long. Its mounts and files stay until the containers are deleted, as they would
    /// with any runtime.
    pub(super) async fn guest_died(self: Arc<Self>) {
        // Several may notice, and the first ends the domain.
        let _dying = self.dying.lock().await;
        let living = self.living().take();
        if let Some(living) = &living {
            self.stop(living).await;
        }
        for container in self.ready() {
            container.tell(Event::GuestDied(SystemTime::now()));
        }
        self.sandbox_ended();
        // After that: who is answered now was alive until then.
        if let Some(living) = living {
            living.guest.died();
        }
    }

    /// Stops the guest, whose domain is then destroyed behind our back. While that fails it is tried again: between two tries a Delete may
    /// do it.
    async fn stop(&self, living: &Living) {
        let mut level = log::Level::Warn;
        loop {
            let destroying = self.destroying.clone().lock_owned().await;
            let guest = living.clone();
            match blocking(move || guest.stop()).await {
                Ok(None) => return,
                Ok(Some(domid)) => {
                    let toolstack = living.platform.toolstack.clone();
                    tokio::spawn(async move {
                        let destroyed = blocking(move || toolstack.destroy(domid));
                        // It runs no more, and the Delete of its containers tries again and tells.
                        if let Err(error) = destroyed.await {
                            log::warn!("{}", error.report());
                        }
                        drop(destroying);
                    });
                    return;
                }
                Err(error) => log::log!(level, "the pod's domain may still run: {}", error.report()),
            }
            drop(destroying);
            // Once is enough.
            level = log::Level::Debug;
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Living {
    /// Ends what writes for the guest to the host, and then the guest. Gives the domain that is left to be destroyed. Blocks.
    ///
    /// # Errors
    /// It may still run.
    fn stop(&self) -> Result<Option<u16>> {
        let (uuid, limit) = (self.domain_uuid, self.kill_limit() * HALT_PART / 100);
        // First, and whatever becomes of the domain: containerd gives the containers' files to others once it believes them dead.
        if let Err(error) = self.platform.share.end(uuid, Some(self.backend)) {
            log::warn!("{}", error.report());
        }
        let toolstack = &self.platform.toolstack;
        let halted = toolstack.halt(uuid, limit);
        let Err(error) = halted else { return halted };
        // Then only its destruction says that it runs no more.
        log::warn!("{}", error.report());
        let left = toolstack.find(uuid)?;
        left.map_or(Ok(()), |domid| toolstack.destroy(domid)).map(|()| None)
    }
}
