//! Accepts everything, computes nothing, remembers nothing but sizes. For traces and load: reads give zeros, launches succeed, words that
//! streams write into pinned memory are written.
//!
//! What kernels and variables are called comes from the image: `null/image.rs`.

mod array;
mod graphs;
mod image;
mod stalls;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use vgpu_api::memory::Memset;
use vgpu_api::tensor_map::TENSOR_MAP_BYTES;
use vgpu_api::{
    Access, Attributes, CuError, CuResult, DevicePtr, GlobalInfo, ImageKind, JitOption, LinkTold, MemInfo,
    MemoryOp, MemoryOpKind, Snapshot, TensorMap, TensorSpec,
};

use super::pass_through::PassThrough;
use super::{
    Costs, Device, DeviceKind, DeviceLaunch, DeviceNode, DeviceWork, Exported, HostFunction, HostPages,
    LoadError, LoadedImage, Place, Raw, Shareable, Survey, soft,
};
use graphs::Graphs;
use image::Found;
use stalls::Stalls;

/// Addresses start here: no address of a program lies there, so that a mix-up shows.
const FIRST_ADDRESS: u64 = 0x0400_0000_0000;
/// And end here, where the guest's arena begins.
const END_ADDRESS: u64 = idm::arena::WINDOW as u64;
/// Allocations lie apart, so that an access past the end of one is noticed by the allocation map.
const GAP_BYTES: u64 = 1 << 16;
const GRANULE_BYTES: u64 = 512;
/// As on NVIDIA's devices.
const MAPPING_BYTES: u64 = 2 << 20;

/// What a [`Null`] may be told to refuse, with 1 if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Changes of graphs that can be launched.
    GraphChange,
    /// To say what may be done with a mapping.
    Access,
    /// To take a mapping away.
    Unmap,
    /// To end the name of memory.
    Release,
    /// Functions of the guest: with 700, and they are never called nor let go of.
    HostFunction,
}

/// The null device.
#[derive(Debug)]
pub struct Null {
    devices: u32,
    names: u64,
    next_address: u64,
    limits: HashMap<(Raw, u32), u64>,
    costs: Costs,
    local_bytes: i32,
    memory_bytes: u64,
    keeps_primary: bool,
    is_busy: bool,
    /// Kept ones, by device.
    primaries: HashMap<u32, Raw>,
    /// Sizes of each image's variables.
    variables: HashMap<Raw, Vec<u64>>,
    linkers: PassThrough,
    /// By address. What a guest waits for there it gets.
    pinned: BTreeMap<u64, HostPages>,
    /// Streams that wait for a word, if any does.
    stalls: Option<Stalls>,
    /// What it does not do.
    refuses: Vec<Step>,
    /// How many functions of the guest run now, if they run in threads.
    running: Option<Arc<AtomicUsize>>,
    graphs: Graphs,
}

impl Default for Null {
    fn default() -> Self {
        Self::with_costs(Costs::default(), 0)
    }
}

impl Null {
    /// One that says of itself what hardware would: `local_bytes` are each kernel's `CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES`.
    #[must_use]
    pub fn with_costs(costs: Costs, local_bytes: i32) -> Self {
        Self {
            devices: 1,
            names: 0,
            next_address: FIRST_ADDRESS,
            limits: HashMap::new(),
            costs,
            local_bytes,
            memory_bytes: u64::MAX,
            keeps_primary: false,
            is_busy: false,
            primaries: HashMap::new(),
            variables: HashMap::new(),
            linkers: PassThrough::default(),
            pinned: BTreeMap::new(),
            stalls: None,
            refuses: Vec::new(),
            running: None,
            graphs: Graphs::default(),
        }
    }

    /// This one, but several devices.
    #[must_use]
    pub fn with_devices(self, devices: u32) -> Self {
        Self { devices, ..self }
    }

    /// One that has no more than so many bytes.
    #[must_use]
    pub fn with_memory(memory_bytes: u64) -> Self {
        Self { memory_bytes, ..Self::default() }
    }

    /// This one, but its primary context stays when it is ended, as that of `cuda` does.
    #[must_use]
    pub fn keeping_primary(self) -> Self {
        Self { keeps_primary: true, ..self }
    }

