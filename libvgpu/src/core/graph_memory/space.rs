//! A graph's addresses on one device, and the memory that is there for a time.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::{Access, ContextId, CuError, CuResult, DevicePtr, EventHandle, ask};

use crate::calls::virtual_memory::{granularity, let_go, reserve};
use crate::core::contexts::current;
use crate::core::process::{EventInfo, Process, Recorded};
use crate::core::slab::lock;

/// Addresses that are reserved at once, in bytes: at least so many, and as many as all before them.
const WINDOW_BYTES: u64 = 32 << 20;
/// Allocations are as long as multiples of this.
const ALIGN: u64 = 512;
/// `CU_MEM_ALLOC_GRANULARITY_MINIMUM`, `CU_EVENT_DISABLE_TIMING`.
const MINIMUM: u32 = 0;
const NO_TIMING: u32 = 2;

/// The addresses of one graph's allocations on one device: until the graph, what can be launched of it and all that it allocated are gone.
pub struct Space {
    process: &'static Process,
    /// The ordinal of its device.
    device: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    windows: Vec<Window>,
    /// Where allocations begin.
    given: HashSet<u64>,
    backing: Weak<Backing>,
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

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Space {
    pub fn new(process: &'static Process, device: u32) -> Arc<Self> {
        let space = Arc::new(Self { process, device, state: Mutex::default() });
        process.graph_memory.add(&space);
        space
    }

    /// The ordinal of its device.
    pub fn device(&self) -> u32 {
        self.device
    }

    /// What was launched in a context ended with it.
    pub(super) fn context_ended(&self, context: ContextId) {
        if let Some(backing) = lock(&self.state).backing.upgrade() {
            lock(&backing.mapped).contexts.remove(&context);
        }
    }

    pub(super) fn holds(&self, address: u64) -> bool {
        let within = |window: &Window| address.checked_sub(window.start).is_some_and(|at| at < window.bytes);
        lock(&self.state).windows.iter().any(within)
    }

    pub(super) fn has_given(&self, address: u64) -> bool {
        lock(&self.state).given.contains(&address)
    }

    /// Addresses for an allocation, as many as `bytes` come to.
    /// # Errors
    /// 2.
    pub fn give(&self, bytes: u64) -> CuResult<u64> {
        let bytes = rounded(bytes)?;
        let mut state = lock(&self.state);
        let room = |window: &&mut Window| window.bytes - window.given_bytes >= bytes;
        let window = match state.windows.iter_mut().find(room) {
            Some(window) => window,
            None => {
                let all = state.windows.iter().map(|window| window.bytes).sum::<u64>();
                let more = self.reserve(all.max(WINDOW_BYTES).max(bytes))?;
                state.windows.push(more);
                state.windows.last_mut().ok_or(CuError::UNKNOWN)?
            }
        };
        let address = window.start + window.given_bytes;
        window.given_bytes += bytes;
        state.given.insert(address);
        Ok(address)
    }

    /// Part of what was given begins another allocation.
    pub fn give_again(&self, address: u64) {
        lock(&self.state).given.insert(address);
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

    /// Memory at all addresses that were given.
    /// # Errors
    /// 2 when the grant is used up.
    pub fn back(self: &Arc<Self>) -> CuResult<Arc<Backing>> {
        let granule = self.granule()?;
        let mut state = lock(&self.state);
        let backing = state.backing.upgrade().unwrap_or_else(|| Backing::new(self));
        state.backing = Arc::downgrade(&backing);
        for window in &state.windows {
            let wanted = window.given_bytes.next_multiple_of(granule);
            backing.reach(window.start, wanted, window.start + window.bytes)?;
        }
        Ok(backing)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let state = std::mem::take(self.state.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner));
        for Window { start, bytes, is_held, .. } in state.windows {
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

/// Memory at a space's addresses.
#[derive(Debug)]
pub struct Backing {
    space: Arc<Space>,
    mapped: Mutex<Mapped>,
}

#[derive(Debug, Default)]
struct Mapped {
    /// Where each begins, and its length.
    pieces: Vec<(u64, u64)>,
    /// Where it was used.
    contexts: BTreeSet<ContextId>,
}

impl Backing {
    /// What is still mapped there from before is its own, once nothing uses it.
    fn new(space: &Arc<Space>) -> Arc<Self> {
        let memory = &space.process.graph_memory;
        let of_space = |retired: &mut Retired| Arc::ptr_eq(&retired.space, space);
        let before: Vec<Retired> = lock(&memory.retired).extract_if(.., of_space).collect();
        let mut pieces = Vec::new();
        for retired in before {
            retired.is_over(true);
            pieces.extend(retired.pieces);
        }
        let bytes = total(&pieces);
        memory.count(space.device, |figures| figures.used += bytes);
        let mapped = Mutex::new(Mapped { pieces, contexts: BTreeSet::new() });
        Arc::new(Self { space: Arc::clone(space), mapped })
    }

    pub fn is_of(&self, space: &Arc<Space>) -> bool {
        Arc::ptr_eq(&self.space, space)
    }

    /// The ordinal of its device.
    pub fn device(&self) -> u32 {
        self.space.device
    }

    pub fn used_in(&self, context: ContextId) {
        lock(&self.mapped).contexts.insert(context);
    }

    /// Maps what is missing of the first `wanted` bytes of a window.
    fn reach(&self, start: u64, wanted: u64, end: u64) -> CuResult<()> {
        let mut mapped = lock(&self.mapped);
        let there = mapped.pieces.iter().filter(|(at, _)| (start..end).contains(at));
        let there: u64 = there.map(|(_, bytes)| bytes).sum();
        if there >= wanted {
            return Ok(());
        }
        let piece = (start + there, wanted - there);
        map(self.space.process, self.space.device, piece)?;
        mapped.pieces.push(piece);
        self.space.process.graph_memory.count(self.space.device, |figures| {
            figures.used += piece.1;
            figures.reserved += piece.1;
        });
        Ok(())
    }
}

/// Launches may go on: what they use is given back behind them.
impl Drop for Backing {
    fn drop(&mut self) {
        let process = self.space.process;
        let mapped = std::mem::take(&mut *lock(&self.mapped));
        let bytes = total(&mapped.pieces);
        process.graph_memory.count(self.space.device, |figures| figures.used -= bytes);
        let marks = mapped.contexts.into_iter().filter_map(|context| Mark::behind(process, context));
        let retired =
            Retired { space: Arc::clone(&self.space), pieces: mapped.pieces, marks: marks.collect() };
        if retired.is_over(false) {
            retired.unmap();
        } else {
            lock(&process.graph_memory.retired).push(retired);
        }
    }
}

fn total(pieces: &[(u64, u64)]) -> u64 {
    pieces.iter().map(|(_, bytes)| bytes).sum()
}

/// Memory of the grant at reserved addresses.
fn map(process: &'static Process, device: u32, (at, bytes): (u64, u64)) -> CuResult<()> {
    let (channel, context, number) = (&process.channel, current(), process.contexts.number(device)?);
    let create = || {
        process.virtual_memory.create(device, bytes, 0, |handle| {
            ask::cuMemCreate(channel, context, NewHandle(handle), bytes, number)
        })
    };
    let memory = match create() {
        Err(CuError::OUT_OF_MEMORY) if process.graph_memory.give_back(true) => create(),
        other => other,
    }?;
    ask::cuMemMap(channel, context, DevicePtr(at), bytes, memory)?;
    ask::cuMemSetAccess(channel, context, DevicePtr(at), bytes, number, Access::ReadWrite)?;
    // It lasts as long as it is mapped.
    process.virtual_memory.release(memory, || ask::cuMemRelease(channel, context, GoneHandle(memory)))
}

/// Memory that launches may still use.
#[derive(Debug)]
pub(super) struct Retired {
    space: Arc<Space>,
    pieces: Vec<(u64, u64)>,
    marks: Vec<Mark>,
}

impl Retired {
    /// Whether all work is done that may use it; `waits` until it is.
    pub(super) fn is_over(&self, waits: bool) -> bool {
        self.marks.iter().all(|mark| mark.is_reached(waits))
    }

    pub(super) fn unmap(self) {
        let process = self.space.process;
        for (at, bytes) in &self.pieces {
            // A worker that is gone has nothing left to give back.
            let _ = ask::cuMemUnmap(&process.channel, current(), DevicePtr(*at), *bytes);
        }
        let bytes = total(&self.pieces);
        process.graph_memory.count(self.space.device, |figures| figures.reserved -= bytes);
    }
}

/// An event of ours behind all that a context had to do.
struct Mark {
    process: &'static Process,
    context: ContextId,
    event: EventHandle,
}

impl Mark {
    /// None in a context that has ended, or that an error has.
    fn behind(process: &'static Process, context: ContextId) -> Option<Self> {
        process.contexts.alive(context).ok()?;
        let channel = &process.channel;
        let event = process.events.insert(EventInfo { context, recorded: Recorded::Queued, is_timed: false });
        let mark = Self { process, context, event };
        ask::cuEventCreate(channel, context, NewHandle(event), NO_TIMING).ok()?;
        ask::cuCtxRecordEvent(channel, context, event).ok()?;
        Some(mark)
    }

    fn is_reached(&self, waits: bool) -> bool {
        let channel = &self.process.channel;
        if waits {
            let _ = ask::cuEventSynchronize(channel, self.context, self.event);
            return true;
        }
        ask::cuEventQuery(channel, self.context, self.event) != Err(CuError::NOT_READY)
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark").field("event", &self.event).finish_non_exhaustive()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let tell = |_| ask::cuEventDestroy_v2(&self.process.channel, self.context, GoneHandle(self.event));
        // With its context it has ended already.
        let _ = self.process.events.end(self.event, tell);
    }
}
