//! Whose turn it is on the device: asked before work is queued. Uncontended that is one load.
//!
//! A device that counts what it does asks by itself while it does it (`soft`). Of one that does not (`cuda`), while others have work too:
//!
//! ```text
//! queued ─► marked at once with an event of the worker's own ─► the event is reached: it is done
//! used: the time during which something was queued and not done · queue: as many as 2 ms are enough for, by what the last ones took
//! ```
//! An event is recorded in the stream that the work was queued in, behind it and before anything else, so nothing waits for it that did not
//! wait for the work. Work that nobody sees an end of holds up no call for longer than [`PATIENCE_NS`]: what it waits for may come through
//! this very loop.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use idm::xen::metrics::ChannelCost;
use vgpu_api::CuError;

use super::Session;
use crate::device::{Device, Place, Raw};
use crate::worker::turn::{Turn, now_ns};

/// Work that may be queued while others wait, in the time that it takes.
const QUEUE_NS: u64 = 2_000_000;
/// Pieces of it at least and at most.
const PIECES_MIN: u64 = 2;
const PIECES_MAX: u64 = 1024;
/// A piece of work is taken for so long before one was seen.
const PIECE_NS: u64 = 1_000_000;
/// The queue waits so long for work that does not end.
const PATIENCE_NS: u64 = 100_000_000;
/// Between two looks at what is done.
const LOOK_NS: u64 = 50_000;
const LOOK: Duration = Duration::from_nanos(LOOK_NS);
/// While the loop has nothing else to do.
const REST_LOOK: Duration = Duration::from_micros(500);
/// `CU_EVENT_DISABLE_TIMING`. Source: cuda.h.
const NO_TIMING: u32 = 2;

/// A worker's turns.
#[derive(Debug)]
pub(super) struct Turns {
    turn: Arc<Turn>,
    /// Rings for the supervisor.
    tell: fn(),
    /// Of a device that does not count.
    line: Option<Line>,
    /// What the page says.
    cost: ChannelCost,
}

impl Session {
    /// With a page that says whose turn it is, if there is one; `tell` rings for the supervisor.
    #[must_use]
    pub fn with_turn(mut self, turn: Option<Turn>, tell: fn()) -> Self {
        let Some(turn) = turn.map(Arc::new) else { return self };
        let counter = Arc::clone(&turn);
        let counts = self.device.set_meter(Arc::new(move |done| counter.count(done)));
        self.turns =
            Some(Turns { turn, tell, line: (!counts).then(Line::default), cost: ChannelCost::default() });
        self
    }

    /// Returns when work may be queued at `place`.
    pub(super) fn wait_for_turn(&mut self, place: Place) {
        let Some(Turns { turn, tell, line, .. }) = &mut self.turns else { return };
        let free = turn.begin(tell);
        match line {
            None if free => {}
            None => turn.wait_while_over(),
            Some(line) if free => line.leave(turn),
            Some(_) => self.wait_in_line(place),
        }
    }

    fn wait_in_line(&mut self, place: Place) {
        // For what a stream waits that is held up by the guest may come through this loop.
        let waits_for_queue = !self.is_held_up();
        let Some(Turns { turn, line: Some(line), .. }) = &mut self.turns else { return };
        while line.must_wait(&mut *self.device, turn, waits_for_queue) {}
        if !turn.is_free() {
            line.queue(turn, place);
        }
    }

    /// Behind what was just queued, before anything else is.
    pub(super) fn mark_line(&mut self) {
        if let Some(Turns { line: Some(line), .. }) = &mut self.turns {
            line.mark(&mut *self.device);
        }
    }

    /// The loop has nothing to do. When it has to look again, if it has.
    pub fn rest(&mut self) -> Option<Duration> {
        self.say_cost();
        let Turns { turn, line, .. } = self.turns.as_mut()?;
        if let Some(line) = line
            && line.rest(&mut *self.device, turn)
        {
            return Some(REST_LOOK);
        }
        turn.rest();
        None
    }

    /// Says what Xen was asked for since it was said last.
    pub fn say_cost(&mut self) {
        let Some(Turns { turn, cost, .. }) = &mut self.turns else { return };
        let now = ChannelCost::now();
        if now != *cost {
            *cost = now;
            turn.say_cost(now);
        }
    }

    /// A context ends, and what was made in it.
    pub(super) fn end_line(&mut self, context: Raw) {
        if let Some(Turns { line: Some(line), .. }) = &mut self.turns {
            line.end_context(&mut *self.device, context);
        }
    }
}

/// What of this worker's is queued on the device, while others wait for it.
#[derive(Debug)]
struct Line {
    /// By context and stream, in the order in which they are done.
    marked: HashMap<(Raw, Option<Raw>), VecDeque<Mark>>,
    /// Events to be used again, by context.
    spare: HashMap<Raw, Vec<Raw>>,
    /// Where the last piece was queued, which has no event yet.
    last: Option<Place>,
    /// Pieces that are not known to be done.
    pieces: u64,
    /// Since when there are any.
    since: Option<u64>,
    used_ns: u64,
    /// What a piece takes, by the last ones.
    piece_ns: u64,
    /// When pieces were last seen to be done, and when that was last looked for.
    done_at: u64,
    looked_at: u64,
}

