//! Software GPUs as a [`Device`]. Everything has run when a call returns, so streams are names only; events keep the time.

mod array;
mod peers;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::{Duration, Instant};

use idm::Region;
use vgpu_api::memory::Memset;
use vgpu_api::printed::PRINTED_BYTES_MAX;
use vgpu_api::{
    Access, Attributes, CuError, CuResult, DevicePtr, DeviceSnapshot, FunctionInfo, GlobalInfo, ImageKind,
    JitOption, LinkTold, MemInfo, MemoryOp, MemoryOpKind, ParamInfo, Printed, Snapshot,
};
use vgpu_soft as gpu;

use super::conditional::{self, Condition};
use super::graph::Listed;
use super::pass_through::PassThrough;
use super::{
    Costs, Device, DeviceKind, DeviceLaunch, DeviceNode, DeviceWork, Exported, HostFunction, HostPages,
    LoadError, LoadedImage, Meter, NO_MANAGED_VARIABLES, Place, Raw, Shareable, Survey, identity,
};

/// What it says `cuDriverGetVersion` is: CUDA 13.0.
pub(super) const DRIVER_VERSION: u32 = 13_000;
/// Host threads for one launch at most: a worker's cgroup limits its share of the CPUs anyhow.
const HOST_THREADS_MAX: usize = 8;
/// `CUlimit` 0 to 9 as they are at a context's start: stack, printf FIFO, malloc heap, sync depth, pending launches, L2, …
pub(super) const LIMITS: [u64; 10] = [1024, 1 << 20, 8 << 20, 2, 2048, 128, 0, 0, 0, 0];
/// What kernels print is kept so far, in bytes; the rest is dropped, as by a GPU's buffer.
const PRINTED_KEPT_MAX: usize = 1 << 20;
/// How long a stream waits for a word of memory, and how often it looks.
const WORD_WAIT_MAX: Duration = Duration::from_secs(1);
const WORD_POLL: Duration = Duration::from_micros(100);
/// Elements of a texture of linear memory at most, as attribute 69 says.
pub(super) const LINEAR_TEXELS_MAX: u64 = 1 << 28;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// The software GPUs of one worker.
#[derive(Debug)]
pub struct Soft {
    gpu: gpu::Device,
    devices: u32,
    names: u64,
    contexts: HashMap<Raw, Context>,
    /// Pairs of contexts, the first of which reaches the memory of the second.
    peers: HashSet<(Raw, Raw)>,
    images: HashMap<Raw, Loaded>,
    events: HashMap<Raw, Option<Instant>>,
    graphs: HashMap<Raw, Listed>,
    conditionals: conditional::Table,
    arrays: array::Table,
    linkers: PassThrough,
    /// What kernels have printed, by the program's stream, oldest first; no two neighbours are of the same stream.
    printed: VecDeque<(u32, VecDeque<u8>)>,
    /// Bytes in `printed`.
    printed_bytes: usize,
}

/// A context: its device and its `CUlimit`s.
#[derive(Clone, Copy, Debug)]
struct Context {
    device: u32,
    limits: [u64; LIMITS.len()],
}

#[derive(Debug)]
struct Loaded {
    /// On the device that it was loaded on.
    instance: gpu::Instance,
    /// Of a library: on others, by device.
    others: BTreeMap<u32, gpu::Instance>,
    kind: ImageKind,
    /// `CUfunction_attribute` 8 of each function: dynamic shared memory it may have.
    shared_max: Vec<u32>,
}

impl Soft {
    /// A GPU of `memory_bytes`, whose addresses start at a random place.
    ///
    /// # Errors
    /// The system has no random bytes to give.
    pub fn new(memory_bytes: u64) -> std::io::Result<Self> {
        Self::with_devices(1, memory_bytes)
    }

