//! What the process knows once `cuInit` succeeded: the channel, the devices, the objects.
//!
//! Before `cuInit` there is no thread and no I/O. A child of `fork` has none of it: every call gives 3 there.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use vgpu_api::snapshot::{CAN_MAP_HOST_MEMORY, CAN_WRITE_WORDS};
use vgpu_api::{CUDA_VERSION, CuError, CuResult, DeviceSnapshot, Snapshot};

use super::arena::Arena;
use super::arrays::{Arrays, Objects};
use super::channel::Channel;
use super::contexts::Contexts;
use super::copiers::Copiers;
use super::event_words::EventWords;
use super::exec::Execs;
use super::graph_memory::GraphMemory;
use super::graphs::Graphs;
use super::host_functions::{self, HostFunctions};
use super::images::Images;
use super::ipc::Ipc;
use super::limits::Limits;
use super::linkers::Linker;
use super::pools::Pools;
use super::ranges::Ranges;
use super::references::References;
use super::slab::{Slab, lock};
use super::slots::Slots;
use super::virtual_memory::VirtualMemory;
use super::visible;
use crate::dark::cls::Ended;
use crate::log::say;

/// What the guest keeps of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamInfo {
    pub context: vgpu_api::ContextId,
    /// The green context of that one in which it was made, or [`vgpu_api::ContextId::NONE`].
    pub green: vgpu_api::ContextId,
    pub flags: u32,
    pub priority: i32,
    pub id: u64,
}

/// What the guest keeps of an event.
#[derive(Debug, Clone, Copy)]
pub struct EventInfo {
    /// Times between it and others can be asked.
    pub is_timed: bool,
    pub context: vgpu_api::ContextId,
    pub recorded: Recorded,
    /// Other processes may have it, and record it: what is known of that the worker says.
    pub is_shared: bool,
}

/// Where an event was recorded last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Nowhere: who waits for it waits for nothing.
    Never,
    /// In a stream that did not capture.
    Queued,
    /// In this capture.
    Capture(u64),
}

/// What a device takes of a launch.
#[derive(Debug, Clone, Copy)]
pub struct LaunchLimits {
    pub threads: u32,
    pub block: [u32; 3],
    pub grid: [u32; 3],
}

impl LaunchLimits {
    /// Device attributes 1: threads of a block; 2 to 4: block x, y, z; 5 to 7: grid x, y, z. An unknown one limits nothing.
    fn of(device: &DeviceSnapshot) -> Self {
        let limit =
            |number| device.attribute(number).and_then(|value| u32::try_from(value).ok()).unwrap_or(u32::MAX);
        Self {
            threads: limit(1),
            block: [limit(2), limit(3), limit(4)],
            grid: [limit(5), limit(6), limit(7)],
        }
    }

    /// Whether blocks may have such a shape.
    #[inline]
    pub fn allow_block(&self, block: [u32; 3]) -> bool {
        let threads = block.iter().try_fold(1u32, |product, size| product.checked_mul(*size));
        threads.is_some_and(|threads| threads != 0 && threads <= self.threads)
            && block.iter().zip(self.block).all(|(size, limit)| *size <= limit)
    }
}

/// All state of the process.
#[derive(Debug)]
pub struct Process {
    pub channel: Channel,
    pub snapshot: Snapshot,
    pub devices: Vec<DeviceSnapshot>,
    /// By ordinal, as `devices`.
    pub launch_limits: Vec<LaunchLimits>,
    pub contexts: Contexts,
    pub streams: Slab<StreamInfo>,
    pub events: Slab<EventInfo>,
    pub event_words: EventWords,
    pub images: Images,
    pub limits: Limits,
    pub graphs: Graphs,
    pub graph_memory: GraphMemory,
    pub execs: Execs,
    pub arrays: Arrays,
    pub objects: Objects,
    pub references: References,
    /// Device memory that this process allocated.
    pub device_memory: Ranges,
    /// Pinned memory that the devices reach, where there is any.
    pub arena: Option<Arena>,
    /// For copies of pageable memory: of few bytes, of many.
    slots: [Slots; 2],
    pub copiers: Copiers,
    pub virtual_memory: VirtualMemory,
    pub pools: Pools,
    pub ipc: Ipc,
    pub host_functions: HostFunctions,
    pub linkers: Slab<std::sync::Arc<Linker>>,
}

impl Process {
    /// A `CUdevice_P2PAttribute` of a device towards another one, by their ordinals.
    pub fn peer(&self, number: u32, device: u32, peer: u32) -> i32 {
        let numbers = self.contexts.number(device).ok().zip(self.contexts.number(peer).ok());
        numbers.map_or(0, |(device, peer)| self.snapshot.peer(number, device, peer))
    }

