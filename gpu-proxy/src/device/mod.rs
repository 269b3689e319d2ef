//! What a worker drives: NVIDIA's driver, the software GPU, or nothing at all. Start at [`Device`].
//!
//! A device is never reached by a guest's bytes directly: the session (`worker/session`) has resolved handles to [`Raw`] values
//! that the device itself gave out, and has checked every address and length against its allocation map and the quota.
//! Nothing here knows rings, handles of guests or grants.

mod array;
mod conditional;
#[expect(unsafe_code, reason = "NVIDIA's driver is C")]
mod cuda;
mod graph;
mod host;
mod null;
mod pass_through;
mod soft;
mod survey;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vgpu_api::launch::LaunchAttributes;
use vgpu_api::memory::Memset;
use vgpu_api::{
    Access, Attributes, CuError, CuResult, FunctionInfo, GlobalInfo, ImageKind, JitOption, LinkTold, MemInfo,
    MemoryOp, PciAddress, Printed, Snapshot, TensorMap, TensorSpec,
};

pub use array::{Arrays, Side, TexelSource, TextureSource};
pub use cuda::library_folders;
pub use graph::{DeviceNode, DeviceWork};
pub use host::HostPages;
pub use null::{Null, Step};
pub use soft::Soft;
pub use survey::{NO_MANAGED_VARIABLES, Survey};
#[cfg(test)]
pub(crate) use survey::{cubin, managed_cubin};

/// Which device a worker drives. What `auto` means has been decided by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// NVIDIA's driver.
    Cuda,
    /// PTX on the CPU.
    Soft,
    /// Accepts everything, computes nothing.
    Null,
}

impl DeviceKind {
    /// Device memory of a context with nothing in it, in bytes.
    #[must_use]
    pub const fn context_bytes(self) -> u64 {
        match self {
            // Measured on an H100 with driver 580.
            Self::Cuda => 518 << 20,
            Self::Soft | Self::Null => 0,
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cuda => "cuda",
            Self::Soft => "soft",
            Self::Null => "null",
        })
    }
}

/// A device's own name of a thing: a context, stream, event, image or function. Never leaves the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Raw(pub u64);

/// Where a call runs.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The context.
    pub context: Raw,
    /// A stream of that context; `None` is its legacy default stream.
    pub stream: Option<Raw>,
}

/// Memory that may be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shareable {
    /// What [`Device::create`] made.
    Memory(Raw),
    /// What [`Device::alloc`] gave, by its address.
    Allocation(u64),
}

/// How a device gives memory to other processes.
#[derive(Debug)]
pub enum Exported {
    /// A descriptor of the device's memory.
    Device(OwnedFd),
    /// It has to be moved into memory of the host first: [`Device::move_to`].
    Host,
}

/// An image that was loaded.
#[derive(Debug)]
pub struct LoadedImage {
    /// Names it.
    pub raw: Raw,
    /// In the order of their ordinals: what the guest is told, and the device's name.
    pub functions: Vec<(FunctionInfo, Raw)>,
    /// Its variables; they count against the grant.
    pub globals: Vec<GlobalInfo>,
}

/// Why an image was not loaded.
#[derive(Debug)]
pub struct LoadError {
    /// What the program gets.
    pub code: CuError,
    /// The compiler's words, for the program's error log.
    pub log: String,
}

/// Runs a function in the guest, from any thread, and returns when it has returned. Not called if the device comes to its end before.
pub type HostFunction = Box<dyn FnOnce(u32) + Send>;

/// As [`HostFunction`], at each launch of a graph. Whoever gave it has it as long as a launch may call it: a device that has it no more
/// when it is due does nothing.
pub type GraphFunction = Arc<dyn Fn() + Send + Sync>;

/// Told by a device of what it has done, in units of its own, while it does it. The device goes on when it returns.
pub type Meter = Arc<dyn Fn(u64) + Send + Sync>;

/// A launch with resolved names. Attributes that hold handles or addresses do not get here.
#[derive(Debug)]
pub struct DeviceLaunch<'a> {
    /// What runs.
    pub function: Raw,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared_bytes: u32,
    /// Checked against the list of those that travel.
    pub attributes: LaunchAttributes<'a>,
    /// The parameter block: as many bytes as the function's layout has.
    pub params: &'a [u8],
}

/// `CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES` among a function's attributes.
pub const LOCAL_BYTES: usize = 3;

/// The first so many `CUlimit`s may cost device memory: [`Costs::limit_bytes`].
pub const COSTLY_LIMITS: usize = 3;

