//! Slots: pieces of the arena through which pageable memory travels. The program's bytes are copied to or from one by threads of this
//! process, while the device copies between others and its own memory; nobody waits for a reply.
//!
//! Each slot has a word. The record of its copy has the device write the slot's next count there when the copy is done
//! (`vgpuMemcpyThenWrite`), so a slot is free again without anybody being asked.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use vgpu_api::{ContextId, CopyWord, CuError, CuResult, DevicePtr};

use super::arena::Arena;
use super::process::Process;
use super::slab::lock;

/// Words are this far apart: a line of the cache each.
const WORD_STRIDE: u64 = 64;
/// In front of the slots: their words.
const HEAD_BYTES: u64 = 4096;

/// Slots of one size. They are made of the arena when the first one is wanted, and kept.
#[derive(Debug)]
pub struct Slots {
    /// Of each, in bytes.
    bytes: usize,
    count: usize,
    place: Mutex<Place>,
    state: Mutex<State>,
}

/// Where their words begin.
#[derive(Debug, Clone, Copy)]
enum Place {
    At(u64),
    /// There was no room when so many pieces of the arena had been given back.
    Nowhere(u64),
    Unasked,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<usize>,
    /// Given back while the device was still to reach them.
    busy: Vec<Busy>,
    /// What the word of each says after its last copy.
    counts: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Busy {
    index: usize,
    context: ContextId,
}

/// How the copy of a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not done yet, as far as the word says.
    Pending,
    /// Done.
    Done,
    /// Refused: the program's error.
    Refused(CuError),
}

/// One slot, for one copy. Dropped, it is free again, or will be when the device is done with it.
#[derive(Debug)]
pub struct Slot<'a> {
    slots: &'a Slots,
    process: &'a Process,
    arena: &'a Arena,
    index: usize,
    /// Where its word is.
    word: u64,
    /// Where its bytes are.
    address: u64,
    count: u32,
    context: ContextId,
    /// The device was told to write the word.
    is_awaited: bool,
}

impl Slots {
    /// `count` of `bytes` each, at most as many as words fit into a page.
    pub const fn new(count: usize, bytes: usize) -> Self {
        assert!(count as u64 * WORD_STRIDE <= HEAD_BYTES, "words of all slots fit before them");
        let state = State { free: Vec::new(), busy: Vec::new(), counts: Vec::new() };
        Self { bytes, count, place: Mutex::new(Place::Unasked), state: Mutex::new(state) }
    }

    /// The size of each, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A slot for a copy of `context`, if one is free now.
    pub fn take<'a>(&'a self, process: &'a Process, context: ContextId) -> Option<Slot<'a>> {
        let arena = process.arena.as_ref()?;
        let start = self.start(process)?;
        let mut state = lock(&self.state);
        if state.counts.is_empty() {
            state.free = (0..self.count).collect();
            state.counts = vec![0; self.count];
        }
        let State { free, busy, counts, .. } = &mut *state;
        let word = |index: usize| start + index as u64 * WORD_STRIDE;
        busy.retain(|slot| {
            let is_busy = standing(arena, word(slot.index), counts[slot.index]) == Standing::Pending;
            if !is_busy {
                free.push(slot.index);
            }
            is_busy
        });
        // The one that was used last: its lines may still be in a cache.
        let index = free.pop()?;
        counts[index] = counts[index].wrapping_add(1);
        let address = start + HEAD_BYTES + (index * self.bytes) as u64;
        let (word, count) = (word(index), counts[index]);
        Some(Slot { slots: self, process, arena, index, word, address, count, context, is_awaited: false })
    }

    /// Where they begin; `None` where there is no arena, or no room in it.
    pub fn start(&self, process: &Process) -> Option<u64> {
        let arena = process.arena.as_ref()?;
        // Held while the worker is told of a part: who comes meanwhile has no slot without it.
        let mut place = lock(&self.place);
        let given_back = arena.given_back();
        match *place {
            Place::At(start) => return Some(start),
            Place::Nowhere(when) if when == given_back => return None,
            Place::Nowhere(_) | Place::Unasked => {}
        }
        let taken = arena.take(&process.channel, HEAD_BYTES + (self.count * self.bytes) as u64);
        *place = taken.map_or(Place::Nowhere(given_back), Place::At);
        let start = taken.ok()?;
        for index in 0..self.count {
            // The program may have had it, and left any number there.
            arena.word(start + index as u64 * WORD_STRIDE).store(0, Ordering::Relaxed);
        }
        Some(start)
    }

    /// A context has ended: what it still had to do with slots will not be done.
    pub fn forget(&self, context: ContextId) {
        let State { free, busy, .. } = &mut *lock(&self.state);
        busy.retain(|slot| {
            let stays = slot.context != context;
            if !stays {
                free.push(slot.index);
            }
            stays
        });
    }
}

/// The low half of a word counts copies, the high half is the code of one that was refused.
#[expect(clippy::cast_possible_truncation, reason = "halves are meant")]
fn standing(arena: &Arena, word: u64, count: u32) -> Standing {
    let value = arena.word(word).load(Ordering::Acquire);
    if value as u32 != count {
        return Standing::Pending;
    }
    match CuError::check((value >> 32) as u32) {
        Ok(()) => Standing::Done,
        Err(error) => Standing::Refused(error),
    }
}

impl Slot<'_> {
    /// Its bytes, as records name them.
    pub fn address(&self) -> DevicePtr {
        DevicePtr(self.address)
    }

    /// Copies bytes in, at most as many as it has.
    pub fn put(&self, bytes: &[u8]) -> CuResult<()> {
        self.fits(bytes.len())?;
        self.arena.write(self.address, bytes);
        Ok(())
    }

    /// Copies its first bytes out.
    pub fn get(&self, bytes: &mut [u8]) -> CuResult<()> {
        self.fits(bytes.len())?;
        self.arena.read(self.address, bytes);
        Ok(())
    }

    fn fits(&self, bytes: usize) -> CuResult<()> {
        if bytes <= self.slots.bytes { Ok(()) } else { Err(CuError::UNKNOWN) }
    }

    /// Sends the record of its copy: `send` gets the word that it is to name.
    pub fn await_copy(&mut self, send: impl FnOnce(CopyWord) -> CuResult<()>) -> CuResult<()> {
        // First: a record may be on its way whatever `send` says.
        self.is_awaited = true;
        send(CopyWord { at: DevicePtr(self.word), count: self.count })
    }

    /// How the copy stands that [`Slot::await_copy`] sent.
    pub fn standing(&self) -> Standing {
        standing(self.arena, self.word, self.count)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let State { free, busy, .. } = &mut *lock(&self.slots.state);
        // What a context that has ended had still to do will not be done.
        let is_busy = self.is_awaited && self.standing() == Standing::Pending;
        if is_busy && self.process.contexts.alive(self.context).is_ok() {
            busy.push(Busy { index: self.index, context: self.context });
        } else {
            free.push(self.index);
        }
    }
}