    /// So many, with `memory_bytes` each.
    ///
    /// # Errors
    /// As [`Soft::new`].
    pub fn with_devices(devices: u32, memory_bytes: u64) -> std::io::Result<Self> {
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        let host_threads = thread::available_parallelism().map_or(1, NonZero::get).min(HOST_THREADS_MAX);
        let config = gpu::DeviceConfig {
            devices,
            memory_bytes,
            seed: u64::from_ne_bytes(seed),
            host_threads,
            instructions_max: None,
        };
        Ok(Self {
            gpu: gpu::Device::new(config),
            devices,
            names: 0,
            contexts: HashMap::new(),
            peers: HashSet::new(),
            images: HashMap::new(),
            events: HashMap::new(),
            graphs: HashMap::new(),
            conditionals: conditional::Table::default(),
            arrays: array::Table::default(),
            linkers: PassThrough::default(),
            printed: VecDeque::new(),
            printed_bytes: 0,
        })
    }

    fn name(&mut self) -> Raw {
        self.names += 1;
        Raw(self.names << 16)
    }

    fn keep_printed(&mut self, to: u32, mut bytes: Vec<u8>) {
        bytes.truncate(PRINTED_KEPT_MAX - self.printed_bytes);
        self.printed_bytes += bytes.len();
        match self.printed.back_mut() {
            Some((last, piece)) if *last == to => piece.extend(bytes),
            _ if bytes.is_empty() => {}
            _ => self.printed.push_back((to, bytes.into())),
        }
    }

    fn wait_for_word(&self, op: &MemoryOp) -> CuResult<()> {
        let until = Instant::now() + WORD_WAIT_MAX;
        loop {
            let mut word = [0; 8];
            let bytes = word.get_mut(..op.bytes as usize).ok_or(CuError::INVALID_VALUE)?;
            self.gpu.memory().read(op.at.0, bytes).map_err(|refused| error(refused.cu_result()))?;
            if op.is_met(u64::from_le_bytes(word)) {
                return Ok(());
            }
            if Instant::now() >= until {
                log::info!("a stream waits for a word that nobody writes");
                return Err(CuError::LAUNCH_TIMEOUT);
            }
            thread::sleep(WORD_POLL);
        }
    }

    fn graph(&mut self, graph: Raw) -> CuResult<&mut Listed> {
        self.graphs.get_mut(&graph).ok_or(CuError::INVALID_HANDLE)
    }

    /// A function's name is its image's and its place in it.
    fn function(&self, function: Raw) -> CuResult<(&Loaded, usize)> {
        let place = (function.0 & 0xffff) as usize;
        let loaded = self.images.get(&Raw(function.0 & !0xffff)).ok_or(CuError::INVALID_HANDLE)?;
        if place < loaded.shared_max.len() { Ok((loaded, place)) } else { Err(CuError::INVALID_HANDLE) }
    }

    fn info(&self, function: Raw) -> CuResult<(&gpu::FunctionInfo, u32)> {
        let (loaded, place) = self.function(function)?;
        let info = loaded.instance.module().functions().get(place).ok_or(CuError::INVALID_HANDLE)?;
        Ok((info, loaded.shared_max[place]))
    }
}

/// The devices as the guest sees them; the null device says the same under another name. Each may do with another what it may with itself.
pub(super) fn snapshot(kind: DeviceKind, name: &str, devices: u32, bytes: &[u64]) -> Snapshot {
    let device = |(number, bytes): (u32, &u64)| {
        let (uuid, pci) = identity(kind, number);
        let attributes = (0..=gpu::ATTRIBUTE_MAX).map(gpu::attribute).collect();
        DeviceSnapshot { name: name.into(), uuid, pci, total_memory: *bytes, attributes }
    };
    Snapshot {
        driver_version: DRIVER_VERSION,
        priority_greatest: 0,
        priority_least: 0,
        limits: LIMITS.to_vec(),
        devices: (0..devices).zip(bytes).map(device).collect(),
        peers: Snapshot::all_peers(devices, |number, _, _| peers::attribute(number)),
    }
}

/// What the guest is told of a module's kernels.
pub(super) fn function_infos(module: &gpu::Module) -> impl Iterator<Item = FunctionInfo> + '_ {
    module.functions().iter().map(|function| FunctionInfo {
        name: function.name.clone(),
        params: function
            .parameters
            .iter()
            .map(|parameter| ParamInfo { offset: parameter.offset, bytes: parameter.size })
            .collect(),
        attributes: attributes(function, gpu::SHARED_BYTES),
    })
}

