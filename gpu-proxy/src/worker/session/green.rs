//! Green contexts. What they hold is their device's primary context's: memory, images, events. Their own are multiprocessors, and streams.
//!
//! They have the numbers of contexts. One ends with its primary context, if it is not ended before; streams that were made in it end with it, and
//! calls with them give 709 until their numbers are given again.

use vgpu_api::green::{GROUPS_MAX, REST, SPLIT_APART, SPLIT_FOR_CLUSTERS};
use vgpu_api::{
    Call, ContextId, CuError, CuResult, SmGroups, SmResource, SmSource, SmSplit, Stream, StreamHandle,
};

use super::context::Held;
use super::{CONTEXTS_MAX, OwnStream, Session};
use crate::device::Raw;

/// One of them.
#[derive(Debug)]
pub(super) struct Green {
    raw: Raw,
    device: u32,
    /// Its legacy stream.
    stream: StreamHandle,
    held: Held,
}

impl Green {
    /// What it holds itself, if it is one of the context that is meant.
    pub(super) fn held_beside(&mut self, owner: ContextId) -> Option<&mut Held> {
        (ContextId::primary(self.device) == owner).then_some(&mut self.held)
    }
}

impl Session {
    /// The context that owns what is made in `id`: of a green one the primary one.
    pub(super) fn owner(&self, id: ContextId) -> ContextId {
        self.greens.get(&id).map_or(id, |green| ContextId::primary(green.device))
    }

    /// Where the work of a context, green or not, runs, and who owns it.
    ///
    /// # Errors
    /// As of [`Session::context`].
    pub(super) fn runs_in(&self, id: ContextId) -> CuResult<(ContextId, Raw)> {
        let owner = self.owner(id);
        let raw = self.context(owner)?;
        Ok((owner, self.greens.get(&id).map_or(raw, |green| green.raw)))
    }

    /// Where the work of a stream runs. `raw` is its owner's.
    ///
    /// # Errors
    /// 709 if its green context has ended.
    pub(super) fn runs_in_green(&self, stream: OwnStream, raw: Raw) -> CuResult<Raw> {
        let Some(green) = stream.green else { return Ok(raw) };
        if stream.has_ended {
            return Err(CuError::CONTEXT_IS_DESTROYED);
        }
        self.greens.get(&green).map(|green| green.raw).ok_or(CuError::CONTEXT_IS_DESTROYED)
    }

    /// Whether it is a green context's legacy stream, for which streams that block wait there.
    pub(super) fn is_legacy_of_green(&self, stream: Stream) -> bool {
        self.greens.values().any(|green| Stream::Made(green.stream) == stream)
    }

    /// Whether there is one of this number, green or not.
    pub(super) fn has_context(&self, id: ContextId) -> bool {
        self.contexts.contains_key(&id) || self.greens.contains_key(&id)
    }

    /// That there may be one more, green or not.
    ///
    /// # Errors
    /// 2.
    pub(super) fn has_room_for_context(&self) -> CuResult<()> {
        let count = self.contexts.len() + self.greens.len();
        if count < CONTEXTS_MAX { Ok(()) } else { Err(CuError::OUT_OF_MEMORY) }
    }

    /// The device's name of the green context that is meant, if one is.
    fn source(&self, of: SmSource) -> CuResult<Option<Raw>> {
        self.check_device(of.device)?;
        if of.green == ContextId::NONE {
            return Ok(None);
        }
        let green = self.greens.get(&of.green).filter(|green| green.device == of.device);
        green.map(|green| Some(green.raw)).ok_or(CuError::INVALID_CONTEXT)
    }

    pub(super) fn sm_resource(&mut self, call: Call, of: SmSource) -> CuResult<SmResource> {
        self.whole(call)?;
        let green = self.source(of)?;
        self.device.sm_resource(of.device, green)
    }

    pub(super) fn sm_split(&mut self, call: Call, of: SmSource, split: SmSplit) -> CuResult<SmGroups> {
        self.whole(call)?;
        self.split(of, split)
    }

    fn split(&mut self, of: SmSource, split: SmSplit) -> CuResult<SmGroups> {
        let green = self.source(of)?;
        if split.groups > GROUPS_MAX || split.flags & !(SPLIT_APART | SPLIT_FOR_CLUSTERS) != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        if split.count_min > self.device.sm_resource(of.device, green)?.count {
            return Err(CuError::INVALID_RESOURCE_CONFIGURATION);
        }
        self.device.sm_split(of.device, green, split)
    }

