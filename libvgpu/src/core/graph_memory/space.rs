//! A graph's addresses on one device, and the memory that is there for a time.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::{Access, ContextId, CuError, CuResult, DevicePtr, Stream, ask};

use super::mark::Mark;
use crate::calls::virtual_memory::{granularity, let_go, reserve};
use crate::core::contexts::{Entered, current};
use crate::core::process::Process;
use crate::core::slab::lock;

/// Addresses that are reserved at once, in bytes: at least so many, and as many as all before them.
const WINDOW_BYTES: u64 = 32 << 20;
/// Allocations are as long as multiples of this.
const ALIGN: u64 = 512;
/// `CU_MEM_ALLOC_GRANULARITY_MINIMUM`.
const MINIMUM: u32 = 0;

/// The addresses of one graph's allocations on one device: until the graph, what can be launched of it and all that it allocated are gone.
pub struct Space {
    process: &'static Process,
    /// The ordinal of its device.
    device: u32,
    /// Never held over a reply: whoever asks about an address looks here.
    addresses: Mutex<Addresses>,
    /// Held over replies, so that nobody maps where another is about to unmap.
    memory: Mutex<Memory>,
    /// Where the memory was used since marks were made last.
    used_in: Mutex<BTreeSet<ContextId>>,
}

#[derive(Default)]
struct Addresses {
    windows: Vec<Window>,
    /// Where allocations begin.
    given: HashSet<u64>,
}

/// Addresses that the worker reserved.
#[derive(Clone, Copy)]
struct Window {
    start: u64,
    bytes: u64,
    /// Kept free in this process too.
    is_held: bool,
    given_bytes: u64,
}

/// What is mapped at the addresses.
#[derive(Default)]
struct Memory {
    /// Where each begins, and its length.
    pieces: Vec<(u64, u64)>,
    /// How many [`Backing`]s there are.
    users: usize,
    /// Behind what may use it still: the next launch waits for that, and without users it is unmapped then.
    marks: Vec<Arc<Mark>>,
    /// The space itself while there is memory without users.
    kept: Option<Arc<Space>>,
}

