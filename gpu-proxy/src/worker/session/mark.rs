//! Places in the order of a stream that the session wants to know to be reached: events of its own, which nobody else names. They stay
//! what they are when their stream is destroyed.

use vgpu_api::{ContextId, CuError, CuResult};

use super::Session;
use crate::device::{Device, Place, Raw};

/// `CU_EVENT_DISABLE_TIMING`. Source: cuda.h.
const NO_TIMING: u32 = 2;

/// One such place.
#[derive(Debug)]
pub(super) struct Mark {
    event: Raw,
    pub(super) context: ContextId,
}

impl Mark {
    /// Whether the stream got there. One that an error has ended goes no further.
    pub(super) fn is_reached(&self, device: &mut dyn Device) -> bool {
        device.event_query(self.event) != Err(CuError::NOT_READY)
    }
}

impl Session {
    /// One that is nowhere yet. It outlives green contexts.
    pub(super) fn new_mark(&mut self, context: ContextId) -> CuResult<Mark> {
        let raw = self.context(context)?;
        Ok(Mark { event: self.device.event_create(raw, NO_TIMING)?, context })
    }

    /// Puts it behind what the stream holds.
    pub(super) fn set_mark(&mut self, mark: &Mark, place: Place) -> CuResult<()> {
        self.device.event_record(place, mark.event, 0)
    }

    /// Puts it behind all that the context does, streams that were destroyed included.
    pub(super) fn set_mark_of_all(&mut self, mark: &Mark) -> CuResult<()> {
        let context = self.context(mark.context)?;
        self.device.context_record(context, mark.event)
    }

    pub(super) fn end_mark(&mut self, mark: &Mark) {
        let _ = self.device.event_destroy(mark.event);
    }
}
