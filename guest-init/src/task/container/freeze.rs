//! A container's processes frozen and thawed, by its cgroup. The kernel may take its time, or not get it done.

use std::{io, time::Duration};

use tokio::time::sleep;

use super::Container;
use crate::{
    boot::console::say,
    error::{During, GuestError, Result},
    task::phase::Operation,
};

/// Together three seconds: the kernel stops a process when it next leaves a system call, and a 9p request may hold it there.
const FREEZE_TRIES: u32 = 300;
const FREEZE_PAUSE: Duration = Duration::from_millis(10);

impl Container {
    /// Begins to freeze every process, or thaws them. State says so from here on: the shim asks for it where it missed our answer, and must
    /// not be told of what a request that came before is about to change.
    /// # Errors
    /// Wrong state.
    pub fn begin_freeze(&self, frozen: bool) -> Result<()> {
        self.init.phase().allow(if frozen { Operation::Pause } else { Operation::Resume })?;
        self.cgroup.freeze(frozen).during(|| format!("write cgroup.freeze of {}", self.id))?;
        if frozen {
            self.init.pausing();
        } else {
            self.init.running();
        }
        Ok(())
    }

    /// Waits until what [`Container::begin_freeze`] began is done. A failure leaves the processes as they were, if the kernel lets it.
    /// # Errors
    /// The kernel does not get it done in time.
    pub async fn finish_freeze(&self, frozen: bool) -> Result<()> {
        let settled = self.settle(frozen).await;
        let stands = if settled.is_ok() { frozen } else { self.take_back_freeze(frozen) };
        if stands {
            self.init.paused();
        } else {
            self.init.running();
        }
        settled
    }

    /// Else it would stand still later, while everybody takes it for running. Gives whether it does after that.
    fn take_back_freeze(&self, frozen: bool) -> bool {
        match self.cgroup.freeze(!frozen) {
            Ok(()) => !frozen,
            Err(error) => {
                say(format_args!(
                    "what was begun with {}'s processes cannot be taken back: {error}",
                    self.id
                ));
                self.cgroup.is_frozen().unwrap_or(frozen)
            }
        }
    }

    async fn settle(&self, frozen: bool) -> Result<()> {
        for _ in 0..FREEZE_TRIES {
            if self.cgroup.is_frozen().during(|| format!("read cgroup.events of {}", self.id))? == frozen {
                return Ok(());
            }
            sleep(FREEZE_PAUSE).await;
        }
        Err(GuestError::Io {
            what: format!("freeze {}", self.id),
            source: io::Error::from(io::ErrorKind::TimedOut),
        })
    }
}
