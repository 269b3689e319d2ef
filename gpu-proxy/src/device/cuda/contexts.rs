//! Contexts of the driver.

use vgpu_api::{CuError, CuResult};

use super::table::NULL;
use super::{Cuda, size};
use crate::device::{Contexts, Raw};

impl Contexts for Cuda {
    fn context_create(&mut self, device: u32, flags: u32, primary: bool) -> CuResult<Raw> {
        let own = *self.primaries.get(device as usize).ok_or(CuError::INVALID_DEVICE)?;
        if primary {
            return Ok(own);
        }
        let on = *self.devices.get(device as usize).ok_or(CuError::INVALID_DEVICE)?;
        let mut context = NULL;
        // SAFETY: the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuCtxCreate_v2(&raw mut context, flags, on) }?;
        let name = self.contexts.add(context);
        self.created.insert(name, device);
        self.current = Some(name);
        Ok(name)
    }

    /// It cannot be made again behind the door.
    fn keeps_primary(&self) -> bool {
        true
    }

    /// The primary context stays. What was in it has been ended.
    fn context_destroy(&mut self, _device: u32, context: Raw, primary: bool) -> CuResult<()> {
        let waited = if primary { self.context_synchronize(context) } else { Ok(()) };
        self.memories.end_idle_pieces(&self.table, context);
        if primary {
            return waited;
        }
        let pointer = self.contexts.remove(context)?;
        self.created.remove(&context);
        self.current = None;
        // SAFETY: a live context of ours, named no more.
        unsafe { self.table.cuCtxDestroy_v2(pointer) }
    }

    fn context_synchronize(&mut self, context: Raw) -> CuResult<()> {
        self.enter(context)?;
        // SAFETY: a context is current.
        let waited = unsafe { self.table.cuCtxSynchronize() };
        self.look_for_output(waited)
    }

    fn limit(&mut self, context: Raw, limit: u32) -> CuResult<u64> {
        self.enter(context)?;
        let mut value = 0;
        // SAFETY: the driver writes one number to a variable of ours.
        unsafe { self.table.cuCtxGetLimit(&raw mut value, limit) }?;
        Ok(value as u64)
    }

    fn set_limit(&mut self, context: Raw, limit: u32, value: u64) -> CuResult<()> {
        self.enter(context)?;
        let value = size(value)?;
        // SAFETY: numbers only.
        unsafe { self.table.cuCtxSetLimit(limit, value) }
    }

    fn peer_enable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        let (pointer, device) = (self.contexts.get(peer)?, self.number_of(context)?);
        self.enter(context)?;
        // SAFETY: a context is current, the other one is a live one of ours.
        unsafe { self.table.cuCtxEnablePeerAccess(pointer, 0) }?;
        let opened = self.memories.open_to(&self.table, device, peer);
        if opened.is_err() {
            // SAFETY: as above.
            let _ = unsafe { self.table.cuCtxDisablePeerAccess(pointer) };
        }
        opened
    }

    fn peer_disable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        let (pointer, device) = (self.contexts.get(peer)?, self.number_of(context)?);
        self.enter(context)?;
        // SAFETY: as above.
        let ended = unsafe { self.table.cuCtxDisablePeerAccess(pointer) };
        // Also where an error has ended one of them: later memory of the peer's is not this device's to reach.
        ended.and(self.memories.close_to(&self.table, device, peer))
    }
}
