//! Events: recorded is reached, unless a test holds them.

use std::sync::atomic::Ordering;

use vgpu_api::*;

use super::{EVENTS_PENDING, FakeDevice};

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn cuEventCreate(
        &mut self,
        call: Call,
        event: NewHandle<kind::Event>,
        _: u32,
    ) -> CuResult<()> {
        self.events.insert(event.0.raw(), false);
        self.occupy(call, "event", event.0)?;
        self.saw("event create")
    }

    pub(super) fn cuEventDestroy_v2(&mut self, _: Call, event: GoneHandle<kind::Event>) -> CuResult<()> {
        self.events.remove(&event.0.raw());
        self.places.remove(&("event", event.0.index()));
        self.saw("event destroy")
    }

    pub(super) fn cuEventRecordWithFlags(
        &mut self,
        _: Call,
        event: EventHandle,
        _: Stream,
        _: u32,
    ) -> CuResult<()> {
        self.events.insert(event.raw(), true);
        self.saw("event record")
    }

    pub(super) fn cuCtxRecordEvent(&mut self, _: Call, event: EventHandle) -> CuResult<()> {
        self.events.insert(event.raw(), true);
        self.saw("ctx record")
    }

    pub(super) fn cuCtxWaitEvent(&mut self, _: Call, _: EventHandle) -> CuResult<()> {
        self.saw("ctx wait")
    }

    pub(super) fn cuEventQuery(&mut self, _: Call, event: EventHandle) -> CuResult<()> {
        let pending = EVENTS_PENDING.load(Ordering::Relaxed);
        match self.events.get(&event.raw()) {
            Some(true) if pending => Err(CuError::NOT_READY),
            Some(_) => Ok(()),
            None => Err(CuError::INVALID_HANDLE),
        }
    }

    pub(super) fn cuEventSynchronize(&mut self, call: Call, event: EventHandle) -> CuResult<()> {
        EVENTS_PENDING.store(false, Ordering::Relaxed);
        self.cuEventQuery(call, event)
    }

    pub(super) fn cuEventElapsedTime_v2(
        &mut self,
        _: Call,
        start: EventHandle,
        end: EventHandle,
    ) -> CuResult<f32> {
        match (self.events.get(&start.raw()), self.events.get(&end.raw())) {
            (Some(true), Some(true)) if EVENTS_PENDING.load(Ordering::Relaxed) => Err(CuError::NOT_READY),
            (Some(true), Some(true)) => Ok(1.5),
            _ => Err(CuError::INVALID_HANDLE),
        }
    }
}
