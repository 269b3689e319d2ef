//! Parameters of graphs' nodes as the driver takes them.

use std::ptr;

use vgpu_api::graph::{CopyBox, HostSide, Rows};
use vgpu_api::launch::attribute;
use vgpu_api::{CuError, CuResult, Extent, MemoryOp, Memset};

use super::arrays::{copy, host as packed};
use super::execution::{PARAM_POINTER, PARAM_SIZE};
use super::host::{give_of_graph, run_of_graph};
use super::table::{
    Copy3d, CopySide, FillParams, HostParams, KernelParams, NULL, Ptr, StreamOp, Table, WordsParams,
};
use super::virtual_memory::stream_op;
use super::{Cuda, size};
use crate::device::{DeviceLaunch, GraphFunction, Side};

/// `CU_MEMORYTYPE_HOST`.
const HOST: u32 = 1;

/// Those that a node of a graph can have. That a launch may begin early is an edge there.
pub(super) fn is_of_node(id: u32) -> bool {
    !matches!(
        id,
        attribute::IGNORE
            | attribute::PROGRAMMATIC_STREAM_SERIALIZATION
            | attribute::PROGRAMMATIC_EVENT
            | attribute::LAUNCH_COMPLETION_EVENT
    )
}

/// Runs `body` with a kernel's parameters as the driver takes them for a node.
pub(super) fn with_kernel<T>(
    table: &Table,
    function: Ptr,
    launch: &DeviceLaunch<'_>,
    body: impl FnOnce(&KernelParams) -> CuResult<T>,
) -> CuResult<T> {
    let mut bytes = launch.params.len();
    let block: Ptr = launch.params.as_ptr().cast_mut().cast();
    let mut extra = [PARAM_POINTER, block, PARAM_SIZE, ptr::from_mut(&mut bytes).cast(), NULL];
    let mut params = KernelParams {
        function,
        grid: launch.grid,
        block: launch.block,
        shared_bytes: launch.shared_bytes,
        params: ptr::null_mut(),
        extra: ptr::null_mut(),
        kernel: NULL,
        context: NULL,
    };
    // The driver refuses `extra` for a kernel whose blocks run together.
    let together = launch.attributes.iter().any(|each| each.id == attribute::COOPERATIVE);
    let mut places = if together { places(table, function, launch.params)? } else { Vec::new() };
    if together {
        params.params = places.as_mut_ptr();
    } else if !launch.params.is_empty() {
        params.extra = extra.as_mut_ptr();
    }
    body(&params)
}

/// Where each parameter lies in the block.
fn places(table: &Table, function: Ptr, block: &[u8]) -> CuResult<Vec<Ptr>> {
    let mut places = Vec::new();
    // Each has a byte at least.
    while places.len() < block.len() {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: a live function; the driver writes two numbers to variables of ours, and knows how many parameters there are.
        let known =
            unsafe { table.cuFuncGetParamInfo(function, places.len(), &raw mut offset, &raw mut bytes) };
        if known.is_err() {
            break;
        }
        let end = offset.checked_add(bytes).ok_or(CuError::INVALID_VALUE)?;
        let param = block.get(offset..end).ok_or(CuError::INVALID_VALUE)?;
        places.push(param.as_ptr().cast_mut().cast());
    }
    Ok(places)
}

pub(super) fn fill_params(memset: &Memset) -> CuResult<FillParams> {
    Ok(FillParams {
        at: memset.dst.0,
        pitch: size(memset.pitch)?,
        value: memset.value,
        element_bytes: memset.element_bytes,
        width: size(memset.width)?,
        height: size(memset.rows)?,
    })
}

/// Runs `body` with the driver's form of a batch.
pub(super) fn with_words<T>(
    context: Ptr,
    ops: &[MemoryOp],
    body: impl FnOnce(&WordsParams) -> CuResult<T>,
) -> CuResult<T> {
    let mut ops: Vec<StreamOp> = ops.iter().map(stream_op).collect();
    let count = u32::try_from(ops.len()).map_err(|_| CuError::INVALID_VALUE)?;
    body(&WordsParams { context, count, ops: ops.as_mut_ptr(), flags: 0 })
}

pub(super) fn host_params(function: &GraphFunction) -> HostParams {
    HostParams { function: run_of_graph, data: give_of_graph(function) }
}

/// The driver's form of a copy; `host` is the buffer of its host's side, which is packed.
pub(super) fn copy_params(copy: &CopyBox, side: HostSide, host: Ptr) -> CuResult<Copy3d> {
    let on_device = |rows: &Rows| {
        Ok::<_, CuError>(CopySide {
            pitch: size(rows.pitch)?,
            // Of one slice a guest need not say how many rows it has.
            height: size(if copy.depth > 1 { rows.slice_rows } else { copy.height })?,
            ..CopySide::at(rows.start.0)
        })
    };
    let on_host = || {
        Ok::<_, CuError>(CopySide {
            host,
            pitch: size(copy.width)?,
            height: size(copy.height)?,
            ..CopySide::of(HOST)
        })
    };
    let from = if side == HostSide::From { on_host()? } else { on_device(&copy.from)? };
    let to = if side == HostSide::To { on_host()? } else { on_device(&copy.to)? };
    Ok(Copy3d {
        from,
        to,
        width_bytes: size(copy.width)?,
        height: size(copy.height)?,
        depth: size(copy.depth)?,
    })
}

impl Cuda {
    /// The driver's form of a copy with an array; `host` is the buffer of its host's side, which is packed.
    pub(super) fn array_copy_params(
        &self,
        (to, from): (Option<Side>, Option<Side>),
        extent: Extent,
        host: Ptr,
    ) -> CuResult<Copy3d> {
        let side = |side: Option<Side>| match side {
            Some(side) => self.box_side(side),
            None => packed(host.cast(), extent),
        };
        copy(side(to)?, side(from)?, extent)
    }
}
