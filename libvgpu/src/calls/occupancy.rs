//! How many blocks fit: the worker knows, the guest remembers.

use vgpu_api::{ContextId, CuError, CuResult, Launch, ask};

use super::device::{device, multiprocessors};
use super::launch::{Config, shape_of, with_attributes};
use crate::abi::{Abi, In, Out, Raw, export};
use crate::core::channel::Channel;
use crate::core::contexts::{Entered, enter};

/// `CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR`.
const BLOCKS_MAX: u32 = 106;
/// `CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE`, the only flag.
const DISABLE_CACHING_OVERRIDE: u32 = 1;

/// `CUoccupancyB2DSize`: dynamic shared memory that a block size needs.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct SharedOfBlock(Option<extern "C" fn(i32) -> usize>);

impl Abi for SharedOfBlock {
    const LETTER: u8 = b'p';
}

fn active_blocks(entered: Entered, raw: Raw, threads: i32, shared_bytes: usize, flags: u32) -> CuResult<i32> {
    if flags > DISABLE_CACHING_OVERRIDE {
        return Err(CuError::INVALID_VALUE);
    }
    let threads = u32::try_from(threads).ok().filter(|threads| *threads > 0).ok_or(CuError::INVALID_VALUE)?;
    let limits = entered.process.launch_limits.get(entered.device as usize);
    let fits = limits.is_none_or(|limits| threads <= limits.threads);
    entered.process.images.with_function(raw.0, |handle, _, function| {
        if !fits {
            return Ok(0);
        }
        let blocks = function.occupancy((threads, shared_bytes as u64, flags), || {
            let (channel, context) = (&entered.process.channel, entered.context);
            ask::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
                channel,
                context,
                handle,
                threads,
                shared_bytes as u64,
                flags,
            )
        })?;
        i32::try_from(blocks).map_err(|_| CuError::UNKNOWN)
    })
}

/// Tries block sizes from the largest down, by warps, and takes the one that keeps the most threads busy.
fn best_block(
    grid: Out<i32>,
    block: Out<i32>,
    raw: Raw,
    shared: SharedOfBlock,
    shared_bytes: usize,
    limit: i32,
    flags: u32,
) -> CuResult<()> {
    const WARP: i32 = 32;
    let entered = enter()?;
    if limit < 0 {
        return Err(CuError::INVALID_VALUE);
    }
    let most = entered
        .process
        .images
        .with_function(raw.0, |handle, _, function| function.attribute(entered, handle, 0))?;
    let multiprocessors = multiprocessors(entered)?;
    let most = if limit > 0 { most.min(limit) } else { most };
    let mut best = (0, 0, 0);
    let mut threads = most;
    while threads > 0 {
        let shared_bytes = shared.0.map_or(shared_bytes, |of_block| of_block(threads));
        let blocks = active_blocks(entered, raw, threads, shared_bytes, flags)?;
        if blocks * threads > best.0 {
            best = (blocks * threads, threads, blocks);
        }
        threads = if threads % WARP == 0 { threads - WARP } else { threads - threads % WARP };
    }
    grid.set(best.2 * multiprocessors)?;
    block.set(best.1)
}

/// Asks `question` about the shape of a launch without parameters.
fn about(
    raw: Raw,
    config: In<Config>,
    question: fn(&Channel, ContextId, Launch<'_>) -> CuResult<u32>,
) -> CuResult<i32> {
    let entered = enter()?;
    let config = config.get()?;
    if config.grid.contains(&0) || config.block.contains(&0) {
        return Err(CuError::INVALID_VALUE);
    }
    let answer = entered.process.images.with_function(raw.0, |handle, _, _| {
        let shape = shape_of(entered, &config, handle)?;
        with_attributes(&config, None, |attributes| {
            question(&entered.process.channel, entered.context, Launch { shape, attributes, params: &[] })
        })
    })?;
    i32::try_from(answer).map_err(|_| CuError::UNKNOWN)
}

export! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(out: Out<i32>, function: Raw, threads: i32, shared_bytes: usize) {
        out.set(active_blocks(enter()?, function, threads, shared_bytes, 0)?)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        out: Out<i32>, function: Raw, threads: i32, shared_bytes: usize, flags: u32,
    ) {
        out.set(active_blocks(enter()?, function, threads, shared_bytes, flags)?)
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: Out<i32>, block: Out<i32>, function: Raw, shared: SharedOfBlock, shared_bytes: usize, limit: i32,
    ) {
        best_block(grid, block, function, shared, shared_bytes, limit, 0)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Out<i32>, block: Out<i32>, function: Raw, shared: SharedOfBlock, shared_bytes: usize, limit: i32, flags: u32,
    ) {
        best_block(grid, block, function, shared, shared_bytes, limit, flags)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(out: Out<usize>, function: Raw, blocks: i32, threads: i32) {
        let entered = enter()?;
        let positive = |number: i32| u32::try_from(number).ok().filter(|number| *number > 0).ok_or(CuError::INVALID_VALUE);
        let (blocks, threads) = (positive(blocks)?, positive(threads)?);
        let (_, device) = device(entered.process, entered.device.cast_signed())?;
        if device.attribute(BLOCKS_MAX).and_then(|most| u32::try_from(most).ok()).is_some_and(|most| blocks > most) {
            return Err(CuError::INVALID_VALUE);
        }
        let bytes = entered.process.images.with_function(function.0, |handle, _, _| {
            let (channel, context) = (&entered.process.channel, entered.context);
            ask::cuOccupancyAvailableDynamicSMemPerBlock(channel, context, handle, blocks, threads)
        })?;
        out.set(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    fn cuOccupancyMaxActiveClusters(out: Out<i32>, function: Raw, config: In<Config>) {
        // As NVIDIA's driver says it: other calls give 400 for no function (seen on driver 580).
        if function.0 == 0 {
            return Err(CuError::INVALID_VALUE);
        }
        out.set(about(function, config, ask::cuOccupancyMaxActiveClusters)?)
    }

    fn cuOccupancyMaxPotentialClusterSize(out: Out<i32>, function: Raw, config: In<Config>) {
        out.set(about(function, config, ask::cuOccupancyMaxPotentialClusterSize)?)
    }
}