    /// Whether a device, by its ordinal, writes words in the order of a stream.
    pub fn writes_words(&self, device: u32) -> bool {
        let device = self.devices.get(device as usize);
        device.and_then(|device| device.attributes.get(CAN_WRITE_WORDS)).is_some_and(|value| *value != 0)
    }

    /// Slots for a copy of so many bytes, where there are any and the device, by its ordinal, can say when it is done with one.
    pub fn slots_for(&self, device: u32, bytes: usize) -> Option<&Slots> {
        self.writes_words(device).then_some(())?;
        let [small, large] = &self.slots;
        let slots = if bytes <= small.bytes() { small } else { large };
        slots.start(self).map(|_| slots)
    }

    /// A context ended, and all that it held: the worker knows, the guest's tables follow. Only after the worker's answer: else
    /// numbers would be given again that it still has in use.
    pub fn forget(&self, context: vgpu_api::ContextId) -> Ended {
        self.graphs.context_ended(context);
        self.graph_memory.context_ended(context);
        self.execs.retain(|exec| exec.as_ref().is_none_or(|exec| !exec.contexts.contains(&context)));
        self.streams.retain(|stream| stream.context != context);
        self.events.retain(|event| event.context != context);
        self.event_words.forget();
        self.images.forget(self, context);
        self.limits.forget();
        self.arrays.forget(context);
        self.objects.forget(context);
        self.references.forget(context);
        self.linkers.retain(|linker| linker.context != context);
        self.device_memory.forget(context);
        self.ipc.forget(context);
        self.slots.iter().for_each(|slots| slots.forget(context));
        // With the primary context its green ones end, and all allocations of its device's pools end.
        if context.primary_device().is_some() {
            self.contexts.forget_greens(context);
        }
        if context.primary_device().is_some()
            && let Ok(device) = self.contexts.device_of(context)
        {
            self.device_memory.forget_pooled(device);
            self.graph_memory.forget(&self.device_memory, device);
        }
        crate::calls::host_memory::forget(self, context);
        crate::calls::stream_attribute::forget_context(context);
        crate::dark::cls::take(context)
    }
}

static PROCESS: OnceLock<Process> = OnceLock::new();
/// A channel is there or on its way: a child of `fork` must not touch it.
static USED: AtomicBool = AtomicBool::new(false);
/// Why some threads may not call: usually nothing, so that one load finds out. [`FORKED`], and [`HOST_FUNCTION`] for each function of
/// the program that runs now and may not call CUDA.
static BARRED: AtomicU32 = AtomicU32::new(0);
/// This is such a child.
const FORKED: u32 = 1;
const HOST_FUNCTION: u32 = 2;
/// The version that the program was told; the integrity check must agree with it.
static TOLD_VERSION: AtomicU32 = AtomicU32::new(0);

/// The process's state, if `cuInit` has succeeded.
/// # Errors
/// 3 before, and in a child of `fork`; 800 in a function that a stream calls.
#[inline]
pub fn process() -> CuResult<&'static Process> {
    match PROCESS.get() {
        Some(process) if BARRED.load(Ordering::Relaxed) == 0 => Ok(process),
        Some(process) => not_barred().map(|()| process),
        None => Err(CuError::NOT_INITIALIZED),
    }
}

#[cold]
fn not_barred() -> CuResult<()> {
    if forked() {
        return Err(CuError::NOT_INITIALIZED);
    }
    if host_functions::is_own_thread() { Err(CuError::NOT_PERMITTED) } else { Ok(()) }
}

/// Whether this is a child of `fork` whose parent had started.
pub fn forked() -> bool {
    BARRED.load(Ordering::Relaxed) & FORKED != 0
}

/// Runs a function of the program during which its thread may not call CUDA.
pub fn without_cuda(function: impl FnOnce()) {
    BARRED.fetch_add(HOST_FUNCTION, Ordering::Relaxed);
    function();
    BARRED.fetch_sub(HOST_FUNCTION, Ordering::Relaxed);
}

/// `cuInit`: connects and learns the devices. A failure leaves nothing behind: the next call tries again.
/// # Errors
/// 3 in a child of `fork`; 100 without a proxy; what the connection gives (`channel.rs`).
pub fn start() -> CuResult<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    if PROCESS.get().is_some() || forked() {
        return process().map(|_| ());
    }
    let _one_at_a_time = lock(&STARTING);
    if PROCESS.get().is_some() {
        return Ok(());
    }
    be_quiet();
    // Before there is anything that a child could share.
    watch_fork();
    USED.store(true, Ordering::Relaxed);
    let started = connect();
    if started.is_err() {
        USED.store(false, Ordering::Relaxed);
    }
    started
}

