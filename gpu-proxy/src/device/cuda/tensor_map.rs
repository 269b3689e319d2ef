//! Tensor maps, encoded by the driver: work of the host alone.

use std::ptr;

use vgpu_api::tensor_map::{RANK_MAX, TENSOR_MAP_BYTES, form};
use vgpu_api::{CuError, CuResult, TensorMap, TensorSpec};

use super::table::{Ptr, Table};
use super::{Cuda, number};
use crate::device::TensorMaps;

/// Aligned as the driver asks for.
#[repr(C, align(64))]
struct Place([u8; TENSOR_MAP_BYTES]);

/// A full array: whatever the driver makes of the rank, it reads what is ours.
fn full<T: Copy + Default>(values: &[T]) -> [T; RANK_MAX] {
    let mut array = [T::default(); RANK_MAX];
    for (place, value) in array.iter_mut().zip(values) {
        *place = *value;
    }
    array
}

/// A device address as the driver takes it here.
fn pointer(address: u64) -> CuResult<Ptr> {
    Ok(ptr::without_provenance_mut(usize::try_from(address).map_err(|_| CuError::INVALID_VALUE)?))
}

/// `spec` is whole.
///
/// # Errors
/// The driver's; 801 for a form that it does not have.
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "one arm runs")]
pub fn encode(table: &Table, spec: &TensorSpec) -> CuResult<TensorMap> {
    let mut place = Place([0; TENSOR_MAP_BYTES]);
    let map = ptr::from_mut(&mut place).cast();
    let rank = u32::try_from(spec.dims.len()).map_err(|_| CuError::INVALID_VALUE)?;
    let (dims, strides) = (full(&spec.dims), full(&spec.strides));
    let (steps, boxes) = (full(&spec.element_strides), full(&spec.boxes));
    let (lower, upper) = (full(&spec.lower), full(&spec.upper));
    let (dims, strides, steps) = (dims.as_ptr(), strides.as_ptr(), steps.as_ptr());
    let (data_type, address) = (number(spec.data_type)?, pointer(spec.address.0)?);
    let (interleave, mode, swizzle) = (number(spec.interleave)?, number(spec.mode)?, number(spec.swizzle)?);
    let (promotion, fill) = (number(spec.promotion)?, number(spec.fill)?);
    // SAFETY: all arms: arrays of the largest rank, and a place for a map; the address is only written into the map.
    unsafe {
        match spec.form {
            form::TILED => table.cuTensorMapEncodeTiled(
                map,
                data_type,
                rank,
                address,
                dims,
                strides,
                boxes.as_ptr(),
                steps,
                interleave,
                swizzle,
                promotion,
                fill,
            ),
            form::IM2COL => table.cuTensorMapEncodeIm2col(
                map,
                data_type,
                rank,
                address,
                dims,
                strides,
                lower.as_ptr(),
                upper.as_ptr(),
                spec.channels,
                spec.pixels,
                steps,
                interleave,
                swizzle,
                promotion,
                fill,
            ),
            _ => table.cuTensorMapEncodeIm2colWide(
                map,
                data_type,
                rank,
                address,
                dims,
                strides,
                lower[0],
                upper[0],
                spec.channels,
                spec.pixels,
                steps,
                interleave,
                mode,
                swizzle,
                promotion,
                fill,
            ),
        }
    }?;
    Ok(TensorMap(place.0))
}

/// # Errors
/// The driver's.
pub fn replace_address(table: &Table, map: TensorMap, address: u64) -> CuResult<TensorMap> {
    let mut place = Place(map.0);
    // SAFETY: a map's bytes, which may be anything: the driver looks at no other memory by them; the address is only written there.
    unsafe { table.cuTensorMapReplaceAddress(ptr::from_mut(&mut place).cast(), pointer(address)?) }?;
    Ok(TensorMap(place.0))
}

impl TensorMaps for Cuda {
    fn tensor_map(&mut self, spec: &TensorSpec) -> CuResult<TensorMap> {
        encode(&self.table, spec)
    }

    fn tensor_map_at(&mut self, map: TensorMap, address: u64) -> CuResult<TensorMap> {
        replace_address(&self.table, map, address)
    }
}
