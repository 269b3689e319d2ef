//! Events between processes of a zone. The device's own event tells of records of this process; what others have recorded, and whether
//! their streams got there, stands in words of the zone's board (`crate::event_board`), which the devices of all of them write and wait for.
//!
//! Weaker than a driver's: a record is behind this process's last one of the event, in whatever streams they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use idm::Region;
use vgpu_api::{Call, CuError, CuResult, DevicePtr, EventHandle, MemoryOp, MemoryOpKind, Token};

use super::{Owned, Session};
use crate::device::{HostPages, Place};
use crate::event_board::{Record, Seat};
use crate::exchange::Question;

/// Seats whose streams had still to write when their event ended, before new events are refused.
const LEAVING_MAX: usize = 1024;

/// The board, and seats that wait to be given back.
#[derive(Debug, Default)]
pub(super) struct Board {
    region: Option<Arc<Region>>,
    leaving: Vec<SharedEvent>,
}

/// What stands behind an event that others may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct SharedEvent {
    token: Token,
    seat: Seat,
    /// This process's last record.
    last: u64,
}

/// Where the last record of an event is.
enum Last {
    /// There is none, or it was reached.
    Reached,
    /// In this process.
    Own,
    Others(Record),
}

impl Session {
    pub(super) fn new_shared_event(&mut self, opened: Option<Token>) -> CuResult<SharedEvent> {
        self.look_at_leaving();
        if self.board.leaving.len() >= LEAVING_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        self.need_board()?;
        let question = opened.map_or(Question::PutEvent, Question::GetEvent);
        let (answer, _) = self.ask(question)?;
        let token = answer.token;
        let seat = Seat::decode(answer.bytes).ok_or(CuError::DEVICE_UNAVAILABLE)?;
        let last = self.word(seat, seat.user())?.load(Ordering::Acquire);
        Ok(SharedEvent { token, seat, last })
    }

    /// Maps the zone's board and lets the device reach it.
    fn need_board(&mut self) -> CuResult<()> {
        if self.board.region.is_none() {
            let (answer, fd) = self.ask(Question::Board)?;
            let fd = fd.filter(|_| answer.bytes == crate::event_board::BYTES as u64);
            let region = Region::map(fd.ok_or(CuError::DEVICE_UNAVAILABLE)?, crate::event_board::BYTES);
            let region = Arc::new(region.map_err(|_| CuError::OUT_OF_MEMORY)?);
            self.device.pin(HostPages::of_ours(&region))?;
            self.board.region = Some(region);
        }
        Ok(())
    }

    fn word(&self, seat: Seat, user: usize) -> CuResult<&AtomicU64> {
        let region = self.board.region.as_ref().ok_or(CuError::INVALID_HANDLE)?;
        region.words(seat.offset(user), 1).first().ok_or(CuError::INVALID_HANDLE)
    }

    fn op(&self, kind: MemoryOpKind, seat: Seat, record: Record) -> CuResult<MemoryOp> {
        let base = self.board.region.as_ref().ok_or(CuError::INVALID_HANDLE)?.base().addr().get();
        let at = DevicePtr((base + seat.offset(record.user)) as u64);
        Ok(MemoryOp { kind, at, bytes: 8, value: record.number })
    }

    /// Another process's worker asks for it by this token.
    pub(super) fn event_export(&mut self, event: EventHandle) -> CuResult<Token> {
        let shared = self.events.get(event)?.shared.ok_or(CuError::INVALID_VALUE)?;
        Ok(shared.token)
    }

    pub(super) fn event_import(&mut self, call: Call, handle: EventHandle, token: Token) -> CuResult<()> {
        const NO_TIMING: u32 = 2;
        let context = self.context(call.context)?;
        self.events.check_free(handle)?;
        let shared = self.new_shared_event(Some(token))?;
        let raw = self.device.event_create(context, NO_TIMING);
        if raw.is_err() {
            self.leave(shared);
        }
        self.events.insert(handle, Owned { raw: raw?, context: call.context, shared: Some(shared) })
    }

    /// Records an event that others may have.
    pub(super) fn record_shared(&mut self, place: Place, handle: EventHandle, flags: u32) -> CuResult<()> {
        let Owned { raw, shared, .. } = *self.events.get(handle)?;
        let Some(SharedEvent { token, seat, last }) = shared else { return Err(CuError::INVALID_HANDLE) };
        // What others of the zone wrote there may be any number.
        let number = last.checked_add(1).ok_or(CuError::INVALID_HANDLE)?;
        if self.word(seat, seat.user())?.load(Ordering::Acquire) < last {
            self.device.stream_wait(place, raw, 0)?;
        }
        let record = Record { user: seat.user(), number };
        self.device.event_record(place, raw, flags)?;
        self.device.stream_memory(place, &[self.op(MemoryOpKind::Write, seat, record)?])?;
        self.word(seat, 0)?.store(record.encode(), Ordering::Release);
        let shared = Some(SharedEvent { token, seat, last: record.number });
        self.events.get_mut(handle)?.shared = shared;
        Ok(())
    }

    fn last(&self, SharedEvent { seat, last, .. }: SharedEvent) -> CuResult<Last> {
        let Some(record) = Record::decode(self.word(seat, 0)?.load(Ordering::Acquire)) else {
            return Ok(Last::Reached);
        };
        let is_own = record == Record { user: seat.user(), number: last };
        if is_own {
            return Ok(Last::Own);
        }
        let is_reached = self.word(seat, record.user)?.load(Ordering::Acquire) >= record.number;
        Ok(if is_reached { Last::Reached } else { Last::Others(record) })
    }

    /// Lets a stream wait for another process's record. `false`: its last one is this process's own.
    pub(super) fn waits_for_others(
        &mut self,
        call: Call,
        place: Place,
        shared: SharedEvent,
    ) -> CuResult<bool> {
        match self.last(shared)? {
            Last::Own => Ok(false),
            Last::Reached => Ok(true),
            Last::Others(record) => {
                self.may_hold_up();
                let mark = self.mark_of_wait(call.context)?;
                let op = self.op(MemoryOpKind::WaitGreaterOrEqual, shared.seat, record)?;
                let queued = self.device.stream_memory(place, &[op]);
                queued.and(self.keep_mark_of_wait(mark, place)).map(|()| true)
            }
        }
    }

    /// Whether the event's last record was reached, if it is another process's.
    pub(super) fn others_have_reached(&self, shared: SharedEvent) -> CuResult<Option<bool>> {
        Ok(match self.last(shared)? {
            Last::Own => None,
            Last::Reached => Some(true),
            Last::Others(_) => Some(false),
        })
    }

    /// The event has ended here. Its seat is another's when nothing of this process is written there any more.
    pub(super) fn leave(&mut self, shared: SharedEvent) {
        self.board.leaving.push(shared);
        self.look_at_leaving();
    }

    fn look_at_leaving(&mut self) {
        let leaving = std::mem::take(&mut self.board.leaving);
        for shared in leaving {
            let SharedEvent { token, seat, last } = shared;
            if self.word(seat, seat.user()).is_ok_and(|word| word.load(Ordering::Acquire) < last) {
                self.board.leaving.push(shared);
            } else {
                self.tell(Question::CloseEvent(token, seat.encode()));
            }
        }
    }
}
