//! Tensor maps.

use vgpu_api::{CuError, CuResult, DevicePtr, TensorMap, TensorSpec};

use super::Session;

/// A map holds an address and is never followed before a kernel does, in the process's own address space. It has to be of this process
/// all the same: nothing else is a driver's to see.
impl Session {
    pub(super) fn tensor_map(&mut self, spec: &TensorSpec) -> CuResult<TensorMap> {
        if !spec.is_whole() {
            return Err(CuError::INVALID_VALUE);
        }
        self.ranges.check(spec.address, 1)?;
        self.device.tensor_map(spec)
    }

    pub(super) fn tensor_map_at(&mut self, map: TensorMap, address: DevicePtr) -> CuResult<TensorMap> {
        self.ranges.check(address, 1)?;
        self.device.tensor_map_at(map, address.0)
    }
}