    /// This one, but no question finds a stream of it idle, as if a GPU had much to do. Waits return as ever.
    #[must_use]
    pub fn busy(self) -> Self {
        Self { is_busy: true, ..self }
    }

    /// This one, but functions of the guest run in threads, as with `cuda`, and nothing is done before they are.
    #[must_use]
    pub fn calling_from_a_thread(self) -> Self {
        Self { running: Some(Arc::default()), ..self }
    }

    /// This one, but a stream that waits for a word waits until the word is written. Who waits for such a stream never comes back: here
    /// that is 702.
    #[must_use]
    pub fn stalling(self) -> Self {
        Self { stalls: Some(Stalls::default()), ..self }
    }

    /// This one, but it refuses what a device may refuse.
    #[must_use]
    pub fn refusing(self, steps: &[Step]) -> Self {
        Self { refuses: steps.to_vec(), ..self }
    }

    fn refuse(&self, step: Step) -> CuResult<()> {
        if self.refuses.contains(&step) { Err(CuError::INVALID_VALUE) } else { Ok(()) }
    }

    fn take_addresses(&mut self, bytes: u64) -> CuResult<u64> {
        let address = self.next_address;
        let end = address.checked_add(bytes).and_then(|end| end.checked_add(GAP_BYTES));
        let next = end.and_then(|end| end.checked_next_multiple_of(GRANULE_BYTES));
        self.next_address = next.filter(|next| *next < END_ADDRESS).ok_or(CuError::OUT_OF_MEMORY)?;
        Ok(address)
    }

    /// The pinned pages that hold an address.
    fn pages(&self, address: u64) -> Option<&HostPages> {
        let (start, pages) = self.pinned.range(..=address).next_back()?;
        (address - start < pages.bytes() as u64).then_some(pages)
    }

    /// Something is queued.
    fn queue(&mut self, place: Place) {
        if let Some(stalls) = &mut self.stalls {
            stalls.queue(place);
        }
    }

    /// Something is waited for.
    fn wait(&self, held: impl FnOnce(&Stalls) -> CuResult<()>) -> CuResult<()> {
        self.stalls.as_ref().map_or(Ok(()), held).map_err(|_| CuError::LAUNCH_TIMEOUT)
    }

    /// At once, or in a thread.
    fn run_in_order(&self, functions: impl FnOnce() + Send + 'static) {
        let Some(running) = self.running.clone() else { return functions() };
        running.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || {
            functions();
            running.fetch_sub(1, Ordering::Release);
        });
    }

    fn runs_functions(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.load(Ordering::Acquire) > 0)
    }

    fn name(&mut self) -> Raw {
        self.names += 1;
        Raw(self.names << 16)
    }
}

impl Device for Null {
    fn snapshot(&self, bytes: &[u64]) -> Snapshot {
        soft::snapshot(DeviceKind::Null, "vgpu null device", self.devices, bytes)
    }

    fn granule_bytes(&self) -> u64 {
        GRANULE_BYTES
    }

    fn costs(&self) -> Costs {
        self.costs
    }

    fn context_create(&mut self, device: u32, _flags: u32, primary: bool) -> CuResult<Raw> {
        let kept = self.primaries.get(&device).copied().filter(|_| primary);
        let context = kept.unwrap_or_else(|| self.name());
        if primary && self.keeps_primary {
            self.primaries.insert(device, context);
        }
        Ok(context)
    }

    fn keeps_primary(&self) -> bool {
        self.keeps_primary
    }

    fn context_destroy(&mut self, _device: u32, context: Raw, _primary: bool) -> CuResult<()> {
        if self.primaries.values().any(|kept| *kept == context) {
            return Ok(());
        }
        self.limits.retain(|(owner, _), _| *owner != context);
        Ok(())
    }

    fn context_synchronize(&mut self, context: Raw) -> CuResult<()> {
        self.wait(|stalls| stalls.query_context(context))?;
        self.stream_synchronize(Place { context, stream: None })
    }