impl Memory {
    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Addresses {
    fn take(&mut self, bytes: u64) -> Option<u64> {
        let window = self.windows.iter_mut().find(|window| window.bytes - window.given_bytes >= bytes)?;
        let address = window.start + window.given_bytes;
        window.given_bytes += bytes;
        self.given.insert(address);
        Some(address)
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Space {
    pub fn new(process: &'static Process, device: u32) -> Arc<Self> {
        let space = Arc::new(Self {
            process,
            device,
            addresses: Mutex::default(),
            memory: Mutex::default(),
            used_in: Mutex::default(),
        });
        process.graph_memory.add(&space);
        space
    }

    /// The ordinal of its device.
    pub fn device(&self) -> u32 {
        self.device
    }

    /// What was launched in a context ended with it.
    pub(super) fn context_ended(&self, context: ContextId) {
        lock(&self.used_in).remove(&context);
    }

    pub(super) fn holds(&self, address: u64) -> bool {
        let within = |window: &Window| address.checked_sub(window.start).is_some_and(|at| at < window.bytes);
        lock(&self.addresses).windows.iter().any(within)
    }

    pub(super) fn has_given(&self, address: u64) -> bool {
        lock(&self.addresses).given.contains(&address)
    }

    /// Addresses for an allocation, as many as `bytes` come to. Nodes are added to a graph one after the other.
    /// # Errors
    /// 2.
    pub fn give(&self, bytes: u64) -> CuResult<u64> {
        let bytes = rounded(bytes)?;
        let (found, all) = {
            let mut addresses = lock(&self.addresses);
            (addresses.take(bytes), addresses.windows.iter().map(|window| window.bytes).sum::<u64>())
        };
        if let Some(address) = found {
            return Ok(address);
        }
        let more = self.reserve(all.max(WINDOW_BYTES).max(bytes))?;
        let mut addresses = lock(&self.addresses);
        addresses.windows.push(more);
        addresses.take(bytes).ok_or(CuError::UNKNOWN)
    }

    /// Part of what was given begins another allocation.
    pub fn give_again(&self, address: u64) {
        lock(&self.addresses).given.insert(address);
    }

    fn reserve(&self, bytes: u64) -> CuResult<Window> {
        let granule = self.granule()?;
        let bytes = bytes.checked_next_multiple_of(granule).ok_or(CuError::OUT_OF_MEMORY)?;
        let (at, is_held) = reserve(self.process, bytes, 0, DevicePtr(0))?;
        Ok(Window { start: at.0, bytes, is_held, given_bytes: 0 })
    }

    fn granule(&self) -> CuResult<u64> {
        granularity(self.process, self.device, MINIMUM)
    }

    /// Memory at all addresses that were given: what is still there from before, with marks behind what used it, and what is missing.
    /// # Errors
    /// 2 when the grant is used up.
    pub fn back(self: &Arc<Self>) -> CuResult<Arc<Backing>> {
        let graph_memory = &self.process.graph_memory;
        let granule = self.granule()?;
        let backing = self.begin_use();
        graph_memory.give_back(false);
        graph_memory.with_room(|| self.reach(granule))?;
        Ok(backing)
    }

    fn begin_use(self: &Arc<Self>) -> Arc<Backing> {
        let mut memory = lock(&self.memory);
        if memory.users == 0 {
            let bytes = memory.bytes();
            self.process.graph_memory.count(self.device, |figures| figures.used += bytes);
        }
        memory.users += 1;
        memory.kept = None;
        self.mark(&mut memory);
        Arc::new(Backing { space: Arc::clone(self) })
    }

    /// A [`Backing`] is gone. Launches may go on: what they use is given back behind them.
    fn end_use(self: &Arc<Self>) {
        let mut memory = lock(&self.memory);
        memory.users -= 1;
        if memory.users == 0 {
            let bytes = memory.bytes();
            self.process.graph_memory.count(self.device, |figures| figures.used -= bytes);
            self.mark(&mut memory);
            self.settle(&mut memory);
        }
    }

    /// Marks behind all that may use the memory now.
    fn mark(&self, memory: &mut Memory) {
        let contexts = std::mem::take(&mut *lock(&self.used_in));
        let marks = contexts.into_iter().filter_map(|context| Mark::behind(self.process, context));
        memory.marks.extend(marks.map(Arc::new));
    }

    /// Unmaps what is there if it has no users and nothing uses it any more; whether there was such memory.
    fn settle(self: &Arc<Self>, memory: &mut Memory) -> bool {
        if memory.users > 0 {
            return false;
        }
        let bytes = memory.bytes();
        if bytes > 0 && !memory.marks.iter().all(|mark| mark.is_reached()) {
            memory.kept = Some(Arc::clone(self));
            return false;
        }
        for (at, bytes) in memory.pieces.drain(..) {
            // A worker that is gone has nothing left to give back.
            let _ = ask::cuMemUnmap(&self.process.channel, current(), DevicePtr(at), bytes);
        }
        memory.marks.clear();
        memory.kept = None;
        self.process.graph_memory.count(self.device, |figures| figures.reserved -= bytes);
        bytes > 0
    }

    pub(super) fn give_back(self: &Arc<Self>) -> bool {
        self.settle(&mut lock(&self.memory))
    }

    /// Behind which memory without users is unmapped.
    pub(super) fn last_marks(&self) -> Vec<Arc<Mark>> {
        let memory = lock(&self.memory);
        if memory.users == 0 { memory.marks.clone() } else { Vec::new() }
    }

    /// Maps what is missing of what was given.
    fn reach(&self, granule: u64) -> CuResult<()> {
        let windows = lock(&self.addresses).windows.clone();
        let mut memory = lock(&self.memory);
        for Window { start, bytes, given_bytes, .. } in windows {
            let wanted = given_bytes.next_multiple_of(granule);
            let there = memory.pieces.iter().filter(|(at, _)| (start..start + bytes).contains(at));
            let there: u64 = there.map(|(_, bytes)| bytes).sum();
            if there >= wanted {
                continue;
            }
            let piece = (start + there, wanted - there);
            map(self.process, self.device, piece)?;
            memory.pieces.push(piece);
            self.process.graph_memory.count(self.device, |figures| {
                figures.used += piece.1;
                figures.reserved += piece.1;
            });
        }
        Ok(())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let addresses = self.addresses.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for Window { start, bytes, is_held, .. } in std::mem::take(&mut addresses.windows) {
            // A worker that is gone has nothing left to give back.
            let _ = ask::cuMemAddressFree(&self.process.channel, current(), DevicePtr(start), bytes);
            if is_held {
                let_go(DevicePtr(start), bytes);
            }
        }
    }
}

/// The bytes that an allocation takes.
/// # Errors
/// 2 for more than there can be.
pub fn rounded(bytes: u64) -> CuResult<u64> {
    bytes.checked_next_multiple_of(ALIGN).ok_or(CuError::OUT_OF_MEMORY)
}

/// That a space's memory is there.
#[derive(Debug)]
pub struct Backing {
    space: Arc<Space>,
}

impl Backing {
    pub fn is_of(&self, space: &Arc<Space>) -> bool {
        Arc::ptr_eq(&self.space, space)
    }

    /// The ordinal of its device.
    pub fn device(&self) -> u32 {
        self.space.device
    }

    pub fn used_in(&self, context: ContextId) {
        lock(&self.space.used_in).insert(context);
    }

    /// What is queued in the stream from now on waits for all that used the memory before it was this one's.
    /// # Errors
    /// That the worker is gone.
    pub fn wait_in(&self, entered: Entered, stream: Stream) -> CuResult<()> {
        let marks = std::mem::take(&mut lock(&self.space.memory).marks);
        marks.iter().try_for_each(|mark| mark.wait_in(entered, stream))
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        self.space.end_use();
    }
}

/// Memory of the grant at reserved addresses.
fn map(process: &'static Process, device: u32, (at, bytes): (u64, u64)) -> CuResult<()> {
    let (channel, context, number) = (&process.channel, current(), process.contexts.number(device)?);
    let memory = process.virtual_memory.create(device, bytes, 0, |handle| {
        ask::cuMemCreate(channel, context, NewHandle(handle), bytes, number)
    })?;
    ask::cuMemMap(channel, context, DevicePtr(at), bytes, memory)?;
    ask::cuMemSetAccess(channel, context, DevicePtr(at), bytes, number, Access::ReadWrite)?;
    // It lasts as long as it is mapped.
    process.virtual_memory.release(memory, || ask::cuMemRelease(channel, context, GoneHandle(memory)))
}
