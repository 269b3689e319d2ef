//! Tensor maps of zeros.

use vgpu_api::tensor_map::TENSOR_MAP_BYTES;
use vgpu_api::{CuResult, TensorMap, TensorSpec};

use super::Null;
use crate::device::TensorMaps;

impl TensorMaps for Null {
    fn tensor_map(&mut self, _spec: &TensorSpec) -> CuResult<TensorMap> {
        Ok(TensorMap([0; TENSOR_MAP_BYTES]))
    }

    fn tensor_map_at(&mut self, map: TensorMap, _address: u64) -> CuResult<TensorMap> {
        Ok(map)
    }
}