/// `CUfunction_attribute` 0 to 15.
fn attributes(info: &gpu::FunctionInfo, shared_max: u32) -> Attributes {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let version = number(gpu::COMPUTE_CAPABILITY.0 * 10 + gpu::COMPUTE_CAPABILITY.1);
    let mut values = vec![0; vgpu_api::image::FUNCTION_ATTRIBUTES];
    values[0] = number(info.max_threads);
    values[1] = number(info.static_shared_bytes);
    values[3] = number(info.local_bytes);
    values[4] = number(info.registers);
    values[5] = version;
    values[6] = version;
    values[8] = number(shared_max.saturating_sub(info.static_shared_bytes));
    values[9] = -1;
    Attributes { values }
}

/// The error of a number that another crate knows; 0 would be no error at all.
fn error(code: u32) -> CuError {
    CuError::check(code).err().unwrap_or(CuError::UNKNOWN)
}

impl gpu::SharedWords for HostPages {
    fn words(&self) -> &[AtomicU64] {
        Self::words(self)
    }
}

/// Memory that workers share.
#[derive(Debug)]
struct SharedRegion(Region);

impl gpu::SharedWords for SharedRegion {
    fn words(&self) -> &[AtomicU64] {
        self.0.words(0, self.0.len() / 8)
    }
}

/// The supervisor made and sealed it: it has so many bytes, always.
fn shared_words(memory: OwnedFd, bytes: u64) -> CuResult<Arc<dyn gpu::SharedWords>> {
    let bytes = usize::try_from(bytes).map_err(|_| CuError::INVALID_VALUE)?;
    let region = Region::map(memory, bytes).map_err(|_| CuError::OUT_OF_MEMORY)?;
    Ok(Arc::new(SharedRegion(region)))
}

impl Device for Soft {
    fn snapshot(&self, bytes: &[u64]) -> Snapshot {
        let capacity = self.gpu.memory().capacity_bytes();
        let bytes: Vec<u64> = bytes.iter().map(|bytes| capacity.min(*bytes)).collect();
        snapshot(DeviceKind::Soft, gpu::NAME, self.devices, &bytes)
    }

    fn granule_bytes(&self) -> u64 {
        gpu::ALIGN
    }

    /// Stacks are the host's memory, bounded by the worker's cgroup.
    fn costs(&self) -> Costs {
        Costs::default()
    }

    /// Instructions of warps.
    fn set_meter(&mut self, meter: Meter) -> bool {
        self.gpu.set_meter(meter);
        true
    }

    fn context_create(&mut self, device: u32, _flags: u32, _primary: bool) -> CuResult<Raw> {
        if device >= self.devices {
            return Err(CuError::INVALID_DEVICE);
        }
        let name = self.name();
        self.contexts.insert(name, Context { device, limits: LIMITS });
        Ok(name)
    }

    fn context_destroy(&mut self, _device: u32, context: Raw, _primary: bool) -> CuResult<()> {
        self.contexts.remove(&context);
        Ok(())
    }

    fn context_synchronize(&mut self, _context: Raw) -> CuResult<()> {
        Ok(())
    }

    fn limit(&mut self, context: Raw, limit: u32) -> CuResult<u64> {
        self.context(context)?.limits.get(limit as usize).copied().ok_or(CuError::UNSUPPORTED_LIMIT)
    }

    /// Stored only: stack, heap and output buffer of this GPU are not the program's to choose.
    fn set_limit(&mut self, context: Raw, limit: u32, value: u64) -> CuResult<()> {
        let context = self.contexts.get_mut(&context).ok_or(CuError::INVALID_CONTEXT)?;
        *context.limits.get_mut(limit as usize).ok_or(CuError::UNSUPPORTED_LIMIT)? = value;
        Ok(())
    }

