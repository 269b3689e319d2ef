//! Contexts: `cuDevicePrimaryCtx*`, `cuCtx*`.

use vgpu_api::{Call, ContextId, CuError, CuResult, Staged};

use super::{CONTEXTS_MAX, Context, Session};
use crate::worker::staging;

impl Session {
    pub(super) fn snapshot(&mut self, out: Staged) -> CuResult<u64> {
        let bytes = self.device.snapshot(self.quota.limit_bytes()).to_bytes();
        staging::put(&*self.staging, out, &bytes)?;
        Ok(bytes.len() as u64)
    }

    pub(super) fn primary_retain(&mut self, device: u32, flags: u32) -> CuResult<()> {
        self.check_device(device)?;
        let id = ContextId::primary(device);
        if self.contexts.contains_key(&id) {
            return self.context(id).map(drop);
        }
        self.make_context(id, device, flags, true)
    }

    pub(super) fn primary_end(&mut self, device: u32) -> CuResult<()> {
        self.check_device(device)?;
        let id = ContextId::primary(device);
        if self.contexts.contains_key(&id) { self.end_context(id, true) } else { Ok(()) }
    }

    pub(super) fn context_create(&mut self, id: ContextId, flags: u32, device: u32) -> CuResult<()> {
        self.check_device(device)?;
        if id == ContextId::NONE || id.primary_device().is_some() || self.contexts.contains_key(&id) {
            return Err(CuError::INVALID_CONTEXT);
        }
        self.make_context(id, device, flags, false)
    }

    pub(super) fn context_destroy(&mut self, id: ContextId) -> CuResult<()> {
        if id.primary_device().is_some() || !self.contexts.contains_key(&id) {
            return Err(CuError::INVALID_CONTEXT);
        }
        self.end_context(id, false)
    }

    pub(super) fn context_synchronize(&mut self, call: Call) -> CuResult<()> {
        let context = self.context(call.context)?;
        let result = self.device.context_synchronize(context);
        self.settle(call.context, result)
    }

    pub(super) fn limit(&mut self, call: Call, limit: u32) -> CuResult<u64> {
        let context = self.context(call.context)?;
        self.device.limit(context, limit)
    }

    /// Sets a limit. What it makes the context larger by than it was at its start is counted.
    pub(super) fn set_limit(&mut self, call: Call, limit: u32, value: u64) -> CuResult<()> {
        let context = self.context(call.context)?;
        let costs = self.device.costs();
        let before = costs.limit_bytes(limit, self.device.limit(context, limit)?);
        let after = costs.limit_bytes(limit, value);
        self.grow(call.context, after.saturating_sub(before))?;
        let set = self.device.set_limit(context, limit, value);
        let shrinks_by =
            if set.is_ok() { before.saturating_sub(after) } else { after.saturating_sub(before) };
        self.shrink(call.context, shrinks_by);
        set
    }

    /// Counts `bytes` more for a context.
    pub(super) fn grow(&mut self, id: ContextId, bytes: u64) -> CuResult<()> {
        self.quota.charge(bytes)?;
        if let Some(context) = self.contexts.get_mut(&id) {
            context.charged_bytes += bytes;
        }
        Ok(())
    }

    fn shrink(&mut self, id: ContextId, bytes: u64) {
        if let Some(context) = self.contexts.get_mut(&id) {
            let bytes = bytes.min(context.charged_bytes);
            context.charged_bytes -= bytes;
            self.quota.release(bytes);
        }
    }

    /// A zone sees the devices of its grant: one for now.
    fn check_device(&self, device: u32) -> CuResult<()> {
        if device == 0 { Ok(()) } else { Err(CuError::INVALID_DEVICE) }
    }

    fn make_context(&mut self, id: ContextId, device: u32, flags: u32, primary: bool) -> CuResult<()> {
        if self.contexts.len() >= CONTEXTS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        // The first was there, and was counted, before the program asked for it (`worker::prepare`).
        let charged_bytes = if primary { 0 } else { self.device.costs().context_bytes };
        self.quota.charge(charged_bytes)?;
        let raw = self
            .device
            .context_create(device, flags, primary)
            .inspect_err(|_| self.quota.release(charged_bytes))?;
        // `CUlimit` 0, a thread's stack: there is room for it from the start.
        let local_bytes = self.device.limit(raw, 0).unwrap_or(0);
        self.contexts.insert(id, Context { raw, device, sticky: None, charged_bytes, local_bytes });
        Ok(())
    }

    /// Ends a context and all that lives in it. What the device refuses to free dies with the worker.
    fn end_context(&mut self, id: ContextId, primary: bool) -> CuResult<()> {
        let Some(Context { raw, device, sticky, charged_bytes, .. }) = self.contexts.remove(&id) else {
            return Err(CuError::INVALID_CONTEXT);
        };
        for event in self.events.remove_where(|event| event.context == id) {
            let _ = self.device.event_destroy(event.raw);
        }
        for stream in self.streams.remove_where(|stream| stream.context == id) {
            let _ = self.device.stream_destroy(stream.raw);
        }
        for image in self.images.remove_where(|image| image.context == Some(id)) {
            self.end_image(image);
        }
        for ended in self.ranges.remove_context(id) {
            let _ = self.device.free(raw, ended.address);
            self.quota.release(ended.charged_bytes);
        }
        let result = self.device.context_destroy(device, raw, primary);
        self.quota.release(charged_bytes);
        sticky.map_or(result, Err)
    }
}