/// What uses the device's memory beside allocations. It counts against the grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// A context beside the worker's first, in bytes.
    pub context_bytes: u64,
    /// Threads that the device has room for at once, for each of which it keeps a stack and local memory. 0: it does not.
    pub resident_threads: u64,
    /// A node of a graph that can be launched, in bytes.
    pub graph_node_bytes: u64,
    /// And each row of nodes that the device may run beside others.
    pub graph_row_bytes: u64,
    /// Whether the device keeps what graphs took after their end, for later ones.
    pub graphs_are_kept: bool,
}

impl Costs {
    /// Device memory that a graph of so many nodes in so many rows takes; `None` past any memory.
    #[must_use]
    pub fn graph_bytes(&self, nodes: u64, rows: u64) -> Option<u64> {
        let nodes = nodes.checked_mul(self.graph_node_bytes)?;
        nodes.checked_add(rows.checked_mul(self.graph_row_bytes)?)
    }

    /// Device memory that `CUlimit` number `limit` stands for when it is `value`. Source: `cuCtxSetLimit`.
    #[must_use]
    pub fn limit_bytes(&self, limit: u32, value: u64) -> u64 {
        match limit {
            // The stack of each thread.
            0 => value.saturating_mul(self.resident_threads),
            // The buffer of printf, the heap of malloc.
            1 | 2 if self.resident_threads > 0 => value,
            _ => 0,
        }
    }
}

