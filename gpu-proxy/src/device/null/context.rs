//! Contexts that remember their limits.

use vgpu_api::{CuError, CuResult};

use super::Null;
use crate::device::{Contexts, Place, Raw, Streams, soft};

impl Contexts for Null {
    fn context_create(&mut self, device: u32, _flags: u32, primary: bool) -> CuResult<Raw> {
        let kept = self.primaries.get(&device).copied().filter(|_| primary);
        let context = kept.unwrap_or_else(|| self.name());
        if primary && self.keeps_primary {
            self.primaries.insert(device, context);
        }
        Ok(context)
    }

    fn keeps_primary(&self) -> bool {
        self.keeps_primary
    }

    fn context_destroy(&mut self, _device: u32, context: Raw, _primary: bool) -> CuResult<()> {
        if self.primaries.values().any(|kept| *kept == context) {
            return Ok(());
        }
        self.limits.retain(|(owner, _), _| *owner != context);
        Ok(())
    }

    fn context_synchronize(&mut self, context: Raw) -> CuResult<()> {
        self.wait(|stalls| stalls.query_context(context))?;
        self.stream_synchronize(Place { context, stream: None })
    }

    fn limit(&mut self, context: Raw, limit: u32) -> CuResult<u64> {
        let at_start = soft::LIMITS.get(limit as usize).ok_or(CuError::UNSUPPORTED_LIMIT)?;
        Ok(self.limits.get(&(context, limit)).copied().unwrap_or(*at_start))
    }

    fn set_limit(&mut self, context: Raw, limit: u32, value: u64) -> CuResult<()> {
        self.limit(context, limit)?;
        self.limits.insert((context, limit), value);
        Ok(())
    }

    fn peer_enable(&mut self, _context: Raw, _peer: Raw) -> CuResult<()> {
        Ok(())
    }

    fn peer_disable(&mut self, _context: Raw, _peer: Raw) -> CuResult<()> {
        Ok(())
    }
}
