//! Accepts everything, computes nothing, remembers nothing but sizes. For traces and load: reads give zeros, launches succeed, words that
//! streams write into pinned memory are written.
//!
//! What kernels and variables are called comes from the image: `null/image.rs`.

mod array;
mod context;
mod event;
mod execution;
mod graphs;
mod image;
mod memory;
mod references;
mod sharing;
mod stalls;
mod stream;
mod tensor_map;
mod virtual_memory;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use vgpu_api::{CuError, CuResult, Snapshot};

use super::imitation::{Common, Imitation};
use super::{Costs, Device, DeviceKind, HostPages, Raw, soft};
use graphs::Graphs;
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
    /// To free allocations, as in a context that an error has ended.
    Free,
    /// To free them once their context is no more.
    FreeLeft,
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
    /// To bind a texture or surface reference to nothing.
    LetGo,
}

/// The null device.
#[derive(Debug)]
pub struct Null {
    devices: u32,
    common: Common,
    next_address: u64,
    limits: HashMap<(Raw, u32), u64>,
    costs: Costs,
    local_bytes: i32,
    memory_bytes: u64,
    keeps_primary: bool,
    is_busy: bool,
    /// The parts that live, where allocations are parts of pieces.
    parts: Option<BTreeMap<u64, u64>>,
    /// Kept ones, by device.
    primaries: HashMap<u32, Raw>,
    /// Sizes of each image's variables.
    variables: HashMap<Raw, Vec<u64>>,
    /// Each image's texture and surface references.
    references: HashMap<Raw, Vec<vgpu_soft::ReferenceInfo>>,
    /// By address. What a guest waits for there it gets.
    pinned: BTreeMap<u64, HostPages>,
    /// Streams that wait for a word, if any does.
    stalls: Option<Stalls>,
    /// What it does not do.
    refuses: Vec<Step>,
    /// How many functions of the guest run now, if they run in threads.
    running: Option<Arc<AtomicUsize>>,
    graphs: Graphs,
    /// Of conditional nodes, how many a graph has: those of another are the same.
    numbers: HashMap<Raw, u64>,
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
            common: Common::default(),
            next_address: FIRST_ADDRESS,
            limits: HashMap::new(),
            costs,
            local_bytes,
            memory_bytes: u64::MAX,
            keeps_primary: false,
            is_busy: false,
            parts: None,
            primaries: HashMap::new(),
            variables: HashMap::new(),
            references: HashMap::new(),
            pinned: BTreeMap::new(),
            stalls: None,
            refuses: Vec::new(),
            running: None,
            graphs: Graphs::default(),
            numbers: HashMap::new(),
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

    /// This one, but allocations are parts of pieces, as small ones of `cuda` are: what counts, and goes to others, is all of those.
    #[must_use]
    pub fn in_pieces(self) -> Self {
        Self { parts: Some(BTreeMap::new()), ..self }
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

    fn name(&mut self) -> Raw {
        self.common.name()
    }
}

impl Imitation for Null {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn check_ptx(_text: &[u8]) -> Result<(), (CuError, String)> {
        Ok(())
    }

    fn has(&self, _device: u32) -> bool {
        true
    }

    fn green_began(&mut self, _device: u32, _green: Raw) {}

    fn green_ended(&mut self, _green: Raw) {}
}

impl Device for Null {
    fn snapshot(&self, bytes: &[u64]) -> Snapshot {
        soft::snapshot(DeviceKind::Null, "vgpu null device", self.devices, bytes)
    }

    fn costs(&self) -> Costs {
        self.costs
    }
}
