//! Events that a program asks about (`cuEventQuery`): the device itself writes a number into pinned memory behind each record, so that the next
//! question is one load. An event is watched from its first question on, for its records from then on; others cost nothing.
//!
//! The number is right: no record ever has had it before. Any other says nothing, and the worker is asked, who also tells of a kernel that
//! has failed. The words are cut from pinned memory that the program has anyhow: without any, or where the device cannot write words in the
//! order of a stream, no event is watched.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vgpu_api::{CuResult, DevicePtr, EventHandle, MemoryOp, MemoryOpKind, Stream, ask};

use super::arena::Arena;
use super::contexts::Entered;
use super::process::Process;
use super::slab::lock;

const WORD_BYTES: u32 = 8;
const PIECE_BYTES: u64 = 4096;

/// The words of all watched events.
#[derive(Debug)]
pub struct EventWords {
    /// How many are watched: nearly always none.
    count: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    words: HashMap<EventHandle, Word>,
    free: Vec<u64>,
    is_cut: bool,
    last_number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Word {
    at: u64,
    written: Option<Written>,
}

/// What is behind the event's last record.
#[derive(Debug, Clone, Copy)]
struct Written {
    number: u64,
    /// A graph that is launched later may record the event, too.
    graph_calls: u32,
}

impl EventWords {
    pub fn new() -> Self {
        let state = State { words: HashMap::new(), free: Vec::new(), is_cut: false, last_number: 0 };
        Self { count: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    /// An event was recorded in a stream.
    /// # Errors
    /// The worker is gone.
    #[inline]
    pub fn recorded(&self, entered: Entered, event: EventHandle, stream: Stream) -> CuResult<()> {
        if self.count.load(Ordering::Relaxed) == 0 { Ok(()) } else { self.write(entered, event, stream) }
    }

    fn write(&self, entered: Entered, event: EventHandle, stream: Stream) -> CuResult<()> {
        let channel = &entered.process.channel;
        let graph_calls = channel.graph_calls();
        let Some((at, number)) = lock(&self.state).next(event) else { return Ok(()) };
        let at = DevicePtr(at);
        let op = MemoryOp { kind: MemoryOpKind::Write, at, bytes: WORD_BYTES, value: number };
        ask::vgpuStreamMemory(channel, entered.context, stream, vec![op])?;
        if let Some(word) = lock(&self.state).words.get_mut(&event) {
            word.written = Some(Written { number, graph_calls });
        }
        Ok(())
    }

    /// An event was recorded in another way: its word says nothing of that.
    pub fn recorded_unseen(&self, event: EventHandle) {
        if self.count.load(Ordering::Relaxed) > 0
            && let Some(word) = lock(&self.state).words.get_mut(&event)
        {
            word.written = None;
        }
    }

    /// Whether the last record of an event is known to have been reached.
    pub fn is_reached(&self, process: &Process, event: EventHandle) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let Some(Word { at, written: Some(written) }) = lock(&self.state).words.get(&event).copied() else {
            return false;
        };
        // Acquire: what the stream has copied to pinned memory is seen, too.
        let is_there = |arena: &Arena| arena.word(at).load(Ordering::Acquire) == written.number;
        process.arena.as_ref().is_some_and(is_there) && process.channel.graph_calls() == written.graph_calls
    }

    /// The program has asked about an event, and the worker has answered.
    pub fn watch(&self, entered: Entered, event: EventHandle) {
        let mut state = lock(&self.state);
        if !state.words.contains_key(&event)
            && let Some(at) = state.free_word(entered)
        {
            state.words.insert(event, Word { at, written: None });
            self.count.store(state.words.len(), Ordering::Relaxed);
        }
    }

    /// An event ends. What is still on its way to its word is no number of the next one's.
    pub fn ended(&self, event: EventHandle) {
        if self.count.load(Ordering::Relaxed) > 0 {
            let mut state = lock(&self.state);
            if let Some(Word { at, .. }) = state.words.remove(&event) {
                state.free.push(at);
            }
            self.count.store(state.words.len(), Ordering::Relaxed);
        }
    }

    /// Events have ended with their context: those that live are watched again from their next question on.
    pub fn forget(&self) {
        let mut state = lock(&self.state);
        let State { words, free, .. } = &mut *state;
        free.extend(words.drain().map(|(_, word)| word.at));
        self.count.store(0, Ordering::Relaxed);
    }
}

impl State {
    /// The word of a watched event and the number for its next record.
    fn next(&mut self, event: EventHandle) -> Option<(u64, u64)> {
        let word = self.words.get_mut(&event)?;
        word.written = None;
        self.last_number += 1;
        Some((word.at, self.last_number))
    }

    fn free_word(&mut self, entered: Entered) -> Option<u64> {
        let Entered { process, device, .. } = entered;
        process.writes_words(device).then_some(())?;
        if !self.is_cut {
            let arena = process.arena.as_ref()?;
            let piece = arena.take_of_parts(PIECE_BYTES)?;
            self.is_cut = true;
            for at in (piece..piece + PIECE_BYTES).step_by(WORD_BYTES as usize) {
                // The program may have had it, and left any number there. 0 is none.
                arena.word(at).store(0, Ordering::Relaxed);
                self.free.push(at);
            }
        }
        self.free.pop()
    }
}
