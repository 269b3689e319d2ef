//! NVIDIA's driver as a [`Device`]. The one place of a worker with unsafe code, together with `table.rs`.
//!
//! The primary context is made when the device is opened, before the worker's door closes: making it takes system calls that a
//! worker does not have afterwards. Names given to the session are places in tables here, never the driver's own pointers, so
//! that a wrong one is an error and not a crash. The rule of every call: handles come from these tables, addresses and lengths
//! were checked by the session, buffers are ours.
//!
//! Not measured yet on hardware in this form: copies go through the worker's pageable memory, waits block the worker's loop.

mod describe;
mod images;
mod table;

use std::ffi::c_int;
use std::ptr;

use vgpu_api::launch::attribute;
use vgpu_api::memory::Memset;
use vgpu_api::snapshot::LIMITS;
use vgpu_api::{Attributes, CuError, CuResult, ImageKind, MemInfo, Snapshot};

use super::{Costs, Device, DeviceKind, DeviceLaunch, LoadError, LoadedImage, Place, Raw, Survey};
pub use describe::describe;
use describe::{attribute_of, device_snapshot, driver_version, start};
use images::Images;
pub use table::library_folders;
use table::{Attribute, Config, NULL, Ptr, Table};

/// Device memory is handed out in multiples of this; allocations of 2 MiB and more take whole such pages.
const GRANULE_BYTES: u64 = 512;
/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT` and `…_MAX_THREADS_PER_MULTIPROCESSOR`.
const MULTIPROCESSORS: usize = 16;
const THREADS_PER_MULTIPROCESSOR: usize = 39;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `…_MINOR`.
const CAPABILITY_MAJOR: usize = 75;
const CAPABILITY_MINOR: usize = 76;
/// `CU_LAUNCH_PARAM_BUFFER_POINTER`, `…_SIZE` and `…_END`. Source: cuda.h.
const PARAM_POINTER: Ptr = ptr::without_provenance_mut(1);
const PARAM_SIZE: Ptr = ptr::without_provenance_mut(2);

/// One device of NVIDIA's driver: the first that is visible.
#[derive(Debug)]
pub struct Cuda {
    table: Table,
    device: c_int,
    primary: Raw,
    /// What the driver has as current in the worker's thread.
    current: Option<Raw>,
    costs: Costs,
    /// Major and minor.
    capability: (u32, u32),
    contexts: Names,
    streams: Names,
    events: Names,
    images: Images,
}

/// The driver's pointers by our names. A name is used once.
#[derive(Debug, Default)]
struct Names {
    pointers: std::collections::HashMap<u64, Pointer>,
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
    /// Loads the driver and makes the primary context.
    ///
    /// # Errors
    /// One sentence: no driver, an old one, no device, or vgpu's own library in the driver's place.
    pub fn open() -> Result<Self, String> {
        let (table, device) = start()?;
        let said = |what: &'static str| move |error: CuError| format!("{what}: {error:?}");
        let mut primary = NULL;
        // SAFETY: the driver writes one pointer to a variable of ours.
        unsafe { table.cuDevicePrimaryCtxRetain(&raw mut primary, device) }
            .map_err(said("no context can be made"))?;
        // SAFETY: the context was just made.
        unsafe { table.cuCtxSetCurrent(primary) }.map_err(said("the context cannot be used"))?;
        let mut contexts = Names::default();
        let primary = contexts.add(primary);
        let (streams, events, images) = (Names::default(), Names::default(), Images::default());
        let mut cuda = Self {
            table,
            device,
            primary,
            current: Some(primary),
            costs: Costs::default(),
            capability: (0, 0),
            contexts,
            streams,
            events,
            images,
        };
        let version = |attribute| cuda.attribute(attribute).unsigned_abs();
        cuda.capability = (version(CAPABILITY_MAJOR), version(CAPABILITY_MINOR));
        let number = |attribute| u64::from(cuda.attribute(attribute).unsigned_abs());
        let resident_threads = number(MULTIPROCESSORS) * number(THREADS_PER_MULTIPROCESSOR);
        cuda.costs = Costs { context_bytes: DeviceKind::Cuda.context_bytes(), resident_threads };
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

    fn attribute(&self, number: usize) -> c_int {
        attribute_of(&self.table, self.device, number)
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
    fn snapshot(&self, bytes: u64) -> Snapshot {
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
            devices: vec![device_snapshot(&self.table, self.device, bytes)],
        }
    }

    fn granule_bytes(&self) -> u64 {
        GRANULE_BYTES
    }

    fn costs(&self) -> Costs {
        self.costs
    }

    fn context_create(&mut self, _device: u32, flags: u32, primary: bool) -> CuResult<Raw> {
        if primary {
            return Ok(self.primary);
        }
        let mut context = NULL;
        // SAFETY: the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuCtxCreate_v2(&raw mut context, flags, self.device) }?;
        let name = self.contexts.add(context);
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
        self.current = None;
        // SAFETY: a live context of ours, named no more.
        unsafe { self.table.cuCtxDestroy_v2(pointer) }
    }

    fn context_synchronize(&mut self, context: Raw) -> CuResult<()> {
        self.enter(context)?;
        // SAFETY: a context is current.
        unsafe { self.table.cuCtxSynchronize() }
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

    fn alloc(&mut self, context: Raw, bytes: u64) -> CuResult<u64> {
        self.enter(context)?;
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
        unsafe { self.table.cuStreamSynchronize(stream) }
    }

    fn copy(&mut self, place: Place, to: u64, from: u64, bytes: u64) -> CuResult<()> {
        let stream = self.stream(place)?;
        // SAFETY: both ranges are the process's.
        unsafe { self.table.cuMemcpyDtoDAsync_v2(to, from, size(bytes)?, stream) }
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
        let context = context.unwrap_or(self.primary);
        self.enter(context).map_err(|code| LoadError { code, log: String::new() })?;
        self.images.load(&self.table, kind, bytes, &survey.variables)
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
        unsafe { self.table.cuStreamSynchronize(stream) }
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

    fn event_query(&mut self, event: Raw) -> CuResult<()> {
        // SAFETY: a live event of ours.
        unsafe { self.table.cuEventQuery(self.events.get(event)?) }
    }

    fn event_synchronize(&mut self, event: Raw) -> CuResult<()> {
        // SAFETY: a live event of ours.
        unsafe { self.table.cuEventSynchronize(self.events.get(event)?) }
    }

    fn event_elapsed(&mut self, start: Raw, end: Raw) -> CuResult<f32> {
        let (mut milliseconds, start, end) = (0.0, self.events.get(start)?, self.events.get(end)?);
        // SAFETY: two live events of ours; the driver writes one number.
        unsafe { self.table.cuEventElapsedTime(&raw mut milliseconds, start, end) }?;
        Ok(milliseconds)
    }
}