    fn limit(&mut self, context: Raw, limit: u32) -> CuResult<u64> {
        let at_start = soft::LIMITS.get(limit as usize).ok_or(CuError::UNSUPPORTED_LIMIT)?;
        Ok(self.limits.get(&(context, limit)).copied().unwrap_or(*at_start))
    }

    fn set_limit(&mut self, context: Raw, limit: u32, value: u64) -> CuResult<()> {
        self.limit(context, limit)?;
        self.limits.insert((context, limit), value);
        Ok(())
    }

    fn peer_enable(&mut self, _context: Raw, _peer: Raw) -> CuResult<()> {
        Ok(())
    }

    fn peer_disable(&mut self, _context: Raw, _peer: Raw) -> CuResult<()> {
        Ok(())
    }

    fn alloc(&mut self, _context: Raw, bytes: u64) -> CuResult<u64> {
        self.take_addresses(bytes)
    }

    /// As much as anybody is granted.
    fn memory(&mut self, _context: Raw) -> CuResult<MemInfo> {
        Ok(MemInfo { free: self.memory_bytes, total: self.memory_bytes })
    }

    fn free(&mut self, _context: Raw, _address: u64) -> CuResult<()> {
        Ok(())
    }

    fn write(&mut self, place: Place, _address: u64, _bytes: &[u8]) -> CuResult<()> {
        self.queue(place);
        Ok(())
    }

    fn read(&mut self, place: Place, _address: u64, bytes: &mut [u8]) -> CuResult<()> {
        bytes.fill(0);
        self.queue(place);
        self.wait(|stalls| stalls.query(place))
    }

    fn copy(&mut self, place: Place, to: u64, _from: u64, bytes: u64) -> CuResult<()> {
        self.queue(place);
        if let Some(pages) = self.pages(to) {
            pages.zero(to, bytes);
        }
        Ok(())
    }

    fn fill(&mut self, place: Place, _memset: &Memset) -> CuResult<()> {
        self.queue(place);
        Ok(())
    }

    fn pin(&mut self, pages: HostPages) -> CuResult<()> {
        self.pinned.insert(pages.address(), pages);
        Ok(())
    }

    fn unpin(&mut self, address: u64) -> CuResult<()> {
        self.pinned.remove(&address);
        Ok(())
    }

    fn mapping_bytes(&self) -> u64 {
        MAPPING_BYTES
    }

    fn reserve(&mut self, bytes: u64, alignment: u64, _wanted: u64) -> CuResult<u64> {
        let align = alignment.max(MAPPING_BYTES);
        let address = self.next_address.checked_next_multiple_of(align).ok_or(CuError::OUT_OF_MEMORY)?;
        let next = address.checked_add(bytes).filter(|next| *next < END_ADDRESS);
        self.next_address = next.ok_or(CuError::OUT_OF_MEMORY)?;
        Ok(address)
    }

    fn unreserve(&mut self, _address: u64, _bytes: u64) -> CuResult<()> {
        Ok(())
    }

    fn create(&mut self, _device: u32, _bytes: u64) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn release(&mut self, _memory: Raw) -> CuResult<()> {
        self.refuse(Step::Release)
    }

    fn map(&mut self, _address: u64, _bytes: u64, _memory: Raw) -> CuResult<()> {
        Ok(())
    }

    fn unmap(&mut self, _address: u64, _bytes: u64) -> CuResult<()> {
        self.refuse(Step::Unmap)
    }

    fn set_access(&mut self, _device: u32, _address: u64, _bytes: u64, _access: Access) -> CuResult<()> {
        self.refuse(Step::Access)
    }

    fn export(&mut self, _what: Shareable) -> CuResult<Exported> {
        Ok(Exported::Host)
    }

    fn move_to(&mut self, _what: Shareable, _memory: OwnedFd, _bytes: u64) -> CuResult<()> {
        Ok(())
    }

    fn import(&mut self, _device: u32, _memory: OwnedFd, _bytes: u64) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn survey(&self, bytes: &[u8]) -> CuResult<Survey> {
        Survey::of(bytes, vgpu_soft::COMPUTE_CAPABILITY)
    }

