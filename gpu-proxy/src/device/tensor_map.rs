//! Tensor maps, which only a device can encode.

use vgpu_api::{CuError, CuResult, TensorMap, TensorSpec};

/// The part of a [`super::Device`] that has to do with tensor maps.
///
/// # Errors
/// All methods: the `CUresult` that the program gets, as of [`super::Device`].
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait TensorMaps {
    /// Encodes a tensor map, whose spec is whole.
    fn tensor_map(&mut self, _spec: &TensorSpec) -> CuResult<TensorMap> {
        Err(CuError::NOT_SUPPORTED)
    }
    /// The same map of a tensor at another address.
    fn tensor_map_at(&mut self, _map: TensorMap, _address: u64) -> CuResult<TensorMap> {
        Err(CuError::NOT_SUPPORTED)
    }
}
