//! The guest's end: noticed by the toolstack's notice of ended domains, by calls that the lost connection answers, and by the end of who
//! serves its share.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;
use ttrpc::Code as Rpc;
use uuid::Uuid;

use super::{Living, Pod, tasks::END_PART};
use crate::{
    container::life::Event,
    error::{Error, blocking},
    guest::Guest,
    platform::Platform,
    toolstack::Toolstack,
};

/// Between two events of a guest: ten a second are more than a kernel kills in earnest.
const EVENT_PAUSE: Duration = Duration::from_millis(100);
/// For it to say how many an event was.
const COUNT_LIMIT: Duration = Duration::from_secs(10);
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
    /// The tasks' ends are told as soon as nothing of the guest runs any more, or nobody can say: then its share has ended, and Delete destroys
    /// the domain. That the domain is taken away is not waited for: it may take long. Its mounts and files stay until the containers are deleted,
    /// as they would with any runtime.
    pub(super) async fn guest_died(self: Arc<Self>) {
        // Several may notice, and the first ends the domain.
        let _dying = self.dying.lock().await;
        let living = self.living().take();
        let mut left = None;
        if let Some(living) = living {
            let stopped = blocking(move || Ok(living.stop()));
            left = stopped.await.unwrap_or_else(|error| {
                log::warn!("{}", error.report());
                None
            });
        }
        for container in self.ready() {
            container.tell(Event::GuestDied(SystemTime::now()));
        }
        if let Some((toolstack, domid)) = left {
            let destroying = self.destroying.clone().lock_owned().await;
            tokio::spawn(async move {
                let destroyed = blocking(move || toolstack.destroy(domid));
                if let Err(error) = destroyed.await {
                    log::warn!("{}", error.report());
                }
                drop(destroying);
            });
        }
    }
}

impl Living {
    /// Ends what writes for the guest to the host, and then the guest. Gives the domain that is left to be destroyed. Blocks.
    ///
    /// None, too, where nobody can say whether it runs: then its share has ended, and Delete destroys the domain.
    fn stop(self) -> Option<(Arc<dyn Toolstack>, u16)> {
        let limit = self.kill_limit() * HALT_PART / 100;
        let Living { platform, domain_uuid: uuid, backend, .. } = self;
        let warn = |error: Error| log::warn!("{}", error.report());
        // First, and whatever becomes of the domain: containerd gives the containers' files to others once it believes them dead.
        platform.share.end(uuid, Some(backend)).unwrap_or_else(warn);
        let toolstack = platform.toolstack;
        match toolstack.halt(uuid, limit) {
            Ok(halted) => halted.map(|domid| (toolstack, domid)),
            // Then only its destruction says that it runs no more.
            Err(error) => {
                warn(error);
                let found = toolstack.find(uuid);
                let destroyed =
                    found.and_then(|found| found.map_or(Ok(()), |domid| toolstack.destroy(domid)));
                destroyed.unwrap_or_else(warn);
                None
            }
        }
    }
}
