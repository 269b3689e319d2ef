//! Memory that nodes of graphs allocate. The worker knows of no such node: addresses are reserved when a node is added, and memory is
//! mapped there, and counts against the grant, while what was instantiated of the graph lives or an allocation does that a launch made.
//!
//! ```text
//!  Graph ──► Space: addresses ◄── Backing: memory there ◄── what can be launched, each allocation that is not freed
//!                                    │ the last is dropped: launches may go on
//!                                    └──► marks, events behind them ──reached──► unmapped
//!                                                  │ back before that: the next launch waits for them in its stream
//!                                                  └──► Backing
//! ```
//! Which allocations there are is known here as launches and frees are asked for, in the program's order: so a second launch that would
//! allocate what was not freed is refused at once.

mod mark;
mod space;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use vgpu_api::{ContextId, CuError, CuResult};

use super::process::Process;
use super::ranges::{GRAPH, Home, Ranges};
use super::slab::lock;
pub use mark::Mark;
pub use space::{Backing, Space, rounded};

/// `CUgraphMem_attribute`s of a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Of what can be launched and of allocations.
    pub used: u64,
    pub used_high: u64,
    /// And of launches that may go on.
    pub reserved: u64,
    pub reserved_high: u64,
}

/// All of the process.
#[derive(Debug, Default)]
pub struct GraphMemory {
    /// Whether there ever was any: calls that ask about addresses look no further if not.
    is_any: AtomicBool,
    spaces: Mutex<Vec<Weak<Space>>>,
    /// Allocations that a launch made and nothing has freed, by address.
    live: Mutex<HashMap<u64, Live>>,
    /// By the device's ordinal.
    figures: Mutex<HashMap<u32, Figures>>,
}

#[derive(Clone, Debug)]
struct Live {
    bytes: u64,
    backing: Arc<Backing>,
}

/// What a launch frees.
#[derive(Debug, Default)]
pub struct Freed {
    _live: Vec<Live>,
}

/// What a launch does with memory, in its order.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    Alloc { address: u64, bytes: u64, space: &'a Arc<Space> },
    Free { address: u64 },
}

impl GraphMemory {
    fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    /// A graph has addresses now.
    fn add(&self, space: &Arc<Space>) {
        let mut spaces = lock(&self.spaces);
        spaces.retain(|space| space.strong_count() > 0);
        spaces.push(Arc::downgrade(space));
        self.is_any.store(true, Ordering::Release);
    }

    fn all(&self) -> Vec<Arc<Space>> {
        match self.is_any() {
            true => lock(&self.spaces).iter().filter_map(Weak::upgrade).collect(),
            false => Vec::new(),
        }
    }

    /// Whether a graph has this address, allocated or not.
    pub fn holds(&self, address: u64) -> bool {
        self.all().iter().any(|space| space.holds(address))
    }

    /// Whether a node of any graph allocates at this address.
    pub fn is_allocated_by_any(&self, address: u64) -> bool {
        self.all().iter().any(|space| space.has_given(address))
    }

