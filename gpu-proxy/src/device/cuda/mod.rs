//! NVIDIA's driver as a [`Device`]. The one place of a worker with unsafe code, together with `table.rs`.
//!
//! Each device's primary context is made when the device is opened, before the worker's door closes: making it takes system calls that a
//! worker does not have afterwards. Names given to the session are places in tables here, never the driver's own pointers, so
//! that a wrong one is an error and not a crash. The rule of every call: handles come from these tables, addresses and lengths
//! were checked by the session, buffers are ours.
//!
//! Copies from and to the guest's pageable memory go through the worker's; those of pinned pages, which the driver knows by the guest's
//! own addresses, do not. Waits block the worker's loop: the session asks first where that may not be.

mod arrays;
mod conditionals;
mod describe;
mod graph_params;
mod graphs;
mod host;
mod images;
mod linker;
mod links;
mod peers;
mod printed;
mod table;
mod tensor_map;
mod virtual_memory;

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr;

use vgpu_api::launch::attribute;
use vgpu_api::memory::Memset;
use vgpu_api::snapshot::LIMITS;
use vgpu_api::{
    Access, Attributes, CuError, CuResult, ImageKind, JitOption, LinkTold, MemInfo, MemoryOp, Printed,
    Snapshot, TensorMap, TensorSpec,
};

use super::{
    Costs, Device, DeviceKind, DeviceLaunch, DeviceNode, DeviceWork, Exported, HostFunction, HostPages,
    LoadError, LoadedImage, Place, Raw, Shareable, Survey,
};
use arrays::Arrays;
pub use describe::describe;
use describe::{attribute_of, driver_version, peers, snapshots, start};
use graphs::Graph;
use images::Images;
use linker::Linkers;
use printed::Output;
pub use table::library_folders;
use table::{Attribute, Config, NULL, Ptr, StreamAttribute, StreamOp, Table};
use virtual_memory::Memories;