    fn load(
        &mut self,
        _context: Option<Raw>,
        _kind: ImageKind,
        bytes: &[u8],
        _survey: Survey,
    ) -> Result<LoadedImage, LoadError> {
        let raw = self.name();
        let Found { functions, variables } = Found::of(bytes);
        let functions = functions.into_iter().zip(0..=0xffff);
        self.variables.insert(raw, variables.iter().map(|(_, bytes)| *bytes).collect());
        let mut globals = Vec::with_capacity(variables.len());
        for (name, bytes) in variables {
            let address =
                self.take_addresses(bytes).map_err(|code| LoadError { code, log: String::new() })?;
            globals.push(GlobalInfo { name, address: DevicePtr(address), bytes });
        }
        Ok(LoadedImage {
            raw,
            functions: functions.map(|(info, place)| (info, Raw(raw.0 | place))).collect(),
            globals,
        })
    }

    fn load_on(&mut self, _context: Raw, image: Raw) -> CuResult<Vec<u64>> {
        let sizes = self.variables.get(&image).cloned().ok_or(CuError::INVALID_HANDLE)?;
        sizes.into_iter().map(|bytes| self.take_addresses(bytes)).collect()
    }

    fn unload(&mut self, image: Raw) -> CuResult<()> {
        self.variables.remove(&image);
        Ok(())
    }

    fn function_attributes(&mut self, _context: Raw, _function: Raw) -> CuResult<Attributes> {
        Ok(image::attributes(self.local_bytes))
    }

    fn set_function_attribute(&mut self, _: Raw, _: Raw, _attribute: u32, _value: i32) -> CuResult<()> {
        Ok(())
    }

    fn max_active_blocks(
        &mut self,
        _: Raw,
        _: Raw,
        _threads: u32,
        _shared: u64,
        _flags: u32,
    ) -> CuResult<u32> {
        Ok(1)
    }

    fn available_shared(&mut self, _: Raw, _: Raw, _blocks: u32, _threads: u32) -> CuResult<u64> {
        Ok(vgpu_soft::SHARED_BYTES.into())
    }

    fn max_active_clusters(&mut self, _place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        Ok(1)
    }