#[derive(Debug)]
struct Mark {
    event: Raw,
    at: u64,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            marked: HashMap::new(),
            spare: HashMap::new(),
            last: None,
            pieces: 0,
            since: None,
            used_ns: 0,
            piece_ns: PIECE_NS,
            done_at: 0,
            looked_at: 0,
        }
    }
}

impl Line {
    /// Whether another piece has to wait; then a little time has passed.
    fn must_wait(&mut self, device: &mut dyn Device, turn: &Turn, for_queue: bool) -> bool {
        self.mark(device);
        let now = now_ns();
        let is_full = self.pieces >= self.pieces_max();
        if is_full || now.saturating_sub(self.looked_at) >= LOOK_NS {
            self.look(device, now);
        }
        self.say(turn);
        // Who waits with nothing queued uses nothing, however long.
        let limit = self.since.map(|_| REST_LOOK);
        if turn.sleep_if_over(self.used_at(now), limit) {
            return true;
        }
        let is_held = for_queue && !turn.is_free() && self.pieces >= self.pieces_max() && !self.is_stuck(now);
        if is_held {
            std::thread::sleep(LOOK);
        }
        is_held
    }

    fn queue(&mut self, turn: &Turn, place: Place) {
        if self.since.is_none() {
            let now = now_ns();
            (self.since, self.done_at) = (Some(now), now);
        }
        self.pieces += 1;
        self.last = Some(place);
        self.say(turn);
    }

    /// Whether work is queued, that is to be looked at again.
    fn rest(&mut self, device: &mut dyn Device, turn: &Turn) -> bool {
        if turn.is_free() {
            self.leave(turn);
            return false;
        }
        self.mark(device);
        self.look(device, now_ns());
        self.say(turn);
        self.since.is_some()
    }

    /// Nobody else waits any more: what is queued is not looked at.
    fn leave(&mut self, turn: &Turn) {
        if self.since.is_none() {
            return;
        }
        for ((context, _), marks) in self.marked.drain() {
            self.spare.entry(context).or_default().extend(marks.into_iter().map(|mark| mark.event));
        }
        self.used_ns = self.used_at(now_ns());
        (self.since, self.last, self.pieces) = (None, None, 0);
        self.say(turn);
    }

    /// Puts an event behind the last piece. Where that cannot be, nobody waits for it.
    fn mark(&mut self, device: &mut dyn Device) {
        let Some(place) = self.last.take() else { return };
        let spare = self.spare.get_mut(&place.context).and_then(Vec::pop);
        let Ok(event) = spare.map_or_else(|| device.event_create(place.context, NO_TIMING), Ok) else {
            self.pieces -= 1;
            return;
        };
        if device.event_record(place, event, 0).is_err() {
            self.pieces -= 1;
            self.spare.entry(place.context).or_default().push(event);
            return;
        }
        let marks = self.marked.entry((place.context, place.stream)).or_default();
        marks.push_back(Mark { event, at: now_ns() });
    }

    /// Looks for pieces that are done.
    fn look(&mut self, device: &mut dyn Device, now: u64) {
        self.looked_at = now;
        let before = self.pieces;
        let Self { marked, spare, pieces, .. } = self;
        marked.retain(|(context, _), marks| {
            while let Some(mark) = marks.front() {
                // One that an error has ended goes no further.
                if device.event_query(mark.event) == Err(CuError::NOT_READY) {
                    break;
                }
                spare.entry(*context).or_default().push(mark.event);
                marks.pop_front();
                *pieces -= 1;
            }
            !marks.is_empty()
        });
        if let Some(each) = now.saturating_sub(self.done_at).checked_div(before - self.pieces) {
            self.piece_ns = (self.piece_ns - self.piece_ns / 8 + each / 8).max(1);
            self.done_at = now;
        }
        if self.pieces == 0 {
            self.used_ns = self.used_at(now);
            self.since = None;
        }
    }

    fn end_context(&mut self, device: &mut dyn Device, context: Raw) {
        let ended = self.marked.extract_if(|(of, _), _| *of == context);
        let marks: Vec<Raw> = ended.flat_map(|(_, marks)| marks).map(|mark| mark.event).collect();
        self.pieces -= marks.len() as u64;
        if self.last.is_some_and(|place| place.context == context) {
            self.last = None;
            self.pieces -= 1;
        }
        for event in marks.into_iter().chain(self.spare.remove(&context).unwrap_or_default()) {
            let _ = device.event_destroy(event);
        }
    }

    fn pieces_max(&self) -> u64 {
        (QUEUE_NS / self.piece_ns).clamp(PIECES_MIN, PIECES_MAX)
    }

    /// Whether the oldest piece of a stream does not come to its end.
    fn is_stuck(&self, now: u64) -> bool {
        let mut oldest = self.marked.values().filter_map(VecDeque::front);
        oldest.any(|mark| now.saturating_sub(mark.at) >= PATIENCE_NS)
    }

    fn used_at(&self, now: u64) -> u64 {
        self.used_ns + self.since.map_or(0, |since| now.saturating_sub(since))
    }

    fn say(&self, turn: &Turn) {
        turn.say(self.used_ns, self.since);
    }
}

#[cfg(test)]
mod tests;
