//! Contexts of the software GPU: a device and limits.

use vgpu_api::{CuError, CuResult};

use super::{Context, LIMITS, Soft};
use crate::device::{Contexts, Raw};

impl Contexts for Soft {
    fn context_create(&mut self, device: u32, _flags: u32, is_primary: bool) -> CuResult<Raw> {
        if device >= self.devices {
            return Err(CuError::INVALID_DEVICE);
        }
        let name = self.name();
        self.contexts.insert(name, Context { device, is_primary, limits: LIMITS });
        Ok(name)
    }

    fn context_destroy(&mut self, _device: u32, context: Raw, _primary: bool) -> CuResult<()> {
        self.contexts.remove(&context);
        self.end_instances_in(context);
        Ok(())
    }

    fn context_synchronize(&mut self, _context: Raw) -> CuResult<()> {
        Ok(())
    }

    fn limit(&mut self, context: Raw, limit: u32) -> CuResult<u64> {
        self.context(context)?.limits.get(limit as usize).copied().ok_or(CuError::UNSUPPORTED_LIMIT)
    }

    /// Stored only: stack, heap and output buffer of this GPU are not the program's to choose.
    fn set_limit(&mut self, context: Raw, limit: u32, value: u64) -> CuResult<()> {
        let context = self.contexts.get_mut(&context).ok_or(CuError::INVALID_CONTEXT)?;
        *context.limits.get_mut(limit as usize).ok_or(CuError::UNSUPPORTED_LIMIT)? = value;
        Ok(())
    }

    fn peer_enable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        self.enable(context, peer)
    }

    fn peer_disable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        self.disable(context, peer)
    }
}
