//! Events that a program asks about (`cuEventQuery`): the device itself writes a number into pinned memory before each record, so that the next
//! question is one load. An event is watched from its first question on, for its records from then on; others cost nothing.
//!
//! The number is right: no record ever has had it before, and all that the record is behind is done. It is not there: the record has not been
//! reached, since whatever tells of that comes behind the number. A kernel that has failed keeps the number away for good, so the worker is
//! asked all the same now and then, and once anything has gone wrong. The words are cut from pinned memory that the program has anyhow:
//! without any, or where the device cannot write words in the order of a stream, no event is watched.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vgpu_api::{CuResult, DevicePtr, EventHandle, MemoryOp, MemoryOpKind, Stream, ask};

use super::contexts::Entered;
use super::process::Process;
use super::slab::lock;

const WORD_BYTES: u32 = 8;
const PIECE_BYTES: u64 = 4096;
/// For so long a number that is not there is believed: so late at most a program that does nothing but ask learns of a kernel's fault.
const BELIEVED: Duration = Duration::from_millis(50);

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
    /// Numbers that are not above this one were given to an earlier word of the event.
    since: u64,
    /// Records that have a number and are being sent.
    in_flight: u32,
    /// Several are, or were together with one that still is: nobody knows whose number the device writes last.
    is_mixed: bool,
}

/// What the device writes before the event's last record.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    number: u64,
    /// A graph that is launched later may record the event, too.
    graph_calls: u32,
    /// Errors that the worker had told of by then.
    errors: u32,
    /// When the record was made, or the worker asked about it.
    asked: Instant,
}

/// What is known of an event's last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Reached,
    NotReached,
    Unknown,
}

