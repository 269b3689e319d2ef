//! What a pod without a container of its own is, and its stages.
//!
//! ```text
//! Created ─start→ Starting ─guest up→ Ready
//!    └─stop→ Stopping
//! each of them ─guest died, stopped, its holder killed→ Ended
//! ```

use std::{sync::Arc, time::SystemTime};

use tokio::sync::watch;
use vgpu_codes::Code;

use crate::{
    container::stage::Exit,
    error::{Error, Result},
    holder::Holder,
    persist::Store,
    pod::{Creation, plan::Plan},
};

/// A pod that is no container, from CreateSandbox to its end.
#[derive(Debug)]
pub(in crate::pod) struct OwnSandbox {
    pub(super) plan: Plan,
    pub(super) holder: Holder,
    /// Of this life.
    pub(super) store: Store,
    pub(super) created_at: SystemTime,
    pub(super) stage: watch::Sender<Stage>,
}

#[derive(Debug)]
pub(super) enum Stage {
    Created,
    Starting(Arc<Creation>),
    Ready,
    /// Before it was started: it won't be.
    Stopping,
    Ended(Exit),
}

/// What containerd is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// A process of this host that stands for it.
    pub pid: u32,
    /// When it was made.
    pub created_at: SystemTime,
    /// Its guest is up.
    pub ready: bool,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
}

impl OwnSandbox {
    pub(super) fn status(&self) -> Status {
        let stage = self.stage.borrow();
        let exit = if let Stage::Ended(exit) = *stage { Some(exit) } else { None };
        let pid = self.holder.process().pid.unsigned_abs();
        Status { pid, created_at: self.created_at, ready: matches!(*stage, Stage::Ready), exit }
    }

    pub(super) fn begin_start(&self) -> Result<Arc<Creation>> {
        let creation = Creation::new("the sandbox was stopped while it was started");
        let mut begun = Ok(creation.clone());
        self.stage.send_if_modified(|stage| {
            match stage {
                Stage::Created => *stage = Stage::Starting(creation.clone()),
                Stage::Starting(_) | Stage::Ready => begun = Err("the sandbox was started before"),
                Stage::Stopping | Stage::Ended(_) => begun = Err("the sandbox was stopped before"),
            }
            begun.is_ok()
        });
        begun.map_err(|why| Error::new(Code::WrongState, why))
    }

    /// From here on it is not started any more. Gives the start that is under way.
    pub(super) fn begin_stop(&self) -> Option<Arc<Creation>> {
        let mut starting = None;
        self.stage.send_if_modified(|stage| match stage {
            Stage::Created => {
                *stage = Stage::Stopping;
                true
            }
            Stage::Starting(creation) => {
                starting = Some(creation.clone());
                false
            }
            Stage::Ready | Stage::Stopping | Stage::Ended(_) => false,
        });
        starting
    }

    /// Its guest is up, unless it has ended meanwhile.
    pub(super) fn ready(&self) -> Result<()> {
        let is_up = self.stage.send_if_modified(|stage| {
            let starts = matches!(stage, Stage::Starting(_));
            if starts {
                *stage = Stage::Ready;
            }
            starts
        });
        if is_up {
            Ok(())
        } else {
            Err(Error::new(Code::GuestGone, "the sandbox ended while it was started"))
        }
    }

    /// Its pid goes before anybody hears of its end.
    pub(super) fn end(&self) {
        self.stage.send_if_modified(|stage| {
            let goes_on = !matches!(stage, Stage::Ended(_));
            if goes_on {
                self.holder.end();
                *stage = Stage::Ended(Exit::killed(SystemTime::now()));
            }
            goes_on
        });
    }
}