    fn max_cluster_size(&mut self, _place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<u32> {
        Ok(1)
    }

    fn launch(&mut self, place: Place, _launch: &DeviceLaunch<'_>) -> CuResult<()> {
        self.queue(place);
        Ok(())
    }

    fn stream_create(&mut self, _context: Raw, flags: u32, _priority: i32) -> CuResult<Raw> {
        let name = self.name();
        if let Some(stalls) = &mut self.stalls {
            stalls.stream(name, flags);
        }
        Ok(name)
    }

    fn stream_destroy(&mut self, _stream: Raw) -> CuResult<()> {
        Ok(())
    }

    fn stream_synchronize(&mut self, place: Place) -> CuResult<()> {
        self.wait(|stalls| stalls.query(place))?;
        while self.runs_functions() {
            thread::yield_now();
        }
        Ok(())
    }

    fn stream_query(&mut self, place: Place) -> CuResult<()> {
        self.stalls.as_ref().map_or(Ok(()), |stalls| stalls.query(place))?;
        if self.is_busy || self.runs_functions() { Err(CuError::NOT_READY) } else { Ok(()) }
    }

    fn stream_wait(&mut self, _place: Place, _event: Raw, _flags: u32) -> CuResult<()> {
        Ok(())
    }

    fn set_stream_attribute(&mut self, _place: Place, _attribute: u32, _value: &[u8; 64]) -> CuResult<()> {
        Ok(())
    }

    fn stream_memory(&mut self, place: Place, ops: &[MemoryOp]) -> CuResult<()> {
        if let Some(stalls) = &mut self.stalls {
            stalls.queue_ops(place, ops);
        }
        for op in ops.iter().filter(|op| op.kind == MemoryOpKind::Write && op.bytes == 8) {
            if let Some(word) = self.pages(op.at.0).and_then(|pages| pages.word(op.at.0)) {
                word.store(op.value, Ordering::Release);
            }
        }
        Ok(())
    }

    fn event_create(&mut self, _context: Raw, _flags: u32) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn event_destroy(&mut self, _event: Raw) -> CuResult<()> {
        Ok(())
    }

    fn event_record(&mut self, place: Place, event: Raw, _flags: u32) -> CuResult<()> {
        if let Some(stalls) = &mut self.stalls {
            stalls.record(place, event);
        }
        Ok(())
    }

    fn context_record(&mut self, context: Raw, event: Raw) -> CuResult<()> {
        if let Some(stalls) = &mut self.stalls {
            stalls.record_all(context, event);
        }
        Ok(())
    }

    fn context_wait(&mut self, _context: Raw, _event: Raw) -> CuResult<()> {
        Ok(())
    }

    fn event_query(&mut self, event: Raw) -> CuResult<()> {
        if self.runs_functions() {
            return Err(CuError::NOT_READY);
        }
        self.stalls.as_ref().map_or(Ok(()), |stalls| stalls.query_event(event))
    }

    fn event_synchronize(&mut self, event: Raw) -> CuResult<()> {
        self.wait(|stalls| stalls.query_event(event))
    }

    fn event_elapsed(&mut self, _start: Raw, _end: Raw) -> CuResult<f32> {
        Ok(0.0)
    }

    fn conditional_create(
        &mut self,
        _context: Raw,
        of: Option<Raw>,
        _value: u32,
        _flags: u32,
    ) -> CuResult<(Raw, u64)> {
        let (of, number) = (of.unwrap_or_else(|| self.name()), self.name());
        Ok((of, number.0))
    }

    fn conditionals_end(&mut self, _of: Raw) -> CuResult<()> {
        Ok(())
    }

    fn graph_instantiate(&mut self, nodes: &[DeviceNode<'_>], _flags: u64) -> CuResult<Raw> {
        let name = self.name();
        self.graphs.set_all(name, nodes);
        Ok(name)
    }

    fn graph_update(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        self.refuse(Step::GraphChange)?;
        self.graphs.set_all(graph, nodes);
        Ok(())
    }

    fn graph_set(&mut self, graph: Raw, node: u32, _context: Raw, work: &DeviceWork<'_>) -> CuResult<()> {
        self.refuse(Step::GraphChange)?;
        self.graphs.set(graph, node, work);
        Ok(())
    }

    fn graph_enable(&mut self, _graph: Raw, _node: u32, _enabled: bool) -> CuResult<()> {
        Ok(())
    }

    fn graph_put(&mut self, _graph: Raw, _node: u32, _offset: u64, _bytes: &[u8]) -> CuResult<()> {
        Ok(())
    }

    fn graph_get(&mut self, _graph: Raw, _node: u32, _offset: u64, bytes: &mut [u8]) -> CuResult<()> {
        bytes.fill(0);
        Ok(())
    }

    fn graph_upload(&mut self, _place: Place, _graph: Raw) -> CuResult<()> {
        Ok(())
    }

    fn graph_launch(&mut self, place: Place, graph: Raw) -> CuResult<()> {
        self.queue(place);
        let (words, functions) = self.graphs.of(graph);
        self.stream_memory(place, &words)?;
        if !functions.is_empty() {
            self.run_in_order(move || {
                functions.iter().filter_map(Weak::upgrade).for_each(|function| function());
            });
        }
        Ok(())
    }

    fn graph_destroy(&mut self, graph: Raw) -> CuResult<()> {
        self.graphs.remove(graph);
        Ok(())
    }

    fn tensor_map(&mut self, _spec: &TensorSpec) -> CuResult<TensorMap> {
        Ok(TensorMap([0; TENSOR_MAP_BYTES]))
    }

    fn tensor_map_at(&mut self, map: TensorMap, _address: u64) -> CuResult<TensorMap> {
        Ok(map)
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
        self.linkers.add(linker, input, bytes, |_| Ok(()))
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

    fn host_function(&mut self, _place: Place, _after_errors: bool, function: HostFunction) -> CuResult<()> {
        if self.refuse(Step::HostFunction).is_err() {
            std::mem::forget(function);
            return Err(CuError::ILLEGAL_ADDRESS);
        }
        self.run_in_order(move || function(0));
        Ok(())
    }
}
