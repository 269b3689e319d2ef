//! Software GPUs as a [`Device`]. Everything has run when a call returns, so streams are names only; events keep the time.

mod array;
mod context;
mod event;
mod execution;
mod graph;
mod image;
mod memory;
mod peers;
mod references;
mod sharing;
mod stream;
mod tensor_map;
mod virtual_memory;

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZero;
use std::thread;
use std::time::Instant;

use vgpu_api::{CuError, DeviceSnapshot, Snapshot};
use vgpu_soft as gpu;

use super::conditional;
use super::graph::Listed;
use super::imitation::{Common, Imitation};
use super::{Costs, Device, DeviceKind, Meter, Raw, identity};
use image::Loaded;
pub(super) use image::function_infos;

/// What it says `cuDriverGetVersion` is: CUDA 13.0.
pub(super) const DRIVER_VERSION: u32 = 13_000;
/// Host threads for one launch at most: a worker's cgroup limits its share of the CPUs anyhow.
const HOST_THREADS_MAX: usize = 8;
/// `CUlimit` 0 to 9 as they are at a context's start: stack, printf FIFO, malloc heap, sync depth, pending launches, L2, …
pub(super) const LIMITS: [u64; 10] = [1024, 1 << 20, 8 << 20, 2, 2048, 128, 0, 0, 0, 0];
/// Elements of a texture of linear memory at most, as attribute 69 says.
pub(super) const LINEAR_TEXELS_MAX: u64 = 1 << 28;

/// The software GPUs of one worker.
#[derive(Debug)]
pub struct Soft {
    gpu: gpu::Device,
    devices: u32,
    common: Common,
    contexts: HashMap<Raw, Context>,
    /// Pairs of contexts, the first of which reaches the memory of the second.
    peers: HashSet<(Raw, Raw)>,
    images: HashMap<Raw, Loaded>,
    events: HashMap<Raw, Option<Instant>>,
    graphs: HashMap<Raw, Listed>,
    conditionals: conditional::Table,
    arrays: array::Table,
    references: references::Table,
    /// What kernels have printed, by the program's stream, oldest first; no two neighbours are of the same stream.
    printed: VecDeque<(u32, VecDeque<u8>)>,
    /// Bytes in `printed`.
    printed_bytes: usize,
}

/// A context: its device and its `CUlimit`s.
#[derive(Clone, Copy, Debug)]
struct Context {
    device: u32,
    is_primary: bool,
    limits: [u64; LIMITS.len()],
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
            common: Common::default(),
            contexts: HashMap::new(),
            peers: HashSet::new(),
            images: HashMap::new(),
            events: HashMap::new(),
            graphs: HashMap::new(),
            conditionals: conditional::Table::default(),
            arrays: array::Table::default(),
            references: references::Table::default(),
            printed: VecDeque::new(),
            printed_bytes: 0,
        })
    }

    fn name(&mut self) -> Raw {
        self.common.name()
    }
}

/// Kernels of a green context read the numbers of its multiprocessors, and take as long as on all.
impl Imitation for Soft {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn check_ptx(text: &[u8]) -> Result<(), (CuError, String)> {
        let module = gpu::Module::load(text);
        module.map(drop).map_err(|refused| (error(refused.cu_result()), refused.to_string()))
    }

    fn has(&self, device: u32) -> bool {
        device < self.devices
    }

    fn green_began(&mut self, device: u32, green: Raw) {
        self.contexts.insert(green, Context { device, is_primary: true, limits: LIMITS });
    }

    fn green_ended(&mut self, green: Raw) {
        self.contexts.remove(&green);
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

/// The error of a number that another crate knows; 0 would be no error at all.
fn error(code: u32) -> CuError {
    CuError::check(code).err().unwrap_or(CuError::UNKNOWN)
}

impl Device for Soft {
    fn snapshot(&self, bytes: &[u64]) -> Snapshot {
        let capacity = self.gpu.memory().capacity_bytes();
        let bytes: Vec<u64> = bytes.iter().map(|bytes| capacity.min(*bytes)).collect();
        snapshot(DeviceKind::Soft, gpu::NAME, self.devices, &bytes)
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
}