impl EventWords {
    pub fn new() -> Self {
        let state = State { words: HashMap::new(), free: Vec::new(), is_cut: false, last_number: 0 };
        Self { count: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    /// An event is about to be recorded in a stream. What this gives is for [`EventWords::recorded`].
    /// # Errors
    /// The worker is gone.
    #[inline]
    pub fn write(&self, entered: Entered, event: EventHandle, stream: Stream) -> CuResult<Option<Written>> {
        if self.count.load(Ordering::Relaxed) == 0 { Ok(None) } else { self.send(entered, event, stream) }
    }

    fn send(&self, entered: Entered, event: EventHandle, stream: Stream) -> CuResult<Option<Written>> {
        let channel = &entered.process.channel;
        let (graph_calls, errors) = (channel.graph_calls(), channel.error_count());
        let Some((at, number)) = lock(&self.state).next(event) else { return Ok(None) };
        let at = DevicePtr(at);
        let op = MemoryOp { kind: MemoryOpKind::Write, at, bytes: WORD_BYTES, value: number };
        ask::vgpuStreamMemory(channel, entered.context, stream, vec![op])?;
        Ok(Some(Written { number, graph_calls, errors, asked: Instant::now() }))
    }

    /// The event was recorded.
    #[inline]
    pub fn recorded(&self, event: EventHandle, written: Option<Written>) {
        if let Some(written) = written {
            lock(&self.state).recorded(event, written);
        }
    }

    /// An event was recorded in another way: its word says nothing of that.
    pub fn recorded_unseen(&self, event: EventHandle) {
        if self.count.load(Ordering::Relaxed) > 0
            && let Some(word) = lock(&self.state).words.get_mut(&event)
        {
            word.written = None;
            word.is_mixed = word.in_flight > 0;
        }
    }

    /// Whether its word says that the last record of an event is reached.
    pub fn is_reached(&self, process: &Process, event: EventHandle) -> bool {
        self.count.load(Ordering::Relaxed) > 0
            && lock(&self.state).words.get(&event).is_some_and(|word| word.is_reached(process))
    }

    /// How the last record of an event stands, for a program that asks. After `Unknown` the worker is asked.
    pub fn standing(&self, process: &Process, event: EventHandle) -> Standing {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Standing::Unknown;
        }
        let (mut state, channel) = (lock(&self.state), &process.channel);
        let Some(word) = state.words.get_mut(&event) else { return Standing::Unknown };
        if word.is_reached(process) {
            return Standing::Reached;
        }
        let Some(written) = &mut word.written else { return Standing::Unknown };
        if channel.graph_calls() != written.graph_calls {
            return Standing::Unknown;
        }
        if channel.error_count() == written.errors && written.asked.elapsed() < BELIEVED {
            return Standing::NotReached;
        }
        written.asked = Instant::now();
        Standing::Unknown
    }

    /// The program has asked about an event, and the worker has answered.
    pub fn answered(&self, entered: Entered, event: EventHandle, is_reached: bool) {
        let mut state = lock(&self.state);
        if let Some(word) = state.words.get_mut(&event) {
            // A number that has not come with its record will not come.
            if is_reached && !word.is_reached(entered.process) {
                word.written = None;
            }
        } else if let Some(at) = state.free_word(entered) {
            state.watch(event, at);
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

impl Word {
    fn is_reached(&self, process: &Process) -> bool {
        let (Some(written), Some(arena)) = (self.written, process.arena.as_ref()) else { return false };
        // Acquire: what the stream has copied to pinned memory is seen, too.
        process.channel.graph_calls() == written.graph_calls
            && arena.word(self.at).load(Ordering::Acquire) == written.number
    }
}

impl State {
    fn watch(&mut self, event: EventHandle, at: u64) {
        let since = self.last_number;
        self.words.insert(event, Word { at, written: None, since, in_flight: 0, is_mixed: false });
    }

    /// The word of a watched event and the number for its next record.
    fn next(&mut self, event: EventHandle) -> Option<(u64, u64)> {
        let word = self.words.get_mut(&event)?;
        word.written = None;
        word.is_mixed |= word.in_flight > 0;
        word.in_flight += 1;
        self.last_number += 1;
        Some((word.at, self.last_number))
    }

    /// A record with such a number was sent. It is the last one only if no other was sent meanwhile.
    fn recorded(&mut self, event: EventHandle, written: Written) {
        let Some(word) = self.words.get_mut(&event).filter(|word| written.number > word.since) else {
            return;
        };
        word.in_flight = word.in_flight.saturating_sub(1);
        if !word.is_mixed {
            word.written = Some(written);
        }
        word.is_mixed &= word.in_flight > 0;
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

#[cfg(test)]
mod tests {
    use vgpu_api::handle::Handle;

    use super::*;

    const PLACE: u64 = 64;

    fn written(number: u64) -> Written {
        Written { number, graph_calls: 0, errors: 0, asked: Instant::now() }
    }

    fn watched() -> (State, EventHandle) {
        let mut state = State { words: HashMap::new(), free: Vec::new(), is_cut: true, last_number: 4 };
        let event: EventHandle = Handle::new(0, 1);
        state.watch(event, PLACE);
        (state, event)
    }

    fn believed(state: &State, event: EventHandle) -> Option<u64> {
        state.words[&event].written.map(|written| written.number)
    }

    #[test]
    fn of_records_that_are_sent_at_once_none_is_taken_for_the_last() {
        for order in [[5, 6], [6, 5]] {
            let (mut state, event) = watched();
            assert_eq!([state.next(event), state.next(event)], [Some((PLACE, 5)), Some((PLACE, 6))]);
            for number in order {
                state.recorded(event, written(number));
                assert_eq!(
                    believed(&state, event),
                    None,
                    "{order:?}: the device may write the other one last"
                );
            }
            assert_eq!(state.next(event), Some((PLACE, 7)));
            state.recorded(event, written(7));
            assert_eq!(believed(&state, event), Some(7), "{order:?}: it is alone again");
        }
    }

    #[test]
    fn a_number_of_the_words_time_before_is_not_believed() {
        let (mut state, event) = watched();
        assert_eq!(state.next(event), Some((PLACE, 5)));
        state.words.clear();
        state.watch(event, PLACE + 8);
        state.recorded(event, written(5));
        assert_eq!(believed(&state, event), None);
    }
}