    /// That parts are what a split gives, and none twice.
    fn check_parts(&mut self, of: SmSource, split: SmSplit, parts: &[u32]) -> CuResult<()> {
        if parts.is_empty() {
            return Ok(());
        }
        let groups = self.split(of, split)?;
        let is_there = |part: &u32| *part < groups.groups || (*part == REST && groups.rest.count > 0);
        let mut sorted = parts.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let are_good = split.groups > 0 && sorted.len() == parts.len() && parts.iter().all(is_there);
        if are_good { Ok(()) } else { Err(CuError::INVALID_RESOURCE_CONFIGURATION) }
    }

    pub(super) fn green_create(
        &mut self,
        id: ContextId,
        stream: StreamHandle,
        of: SmSource,
        (split, parts): (SmSplit, &[u32]),
    ) -> CuResult<SmResource> {
        if id == ContextId::NONE || id.primary_device().is_some() || self.has_context(id) {
            return Err(CuError::INVALID_CONTEXT);
        }
        let source = self.source(of)?;
        let owner = ContextId::primary(of.device);
        self.context(owner)?;
        self.has_room_for_context()?;
        self.stream_may_be(stream)?;
        self.check_parts(of, split, parts)?;
        let own_bytes = self.device.costs().green_bytes;
        let beside = self.contexts.get(&owner).ok_or(CuError::INVALID_CONTEXT)?;
        let held = beside.held.of_green(own_bytes);
        let charged_bytes = held.counted_bytes();
        self.quotas.charge(of.device, charged_bytes)?;
        let made = self.device.green_create(of.device, source, split, parts);
        let made = made.inspect_err(|_| self.quotas.release(of.device, charged_bytes));
        let (raw, own) = self.settle(owner, made)?;
        self.greens.insert(id, Green { raw, device: of.device, stream, held });
        self.streams.insert(
            stream,
            OwnStream { raw: own, context: owner, is_blocking: false, green: Some(id), has_ended: false },
        )?;
        self.device.sm_resource(of.device, Some(raw))
    }

    pub(super) fn green_destroy(&mut self, id: ContextId) -> CuResult<()> {
        let owner = self.owner(id);
        if owner == id {
            return Err(CuError::INVALID_CONTEXT);
        }
        self.end_must_not_wait(owner)?;
        let result = self.end_green(id);
        self.settle(owner, result)
    }

    /// With a primary context its green ones end.
    pub(super) fn end_greens_of(&mut self, device: u32) {
        let of_it = |(id, green): (&ContextId, &Green)| (green.device == device).then_some(*id);
        for id in self.greens.iter().filter_map(of_it).collect::<Vec<_>>() {
            let _ = self.end_green(id);
        }
    }

    fn end_green(&mut self, id: ContextId) -> CuResult<()> {
        let Some(Green { raw, device, stream, held }) = self.greens.remove(&id) else {
            return Err(CuError::INVALID_CONTEXT);
        };
        let owner = ContextId::primary(device);
        self.end_line(raw);
        let own = self.streams.remove(stream).ok();
        let made = self.streams.iter_mut().filter(|stream| stream.green == Some(id) && !stream.has_ended);
        let made = made.map(|stream| {
            stream.has_ended = true;
            stream.raw
        });
        for stream in made.collect::<Vec<_>>() {
            self.stream_is_gone(owner, stream);
            // What the device refuses to end dies with the worker.
            let _ = self.device.stream_destroy(stream);
        }
        own.into_iter().for_each(|own| self.stream_is_gone(owner, own.raw));
        // What the device keeps goes on counting.
        self.device.green_destroy(raw)?;
        self.quotas.release(device, held.counted_bytes());
        Ok(())
    }

    /// That a new stream may have this handle. What a stream was that ended with its green context is told until its number is given again:
    /// so it is forgotten now.
    ///
    /// # Errors
    /// 400.
    pub(super) fn stream_may_be(&mut self, handle: StreamHandle) -> CuResult<()> {
        self.streams.forget_at(handle, |stream| stream.has_ended);
        self.streams.check_free(handle).map(drop)
    }

    /// The green context that a stream was made in, if it was made in one.
    pub(super) fn green_of(&self, stream: Stream) -> Option<ContextId> {
        let Stream::Made(handle) = stream else { return None };
        self.streams.get(handle).ok()?.green
    }

    /// That a stream may be destroyed: no green context's legacy one, and none of a green context that has ended.
    ///
    /// # Errors
    /// 400, 709.
    pub(super) fn may_end_stream(&self, handle: StreamHandle) -> CuResult<()> {
        let stream = self.streams.get(handle)?;
        let Some(green) = stream.green else { return Ok(()) };
        let green = self.greens.get(&green).filter(|_| !stream.has_ended);
        let green = green.ok_or(CuError::CONTEXT_IS_DESTROYED)?;
        if green.stream == handle { Err(CuError::INVALID_HANDLE) } else { Ok(()) }
    }
}