/// A GPU, or several. One worker has them, alone: devices are numbered from 0, and have one space of addresses. Every method may block as long as the GPU does, but for the queued ones of `cuda`.
///
/// # Errors
/// All methods: the `CUresult` that the program gets. A sticky one ([`CuError::is_sticky`]) ends the context.
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Device: Arrays + fmt::Debug + Send {
    /// What programs ask before they have a context. `bytes` are the grants, one a device: none shows more memory than that.
    fn snapshot(&self, bytes: &[u64]) -> Snapshot;
    /// Allocations are multiples of this, in bytes: what the quota counts.
    fn granule_bytes(&self) -> u64;
    /// What an allocation of so many bytes takes, which a grant counts; `None` past any memory.
    fn allocation_bytes(&self, bytes: u64) -> Option<u64> {
        bytes.checked_next_multiple_of(self.granule_bytes())
    }
    /// What uses a device's memory beside allocations: the most that one takes, if they differ.
    fn costs(&self) -> Costs;
    /// Has what it does told from now on. `false`: it does not count that.
    fn set_meter(&mut self, _meter: Meter) -> bool {
        false
    }

    /// A context of a device; `flags` as of `cuCtxCreate`. `primary` contexts are the device's own.
    fn context_create(&mut self, device: u32, flags: u32, primary: bool) -> CuResult<Raw>;
    /// Whether a primary context that was ended stays on the device, with its limits and local memory, and is given out again.
    fn keeps_primary(&self) -> bool {
        false
    }
    /// Ends it. What lived in it has been ended before.
    fn context_destroy(&mut self, device: u32, context: Raw, primary: bool) -> CuResult<()>;
    /// Waits for all its work.
    fn context_synchronize(&mut self, context: Raw) -> CuResult<()>;
    /// A `CUlimit`.
    fn limit(&mut self, context: Raw, limit: u32) -> CuResult<u64>;
    /// Sets a `CUlimit`.
    fn set_limit(&mut self, context: Raw, limit: u32, value: u64) -> CuResult<()>;

    /// Lets kernels of a context reach the memory of another device's context.
    fn peer_enable(&mut self, context: Raw, peer: Raw) -> CuResult<()>;
    /// Ends what [`Device::peer_enable`] began.
    fn peer_disable(&mut self, context: Raw, peer: Raw) -> CuResult<()>;

    /// Memory of the context's device.
    fn alloc(&mut self, context: Raw, bytes: u64) -> CuResult<u64>;
    /// What the context's device has free and in all, in bytes, whatever the grant is.
    fn memory(&mut self, context: Raw) -> CuResult<MemInfo>;
    /// Frees an address that [`Device::alloc`] gave.
    fn free(&mut self, context: Raw, address: u64) -> CuResult<()>;
    /// Host to device. `bytes` may be used again when it returns.
    fn write(&mut self, place: Place, address: u64, bytes: &[u8]) -> CuResult<()>;
    /// Device to host; the bytes are there when it returns.
    fn read(&mut self, place: Place, address: u64, bytes: &mut [u8]) -> CuResult<()>;
    /// Between any two of device memory and pinned pages.
    fn copy(&mut self, place: Place, to: u64, from: u64, bytes: u64) -> CuResult<()>;
    /// Between the memories of two devices, each an address and the device's number.
    fn copy_between(&mut self, place: Place, to: (u64, u32), from: (u64, u32), bytes: u64) -> CuResult<()> {
        self.copy(place, to.0, from.0, bytes)
    }
    /// Rows of equal elements.
    fn fill(&mut self, place: Place, memset: &Memset) -> CuResult<()>;

    /// Lets pages of the arena be reached by their address: by copies, sets and kernels of every context. None of them is yet.
    fn pin(&mut self, pages: HostPages) -> CuResult<()>;
    /// Ends what [`Device::pin`] began at `address`. No work that reaches the pages is left.
    fn unpin(&mut self, address: u64) -> CuResult<()>;
    /// Memory and mappings are multiples of this, in bytes: a power of two.
    fn mapping_bytes(&self) -> u64;
    /// Takes `bytes` addresses out of use, at `wanted` if that can be had; `alignment` is 0 or a power of two.
    fn reserve(&mut self, bytes: u64, alignment: u64, wanted: u64) -> CuResult<u64>;
    /// Gives a reservation back.
    fn unreserve(&mut self, address: u64, bytes: u64) -> CuResult<()>;
    /// Memory of a device without an address.
    fn create(&mut self, device: u32, bytes: u64) -> CuResult<Raw>;
    /// Ends its name. The memory stays while it is mapped.
    fn release(&mut self, memory: Raw) -> CuResult<()>;
    /// Shows the first `bytes` of memory at free addresses of a reservation, where nothing may touch it yet.
    fn map(&mut self, address: u64, bytes: u64, memory: Raw) -> CuResult<()>;
    /// Takes one mapping away.
    fn unmap(&mut self, address: u64, bytes: u64) -> CuResult<()>;
    /// Says what a device may do with mappings that follow each other, whichever device the memory lies on.
    fn set_access(&mut self, device: u32, address: u64, bytes: u64, access: Access) -> CuResult<()>;

    /// Lets other processes of the zone have memory: its length, up to the next multiple of [`Device::mapping_bytes`]. No work uses it.
    /// 801 for what cannot be shared.
    fn export(&mut self, what: Shareable) -> CuResult<Exported>;
    /// Moves it into memory of the host of so many bytes, where it stays: after [`Exported::Host`].
    fn move_to(&mut self, _what: Shareable, _memory: OwnedFd, _bytes: u64) -> CuResult<()> {
        Err(CuError::NOT_SUPPORTED)
    }
    /// Memory of a device that another process's device has exported, of so many bytes. It is mapped and released as that of [`Device::create`].
    fn import(&mut self, device: u32, memory: OwnedFd, bytes: u64) -> CuResult<Raw>;

    /// Looks at an image before [`Device::load`]. What its variables take is counted by then.
    fn survey(&self, _bytes: &[u8]) -> CuResult<Survey> {
        Ok(Survey::default())
    }
    /// Loads PTX, a cubin or a fatbin. `context` is `None` for a library that is loaded before there is a context: it is the first
    /// device's then.
    fn load(
        &mut self,
        context: Option<Raw>,
        kind: ImageKind,
        bytes: &[u8],
        survey: Survey,
    ) -> Result<LoadedImage, LoadError>;
    /// Makes a library's functions and variables ready on the context's device, another one than it was loaded on; the addresses of
    /// its variables there, in the order of [`LoadedImage::globals`]. Again is nothing.
    fn load_on(&mut self, context: Raw, image: Raw) -> CuResult<Vec<u64>>;
    /// Ends an image.
    fn unload(&mut self, image: Raw) -> CuResult<()>;
    /// All attributes of a function.
    fn function_attributes(&mut self, context: Raw, function: Raw) -> CuResult<Attributes>;
    /// Sets a `CUfunction_attribute`.
    fn set_function_attribute(
        &mut self,
        context: Raw,
        function: Raw,
        attribute: u32,
        value: i32,
    ) -> CuResult<()>;
    /// `cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags`.
    fn max_active_blocks(
        &mut self,
        context: Raw,
        function: Raw,
        threads: u32,
        shared: u64,
        flags: u32,
    ) -> CuResult<u32>;
    /// `cuOccupancyAvailableDynamicSMemPerBlock`.
    fn available_shared(&mut self, context: Raw, function: Raw, blocks: u32, threads: u32) -> CuResult<u64>;
    /// `cuOccupancyMaxActiveClusters`.
    fn max_active_clusters(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<u32>;
    /// `cuOccupancyMaxPotentialClusterSize`.
    fn max_cluster_size(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<u32>;
    /// Queues or runs a kernel.
    fn launch(&mut self, place: Place, launch: &DeviceLaunch<'_>) -> CuResult<()>;

    /// A stream.
    fn stream_create(&mut self, context: Raw, flags: u32, priority: i32) -> CuResult<Raw>;
    /// Ends it; its work goes on.
    fn stream_destroy(&mut self, stream: Raw) -> CuResult<()>;
    /// Waits for its work.
    fn stream_synchronize(&mut self, place: Place) -> CuResult<()>;
    /// 600 while it has work; the legacy stream also while one has that blocks with it.
    fn stream_query(&mut self, place: Place) -> CuResult<()>;
    /// Later work of the stream waits for the event.
    fn stream_wait(&mut self, place: Place, event: Raw, flags: u32) -> CuResult<()>;
    /// Sets a `CUstreamAttrID` to a `CUstreamAttrValue`, which holds no address but a checked one. May be ignored: none changes a result.
    fn set_stream_attribute(&mut self, place: Place, attribute: u32, value: &[u8; 64]) -> CuResult<()>;
    /// Writes and waits of words of memory, in order.
    fn stream_memory(&mut self, place: Place, ops: &[MemoryOp]) -> CuResult<()>;
    /// An event.
    fn event_create(&mut self, context: Raw, flags: u32) -> CuResult<Raw>;
    /// Ends it.
    fn event_destroy(&mut self, event: Raw) -> CuResult<()>;
    /// Marks the place in the stream.
    fn event_record(&mut self, place: Place, event: Raw, flags: u32) -> CuResult<()>;
    /// Marks the place behind all work of the context.
    fn context_record(&mut self, context: Raw, event: Raw) -> CuResult<()>;
    /// Later work of the whole context waits for the event.
    fn context_wait(&mut self, context: Raw, event: Raw) -> CuResult<()>;
    /// 600 while it is not reached.
    fn event_query(&mut self, event: Raw) -> CuResult<()>;
    /// Waits for it.
    fn event_synchronize(&mut self, event: Raw) -> CuResult<()>;
    /// Milliseconds between two.
    fn event_elapsed(&mut self, start: Raw, end: Raw) -> CuResult<f32>;

    /// A number for a conditional node of a graph that is to be made, as kernels get it: `of` is the device's name of the graph, if it has one
    /// already. `value` and `flags` as of `cuGraphConditionalHandleCreate`.
    fn conditional_create(
        &mut self,
        context: Raw,
        of: Option<Raw>,
        value: u32,
        flags: u32,
    ) -> CuResult<(Raw, u64)>;
    /// Nothing will be made for that graph any more, if it is still there. What was instantiated of it lives on.
    fn conditionals_end(&mut self, of: Raw) -> CuResult<()>;
    /// A graph of these nodes, ready to be launched; `flags` as of `cuGraphInstantiate`.
    fn graph_instantiate(&mut self, nodes: &[DeviceNode<'_>], flags: u64) -> CuResult<Raw>;
    /// All nodes get other works; kinds, edges and contexts are the same.
    fn graph_update(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()>;
    /// One node gets another work of its kind, with as large a host side.
    fn graph_set(&mut self, graph: Raw, node: u32, context: Raw, work: &DeviceWork<'_>) -> CuResult<()>;
    /// Lets a node do its work or nothing.
    fn graph_enable(&mut self, graph: Raw, node: u32, enabled: bool) -> CuResult<()>;
    /// Changes the host's side of a copy. No launch of the graph is on its way.
    fn graph_put(&mut self, graph: Raw, node: u32, offset: u64, bytes: &[u8]) -> CuResult<()>;
    /// Reads the host's side of a copy. No launch of the graph is on its way.
    fn graph_get(&mut self, graph: Raw, node: u32, offset: u64, bytes: &mut [u8]) -> CuResult<()>;
    /// Brings it to the device before its first launch.
    fn graph_upload(&mut self, place: Place, graph: Raw) -> CuResult<()>;
    /// Launches it.
    fn graph_launch(&mut self, place: Place, graph: Raw) -> CuResult<()>;
    /// Ends it; launches go on.
    fn graph_destroy(&mut self, graph: Raw) -> CuResult<()>;

    /// Encodes a tensor map, whose spec is whole.
    fn tensor_map(&mut self, _spec: &TensorSpec) -> CuResult<TensorMap> {
        Err(CuError::NOT_SUPPORTED)
    }
    /// The same map of a tensor at another address.
    fn tensor_map_at(&mut self, _map: TensorMap, _address: u64) -> CuResult<TensorMap> {
        Err(CuError::NOT_SUPPORTED)
    }

    /// Begins to link. So many bytes of what the compiler says, and of its errors, are kept.
    fn link_create(&mut self, context: Raw, options: &[JitOption], log_bytes: [usize; 2]) -> CuResult<Raw>;
    /// Adds an input of a `CUjitInputType`.
    fn link_add(
        &mut self,
        context: Raw,
        linker: Raw,
        input: u32,
        bytes: &[u8],
        name: &str,
        options: &[JitOption],
    ) -> CuResult<()>;
    /// Links; the image.
    fn link_complete(&mut self, context: Raw, linker: Raw) -> CuResult<Vec<u8>>;
    /// What the compiler has said so far, or its errors.
    fn link_log(&mut self, linker: Raw, errors: bool) -> CuResult<Vec<u8>>;
    /// What the linker tells beside that.
    fn link_told(&mut self, linker: Raw) -> CuResult<LinkTold>;
    /// Ends it.
    fn link_destroy(&mut self, linker: Raw) -> CuResult<()>;

    /// Queues a function of the guest's: the stream waits until `function` returns. It is given 0, or the stream's error if it runs
    /// `after_errors` too.
    fn host_function(&mut self, place: Place, after_errors: bool, function: HostFunction) -> CuResult<()>;

    /// Whether kernels have printed something that was not taken.
    fn has_printed(&self) -> bool {
        false
    }
    /// The next piece of it.
    fn take_printed(&mut self) -> Printed {
        Printed::default()
    }
}

/// Opens a worker's devices, the first so many. `bytes` is the grant of each.
///
/// # Errors
/// One sentence for the log.
pub fn open(kind: DeviceKind, devices: u32, bytes: u64) -> Result<Box<dyn Device>, String> {
    match kind {
        DeviceKind::Null => Ok(Box::new(Null::default().with_devices(devices))),
        DeviceKind::Soft => match Soft::with_devices(devices, bytes) {
            Ok(soft) => Ok(Box::new(soft)),
            Err(error) => Err(format!("the soft device cannot start: {error}")),
        },
        DeviceKind::Cuda => cuda::Cuda::open(devices).map(|cuda| Box::new(cuda) as Box<dyn Device>),
    }
}

/// What programs see of a device in place of the hardware's own: its UUID and its PCI address, by its number in their container.
#[must_use]
pub fn identity(kind: DeviceKind, number: u32) -> ([u8; 16], PciAddress) {
    let mut uuid = match kind {
        DeviceKind::Cuda => *b"vgpu-cuda-device",
        DeviceKind::Soft => *b"vgpu-soft-device",
        DeviceKind::Null => *b"vgpu-null-device",
    };
    let [.., last] = &mut uuid;
    *last = last.wrapping_add(u8::try_from(number).unwrap_or(0));
    (uuid, PciAddress { domain: 0, bus: i32::try_from(number).unwrap_or(0).saturating_add(1), device: 0 })
}

/// What the driver calls a GPU. Only the supervisor is told, never a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// `cuDeviceGetUuid`.
    pub uuid: [u8; 16],
    /// PCI domain, bus, device.
    pub pci: [u32; 3],
    /// NVLinks that are up; 0 also where that is not known.
    pub links: u32,
}

impl Hardware {
    /// `GPU-` and the UUID in five groups, as `CUDA_VISIBLE_DEVICES` takes it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("GPU-{}", uuid::Uuid::from_bytes(self.uuid))
    }
}

/// What a device is.
#[derive(Debug)]
pub struct Described {
    /// What programs may know. The limits and stream priorities, which only a context has, may be missing.
    pub snapshot: Snapshot,
    /// Whether kernels reach all memory of their process (`CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS`): programs are not told.
    pub reads_host_memory: bool,
    /// Of `cuda`: what it calls each of them.
    pub hardware: Vec<Hardware>,
}

/// What the devices are, without a context: nothing of their memory is taken. `bytes` is the most that each may show; of `cuda` it is all
/// that there are, else `devices`.
///
/// # Errors
/// One sentence for the log.
pub fn describe(kind: DeviceKind, devices: u32, bytes: u64) -> Result<Described, String> {
    match kind {
        DeviceKind::Null | DeviceKind::Soft => {
            let snapshot = open(kind, devices, bytes)?.snapshot(&vec![bytes; devices as usize]);
            Ok(Described { snapshot, reads_host_memory: false, hardware: Vec::new() })
        }
        DeviceKind::Cuda => cuda::describe(bytes),
    }
}
