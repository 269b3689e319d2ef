//! Green contexts of the null device: names, and the arithmetic of splits.

use vgpu_api::{CuResult, SmGroups, SmResource, SmSplit};

use super::Null;
use crate::device::{GreenContexts, Raw};

impl GreenContexts for Null {
    fn sm_resource(&mut self, _device: u32, of: Option<Raw>) -> CuResult<SmResource> {
        self.processors.resource(of)
    }

    fn sm_split(&mut self, _device: u32, of: Option<Raw>, split: SmSplit) -> CuResult<SmGroups> {
        self.processors.split(of, split)
    }

    fn green_create(
        &mut self,
        _device: u32,
        of: Option<Raw>,
        split: SmSplit,
        parts: &[u32],
    ) -> CuResult<(Raw, Raw)> {
        let (name, stream) = (self.name(), self.name());
        self.processors.give(name, of, split, parts)?;
        Ok((name, stream))
    }

    fn green_destroy(&mut self, green: Raw) -> CuResult<()> {
        self.processors.take_back(green)
    }
}