fn connect() -> CuResult<()> {
    let (channel, arena) = Channel::connect()?;
    let snapshot = channel.snapshot()?;
    let chosen = visible::choose(&snapshot.devices, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref());
    if chosen.is_empty() {
        say!("no device is visible: CUDA_VISIBLE_DEVICES leaves none, or the zone has none");
        return Err(CuError::NO_DEVICE);
    }
    let mut devices: Vec<DeviceSnapshot> =
        chosen.iter().map(|place| snapshot.devices[*place].clone()).collect();
    let arena = arena.filter(|_| devices.iter().all(maps_host_memory));
    let arena = arena.map(|(region, is_kept)| Arena::new(region, is_kept));
    if arena.is_none() {
        devices.iter_mut().for_each(map_no_host_memory);
    }
    let launch_limits = devices.iter().map(LaunchLimits::of).collect();
    let contexts = Contexts::new(snapshot.devices.len(), &chosen);
    let process = Process {
        channel,
        snapshot,
        contexts,
        devices,
        launch_limits,
        streams: Slab::new(),
        events: Slab::new(),
        event_words: EventWords::new(),
        images: Images::new(),
        limits: Limits::new(),
        graphs: Graphs::default(),
        graph_memory: GraphMemory::default(),
        execs: Execs::new(),
        arrays: Arrays::new(),
        objects: Objects::new(),
        references: References::new(),
        device_memory: Ranges::new(),
        arena,
        slots: [Slots::new(7, 64 << 10), Slots::new(16, 1 << 20)],
        copiers: Copiers::default(),
        virtual_memory: VirtualMemory::new(),
        pools: Pools::new(),
        ipc: Ipc::new(),
        host_functions: HostFunctions::default(),
        linkers: Slab::new(),
    };
    if PROCESS.set(process).is_err() {
        say!("started twice"); // Unreachable while STARTING is held; the first one stays.
    }
    Ok(())
}

/// Whether the worker has the arena, too, and the device reaches it.
fn maps_host_memory(device: &DeviceSnapshot) -> bool {
    device.attributes.get(CAN_MAP_HOST_MEMORY).is_some_and(|value| *value != 0)
}

fn map_no_host_memory(device: &mut DeviceSnapshot) {
    if let Some(value) = device.attributes.get_mut(CAN_MAP_HOST_MEMORY) {
        *value = 0;
    }
}

/// `cuDriverGetVersion`, which also works before `cuInit`, and tells a function that a stream calls what it tells all others.
pub fn driver_version() -> u32 {
    let theirs = PROCESS.get().map_or(u32::MAX, |process| process.snapshot.driver_version);
    let version = CUDA_VERSION.min(theirs);
    TOLD_VERSION.store(version, Ordering::Relaxed);
    version
}

/// The version that the program was told last.
pub fn told_version() -> u32 {
    match TOLD_VERSION.load(Ordering::Relaxed) {
        0 => driver_version(),
        told => told,
    }
}

unsafe extern "C" {
    /// What `pthread_atfork` calls: in every glibc, while `pthread_atfork` itself moved between archives.
    fn __register_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
        dso: *mut std::ffi::c_void,
    ) -> i32;
}

/// In the child: the channel belongs to the parent. Only stores and `close` are allowed here. A child that was made while no thread
/// had started may start by itself.
extern "C" fn in_the_child() {
    if !USED.load(Ordering::Relaxed) {
        return;
    }
    BARRED.fetch_or(FORKED, Ordering::Relaxed);
    if let Some(process) = PROCESS.get() {
        process.channel.abandon();
    }
}

/// Once in a process; called under the lock of the start.
fn watch_fork() {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    if WATCHED.swap(true, Ordering::Relaxed) {
        return;
    }
    // SAFETY: the handler does nothing but an atomic store and async-signal-safe closes; the library is never unloaded
    // (-z nodelete), so the null DSO handle, which means "never forget it", is right.
    let code = unsafe { __register_atfork(None, None, Some(in_the_child), std::ptr::null_mut()) };
    if code != 0 {
        say!("cannot watch for fork: error {code}; a child must not use CUDA");
    }
}

/// A panic of ours ends at the border ([`crate::abi::guard`]); this library's own copy of the standard library must not print it
/// into a stranger's stderr either.
fn be_quiet() {
    static QUIET: AtomicBool = AtomicBool::new(false);
    if !QUIET.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|panic| say!("{panic}")));
    }
}
