//! Events of the software GPU keep the time.

use std::time::{Duration, Instant};

use vgpu_api::{CuError, CuResult};

use super::Soft;
use crate::device::{Events, Place, Raw};

impl Events for Soft {
    fn event_create(&mut self, _context: Raw, _flags: u32) -> CuResult<Raw> {
        let name = self.name();
        self.events.insert(name, None);
        Ok(name)
    }

    fn event_destroy(&mut self, event: Raw) -> CuResult<()> {
        self.events.remove(&event).map(drop).ok_or(CuError::INVALID_HANDLE)
    }

    fn event_record(&mut self, _place: Place, event: Raw, _flags: u32) -> CuResult<()> {
        *self.events.get_mut(&event).ok_or(CuError::INVALID_HANDLE)? = Some(Instant::now());
        Ok(())
    }

    fn context_record(&mut self, context: Raw, event: Raw) -> CuResult<()> {
        self.event_record(Place { context, stream: None }, event, 0)
    }

    fn context_wait(&mut self, _context: Raw, event: Raw) -> CuResult<()> {
        self.event_query(event)
    }

    fn event_query(&mut self, event: Raw) -> CuResult<()> {
        self.events.get(&event).map(drop).ok_or(CuError::INVALID_HANDLE)
    }

    fn event_synchronize(&mut self, event: Raw) -> CuResult<()> {
        self.event_query(event)
    }

    fn event_elapsed(&mut self, start: Raw, end: Raw) -> CuResult<f32> {
        let at = |event| self.events.get(&event).copied().flatten().ok_or(CuError::INVALID_HANDLE);
        let (start, end) = (at(start)?, at(end)?);
        let milliseconds = |time: Duration| time.as_secs_f32() * 1e3;
        Ok(match end.checked_duration_since(start) {
            Some(time) => milliseconds(time),
            None => -milliseconds(start.duration_since(end)),
        })
    }
}
