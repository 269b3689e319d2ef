//! Streams and events.

use vgpu_api::launch::attribute;
use vgpu_api::{Call, ContextId, CuError, CuResult, EventHandle, LaunchAttribute, Stream, StreamHandle};

use super::{OwnStream, Owned, Session};
use crate::device::{Place, Raw};

/// `CU_STREAM_NON_BLOCKING`. Source: cuda.h.
const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_INTERPROCESS`. Source: cuda.h.
const INTERPROCESS: u32 = 4;

impl Session {
    pub(super) fn stream_create(
        &mut self,
        call: Call,
        handle: StreamHandle,
        flags: u32,
        priority: i32,
    ) -> CuResult<()> {
        let (owner, context) = self.runs_in(call.context)?;
        self.stream_may_be(handle)?;
        let raw = self.device.stream_create(context, flags, priority)?;
        let is_blocking = flags & NON_BLOCKING == 0;
        let green = (owner != call.context).then_some(call.context);
        self.streams.insert(handle, OwnStream { raw, context: owner, is_blocking, green, has_ended: false })
    }

    pub(super) fn stream_destroy(&mut self, handle: StreamHandle) -> CuResult<()> {
        self.may_end_stream(handle)?;
        let OwnStream { raw, context, .. } = self.streams.remove(handle)?;
        self.stream_is_gone(context, raw);
        let result = self.device.stream_destroy(raw);
        self.settle(context, result)
    }

    pub(super) fn stream_synchronize(&mut self, call: Call, stream: Stream) -> CuResult<()> {
        let (context, place) = self.place_of(call, stream)?;
        self.must_be_done(place)?;
        let result = self.device.stream_synchronize(place);
        self.settle(context, result)?;
        self.stream_was_waited_for(context, place);
        Ok(())
    }

    /// What a call looks at that has waited for all that a stream held. The guest does not wait again for a stream that nobody has given
    /// work since.
    pub(super) fn stream_was_waited_for(&mut self, context: ContextId, place: Place) {
        self.stream_is_done(context, place);
        self.look_at_all_going();
    }

    pub(super) fn stream_query(&mut self, call: Call, stream: Stream) -> CuResult<()> {
        let (context, place) = self.place_of(call, stream)?;
        let result = self.device.stream_query(place);
        self.settle(context, result)
    }

    pub(super) fn stream_wait(
        &mut self,
        call: Call,
        stream: Stream,
        event: EventHandle,
        flags: u32,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        let Owned { raw: event, shared, .. } = *self.events.get(event)?;
        if let Some(shared) = shared
            && self.waits_for_others(Call { context, ..call }, place, shared)?
        {
            return Ok(());
        }
        let result = self.device.stream_wait(place, event, flags);
        self.settle(context, result)
    }

    pub(super) fn set_stream_attribute(
        &mut self,
        call: Call,
        stream: Stream,
        number: u32,
        value: &[u8],
    ) -> CuResult<()> {
        let (context, place) = self.place_of(call, stream)?;
        let value: &[u8; 64] = value.try_into().map_err(|_| CuError::INVALID_VALUE)?;
        if !attribute::OF_STREAMS.contains(&number) {
            return Err(CuError::INVALID_VALUE);
        }
        if number == attribute::ACCESS_POLICY_WINDOW {
            self.check_window(&LaunchAttribute { id: number, value: *value })?;
        }
        let result = self.device.set_stream_attribute(place, number, value);
        self.settle(context, result)
    }

    pub(super) fn event_create(&mut self, call: Call, handle: EventHandle, flags: u32) -> CuResult<()> {
        let context = self.context(call.context)?;
        self.events.check_free(handle)?;
        let raw = self.device.event_create(context, flags & !INTERPROCESS)?;
        let shared = if flags & INTERPROCESS == 0 { Ok(None) } else { self.new_shared_event(None).map(Some) };
        let shared = shared.or_else(|error| self.device.event_destroy(raw).and(Err(error)))?;
        self.events.insert(handle, Owned { raw, context: call.context, shared })
    }

    pub(super) fn event_destroy(&mut self, handle: EventHandle) -> CuResult<()> {
        let Owned { raw, context, shared } = self.events.remove(handle)?;
        shared.into_iter().for_each(|shared| self.leave(shared));
        self.graphs.something_ended();
        let result = self.device.event_destroy(raw);
        self.settle(context, result)
    }

    pub(super) fn event_record(
        &mut self,
        call: Call,
        event: EventHandle,
        stream: Stream,
        flags: u32,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        let Owned { raw, shared, .. } = *self.events.get(event)?;
        let result = match shared {
            Some(_) => self.record_shared(place, event, flags),
            None => self.device.event_record(place, raw, flags),
        };
        self.settle(context, result)
    }

    pub(super) fn context_record(&mut self, call: Call, event: EventHandle) -> CuResult<()> {
        let (owner, context) = self.runs_in(call.context)?;
        let event = self.unshared(event)?;
        let result = self.device.context_record(context, event);
        self.settle(owner, result)
    }

    pub(super) fn context_wait(&mut self, call: Call, event: EventHandle) -> CuResult<()> {
        let (owner, context) = self.runs_in(call.context)?;
        let event = self.unshared(event)?;
        let result = self.device.context_wait(context, event);
        self.settle(owner, result)
    }

    /// An event that only this process has: for what the board does not carry.
    pub(super) fn unshared(&self, event: EventHandle) -> CuResult<Raw> {
        let Owned { raw, shared, .. } = self.events.get(event)?;
        if shared.is_none() { Ok(*raw) } else { Err(CuError::NOT_SUPPORTED) }
    }

    pub(super) fn event_query(&mut self, event: EventHandle) -> CuResult<()> {
        let Owned { raw, context, shared } = *self.events.get(event)?;
        self.context(context)?;
        if let Some(shared) = shared
            && let Some(is_reached) = self.others_have_reached(shared)?
        {
            return if is_reached { Ok(()) } else { Err(CuError::NOT_READY) };
        }
        let result = self.device.event_query(raw);
        self.settle(context, result)
    }

    pub(super) fn event_synchronize(&mut self, event: EventHandle) -> CuResult<()> {
        let Owned { raw, context, shared } = *self.events.get(event)?;
        self.context(context)?;
        if let Some(shared) = shared
            && let Some(is_reached) = self.others_have_reached(shared)?
        {
            return if is_reached { Ok(()) } else { self.put_aside() };
        }
        if self.is_held_up() {
            self.not_yet(|device| device.event_query(raw))?;
        }
        let result = self.device.event_synchronize(raw);
        self.settle(context, result)?;
        self.trim_pools();
        self.look_at_all_going();
        Ok(())
    }

    pub(super) fn event_elapsed(&mut self, start: EventHandle, end: EventHandle) -> CuResult<f32> {
        let (start, end) = (*self.events.get(start)?, *self.events.get(end)?);
        self.context(start.context)?;
        self.context(end.context)?;
        let result = self.device.event_elapsed(start.raw, end.raw);
        self.settle(start.context, result)
    }
}
