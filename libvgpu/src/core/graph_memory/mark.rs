//! Events of ours behind work that uses memory.

use std::fmt;

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::{ContextId, CuError, CuResult, EventHandle, Stream, ask};

use crate::core::contexts::Entered;
use crate::core::process::{EventInfo, Process, Recorded};

/// `CU_EVENT_DISABLE_TIMING`.
const NO_TIMING: u32 = 2;

/// An event behind all that a context had to do.
pub struct Mark {
    process: &'static Process,
    context: ContextId,
    event: EventHandle,
}

impl Mark {
    /// None in a context that has ended, or that an error has.
    pub fn behind(process: &'static Process, context: ContextId) -> Option<Self> {
        process.contexts.alive(context).ok()?;
        let channel = &process.channel;
        let event = process.events.insert(EventInfo {
            context,
            recorded: Recorded::Queued,
            is_timed: false,
            is_shared: false,
        });
        let mark = Self { process, context, event };
        ask::cuEventCreate(channel, context, NewHandle(event), NO_TIMING).ok()?;
        ask::cuCtxRecordEvent(channel, context, event).ok()?;
        Some(mark)
    }

    /// Whether its context has ended, and all work there.
    fn is_gone(&self) -> bool {
        self.process.events.get(self.event).is_err()
    }

    pub fn is_reached(&self) -> bool {
        let query = || ask::cuEventQuery(&self.process.channel, self.context, self.event);
        self.is_gone() || query() != Err(CuError::NOT_READY)
    }

    /// Waits until it is reached.
    pub fn wait(&self) {
        if !self.is_gone() {
            // An error has ended the work, too.
            let _ = ask::cuEventSynchronize(&self.process.channel, self.context, self.event);
        }
    }

    /// What is queued in the stream from now on waits until it is reached.
    pub fn wait_in(&self, entered: Entered, stream: Stream) -> CuResult<()> {
        if self.is_gone() {
            return Ok(());
        }
        ask::cuStreamWaitEvent(&self.process.channel, entered.context, stream, self.event, 0)
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark").field("event", &self.event).finish_non_exhaustive()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let tell = |_| ask::cuEventDestroy_v2(&self.process.channel, self.context, GoneHandle(self.event));
        // With its context it has ended already.
        let _ = self.process.events.end(self.event, tell);
    }
}
