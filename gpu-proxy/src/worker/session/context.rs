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

    pub(super) fn set_limit(&mut self, call: Call, limit: u32, value: u64) -> CuResult<()> {
        let context = self.context(call.context)?;
        self.device.set_limit(context, limit, value)
    }

    /// A zone sees the devices of its grant: one for now.
    fn check_device(&self, device: u32) -> CuResult<()> {
        if device == 0 { Ok(()) } else { Err(CuError::INVALID_DEVICE) }
    }

    fn make_context(&mut self, id: ContextId, device: u32, flags: u32, primary: bool) -> CuResult<()> {
        if self.contexts.len() >= CONTEXTS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let raw = self.device.context_create(device, flags, primary)?;
        self.contexts.insert(id, Context { raw, device, sticky: None });
        Ok(())
    }

    /// Ends a context and all that lives in it. What the device refuses to free dies with the worker.
    fn end_context(&mut self, id: ContextId, primary: bool) -> CuResult<()> {
        let Some(Context { raw, device, sticky }) = self.contexts.remove(&id) else {
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
        sticky.map_or(result, Err)
    }
}
