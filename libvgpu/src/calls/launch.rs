//! Launches: parameters are packed here, checked as far as is cheap, and queued.

use std::cell::RefCell;
use std::cmp::Ordering;

use vgpu_api::launch::{
    ATTRIBUTES_FEW, ATTRIBUTES_MAX, BUFFER_FEW, BUFFER_MAX, LaunchAttribute, LaunchAttributes, LaunchShape,
    PARAM_BYTES_MAX, attribute,
};
use vgpu_api::symbols::Mode;
use vgpu_api::{ContextId, CuError, CuResult, FunctionHandle, ImageKind, Launch, Stream, ask};

use super::function::MAX_DYNAMIC_SHARED;
use super::stream_attribute::of_nodes;
use crate::abi::{In, Raw, Span, export};
use crate::core::contexts::{Entered, enter};
use crate::core::functions::Function;
use crate::core::graphs::{Kernel, Params, Work};
use crate::core::images::Image;
use crate::core::streams::{self, resolve};

/// `CUlaunchConfig`, 56 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Config {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: Raw,
    pub attributes: u64,
    pub attribute_count: u32,
}
const _: () = assert!(size_of::<Config>() == 56);

/// `CUlaunchAttribute`, 72 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Attribute {
    id: u32,
    padding: u32,
    value: [u8; 64],
}
const _: () = assert!(size_of::<Attribute>() == 72);

