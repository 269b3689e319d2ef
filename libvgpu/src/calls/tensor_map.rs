//! Tensor maps: encoded by the driver, asked for once for each set of parameters.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use vgpu_api::tensor_map::{RANK_MAX, TENSOR_MAP_BYTES, form};
use vgpu_api::{CuError, CuResult, DevicePtr, TensorMap, TensorSpec, ask};

use crate::abi::{In, Out, export};
use crate::core::contexts::current;
use crate::core::process::process;
use crate::core::slab::lock;

/// A map's alignment in bytes.
const ALIGN: u64 = 64;
/// Answers that are kept; then from the start again.
const KEPT_MAX: usize = 1024;

type Map = [u8; TENSOR_MAP_BYTES];

/// Maps by what they were made of. A map says nothing but that: it is right as long as the process lives.
static KEPT: LazyLock<Mutex<HashMap<TensorSpec, TensorMap>>> = LazyLock::new(Mutex::default);

/// What all forms share.
struct Tensor {
    data_type: u32,
    rank: u32,
    address: u64,
    dims: In<u64>,
    strides: In<u64>,
    element_strides: In<u32>,
}

fn some<T: Copy>(values: In<T>, count: usize) -> CuResult<Vec<T>> {
    (0..count).map(|i| values.at(i)).collect()
}

impl Tensor {
    /// Without what the forms add.
    fn spec(&self, form: u32, lowest_rank: usize) -> CuResult<TensorSpec> {
        let rank = self.rank as usize;
        if !(lowest_rank..=RANK_MAX).contains(&rank) {
            return Err(CuError::INVALID_VALUE);
        }
        Ok(TensorSpec {
            form,
            data_type: self.data_type,
            address: DevicePtr(self.address),
            dims: some(self.dims, rank)?,
            strides: some(self.strides, rank - 1)?,
            element_strides: some(self.element_strides, rank)?,
            boxes: Vec::new(),
            lower: Vec::new(),
            upper: Vec::new(),
            channels: 0,
            pixels: 0,
            interleave: 0,
            mode: 0,
            swizzle: 0,
            promotion: 0,
            fill: 0,
        })
    }
}

/// A place that is right for a map.
fn place(out: Out<Map>) -> CuResult<Out<Map>> {
    if out.wanted()?.address().is_multiple_of(ALIGN) { Ok(out) } else { Err(CuError::INVALID_VALUE) }
}

fn encode(out: Out<Map>, spec: TensorSpec) -> CuResult<()> {
    let process = process()?;
    let known = lock(&KEPT).get(&spec).copied();
    if let Some(map) = known {
        return out.set(map.0);
    }
    let map = ask::vgpuTensorMapEncode(&process.channel, current(), spec.clone())?;
    let mut kept = lock(&KEPT);
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(spec, map);
    drop(kept);
    out.set(map.0)
}

export! {
    fn cuTensorMapEncodeTiled(
        out: Out<Map>, data_type: u32, rank: u32, address: In<u8>, dims: In<u64>, strides: In<u64>, boxes: In<u32>,
        element_strides: In<u32>, interleave: u32, swizzle: u32, promotion: u32, fill: u32,
    ) {
        process()?;
        let out = place(out)?;
        let tensor = Tensor { data_type, rank, address: address.address(), dims, strides, element_strides };
        let spec = tensor.spec(form::TILED, 1)?;
        let boxes = some(boxes, spec.dims.len())?;
        encode(out, TensorSpec { boxes, interleave, swizzle, promotion, fill, ..spec })
    }

    fn cuTensorMapEncodeIm2col(
        out: Out<Map>, data_type: u32, rank: u32, address: In<u8>, dims: In<u64>, strides: In<u64>, lower: In<i32>,
        upper: In<i32>, channels: u32, pixels: u32, element_strides: In<u32>, interleave: u32, swizzle: u32,
        promotion: u32, fill: u32,
    ) {
        process()?;
        let out = place(out)?;
        let tensor = Tensor { data_type, rank, address: address.address(), dims, strides, element_strides };
        let spec = tensor.spec(form::IM2COL, 3)?;
        let corners = spec.dims.len() - 2;
        let (lower, upper) = (some(lower, corners)?, some(upper, corners)?);
        encode(out, TensorSpec { lower, upper, channels, pixels, interleave, swizzle, promotion, fill, ..spec })
    }

    fn cuTensorMapEncodeIm2colWide(
        out: Out<Map>, data_type: u32, rank: u32, address: In<u8>, dims: In<u64>, strides: In<u64>, lower: i32,
        upper: i32, channels: u32, pixels: u32, element_strides: In<u32>, interleave: u32, mode: u32, swizzle: u32,
        promotion: u32, fill: u32,
    ) {
        process()?;
        let out = place(out)?;
        let tensor = Tensor { data_type, rank, address: address.address(), dims, strides, element_strides };
        let spec = tensor.spec(form::IM2COL_WIDE, 3)?;
        let (lower, upper) = (vec![lower], vec![upper]);
        encode(
            out,
            TensorSpec { lower, upper, channels, pixels, interleave, mode, swizzle, promotion, fill, ..spec },
        )
    }

    fn cuTensorMapReplaceAddress(map: Out<Map>, address: In<u8>) {
        let process = process()?;
        let old = TensorMap(place(map)?.get()?);
        let address = DevicePtr(address.address());
        map.set(ask::cuTensorMapReplaceAddress(&process.channel, current(), old, address)?.0)
    }
}
