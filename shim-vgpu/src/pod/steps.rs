//! The steps of a Create, each with its intent on disk first. Tests cut a Create after each of them.

use std::{fmt, sync::Arc};

/// What a Create has just done, in this order. The steps of the pod come once, those of the container each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The record of the sandbox is on disk; nothing else exists.
    Recorded,
    /// The container has its holder, and the record both.
    Held,
    /// The share's mounts are there.
    ShareMade,
    /// The container's root is mounted in its bundle.
    RootMounted,
    /// The hooks of a Create have run.
    HooksRun,
    /// Root, volumes and spec are in the share.
    ContainerShared,
    /// The domain exists, paused; its id is not on disk yet.
    DomainMade,
    /// The backend of the share serves it.
    ShareServed,
    /// The IDM devices' nodes are written.
    DevicesMade,
    /// The vifs are there, and are one way with the pod's interfaces.
    VifsMade,
    /// The domain runs.
    Unpaused,
    /// guest-init said hello, and has made the pod's network.
    GuestUp,
    /// gpu-proxy knows the zone and the container's grant.
    Granted,
    /// The guest has made the container.
    TaskMade,
}

impl Step {
    /// All of them, in order.
    #[cfg(test)]
    pub const ALL: [Step; 14] = [
        Step::Recorded,
        Step::Held,
        Step::ShareMade,
        Step::RootMounted,
        Step::HooksRun,
        Step::ContainerShared,
        Step::DomainMade,
        Step::ShareServed,
        Step::DevicesMade,
        Step::VifsMade,
        Step::Unpaused,
        Step::GuestUp,
        Step::Granted,
        Step::TaskMade,
    ];
}

/// Where a Create stops for ever, as if the shim had been killed there. Only tests set it: the program has none.
#[derive(Clone, Default)]
pub struct Cut(Option<Arc<dyn Fn(Step) -> bool + Send + Sync>>);

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cut").field(&self.0.is_some()).finish()
    }
}

impl Cut {
    /// Stops after the steps for which `stops` says so.
    #[cfg(test)]
    pub fn new(stops: impl Fn(Step) -> bool + Send + Sync + 'static) -> Self {
        Cut(Some(Arc::new(stops)))
    }

    /// Returns, unless the Create is cut here.
    pub async fn passed(&self, step: Step) {
        if self.0.as_ref().is_some_and(|stops| stops(step)) {
            std::future::pending().await
        }
    }
}