    /// A launch, in a context, of what has these backings: its allocations are there from now on, what it frees is not. What is
    /// returned is kept until the launch is queued: its memory goes behind that.
    /// # Errors
    /// 1 if it allocates what was not freed, or frees what is not there: then it does nothing.
    pub fn launch<'a>(
        &self,
        process: &Process,
        (backings, context): (&[Arc<Backing>], ContextId),
        steps: impl Iterator<Item = Step<'a>> + Clone,
        frees_first: bool,
    ) -> CuResult<Freed> {
        let mut live = lock(&self.live);
        let mut changed: HashMap<u64, Option<Live>> = HashMap::new();
        if frees_first {
            let own = steps.clone().filter_map(|step| match step {
                Step::Alloc { address, .. } if live.contains_key(&address) => Some((address, None)),
                _ => None,
            });
            changed.extend(own);
        }
        for step in steps {
            let is_live =
                |address| changed.get(&address).map_or_else(|| live.contains_key(&address), Option::is_some);
            match step {
                Step::Alloc { address, bytes, space } if !is_live(address) => {
                    let backing = backings.iter().find(|backing| backing.is_of(space));
                    let backing = Arc::clone(backing.ok_or(CuError::UNKNOWN)?);
                    changed.insert(address, Some(Live { bytes, backing }));
                }
                Step::Free { address } if is_live(address) => {
                    changed.insert(address, None);
                }
                _ => return Err(CuError::INVALID_VALUE),
            }
        }
        backings.iter().for_each(|backing| backing.used_in(context));
        let mut gone = Vec::new();
        for (address, now) in changed {
            gone.extend(live.remove(&address));
            process.device_memory.remove(address, |range| range.flags == GRAPH);
            if let Some(now) = now {
                let home = Home { device: now.backing.device(), handle: 0 };
                process.device_memory.insert_home(address, now.bytes, GRAPH, home);
                live.insert(address, now);
            }
        }
        gone.iter().for_each(|gone| gone.backing.used_in(context));
        Ok(Freed { _live: gone })
    }

    /// Frees an allocation that a launch made; whether it was one. Work that used it is in `context`.
    pub fn free(&self, process: &Process, address: u64, context: ContextId) -> bool {
        if !self.is_any() {
            return false;
        }
        let mut live = lock(&self.live);
        let Some(freed) = live.remove(&address) else { return false };
        // Both at once: a launch that allocates there again would be forgotten.
        process.device_memory.remove(address, |range| range.flags == GRAPH);
        drop(live);
        freed.backing.used_in(context);
        true
    }

    /// A context ended, and with it what was launched there.
    pub fn context_ended(&self, context: ContextId) {
        self.all().iter().for_each(|space| space.context_ended(context));
    }

    /// The primary context of a device ended, and with it what graphs have allocated there.
    pub fn forget(&self, ranges: &Ranges, device: u32) {
        let mut live = lock(&self.live);
        let gone: Vec<_> = live.extract_if(|_, live| live.backing.device() == device).collect();
        for (address, _) in &gone {
            ranges.remove(*address, |range| range.flags == GRAPH);
        }
        drop(live);
        drop(gone);
        self.give_back(false);
    }

    /// Gives back memory of which it is seen that no launch uses it; `waits` until none does. Whether there was any.
    pub fn give_back(&self, waits: bool) -> bool {
        let spaces = self.all();
        if waits {
            // Without a lock: who needs one of the spaces meanwhile has it.
            let marks: Vec<_> = spaces.iter().flat_map(|space| space.last_marks()).collect();
            marks.iter().for_each(|mark| mark.wait());
        }
        // All of them, not up to the first.
        spaces.iter().filter(|space| space.give_back()).count() > 0
    }

    /// Asks for memory; what launches of graphs that have ended still keep may be what is missing.
    /// # Errors
    /// Those of `ask`.
    pub fn with_room<T>(&self, ask: impl Fn() -> CuResult<T>) -> CuResult<T> {
        match ask() {
            Err(CuError::OUT_OF_MEMORY) if self.give_back(true) => ask(),
            other => other,
        }
    }

    pub fn figures(&self, device: u32) -> Figures {
        lock(&self.figures).get(&device).copied().unwrap_or_default()
    }

    /// Starts a high mark anew.
    pub fn reset_high(&self, device: u32, used: bool) {
        self.count(device, |figures| {
            let high = if used { &mut figures.used_high } else { &mut figures.reserved_high };
            *high = if used { figures.used } else { figures.reserved };
        });
    }

    fn count(&self, device: u32, change: impl FnOnce(&mut Figures)) {
        let mut all = lock(&self.figures);
        let figures = all.entry(device).or_default();
        change(figures);
        figures.used_high = figures.used_high.max(figures.used);
        figures.reserved_high = figures.reserved_high.max(figures.reserved);
    }
}
