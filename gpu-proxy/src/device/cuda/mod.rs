//! NVIDIA's driver as a [`Device`]. This folder is the one place of a device with unsafe code.
//!
//! Each device's primary context is made when the device is opened, before the worker's door closes: making it takes system calls that a
//! worker does not have afterwards. Names given to the session are places in tables here, never the driver's own pointers, so
//! that a wrong one is an error and not a crash. The rule of every call: handles come from these tables, addresses and lengths
//! were checked by the session, buffers are ours.
//!
//! Copies from and to the guest's pageable memory go through the worker's; those of pinned pages, which the driver knows by the guest's
//! own addresses, do not. Waits block the worker's loop: the session asks first where that may not be.

mod arrays;
mod aside;
mod conditionals;
mod contexts;
mod describe;
mod events;
mod execution;
mod graph_exec;
mod graph_params;
mod graph_set;
mod graphs;
mod green;
mod host;
mod images;
mod linker;
mod links;
mod memory;
mod peers;
mod pieces;
mod printed;
mod reach;
mod references;
mod sharing;
mod streams;
mod table;
mod tensor_map;
mod virtual_memory;

use std::collections::HashMap;
use std::ffi::c_int;
use std::ops::Range;

use vgpu_api::snapshot::LIMITS;
use vgpu_api::{CuError, CuResult, Snapshot};

use super::{Costs, Device, DeviceKind, HostPages, Place, Raw};
use arrays::Arrays;
pub use describe::describe;
use describe::{attribute_of, driver_version, peers, snapshots, start};
use graph_exec::Graph;
use green::Greens;
use images::Images;
use linker::Linkers;
use printed::Output;
use references::References;
pub use table::library_folders;
use table::{NULL, Ptr, Table};
use virtual_memory::Memories;

/// Device memory is handed out in multiples of this; allocations of 2 MiB and more take whole pages of that size.
const GRANULE_BYTES: u64 = 512;
/// What an instantiated graph is counted as. Seen with driver 580 on an H100: 1.6 to 2.3 KiB a node in a row, 64 to 114 KiB a row beside
/// others, and none of it given back when the graph ends (`graphs answers` of `tests/cuda`).
const GRAPH_NODE_BYTES: u64 = 4 << 10;
const GRAPH_ROW_BYTES: u64 = 128 << 10;
/// What a green context is counted as: 4 to 6 MiB were seen on an H100 with one stream (`green takes` of `tests/cuda`), and more of them, and
/// kernels with much local memory, may take more.
const GREEN_BYTES: u64 = 32 << 20;
/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT` and `…_MAX_THREADS_PER_MULTIPROCESSOR`.
const MULTIPROCESSORS: usize = 16;
const THREADS_PER_MULTIPROCESSOR: usize = 39;
/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `…_MINOR`.
const CAPABILITY_MAJOR: usize = 75;
const CAPABILITY_MINOR: usize = 76;

/// Devices of NVIDIA's driver: the first ones that are visible.
#[derive(Debug)]
pub struct Cuda {
    table: Table,
    /// The driver's names of them, and their primary contexts. One at least.
    devices: Vec<c_int>,
    primaries: Vec<Raw>,
    /// Of contexts that were created: their device's number.
    created: HashMap<Raw, u32>,
    greens: Greens,
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
    references: References,
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
            greens: Greens::default(),
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
            references: References::default(),
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
            green_bytes: GREEN_BYTES,
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
        // The legacy stream of a green context is NULL there and nowhere else.
        let green = place.stream.and_then(|stream| self.greens.of_stream(stream));
        self.enter(green.unwrap_or(place.context))?;
        place.stream.map_or(Ok(NULL), |stream| self.streams.get(stream))
    }

    /// Looks for what the driver has printed. After calls that waited for the GPU: whatever their result.
    fn look_for_output<T>(&mut self, result: CuResult<T>) -> CuResult<T> {
        self.output.look(result.is_err());
        result
    }
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

    fn costs(&self) -> Costs {
        self.costs
    }
}