/// Device memory is handed out in multiples of this; allocations of 2 MiB and more take whole such pages.
const GRANULE_BYTES: u64 = 512;
/// What an instantiated graph is counted as. Seen with driver 580 on an H100: 1.6 to 2.3 KiB a node in a row, 64 to 114 KiB a row beside
/// others, and none of it given back when the graph ends (`graphs answers` of `tests/cuda`).
const GRAPH_NODE_BYTES: u64 = 4 << 10;
const GRAPH_ROW_BYTES: u64 = 128 << 10;
/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT` and `…_MAX_THREADS_PER_MULTIPROCESSOR`.
const MULTIPROCESSORS: usize = 16;
const THREADS_PER_MULTIPROCESSOR: usize = 39;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `…_MINOR`.
const CAPABILITY_MAJOR: usize = 75;
const CAPABILITY_MINOR: usize = 76;
/// `CU_LAUNCH_PARAM_BUFFER_POINTER`, `…_SIZE` and `…_END`. Source: cuda.h.
const PARAM_POINTER: Ptr = ptr::without_provenance_mut(1);
const PARAM_SIZE: Ptr = ptr::without_provenance_mut(2);

/// `CU_MEMHOSTREGISTER_PORTABLE` and `…_DEVICEMAP`: for every context, and for kernels.
const REGISTER_FLAGS: u32 = 1 | 2;

/// Devices of NVIDIA's driver: the first ones that are visible.
#[derive(Debug)]
pub struct Cuda {
    table: Table,
    /// The driver's names of them, and their primary contexts. One at least.
    devices: Vec<c_int>,
    primaries: Vec<Raw>,
    /// Of contexts that were created: their device's number.
    created: HashMap<Raw, u32>,
    /// What the driver has as current in the worker's thread.
    current: Option<Raw>,
    costs: Costs,
    /// Major and minor.
    capability: (u32, u32),
    contexts: Names,
    streams: Names,
    events: Names,
    images: Images,
    /// Registered pages by their address: they stay mapped as long as the driver knows them.
    pinned: HashMap<u64, HostPages>,
    /// Where all that is pinned lies, once something is.
    arena: Range<u64>,
    memories: Memories,
    graphs: HashMap<u64, Graph>,
    last_graph: u64,
    shells: conditionals::Shells,
    arrays: Arrays,
    linkers: Linkers,
    output: Output,
}

/// The driver's pointers by our names. A name is used once.
#[derive(Debug, Default)]
struct Names {
    pointers: HashMap<u64, Pointer>,
    last: u64,
}

/// A pointer of the driver, which belongs to the worker's one thread that calls it.
#[derive(Clone, Copy, Debug)]
struct Pointer(Ptr);
// SAFETY: handles of the driver may be used from any thread; only the driver follows them.
unsafe impl Send for Pointer {}

impl Names {
    fn add(&mut self, pointer: Ptr) -> Raw {
        self.last += 1;
        self.pointers.insert(self.last, Pointer(pointer));
        Raw(self.last)
    }

    fn get(&self, name: Raw) -> CuResult<Ptr> {
        self.pointers.get(&name.0).map(|pointer| pointer.0).ok_or(CuError::INVALID_HANDLE)
    }

    fn remove(&mut self, name: Raw) -> CuResult<Ptr> {
        self.pointers.remove(&name.0).map(|pointer| pointer.0).ok_or(CuError::INVALID_HANDLE)
    }
}

impl Cuda {
    /// Loads the driver and makes the primary contexts of the first `count` devices.
    ///
    /// # Errors
    /// One sentence: no driver, an old one, too few devices, or vgpu's own library in the driver's place.
    pub fn open(count: u32) -> Result<Self, String> {
        let (table, mut devices) = start()?;
        let found = devices.len();
        devices.truncate(count as usize);
        if devices.is_empty() || devices.len() < count as usize {
            return Err(format!("there are {found} NVIDIA devices, {count} are wanted"));
        }
        let said = |what: &'static str| move |error: CuError| format!("{what}: {error:?}");
        let mut contexts = Names::default();
        let mut primaries = Vec::with_capacity(devices.len());
        // The first one last, so that it is current.
        for device in devices.iter().rev() {
            let mut primary = NULL;
            // SAFETY: the driver writes one pointer to a variable of ours.
            unsafe { table.cuDevicePrimaryCtxRetain(&raw mut primary, *device) }
                .map_err(said("no context can be made"))?;
            // SAFETY: the context was just made.
            unsafe { table.cuCtxSetCurrent(primary) }.map_err(said("the context cannot be used"))?;
            // Behind the closed door the thread that calls such functions would have to be started there.
            // SAFETY: a context is current, and the function does nothing.
            unsafe { table.cuLaunchHostFunc(NULL, host::nothing, NULL) }
                .and_then(|()| {
                    // SAFETY: a context is current.
                    unsafe { table.cuCtxSynchronize() }
                })
                .map_err(said("the driver calls no functions"))?;
            primaries.push(contexts.add(primary));
        }
        primaries.reverse();
        // Until here the driver's own words are for the log.
        let output =
            Output::redirect().map_err(|error| format!("what kernels print cannot be caught: {error}"))?;
        let (streams, events, images) = (Names::default(), Names::default(), Images::default());
        let mut cuda = Self {
            table,
            current: primaries.first().copied(),
            devices,
            primaries,
            created: HashMap::new(),
            costs: Costs::default(),
            capability: (0, 0),
            contexts,
            streams,
            events,
            images,
            pinned: HashMap::new(),
            arena: 0..0,
            memories: Memories::default(),
            graphs: HashMap::new(),
            last_graph: 0,
            shells: conditionals::Shells::default(),
            arrays: Arrays::default(),
            linkers: Linkers::default(),
            output,
        };
        let number = |device: c_int, attribute| attribute_of(&cuda.table, device, attribute).unsigned_abs();
        let first = cuda.first();
        cuda.capability = (number(first, CAPABILITY_MAJOR), number(first, CAPABILITY_MINOR));
        let resident_threads = |device: &c_int| {
            u64::from(number(*device, MULTIPROCESSORS))
                * u64::from(number(*device, THREADS_PER_MULTIPROCESSOR))
        };
        let resident_threads = cuda.devices.iter().map(resident_threads).max().unwrap_or(0);
        cuda.memories = Memories::of(&cuda.table, &cuda.devices);
        cuda.costs = Costs {
            context_bytes: DeviceKind::Cuda.context_bytes(),
            resident_threads,
            graph_node_bytes: GRAPH_NODE_BYTES,
            graph_row_bytes: GRAPH_ROW_BYTES,
            graphs_are_kept: true,
        };
        Ok(cuda)
    }

    /// Makes a context current.
    fn enter(&mut self, context: Raw) -> CuResult<()> {
        if self.current != Some(context) {
            let pointer = self.contexts.get(context)?;
            // SAFETY: a live context of ours.
            unsafe { self.table.cuCtxSetCurrent(pointer) }?;
            self.current = Some(context);
        }
        Ok(())
    }

    /// Makes a place's context current; its stream.
    fn stream(&mut self, place: Place) -> CuResult<Ptr> {
        self.enter(place.context)?;
        place.stream.map_or(Ok(NULL), |stream| self.streams.get(stream))
    }

    /// The place of an address, if the arena holds it.
    fn host_side(&self, address: u64) -> Option<*mut c_void> {
        let inside = self.arena.contains(&address);
        inside.then(|| ptr::with_exposed_provenance_mut(size(address).unwrap_or(0)))
    }

    /// Looks for what the driver has printed. After calls that waited for the GPU: whatever their result.
    fn look_for_output<T>(&mut self, result: CuResult<T>) -> CuResult<T> {
        self.output.look(result.is_err());
        result
    }

    /// The pieces of a launch as the driver takes them.
    fn config(
        &mut self,
        place: Place,
        launch: &DeviceLaunch<'_>,
        attributes: &[Attribute],
    ) -> CuResult<Config> {
        Ok(Config {
            grid: launch.grid,
            block: launch.block,
            shared_bytes: launch.shared_bytes,
            stream: self.stream(place)?,
            attributes: attributes.as_ptr(),
            count: u32::try_from(attributes.len()).map_err(|_| CuError::INVALID_VALUE)?,
        })
    }
}

/// Those that hold neither handle nor address; the session lets no others here but the access window, which it has checked.
fn attributes(launch: &DeviceLaunch<'_>) -> Vec<Attribute> {
    let passes = |id: u32| {
        !matches!(id, attribute::IGNORE | attribute::PROGRAMMATIC_EVENT | attribute::LAUNCH_COMPLETION_EVENT)
    };
    let all = launch.attributes.iter().filter(|each| passes(each.id));
    all.map(|each| Attribute { id: each.id, pad: 0, value: each.value }).collect()
}

fn size(bytes: u64) -> CuResult<usize> {
    usize::try_from(bytes).map_err(|_| CuError::INVALID_VALUE)
}

fn number(value: u32) -> CuResult<c_int> {
    c_int::try_from(value).map_err(|_| CuError::INVALID_VALUE)
}

impl Device for Cuda {
    fn snapshot(&self, bytes: &[u64]) -> Snapshot {
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: the driver writes one number each to variables of ours; a context is current. What fails leaves the zero.
        let _ = unsafe { self.table.cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest) };
        let limit = |limit: usize| {
            let mut value = 0;
            // SAFETY: as above.
            let _ =
                unsafe { self.table.cuCtxGetLimit(&raw mut value, u32::try_from(limit).unwrap_or(u32::MAX)) };
            value as u64
        };
        Snapshot {
            driver_version: driver_version(&self.table),
            priority_greatest: greatest,
            priority_least: least,
            limits: (0..LIMITS).map(limit).collect(),
            devices: snapshots(&self.table, &self.devices, |place| bytes.get(place).copied().unwrap_or(0)),
            peers: peers(&self.table, &self.devices),
        }
    }

    fn granule_bytes(&self) -> u64 {
        GRANULE_BYTES
    }

    fn allocation_bytes(&self, bytes: u64) -> Option<u64> {
        let whole = self.memories.allocation_bytes(bytes);
        whole.or_else(|| bytes.checked_next_multiple_of(GRANULE_BYTES))
    }

    fn costs(&self) -> Costs {
        self.costs
    }

    fn context_create(&mut self, device: u32, flags: u32, primary: bool) -> CuResult<Raw> {
        let own = *self.primaries.get(device as usize).ok_or(CuError::INVALID_DEVICE)?;
        if primary {
            return Ok(own);
        }
        let on = *self.devices.get(device as usize).ok_or(CuError::INVALID_DEVICE)?;
        let mut context = NULL;
        // SAFETY: the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuCtxCreate_v2(&raw mut context, flags, on) }?;
        let name = self.contexts.add(context);
        self.created.insert(name, device);
        self.current = Some(name);
        Ok(name)
    }

    /// It cannot be made again behind the door.
    fn keeps_primary(&self) -> bool {
        true
    }

    /// The primary context stays. What was in it has been ended.
    fn context_destroy(&mut self, _device: u32, context: Raw, primary: bool) -> CuResult<()> {
        if primary {
            return self.context_synchronize(context);
        }
        let pointer = self.contexts.remove(context)?;
        self.created.remove(&context);
        self.current = None;
        // SAFETY: a live context of ours, named no more.
        unsafe { self.table.cuCtxDestroy_v2(pointer) }
    }

    fn context_synchronize(&mut self, context: Raw) -> CuResult<()> {
        self.enter(context)?;
        // SAFETY: a context is current.
        let waited = unsafe { self.table.cuCtxSynchronize() };
        self.look_for_output(waited)
    }

    fn limit(&mut self, context: Raw, limit: u32) -> CuResult<u64> {
        self.enter(context)?;
        let mut value = 0;
        // SAFETY: the driver writes one number to a variable of ours.
        unsafe { self.table.cuCtxGetLimit(&raw mut value, limit) }?;
        Ok(value as u64)
    }

    fn set_limit(&mut self, context: Raw, limit: u32, value: u64) -> CuResult<()> {
        self.enter(context)?;
        let value = size(value)?;
        // SAFETY: numbers only.
        unsafe { self.table.cuCtxSetLimit(limit, value) }
    }

    fn peer_enable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        self.enable_peer(context, peer)
    }

    fn peer_disable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        self.disable_peer(context, peer)
    }

    fn alloc(&mut self, context: Raw, bytes: u64) -> CuResult<u64> {
        self.enter(context)?;
        if let Some(bytes) = self.memories.allocation_bytes(bytes) {
            return self.memories.allocate(&self.table, bytes);
        }
        let mut address = 0;
        // SAFETY: the driver writes one number to a variable of ours.
        unsafe { self.table.cuMemAlloc_v2(&raw mut address, size(bytes)?) }?;
        Ok(address)
    }

    fn memory(&mut self, context: Raw) -> CuResult<MemInfo> {
        self.enter(context)?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes two numbers to variables of ours; a context is current.
        unsafe { self.table.cuMemGetInfo_v2(&raw mut free, &raw mut total) }?;
        Ok(MemInfo { free: free as u64, total: total as u64 })
    }

    fn free(&mut self, context: Raw, address: u64) -> CuResult<()> {
        self.enter(context)?;
        if self.memories.is_allocation(address) {
            // As `cuMemFree`: what the context has to do may still use it.
            self.context_synchronize(context)?;
            return self.memories.free(&self.table, address);
        }
        // SAFETY: an address that `alloc` gave and that was not freed.
        unsafe { self.table.cuMemFree_v2(address) }
    }

    fn write(&mut self, place: Place, address: u64, bytes: &[u8]) -> CuResult<()> {
        let stream = self.stream(place)?;
        // SAFETY: the range is the process's; pageable memory has been taken over when this returns (CUDA, "API
        // synchronization behavior").
        unsafe { self.table.cuMemcpyHtoDAsync_v2(address, bytes.as_ptr().cast(), bytes.len(), stream) }
    }

    fn read(&mut self, place: Place, address: u64, bytes: &mut [u8]) -> CuResult<()> {
        let stream = self.stream(place)?;
        // SAFETY: the range is the process's, the buffer ours; it is waited for below.
        unsafe { self.table.cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), address, bytes.len(), stream) }?;
        // SAFETY: a live stream of ours, or the default one.
        let waited = unsafe { self.table.cuStreamSynchronize(stream) };
        self.look_for_output(waited)
    }

    fn copy(&mut self, place: Place, to: u64, from: u64, bytes: u64) -> CuResult<()> {
        let (stream, bytes) = (self.stream(place)?, size(bytes)?);
        // The driver would find out by itself, in a part of a microsecond.
        match (self.host_side(to), self.host_side(from)) {
            // SAFETY: device memory of the process's, and registered pages of its own.
            (None, Some(host)) => unsafe { self.table.cuMemcpyHtoDAsync_v2(to, host, bytes, stream) },
            // SAFETY: as above.
            (Some(host), None) => unsafe { self.table.cuMemcpyDtoHAsync_v2(host, from, bytes, stream) },
            // SAFETY: both ranges are the process's: device memory, or registered pages of its own.
            _ => unsafe { self.table.cuMemcpyAsync(to, from, bytes, stream) },
        }
    }

    fn copy_between(&mut self, place: Place, to: (u64, u32), from: (u64, u32), bytes: u64) -> CuResult<()> {
        self.copy_to_peer(place, to, from, bytes)
    }

    /// A range is registered in one piece: the driver takes no copy across two registrations.
    fn pin(&mut self, pages: HostPages) -> CuResult<()> {
        let place = pages.place().ok_or(CuError::NOT_SUPPORTED)?.as_ptr().cast();
        self.enter(self.first_primary()?)?;
        // SAFETY: pages of the arena, which `pinned` keeps mapped until they are unregistered, at an address that nothing else has.
        unsafe { self.table.cuMemHostRegister_v2(place, pages.bytes(), REGISTER_FLAGS) }?;
        let mut seen = 0;
        // SAFETY: just registered; the driver writes one number to a variable of ours.
        let known = unsafe { self.table.cuMemHostGetDevicePointer_v2(&raw mut seen, place, 0) };
        if known.is_err() || seen != pages.address() {
            // SAFETY: just registered, and named to nobody.
            unsafe { self.table.cuMemHostUnregister(place) }?;
            return Err(known.err().unwrap_or(CuError::NOT_SUPPORTED));
        }
        if pages.is_of_arena() {
            self.arena = pages.whole();
        }
        self.pinned.insert(pages.address(), pages);
        Ok(())
    }

    fn unpin(&mut self, address: u64) -> CuResult<()> {
        let place = self.pinned.get(&address).and_then(HostPages::place).ok_or(CuError::INVALID_VALUE)?;
        self.enter(self.first_primary()?)?;
        // SAFETY: registered by `pin`, and named to nobody any more.
        unsafe { self.table.cuMemHostUnregister(place.as_ptr().cast()) }?;
        self.pinned.remove(&address);
        Ok(())
    }

    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one arm runs")]
    fn fill(&mut self, place: Place, memset: &Memset) -> CuResult<()> {
        let Memset { dst, pitch, element_bytes, value, width, rows } = *memset;
        let (at, pitch, width, rows) = (dst.0, size(pitch)?, size(width)?, size(rows)?);
        let stream = self.stream(place)?;
        let [low, second, ..] = value.to_le_bytes();
        let half = u16::from_le_bytes([low, second]);
        let table = &self.table;
        // SAFETY: all arms: from the first byte of the first row to the last of the last, the range is the process's.
        unsafe {
            match (element_bytes, rows) {
                (1, 1) => table.cuMemsetD8Async(at, low, width, stream),
                (2, 1) => table.cuMemsetD16Async(at, half, width, stream),
                (4, 1) => table.cuMemsetD32Async(at, value, width, stream),
                (1, _) => table.cuMemsetD2D8Async(at, pitch, low, width, rows, stream),
                (2, _) => table.cuMemsetD2D16Async(at, pitch, half, width, rows, stream),
                (4, _) => table.cuMemsetD2D32Async(at, pitch, value, width, rows, stream),
                _ => Err(CuError::INVALID_VALUE),
            }
        }
    }

    fn mapping_bytes(&self) -> u64 {
        self.memories.granule_bytes()
    }

    fn reserve(&mut self, bytes: u64, alignment: u64, wanted: u64) -> CuResult<u64> {
        self.memories.reserve(&self.table, bytes, alignment, wanted)
    }

    fn unreserve(&mut self, address: u64, bytes: u64) -> CuResult<()> {
        self.memories.unreserve(&self.table, address, bytes)
    }

    fn create(&mut self, device: u32, bytes: u64) -> CuResult<Raw> {
        self.memories.create(&self.table, device, bytes)
    }

    fn release(&mut self, memory: Raw) -> CuResult<()> {
        self.memories.release(&self.table, memory)
    }

    fn map(&mut self, address: u64, bytes: u64, memory: Raw) -> CuResult<()> {
        self.memories.map(&self.table, address, bytes, memory)
    }

    fn unmap(&mut self, address: u64, bytes: u64) -> CuResult<()> {
        self.memories.unmap(&self.table, address, bytes)
    }

    fn set_access(&mut self, device: u32, address: u64, bytes: u64, access: Access) -> CuResult<()> {
        self.memories.set_access(&self.table, device, address, bytes, access)
    }

    fn export(&mut self, what: Shareable) -> CuResult<Exported> {
        self.memories.export(&self.table, what)
    }

    fn import(&mut self, _device: u32, memory: OwnedFd, _bytes: u64) -> CuResult<Raw> {
        self.memories.import(&self.table, &memory)
    }

    fn survey(&self, bytes: &[u8]) -> CuResult<Survey> {
        Survey::of(bytes, self.capability)
    }

    fn load(
        &mut self,
        context: Option<Raw>,
        kind: ImageKind,
        bytes: &[u8],
        survey: Survey,
    ) -> Result<LoadedImage, LoadError> {
        let entered = context
            .map_or_else(|| self.first_primary(), Ok)
            .and_then(|context| self.enter(context).map(|()| context));
        let context = entered.map_err(|code| LoadError { code, log: String::new() })?;
        let mut loaded = self.images.load(&self.table, kind, bytes, &survey.variables)?;
        // A module of one kernel is what a program has compiled to launch it, and asks about first: that one need not be asked for. All
        // others stay as lazily loaded as the driver has them.
        if let (ImageKind::Module, [(info, function)]) = (kind, &mut loaded.functions[..]) {
            info.attributes = self.function_attributes(context, *function).unwrap_or_default();
        }
        Ok(loaded)
    }

    fn load_on(&mut self, context: Raw, image: Raw) -> CuResult<Vec<u64>> {
        self.enter(context)?;
        self.images.variables(&self.table, image)
    }

    fn unload(&mut self, image: Raw) -> CuResult<()> {
        self.images.unload(&self.table, image)
    }

    fn function_attributes(&mut self, context: Raw, function: Raw) -> CuResult<Attributes> {
        self.enter(context)?;
        let function = self.images.function(&self.table, function)?;
        // SAFETY: a live function of ours. One that was only enumerated has no attributes yet (919, CUDA's lazy loading).
        unsafe { self.table.cuFuncLoad(function) }?;
        let mut values = vec![0; vgpu_api::image::FUNCTION_ATTRIBUTES];
        for (value, attribute) in values.iter_mut().zip(0..) {
            // SAFETY: a live function of ours; the driver writes one number. An old driver does not know all: then 0.
            let _ = unsafe { self.table.cuFuncGetAttribute(ptr::from_mut(value), attribute, function) };
        }
        Ok(Attributes { values })
    }

    fn set_function_attribute(
        &mut self,
        context: Raw,
        function: Raw,
        attribute: u32,
        value: i32,
    ) -> CuResult<()> {
        self.enter(context)?;
        let function = self.images.function(&self.table, function)?;
        // SAFETY: a live function of ours.
        unsafe { self.table.cuFuncSetAttribute(function, number(attribute)?, value) }
    }

    fn max_active_blocks(
        &mut self,
        context: Raw,
        function: Raw,
        threads: u32,
        shared: u64,
        flags: u32,
    ) -> CuResult<u32> {
        self.enter(context)?;
        let function = self.images.function(&self.table, function)?;
        let (mut blocks, threads, shared) = (0, number(threads)?, size(shared)?);
        // SAFETY: a live function of ours; the driver writes one number.
        unsafe {
            self.table.cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
                &raw mut blocks,
                function,
                threads,
                shared,
                flags,
            )
        }?;
        Ok(blocks.unsigned_abs())
    }

    fn available_shared(&mut self, context: Raw, function: Raw, blocks: u32, threads: u32) -> CuResult<u64> {
        self.enter(context)?;
        let function = self.images.function(&self.table, function)?;
        let (mut bytes, blocks, threads) = (0, number(blocks)?, number(threads)?);
        // SAFETY: a live function of ours; the driver writes one number.
        unsafe {
            self.table.cuOccupancyAvailableDynamicSMemPerBlock(&raw mut bytes, function, blocks, threads)
        }?;
        Ok(bytes as u64)
    }

    fn max_active_clusters(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        let attributes = attributes(launch);
        let config = self.config(place, launch, &attributes)?;
        let function = self.images.function(&self.table, launch.function)?;
        let mut clusters = 0;
        // SAFETY: a live function of ours; `config` and its attributes outlive the call; the driver writes one number.
        unsafe { self.table.cuOccupancyMaxActiveClusters(&raw mut clusters, function, &raw const config) }?;
        Ok(clusters.unsigned_abs())
    }

    fn max_cluster_size(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        let attributes = attributes(launch);
        let config = self.config(place, launch, &attributes)?;
        let function = self.images.function(&self.table, launch.function)?;
        let mut blocks = 0;
        // SAFETY: as above.
        unsafe {
            self.table.cuOccupancyMaxPotentialClusterSize(&raw mut blocks, function, &raw const config)
        }?;
        Ok(blocks.unsigned_abs())
    }

    fn launch(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<()> {
        let attributes = attributes(launch);
        let config = self.config(place, launch, &attributes)?;
        let function = self.images.function(&self.table, launch.function)?;
        let mut bytes = launch.params.len();
        let mut extra = [
            PARAM_POINTER,
            launch.params.as_ptr().cast_mut().cast(),
            PARAM_SIZE,
            ptr::from_mut(&mut bytes).cast(),
            NULL,
        ];
        let extra = if launch.params.is_empty() { ptr::null_mut() } else { extra.as_mut_ptr() };
        // SAFETY: a live function of ours; `params` covers its layout (the session checked); the driver copies configuration
        // and parameters before it returns and writes neither.
        unsafe { self.table.cuLaunchKernelEx(&raw const config, function, ptr::null_mut(), extra) }
    }

    fn stream_create(&mut self, context: Raw, flags: u32, priority: i32) -> CuResult<Raw> {
        self.enter(context)?;
        let mut stream = NULL;
        // SAFETY: the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuStreamCreateWithPriority(&raw mut stream, flags, priority) }?;
        Ok(self.streams.add(stream))
    }

    fn stream_destroy(&mut self, stream: Raw) -> CuResult<()> {
        let stream = self.streams.remove(stream)?;
        // SAFETY: a live stream of ours, named no more.
        unsafe { self.table.cuStreamDestroy_v2(stream) }
    }

    fn stream_synchronize(&mut self, place: Place) -> CuResult<()> {
        let stream = self.stream(place)?;
        // SAFETY: a live stream of ours, or the default one.
        let waited = unsafe { self.table.cuStreamSynchronize(stream) };
        self.look_for_output(waited)
    }

    fn stream_query(&mut self, place: Place) -> CuResult<()> {
        let stream = self.stream(place)?;
        // SAFETY: as above.
        unsafe { self.table.cuStreamQuery(stream) }
    }

    fn stream_wait(&mut self, place: Place, event: Raw, flags: u32) -> CuResult<()> {
        let (stream, event) = (self.stream(place)?, self.events.get(event)?);
        // SAFETY: a live stream and a live event of ours.
        unsafe { self.table.cuStreamWaitEvent(stream, event, flags) }
    }

    fn set_stream_attribute(&mut self, place: Place, attribute: u32, value: &[u8; 64]) -> CuResult<()> {
        let stream = self.stream(place)?;
        let value = StreamAttribute(*value);
        // SAFETY: a live stream of ours, or the default one; the driver reads a value of ours, whose address, if it has one, the
        // session checked.
        unsafe { self.table.cuStreamSetAttribute(stream, attribute, &raw const value) }
    }

    fn stream_memory(&mut self, place: Place, ops: &[MemoryOp]) -> CuResult<()> {
        let stream = self.stream(place)?;
        let mut ops: Vec<StreamOp> = ops.iter().map(virtual_memory::stream_op).collect();
        let count = u32::try_from(ops.len()).map_err(|_| CuError::INVALID_VALUE)?;
        // SAFETY: a live stream of ours, or the default one; the driver reads `count` operations of ours, whose words are the
        // process's own (the session checked).
        unsafe { self.table.cuStreamBatchMemOp_v2(stream, count, ops.as_mut_ptr(), 0) }
    }

    fn event_create(&mut self, context: Raw, flags: u32) -> CuResult<Raw> {
        self.enter(context)?;
        let mut event = NULL;
        // SAFETY: the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuEventCreate(&raw mut event, flags) }?;
        Ok(self.events.add(event))
    }

    fn event_destroy(&mut self, event: Raw) -> CuResult<()> {
        let event = self.events.remove(event)?;
        // SAFETY: a live event of ours, named no more.
        unsafe { self.table.cuEventDestroy_v2(event) }
    }

    fn event_record(&mut self, place: Place, event: Raw, flags: u32) -> CuResult<()> {
        let (stream, event) = (self.stream(place)?, self.events.get(event)?);
        // SAFETY: a live stream and a live event of ours.
        unsafe { self.table.cuEventRecordWithFlags(event, stream, flags) }
    }

    fn context_record(&mut self, context: Raw, event: Raw) -> CuResult<()> {
        self.enter(context)?;
        let (context, event) = (self.contexts.get(context)?, self.events.get(event)?);
        // SAFETY: a live context and a live event of ours.
        unsafe { self.table.cuCtxRecordEvent(context, event) }
    }

    fn context_wait(&mut self, context: Raw, event: Raw) -> CuResult<()> {
        self.enter(context)?;
        let (context, event) = (self.contexts.get(context)?, self.events.get(event)?);
        // SAFETY: as above.
        unsafe { self.table.cuCtxWaitEvent(context, event) }
    }

    fn event_query(&mut self, event: Raw) -> CuResult<()> {
        // SAFETY: a live event of ours.
        unsafe { self.table.cuEventQuery(self.events.get(event)?) }
    }

    fn event_synchronize(&mut self, event: Raw) -> CuResult<()> {
        // SAFETY: a live event of ours.
        let waited = unsafe { self.table.cuEventSynchronize(self.events.get(event)?) };
        self.look_for_output(waited)
    }

    fn event_elapsed(&mut self, start: Raw, end: Raw) -> CuResult<f32> {
        let (mut milliseconds, start, end) = (0.0, self.events.get(start)?, self.events.get(end)?);
        // SAFETY: two live events of ours; the driver writes one number.
        unsafe { self.table.cuEventElapsedTime(&raw mut milliseconds, start, end) }?;
        Ok(milliseconds)
    }

    fn conditional_create(
        &mut self,
        context: Raw,
        of: Option<Raw>,
        value: u32,
        flags: u32,
    ) -> CuResult<(Raw, u64)> {
        self.conditional_make(context, of, value, flags)
    }

    fn conditionals_end(&mut self, of: Raw) -> CuResult<()> {
        self.conditionals_finish(of);
        Ok(())
    }

    fn graph_instantiate(&mut self, nodes: &[DeviceNode<'_>], flags: u64) -> CuResult<Raw> {
        self.graph_make(nodes, flags)
    }

    fn graph_update(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        self.graph_change(graph, nodes)
    }

    fn graph_set(&mut self, graph: Raw, node: u32, context: Raw, work: &DeviceWork<'_>) -> CuResult<()> {
        self.graph_change_node(graph, node, context, work)
    }

    fn graph_enable(&mut self, graph: Raw, node: u32, enabled: bool) -> CuResult<()> {
        self.graph_switch(graph, node, enabled)
    }

    fn graph_put(&mut self, graph: Raw, node: u32, offset: u64, bytes: &[u8]) -> CuResult<()> {
        self.graph(graph)?.host(node, offset, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn graph_get(&mut self, graph: Raw, node: u32, offset: u64, bytes: &mut [u8]) -> CuResult<()> {
        bytes.copy_from_slice(self.graph(graph)?.host(node, offset, bytes.len())?);
        Ok(())
    }

    fn graph_upload(&mut self, place: Place, graph: Raw) -> CuResult<()> {
        let (stream, exec) = (self.stream(place)?, self.graph(graph)?.exec());
        // SAFETY: a live graph, and a live stream of ours or the default one.
        unsafe { self.table.cuGraphUpload(exec, stream) }
    }

    fn graph_launch(&mut self, place: Place, graph: Raw) -> CuResult<()> {
        let (stream, exec) = (self.stream(place)?, self.graph(graph)?.exec());
        // SAFETY: as above.
        unsafe { self.table.cuGraphLaunch(exec, stream) }
    }

    fn graph_destroy(&mut self, graph: Raw) -> CuResult<()> {
        self.graph_end(graph)
    }

    fn tensor_map(&mut self, spec: &TensorSpec) -> CuResult<TensorMap> {
        tensor_map::encode(&self.table, spec)
    }

    fn tensor_map_at(&mut self, map: TensorMap, address: u64) -> CuResult<TensorMap> {
        tensor_map::replace_address(&self.table, map, address)
    }

    fn link_create(&mut self, context: Raw, options: &[JitOption], log_bytes: [usize; 2]) -> CuResult<Raw> {
        self.enter(context)?;
        self.linkers.create(&self.table, options, log_bytes)
    }

    fn link_add(
        &mut self,
        context: Raw,
        linker: Raw,
        input: u32,
        bytes: &[u8],
        name: &str,
        options: &[JitOption],
    ) -> CuResult<()> {
        self.enter(context)?;
        self.linkers.add(&self.table, linker, input, bytes, name, options)
    }

    fn link_complete(&mut self, context: Raw, linker: Raw) -> CuResult<Vec<u8>> {
        self.enter(context)?;
        self.linkers.complete(&self.table, linker)
    }

    fn link_log(&mut self, linker: Raw, errors: bool) -> CuResult<Vec<u8>> {
        self.linkers.log(linker, errors)
    }

    fn link_told(&mut self, linker: Raw) -> CuResult<LinkTold> {
        self.linkers.told(linker)
    }

    fn link_destroy(&mut self, linker: Raw) -> CuResult<()> {
        self.linkers.destroy(&self.table, linker)
    }

    fn host_function(&mut self, place: Place, after_errors: bool, function: HostFunction) -> CuResult<()> {
        let (stream, data) = (self.stream(place)?, host::give(function));
        // What is refused is left where it is: a driver that tells of an older error may have queued it all the same.
        if after_errors {
            // SAFETY: a live stream of ours, or the default one; the driver calls the function once with what goes with it.
            unsafe { self.table.cuStreamAddCallback(stream, host::run_told, data, 0) }
        } else {
            // SAFETY: as above.
            unsafe { self.table.cuLaunchHostFunc(stream, host::run, data) }
        }
    }

    fn has_printed(&self) -> bool {
        self.output.has_some()
    }

    fn take_printed(&mut self) -> Printed {
        self.output.take()
    }
}