/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`.
const FUNCTION_MAX_THREADS: u32 = 0;

/// `CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED`.
const NON_PORTABLE_CLUSTERS: u32 = 14;

/// Parameter blocks of so many bytes are packed on the stack: nearly all.
const TINY_BYTES: usize = 64;
const SMALL_BYTES: usize = 512;

thread_local! {
    /// Where larger ones are packed: no allocation and no clearing of kilobytes for each launch.
    static PACKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub fn launch(
    config: Config,
    function: Raw,
    params: In<u64>,
    extra: In<u64>,
    mode: Mode,
    more: Option<LaunchAttribute>,
) -> CuResult<()> {
    let entered = enter()?;
    let stream = resolve(entered, config.stream.0, mode)?;
    with_attributes(&config, more, |attributes| {
        queue(entered, &config, function, (params, extra), stream, attributes)
    })
}

/// Runs `body` with the packed attributes of a launch.
#[inline]
pub fn with_attributes<T>(
    config: &Config,
    more: Option<LaunchAttribute>,
    body: impl FnOnce(LaunchAttributes<'_>) -> CuResult<T>,
) -> CuResult<T> {
    match config.attribute_count as usize + usize::from(more.is_some()) {
        0 => body(LaunchAttributes::default()),
        1..=ATTRIBUTES_FEW => packed_attributes(config, more, &mut BUFFER_FEW.clone(), body),
        _ => packed_attributes(config, more, &mut BUFFER_MAX.clone(), body),
    }
}

fn packed_attributes<T>(
    config: &Config,
    more: Option<LaunchAttribute>,
    buffer: &mut [u8],
    body: impl FnOnce(LaunchAttributes<'_>) -> CuResult<T>,
) -> CuResult<T> {
    body(LaunchAttributes::pack(attributes(config).chain(more.map(Ok)), buffer)?)
}

#[inline]
fn queue(
    entered: Entered,
    config: &Config,
    function: Raw,
    (params, extra): (In<u64>, In<u64>),
    stream: Stream,
    attributes: LaunchAttributes<'_>,
) -> CuResult<()> {
    entered.process.images.with_function(function.0, |function, image, known| {
        check(entered, config, known)
            .and_then(|()| check_attributes(config, known, attributes))
            .and_then(|()| own_context(entered, image, stream))
            .inspect_err(|_| entered.process.graphs.launch_refused(entered, stream))?;
        let shape = LaunchShape {
            function,
            stream,
            grid: config.grid,
            block: config.block,
            shared_bytes: config.shared_bytes,
        };
        with_params(known, params, extra, |params| {
            if entered.process.graphs.is_capturing() && captured(entered, &shape, known, attributes, params)?
            {
                return Ok(());
            }
            let (channel, context) = (&entered.process.channel, entered.context);
            ask::cuLaunchKernel(channel, context, Launch { shape, attributes, params })?;
            entered.process.limits.launched(entered, known);
            // Where every call waits, a kernel's fault is its launch's to tell.
            if channel.always_waits() { ask::cuStreamSynchronize(channel, context, stream) } else { Ok(()) }
        })
    })
}

/// Whether a capture has taken the launch.
#[cold]
fn captured(
    entered: Entered,
    shape: &LaunchShape,
    function: &Function,
    attributes: LaunchAttributes<'_>,
    params: &[u8],
) -> CuResult<bool> {
    let early = |each: LaunchAttribute| {
        each.id == attribute::PROGRAMMATIC_STREAM_SERIALIZATION && each.word(0) != Some(0)
    };
    let early = attributes.iter().any(early);
    entered.process.graphs.captured_with(entered, shape.stream, early, |_| {
        let mut kernel = kernel(shape, function, params, streams::context_of(entered, shape.stream)?);
        for each in attributes.iter() {
            match each.id {
                attribute::PROGRAMMATIC_STREAM_SERIALIZATION => {} // An edge of the graph.
                // Events in attributes: the worker does not take them either.
                attribute::PROGRAMMATIC_EVENT | attribute::LAUNCH_COMPLETION_EVENT => {
                    return Err(CuError::NOT_SUPPORTED);
                }
                _ => kernel.attributes.push(each),
            }
        }
        // What the stream has goes with each kernel that does not say otherwise, as with NVIDIA's driver 580.
        for each in of_nodes(entered, shape.stream)? {
            let has_own = kernel.attributes.iter().any(|own| own.id == each.id);
            if !has_own && kernel.attributes.len() < ATTRIBUTES_MAX {
                kernel.attributes.push(each);
            }
        }
        Ok(Work::Kernel(Box::new(kernel)))
    })
}

/// A graph's node of a launch, without attributes.
pub fn kernel(shape: &LaunchShape, function: &Function, params: &[u8], context: ContextId) -> Kernel {
    let LaunchShape { function: handle, grid, block, shared_bytes, .. } = *shape;
    let params = Params::new(params, function.params.iter().map(|param| param.offset));
    Kernel { function: handle, context, grid, block, shared_bytes, params, attributes: Vec::new() }
}

/// What the program asks beside the shape, less what means nothing.
fn attributes(config: &Config) -> impl Iterator<Item = CuResult<LaunchAttribute>> {
    // SAFETY: the program lends the array for the call, by CUDA's contract; null is refused by `at`.
    let list = unsafe {
        In::<Attribute>::from_raw(Span::at_address(config.attributes).address() as *const Attribute)
    };
    (0..config.attribute_count as usize).filter_map(move |i| match list.at(i) {
        Ok(Attribute { id: attribute::IGNORE, .. }) => None,
        Ok(Attribute { id, value, .. }) if attribute::travels(id) => Some(Ok(LaunchAttribute { id, value })),
        Ok(Attribute { id, .. }) if id > attribute::LAST => Some(Err(CuError::INVALID_VALUE)),
        Ok(_) => Some(Err(CuError::NOT_SUPPORTED)),
        Err(error) => Some(Err(error)),
    })
}

/// The mistakes that CUDA reports from the launch itself, as far as they can be seen here.
#[inline]
pub fn check(entered: Entered, config: &Config, function: &Function) -> CuResult<()> {
    let (grid, block) = (config.grid, config.block);
    if grid.contains(&0) {
        return Err(CuError::INVALID_VALUE);
    }
    let limits =
        entered.process.launch_limits.get(entered.device as usize).ok_or(CuError::INVALID_CONTEXT)?;
    if !limits.allow_block(block) || grid.iter().zip(limits.grid).any(|(size, limit)| *size > limit) {
        return Err(CuError::INVALID_VALUE);
    }
    let threads = block[0] * block[1] * block[2];
    let known = |number| function.known_attribute(number).and_then(|value| u32::try_from(value).ok());
    if known(FUNCTION_MAX_THREADS).is_some_and(|most| most != 0 && threads > most) {
        return Err(CuError::INVALID_VALUE);
    }
    if known(MAX_DYNAMIC_SHARED).is_some_and(|most| config.shared_bytes > most) {
        return Err(CuError::INVALID_VALUE);
    }
    Ok(())
}

/// What is wrong with attributes whatever the device: clusters that do not divide the grid or are too large, numbers of nothing.
#[inline]
fn check_attributes(config: &Config, function: &Function, attributes: LaunchAttributes<'_>) -> CuResult<()> {
    for each in attributes.iter() {
        let word = |place: usize| each.word(4 * place).unwrap_or(0);
        match each.id {
            attribute::CLUSTER_DIMENSION => {
                let cluster = [word(0), word(1), word(2)];
                let blocks = cluster.iter().try_fold(1u32, |product, size| product.checked_mul(*size));
                let known = function.known_attribute(NON_PORTABLE_CLUSTERS);
                let most = if known.is_some_and(|allowed| allowed != 0) { 16 } else { 8 };
                let divides =
                    config.grid.iter().zip(cluster).all(|(grid, size)| size != 0 && grid % size == 0);
                if !divides || blocks.is_none_or(|blocks| blocks > most) {
                    return Err(CuError::INVALID_CLUSTER_SIZE);
                }
            }
            // `CUclusterSchedulingPolicy` ends with 2, `CUlaunchMemSyncDomain` with 1.
            attribute::CLUSTER_SCHEDULING_POLICY if word(0) > 2 => return Err(CuError::INVALID_VALUE),
            attribute::MEM_SYNC_DOMAIN if word(0) > 1 => return Err(CuError::INVALID_VALUE),
            _ => {}
        }
    }
    Ok(())
}

/// That a module's function is launched in its own context. Of a stream that was made the device knows.
#[inline]
fn own_context(entered: Entered, image: &Image, stream: Stream) -> CuResult<()> {
    let is_elsewhere = image.kind == ImageKind::Module && image.context != entered.context;
    if is_elsewhere && stream == Stream::Legacy { Err(CuError::INVALID_HANDLE) } else { Ok(()) }
}

/// Runs `body` with the packed parameter block, from `kernelParams` or from `extra`.
#[inline]
pub fn with_params<T>(
    function: &Function,
    params: In<u64>,
    extra: In<u64>,
    body: impl FnOnce(&[u8]) -> CuResult<T>,
) -> CuResult<T> {
    if !extra.is_null() {
        if !params.is_null() {
            return Err(CuError::INVALID_VALUE);
        }
        let block = block_of_extra(extra)?;
        return match block.len().cmp(&function.param_bytes) {
            Ordering::Equal => body(block),
            // As with NVIDIA's driver 580 what is left out is zeros: NCCL sends the used part of its 4 KiB.
            Ordering::Less if !block.is_empty() => in_scratch(
                function,
                |scratch| {
                    scratch[..block.len()].copy_from_slice(block);
                    Ok(())
                },
                body,
            ),
            Ordering::Less => Err(CuError::INVALID_VALUE),
            Ordering::Greater => Err(CuError::LAUNCH_OUT_OF_RESOURCES),
        };
    }
    if function.param_bytes <= TINY_BYTES {
        on_stack::<TINY_BYTES, T>(function, params, body)
    } else if function.param_bytes <= SMALL_BYTES {
        on_stack::<SMALL_BYTES, T>(function, params, body)
    } else {
        in_scratch(function, |scratch| pack(function, params, scratch), body)
    }
}

#[inline]
fn on_stack<const ROOM: usize, T>(
    function: &Function,
    params: In<u64>,
    body: impl FnOnce(&[u8]) -> CuResult<T>,
) -> CuResult<T> {
    let mut room = [0; ROOM];
    let block = room.get_mut(..function.param_bytes).ok_or(CuError::UNKNOWN)?;
    pack(function, params, block)?;
    body(block)
}

/// A block of the function's size, of zeros where `fill` writes nothing.
fn in_scratch<T>(
    function: &Function,
    fill: impl FnOnce(&mut [u8]) -> CuResult<()>,
    body: impl FnOnce(&[u8]) -> CuResult<T>,
) -> CuResult<T> {
    PACKED
        .try_with(|packed| {
            let mut packed = packed.borrow_mut();
            packed.clear();
            packed.resize(function.param_bytes, 0);
            fill(&mut packed)?;
            body(&packed)
        })
        // A thread whose locals are gone is past its last launch.
        .unwrap_or(Err(CuError::DEINITIALIZED))
}

/// Puts each parameter where the kernel's layout has it.
#[inline]
fn pack(function: &Function, params: In<u64>, block: &mut [u8]) -> CuResult<()> {
    for (i, param) in function.params.iter().enumerate() {
        let (offset, bytes) = (param.offset as usize, param.bytes as usize);
        let place = block.get_mut(offset..offset + bytes).ok_or(CuError::UNKNOWN)?;
        let value = Span::at_address(params.at(i)?);
        // Nearly all are of these sizes, which the compiler copies in one move.
        match bytes {
            8 => place.copy_from_slice(value.read(8)?),
            4 => place.copy_from_slice(value.read(4)?),
            _ => place.copy_from_slice(value.read(bytes)?),
        }
    }
    Ok(())
}

/// `extra`: pairs of a key and a value, up to `CU_LAUNCH_PARAM_END`.
fn block_of_extra<'a>(extra: In<u64>) -> CuResult<&'a [u8]> {
    const END: u64 = 0;
    const BUFFER: u64 = 1;
    const SIZE: u64 = 2;
    const PAIRS_MAX: usize = 8;
    let (mut buffer, mut bytes) = (0, 0);
    for pair in 0..PAIRS_MAX {
        match extra.at(2 * pair)? {
            END => {
                if bytes > PARAM_BYTES_MAX {
                    return Err(CuError::INVALID_VALUE);
                }
                return Span::at_address(buffer).read(bytes);
            }
            BUFFER => buffer = extra.at(2 * pair + 1)?,
            SIZE => {
                let place = Span::at_address(extra.at(2 * pair + 1)?).read(8)?;
                bytes = place.try_into().map(usize::from_le_bytes).map_err(|_| CuError::INVALID_VALUE)?;
            }
            _ => return Err(CuError::INVALID_VALUE),
        }
    }
    Err(CuError::INVALID_VALUE)
}

/// A launch without attributes.
pub fn plain(grid: [u32; 3], block: [u32; 3], shared_bytes: u32, stream: Raw) -> Config {
    Config { grid, block, shared_bytes, stream, attributes: 0, attribute_count: 0 }
}

/// The shape of a question about a launch.
pub fn shape_of(entered: Entered, config: &Config, function: FunctionHandle) -> CuResult<LaunchShape> {
    let stream = resolve(entered, config.stream.0, Mode::Legacy)?;
    let Config { grid, block, shared_bytes, .. } = *config;
    Ok(LaunchShape { function, stream, grid, block, shared_bytes })
}

export! {
    fn cuLaunchKernel | cuLaunchKernel_ptsz(
        mode, function: Raw, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: Raw, params: In<u64>, extra: In<u64>,
    ) {
        let config = plain([grid_x, grid_y, grid_z], [block_x, block_y, block_z], shared_bytes, stream);
        launch(config, function, params, extra, mode, None)
    }

    fn cuLaunchKernelEx | cuLaunchKernelEx_ptsz(
        mode, config: In<Config>, function: Raw, params: In<u64>, extra: In<u64>,
    ) {
        launch(config.get()?, function, params, extra, mode, None)
    }

    fn cuLaunchCooperativeKernel | cuLaunchCooperativeKernel_ptsz(
        mode, function: Raw, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: Raw, params: In<u64>,
    ) {
        let config = plain([grid_x, grid_y, grid_z], [block_x, block_y, block_z], shared_bytes, stream);
        let mut value = [0; 64];
        value[0] = 1;
        let together = LaunchAttribute { id: attribute::COOPERATIVE, value };
        // SAFETY: null is always allowed.
        let no_extra = unsafe { In::from_raw(std::ptr::null()) };
        launch(config, function, params, no_extra, mode, Some(together))
    }
}
