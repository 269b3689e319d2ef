//! Green contexts of the software GPU: their kernels read the numbers of their multiprocessors, and take as long as all.

use vgpu_api::{CuError, CuResult, SmGroups, SmResource, SmSplit};

use super::{Context, LIMITS, Soft};
use crate::device::{GreenContexts, Raw};

impl GreenContexts for Soft {
    fn sm_resource(&mut self, _device: u32, of: Option<Raw>) -> CuResult<SmResource> {
        self.processors.resource(of)
    }

    fn sm_split(&mut self, _device: u32, of: Option<Raw>, split: SmSplit) -> CuResult<SmGroups> {
        self.processors.split(of, split)
    }

    fn green_create(
        &mut self,
        device: u32,
        of: Option<Raw>,
        split: SmSplit,
        parts: &[u32],
    ) -> CuResult<(Raw, Raw)> {
        if device >= self.devices {
            return Err(CuError::INVALID_DEVICE);
        }
        let (name, stream) = (self.name(), self.name());
        self.processors.give(name, of, split, parts)?;
        self.contexts.insert(name, Context { device, is_primary: true, limits: LIMITS });
        Ok((name, stream))
    }

    fn green_destroy(&mut self, green: Raw) -> CuResult<()> {
        self.processors.take_back(green)?;
        self.contexts.remove(&green);
        Ok(())
    }
}
