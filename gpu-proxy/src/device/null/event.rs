//! Events, which are reached.

use vgpu_api::{CuError, CuResult};

use super::Null;
use crate::device::{Events, Place, Raw};

impl Events for Null {
    fn event_create(&mut self, _context: Raw, _flags: u32) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn event_destroy(&mut self, _event: Raw) -> CuResult<()> {
        Ok(())
    }

    fn event_record(&mut self, place: Place, event: Raw, _flags: u32) -> CuResult<()> {
        if let Some(stalls) = &mut self.stalls {
            stalls.record(place, event);
        }
        Ok(())
    }

    fn context_record(&mut self, context: Raw, event: Raw) -> CuResult<()> {
        if let Some(stalls) = &mut self.stalls {
            stalls.record_all(context, event);
        }
        Ok(())
    }

    fn context_wait(&mut self, _context: Raw, _event: Raw) -> CuResult<()> {
        Ok(())
    }

    fn event_query(&mut self, event: Raw) -> CuResult<()> {
        if self.runs_functions() {
            return Err(CuError::NOT_READY);
        }
        self.stalls.as_ref().map_or(Ok(()), |stalls| stalls.query_event(event))
    }

    fn event_synchronize(&mut self, event: Raw) -> CuResult<()> {
        self.wait(|stalls| stalls.query_event(event))
    }

    fn event_elapsed(&mut self, _start: Raw, _end: Raw) -> CuResult<f32> {
        Ok(0.0)
    }
}