    fn peer_enable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        self.enable(context, peer)
    }

    fn peer_disable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        self.disable(context, peer)
    }

    fn alloc(&mut self, context: Raw, bytes: u64) -> CuResult<u64> {
        self.gpu
            .memory()
            .alloc_on(self.context(context)?.device, bytes)
            .map_err(|refused| error(refused.cu_result()))
    }

    fn memory(&mut self, context: Raw) -> CuResult<MemInfo> {
        let (device, memory) = (self.context(context)?.device, self.gpu.memory());
        let (used, total) = (memory.used_bytes_of(device), memory.capacity_bytes());
        Ok(MemInfo { free: total.saturating_sub(used), total })
    }

    fn free(&mut self, _context: Raw, address: u64) -> CuResult<()> {
        self.gpu.memory().free(address).map_err(|refused| error(refused.cu_result()))
    }

    fn write(&mut self, _place: Place, address: u64, bytes: &[u8]) -> CuResult<()> {
        self.gpu.memory().write(address, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn read(&mut self, _place: Place, address: u64, bytes: &mut [u8]) -> CuResult<()> {
        self.gpu.memory().read(address, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn copy(&mut self, _place: Place, to: u64, from: u64, bytes: u64) -> CuResult<()> {
        self.gpu.memory().copy(to, from, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn fill(&mut self, _place: Place, memset: &Memset) -> CuResult<()> {
        let pattern = memset.value.to_le_bytes();
        let pattern = pattern.get(..memset.element_bytes as usize).ok_or(CuError::INVALID_VALUE)?;
        let row = |row: u64| memset.pitch.checked_mul(row)?.checked_add(memset.dst.0);
        (0..memset.rows).try_for_each(|number| {
            let at = row(number).ok_or(CuError::INVALID_VALUE)?;
            let filled = self.gpu.memory().fill(at, pattern, memset.width);
            filled.map_err(|refused| error(refused.cu_result()))
        })
    }

    fn pin(&mut self, pages: HostPages) -> CuResult<()> {
        let shared = self.gpu.memory().share(pages.address(), Arc::new(pages));
        shared.map_err(|refused| error(refused.cu_result()))
    }

    fn unpin(&mut self, address: u64) -> CuResult<()> {
        self.gpu.memory().unshare(address).map_err(|refused| error(refused.cu_result()))
    }

    fn mapping_bytes(&self) -> u64 {
        gpu::MAPPING_ALIGN
    }

    fn reserve(&mut self, bytes: u64, alignment: u64, wanted: u64) -> CuResult<u64> {
        self.gpu.memory().reserve(bytes, alignment, wanted).map_err(|refused| error(refused.cu_result()))
    }

    fn unreserve(&mut self, address: u64, bytes: u64) -> CuResult<()> {
        self.gpu.memory().unreserve(address, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn create(&mut self, device: u32, bytes: u64) -> CuResult<Raw> {
        self.gpu.memory().create_on(device, bytes).map(Raw).map_err(|refused| error(refused.cu_result()))
    }

    fn release(&mut self, memory: Raw) -> CuResult<()> {
        self.gpu.memory().release(memory.0).map_err(|refused| error(refused.cu_result()))
    }

    fn map(&mut self, address: u64, bytes: u64, memory: Raw) -> CuResult<()> {
        self.gpu.memory().map(address, bytes, memory.0).map_err(|refused| error(refused.cu_result()))
    }

    fn unmap(&mut self, address: u64, bytes: u64) -> CuResult<()> {
        self.gpu.memory().unmap(address, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn set_access(&mut self, device: u32, address: u64, bytes: u64, access: Access) -> CuResult<()> {
        let protection = match access {
            Access::None => gpu::Protection::None,
            Access::Read => gpu::Protection::Read,
            Access::ReadWrite => gpu::Protection::ReadWrite,
        };
        let protected = self.gpu.memory().protect_for(device, address, bytes, protection);
        protected.map_err(|refused| error(refused.cu_result()))
    }

    fn export(&mut self, _what: Shareable) -> CuResult<Exported> {
        Ok(Exported::Host)
    }

    fn move_to(&mut self, what: Shareable, memory: OwnedFd, bytes: u64) -> CuResult<()> {
        let words = shared_words(memory, bytes)?;
        let moved = match what {
            Shareable::Memory(name) => self.gpu.memory().move_memory(name.0, words),
            Shareable::Allocation(address) => self.gpu.memory().move_allocation(address, words),
        };
        moved.map_err(|refused| error(refused.cu_result()))
    }

    fn import(&mut self, device: u32, memory: OwnedFd, bytes: u64) -> CuResult<Raw> {
        let imported = self.gpu.memory().import(device, shared_words(memory, bytes)?);
        imported.map(Raw).map_err(|refused| error(refused.cu_result()))
    }

    fn load(
        &mut self,
        context: Option<Raw>,
        kind: ImageKind,
        bytes: &[u8],
        _survey: Survey,
    ) -> Result<LoadedImage, LoadError> {
        let module = gpu::Module::load(bytes)
            .map_err(|refused| LoadError { code: error(refused.cu_result()), log: refused.to_string() })?;
        if module.globals().iter().any(|global| global.managed) {
            return Err(LoadError { code: CuError::NOT_SUPPORTED, log: NO_MANAGED_VARIABLES.into() });
        }
        let device = context.map_or(Ok(0), |context| self.context(context).map(|context| context.device));
        let device = device.map_err(|code| LoadError { code, log: String::new() })?;
        let instance = self
            .gpu
            .instantiate_on(device, &module)
            .map_err(|refused| LoadError { code: error(refused.cu_result()), log: refused.to_string() })?;
        let raw = self.name();
        let functions = function_infos(&module)
            .zip(0..=0xffff)
            .map(|(info, place)| (info, Raw(raw.0 | place)))
            .collect::<Vec<_>>();
        let globals = module
            .globals()
            .iter()
            .zip(instance.addresses())
            .map(|(global, address)| GlobalInfo {
                name: global.name.clone(),
                address: DevicePtr(*address),
                bytes: global.bytes,
            })
            .collect();
        let shared_max = vec![gpu::SHARED_BYTES; functions.len()];
        self.images.insert(raw, Loaded { instance, others: BTreeMap::new(), kind, shared_max });
        Ok(LoadedImage { raw, functions, globals })
    }

    fn load_on(&mut self, context: Raw, image: Raw) -> CuResult<Vec<u64>> {
        self.instantiate_on(context, image)
    }

    fn unload(&mut self, image: Raw) -> CuResult<()> {
        let loaded = self.images.remove(&image).ok_or(CuError::INVALID_HANDLE)?;
        loaded.others.values().chain([&loaded.instance]).for_each(|instance| self.gpu.unload(instance));
        Ok(())
    }

    fn function_attributes(&mut self, _context: Raw, function: Raw) -> CuResult<Attributes> {
        self.info(function).map(|(info, shared_max)| attributes(info, shared_max))
    }

    fn set_function_attribute(
        &mut self,
        _context: Raw,
        function: Raw,
        attribute: u32,
        value: i32,
    ) -> CuResult<()> {
        let fixed_bytes = self.info(function)?.0.static_shared_bytes;
        if attribute != 8 {
            // Carve-out and cluster shapes are hints to hardware that is not here.
            return if matches!(attribute, 9 | 11..=15) { Ok(()) } else { Err(CuError::INVALID_VALUE) };
        }
        let bytes = u32::try_from(value).map_err(|_| CuError::INVALID_VALUE)?.saturating_add(fixed_bytes);
        let place = (function.0 & 0xffff) as usize;
        let loaded = self.images.get_mut(&Raw(function.0 & !0xffff)).ok_or(CuError::INVALID_HANDLE)?;
        if bytes > gpu::SHARED_BYTES_OPT_IN {
            return Err(CuError::INVALID_VALUE);
        }
        loaded.shared_max[place] = bytes;
        Ok(())
    }

    fn max_active_blocks(
        &mut self,
        _: Raw,
        function: Raw,
        threads: u32,
        shared: u64,
        _: u32,
    ) -> CuResult<u32> {
        let (info, _) = self.info(function)?;
        blocks_by_resources(info, threads, shared)
    }

    fn available_shared(&mut self, _: Raw, function: Raw, blocks: u32, _threads: u32) -> CuResult<u64> {
        let (info, _) = self.info(function)?;
        let each = attribute(81).checked_div(u64::from(blocks)).ok_or(CuError::INVALID_VALUE)?;
        Ok(each.min(u64::from(gpu::SHARED_BYTES_OPT_IN)).saturating_sub(u64::from(info.static_shared_bytes)))
    }

    fn max_active_clusters(&mut self, _place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        Err(CuError::NOT_SUPPORTED)
    }

    fn max_cluster_size(&mut self, _place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        Err(CuError::NOT_SUPPORTED)
    }

    fn launch(&mut self, at: Place, launch: &DeviceLaunch<'_>) -> CuResult<()> {
        let device = self.context(at.context)?.device;
        let (loaded, place) = self.function(launch.function)?;
        let instance = loaded.on(device).ok_or(CuError::INVALID_HANDLE)?;
        let fixed_bytes = loaded.instance.module().functions()[place].static_shared_bytes;
        if launch.shared_bytes.saturating_add(fixed_bytes) > loaded.shared_max[place] {
            return Err(CuError::INVALID_VALUE);
        }
        let config =
            gpu::LaunchConfig { grid: launch.grid, block: launch.block, shared_bytes: launch.shared_bytes };
        let result = self.gpu.launch(instance, place, &config, launch.params);
        let printed = self.gpu.take_output();
        self.keep_printed(STDOUT, printed);
        result.map_err(|fault| {
            match &fault {
                gpu::Fault::Assert(text) => self.keep_printed(STDERR, format!("{text}\n").into_bytes()),
                other => log::info!("a kernel ended early: {other}"),
            }
            error(fault.cu_result())
        })
    }

    fn stream_create(&mut self, _context: Raw, _flags: u32, _priority: i32) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn stream_destroy(&mut self, _stream: Raw) -> CuResult<()> {
        Ok(())
    }

    fn stream_synchronize(&mut self, _place: Place) -> CuResult<()> {
        Ok(())
    }

    fn stream_query(&mut self, _place: Place) -> CuResult<()> {
        Ok(())
    }

    fn stream_wait(&mut self, _place: Place, _event: Raw, _flags: u32) -> CuResult<()> {
        Ok(())
    }

    /// Everything runs at once, in order, without caches: there is nothing to change.
    fn set_stream_attribute(&mut self, _place: Place, _attribute: u32, _value: &[u8; 64]) -> CuResult<()> {
        Ok(())
    }

    /// All that came before has run, and nothing that comes later runs before this returns: a wait that is not over now is over
    /// only if the program itself writes the word, in memory that it shares. A GPU would wait for good; this one for a time.
    fn stream_memory(&mut self, _place: Place, ops: &[MemoryOp]) -> CuResult<()> {
        ops.iter().try_for_each(|op| match op.kind {
            MemoryOpKind::Write => {
                let value = op.value.to_le_bytes();
                let value = value.get(..op.bytes as usize).ok_or(CuError::INVALID_VALUE)?;
                self.gpu.memory().write(op.at.0, value).map_err(|refused| error(refused.cu_result()))
            }
            MemoryOpKind::Barrier => Ok(()),
            _ => self.wait_for_word(op),
        })
    }

    fn event_create(&mut self, _context: Raw, _flags: u32) -> CuResult<Raw> {
        let name = self.name();
        self.events.insert(name, None);
        Ok(name)
    }

    fn event_destroy(&mut self, event: Raw) -> CuResult<()> {
        self.events.remove(&event).map(drop).ok_or(CuError::INVALID_HANDLE)
    }

    fn event_record(&mut self, _place: Place, event: Raw, _flags: u32) -> CuResult<()> {
        *self.events.get_mut(&event).ok_or(CuError::INVALID_HANDLE)? = Some(Instant::now());
        Ok(())
    }

    fn context_record(&mut self, context: Raw, event: Raw) -> CuResult<()> {
        self.event_record(Place { context, stream: None }, event, 0)
    }

    fn context_wait(&mut self, _context: Raw, event: Raw) -> CuResult<()> {
        self.event_query(event)
    }

    fn event_query(&mut self, event: Raw) -> CuResult<()> {
        self.events.get(&event).map(drop).ok_or(CuError::INVALID_HANDLE)
    }

    fn event_synchronize(&mut self, event: Raw) -> CuResult<()> {
        self.event_query(event)
    }

    fn event_elapsed(&mut self, start: Raw, end: Raw) -> CuResult<f32> {
        let at = |event| self.events.get(&event).copied().flatten().ok_or(CuError::INVALID_HANDLE);
        let (start, end) = (at(start)?, at(end)?);
        let milliseconds = |time: Duration| time.as_secs_f32() * 1e3;
        Ok(match end.checked_duration_since(start) {
            Some(time) => milliseconds(time),
            None => -milliseconds(start.duration_since(end)),
        })
    }

    fn conditional_create(
        &mut self,
        _context: Raw,
        of: Option<Raw>,
        value: u32,
        flags: u32,
    ) -> CuResult<(Raw, u64)> {
        let of = of.unwrap_or_else(|| self.name());
        let (number, place) = self.gpu.conditions().create(value);
        self.conditionals.add(of, number, Condition::new(place, value, flags));
        Ok((of, number))
    }

    fn conditionals_end(&mut self, of: Raw) -> CuResult<()> {
        self.conditionals.end(of);
        Ok(())
    }

    fn graph_instantiate(&mut self, nodes: &[DeviceNode<'_>], _flags: u64) -> CuResult<Raw> {
        let listed = Listed::new(nodes, &|of, number| self.conditionals.get(of, number))?;
        let name = self.name();
        self.graphs.insert(name, listed);
        Ok(name)
    }

    fn graph_update(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        self.graph(graph)?.update(nodes)
    }

    fn graph_set(&mut self, graph: Raw, node: u32, _context: Raw, work: &DeviceWork<'_>) -> CuResult<()> {
        self.graph(graph)?.set(node, work)
    }

    fn graph_enable(&mut self, graph: Raw, node: u32, enabled: bool) -> CuResult<()> {
        self.graph(graph)?.enable(node, enabled)
    }

    fn graph_put(&mut self, graph: Raw, node: u32, offset: u64, bytes: &[u8]) -> CuResult<()> {
        self.graph(graph)?.host(node, offset, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn graph_get(&mut self, graph: Raw, node: u32, offset: u64, bytes: &mut [u8]) -> CuResult<()> {
        bytes.copy_from_slice(self.graph(graph)?.host(node, offset, bytes.len())?);
        Ok(())
    }

    fn graph_upload(&mut self, _place: Place, graph: Raw) -> CuResult<()> {
        self.graph(graph).map(drop)
    }

    fn graph_launch(&mut self, place: Place, graph: Raw) -> CuResult<()> {
        // Taken out, since its nodes run on this device.
        let mut listed = std::mem::take(self.graph(graph)?);
        let result = listed.run(self, place.stream);
        self.graphs.insert(graph, listed);
        result
    }

    fn graph_destroy(&mut self, graph: Raw) -> CuResult<()> {
        self.graphs.remove(&graph).map(drop).ok_or(CuError::INVALID_HANDLE)
    }

    fn link_create(
        &mut self,
        _context: Raw,
        _options: &[JitOption],
        _log_bytes: [usize; 2],
    ) -> CuResult<Raw> {
        let name = self.name();
        Ok(self.linkers.create(name))
    }

    fn link_add(
        &mut self,
        _context: Raw,
        linker: Raw,
        input: u32,
        bytes: &[u8],
        _name: &str,
        _options: &[JitOption],
    ) -> CuResult<()> {
        self.linkers.add(linker, input, bytes, |text| {
            let module = gpu::Module::load(text);
            module.map(drop).map_err(|refused| (error(refused.cu_result()), refused.to_string()))
        })
    }

    fn link_complete(&mut self, _context: Raw, linker: Raw) -> CuResult<Vec<u8>> {
        self.linkers.complete(linker)
    }

    fn link_log(&mut self, linker: Raw, errors: bool) -> CuResult<Vec<u8>> {
        self.linkers.log(linker, errors)
    }

    fn link_told(&mut self, _linker: Raw) -> CuResult<LinkTold> {
        Ok(LinkTold::default())
    }

    fn link_destroy(&mut self, linker: Raw) -> CuResult<()> {
        self.linkers.destroy(linker)
    }

    /// Everything waits for it: all streams are one here.
    fn host_function(&mut self, _place: Place, _after_errors: bool, function: HostFunction) -> CuResult<()> {
        function(0);
        Ok(())
    }

    fn has_printed(&self) -> bool {
        !self.printed.is_empty()
    }

    fn take_printed(&mut self) -> Printed {
        let Some((to, bytes)) = self.printed.front_mut() else { return Printed::default() };
        let piece: Vec<u8> = bytes.drain(..bytes.len().min(PRINTED_BYTES_MAX)).collect();
        self.printed_bytes -= piece.len();
        let printed = Printed { to: *to, bytes: piece };
        if bytes.is_empty() {
            self.printed.pop_front();
        }
        printed
    }
}

fn attribute(id: u32) -> u64 {
    u64::try_from(gpu::attribute(id)).unwrap_or(0)
}

/// Blocks that fit one multiprocessor by threads, shared memory, registers and number.
fn blocks_by_resources(info: &gpu::FunctionInfo, threads: u32, shared: u64) -> CuResult<u32> {
    if threads == 0 || threads > info.max_threads {
        return Err(CuError::INVALID_VALUE);
    }
    let threads = u64::from(threads.next_multiple_of(gpu::WARP_SIZE));
    let shared = shared.saturating_add(u64::from(info.static_shared_bytes));
    let by = |have: u64, each: u64| have.checked_div(each).unwrap_or(u64::MAX);
    let blocks = by(attribute(39), threads)
        .min(by(attribute(81), shared))
        .min(by(attribute(82), threads * u64::from(info.registers)))
        .min(attribute(106));
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kernels_print_comes_in_order_in_pieces_and_has_an_end() {
        let mut soft = Soft::new(1 << 20).unwrap();
        assert!(!soft.has_printed());
        soft.keep_printed(STDOUT, vec![b'a'; PRINTED_BYTES_MAX + 1]);
        soft.keep_printed(STDERR, b"b".to_vec());
        let piece = |to, bytes: &[u8]| Printed { to, bytes: bytes.to_vec() };
        assert_eq!(soft.take_printed(), piece(1, &[b'a'; PRINTED_BYTES_MAX]));
        assert_eq!(soft.take_printed(), piece(1, b"a"));
        assert_eq!(soft.take_printed(), piece(2, b"b"));
        assert_eq!((soft.has_printed(), soft.take_printed()), (false, Printed::default()));
        for _ in 0..3 {
            soft.keep_printed(STDOUT, vec![0; PRINTED_KEPT_MAX - 10]);
        }
        // The figure of SPECIFICATION.md.
        assert_eq!((soft.printed.len(), soft.printed_bytes), (1, 1 << 20));
        let taken: usize =
            std::iter::from_fn(|| Some(soft.take_printed().bytes.len())).take_while(|taken| *taken > 0).sum();
        assert_eq!((taken, soft.printed_bytes), (PRINTED_KEPT_MAX, 0));
    }

    /// A guest launches as often as it likes and need never take what is printed.
    #[test]
    fn a_little_from_each_of_many_launches_is_kept_as_one_piece() {
        let mut soft = Soft::new(1 << 20).unwrap();
        for _ in 0..PRINTED_KEPT_MAX + 1000 {
            soft.keep_printed(STDOUT, b".".to_vec());
        }
        assert_eq!((soft.printed.len(), soft.printed_bytes), (1, PRINTED_KEPT_MAX));
    }
}
