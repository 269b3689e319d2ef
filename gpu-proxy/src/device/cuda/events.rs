//! Events of the driver.

use vgpu_api::CuResult;

use super::Cuda;
use super::table::NULL;
use crate::device::{Events, Place, Raw};

impl Events for Cuda {
    fn event_create(&mut self, context: Raw, flags: u32) -> CuResult<Raw> {
        self.enter(context)?;
        let mut event = NULL;
        // SAFETY: the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuEventCreate(&raw mut event, flags) }?;
        Ok(self.events.add(event))
    }

    fn event_destroy(&mut self, event: Raw) -> CuResult<()> {
        let event = self.events.remove(event)?;
        // SAFETY: a live event of ours, named no more.
        unsafe { self.table.cuEventDestroy_v2(event) }
    }

    fn event_record(&mut self, place: Place, event: Raw, flags: u32) -> CuResult<()> {
        let (stream, event) = (self.stream(place)?, self.events.get(event)?);
        // SAFETY: a live stream and a live event of ours.
        unsafe { self.table.cuEventRecordWithFlags(event, stream, flags) }
    }

    fn context_record(&mut self, context: Raw, event: Raw) -> CuResult<()> {
        self.enter(context)?;
        let (context, event) = (self.contexts.get(context)?, self.events.get(event)?);
        // SAFETY: a live context and a live event of ours.
        unsafe { self.table.cuCtxRecordEvent(context, event) }
    }

    fn context_wait(&mut self, context: Raw, event: Raw) -> CuResult<()> {
        self.enter(context)?;
        let (context, event) = (self.contexts.get(context)?, self.events.get(event)?);
        // SAFETY: as above.
        unsafe { self.table.cuCtxWaitEvent(context, event) }
    }

    fn event_query(&mut self, event: Raw) -> CuResult<()> {
        // SAFETY: a live event of ours.
        unsafe { self.table.cuEventQuery(self.events.get(event)?) }
    }

    fn event_synchronize(&mut self, event: Raw) -> CuResult<()> {
        // SAFETY: a live event of ours.
        let waited = unsafe { self.table.cuEventSynchronize(self.events.get(event)?) };
        self.look_for_output(waited)
    }

    fn event_elapsed(&mut self, start: Raw, end: Raw) -> CuResult<f32> {
        let (mut milliseconds, start, end) = (0.0, self.events.get(start)?, self.events.get(end)?);
        // SAFETY: two live events of ours; the driver writes one number.
        unsafe { self.table.cuEventElapsedTime(&raw mut milliseconds, start, end) }?;
        Ok(milliseconds)
    }
}
