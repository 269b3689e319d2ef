//! The program's side of a GPU channel: any thread submits, any thread calls.
//!
//! [`Submitter::submit`] queues a record and returns: no lock, no system call unless the consumer sleeps or the ring is full.
//! [`Submitter::call`] waits for the reply on the thread's lane: polling first, then asleep in the hub. The peer's end turns every
//! wait into an error.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::error_word::{self, ErrorWord};
use super::lanes::{Lane, Lanes};
use super::layout::{
    CONSUMER_LIFE, CONSUMER_PARKED, FLAG_SYNC, NO_LANE, REPLY_BYTES_MAX, SUBMITTER_LIFE, SUBMITTER_PARKED,
    Slot,
};
use super::long_wait::{Awaited, Tell};
use super::payload::Payload;
use super::producer::{Header, Producer, Reserved};
use super::staging::{Chunk, Staging};
use super::{ChannelParts, SPIN, check_region};
use crate::doorbell::Doorbell;
use crate::error::{ChannelError, Peer};
use crate::hub::{End, Hub};
use crate::life::{self, Life, Liveness};
use crate::park::Caller;
use crate::region::Region;
use crate::spin::Spin;
use crate::sync::Ordering::{Acquire, Relaxed};

/// The program's side of a GPU channel. Shared by all threads.
#[derive(Debug)]
pub struct Submitter {
    pub(super) region: Arc<Region>,
    peer: Peer,
    record_limit: u32,
    pub(super) ring: Producer,
    lanes: Arc<Lanes>,
    staging: Staging,
    pub(super) hub: Hub,
    doorbell: Doorbell,
    pub(super) caller: Caller,
    spin: Spin,
    /// Why the channel broke, told to every later call.
    broken: OnceLock<ChannelError>,
    /// When a wait is a long one, and who is told.
    pub(super) patience: OnceLock<(Duration, Tell)>,
}

/// The answer to a call. Its bytes are in the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The application's status (a CUresult).
    pub status: u32,
    /// Bytes of the reply.
    pub len: usize,
    /// Where the call's record ends, for [`Submitter::submitted_until`].
    pub end: u64,
}

impl Submitter {
    /// Attaches to a channel that nobody has submitted to yet.
    ///
    /// # Errors
    /// [`ChannelError::Layout`], [`ChannelError::PeerOffer`] for memory that is no channel.
    pub fn from_parts(parts: ChannelParts) -> Result<Self, ChannelError> {
        let ChannelParts { region, spec, peer, waiter, doorbell, liveness } = parts;
        check_region(&region, &spec, peer)?;
        life::attach(region.word(SUBMITTER_LIFE));
        // Else the first lap takes a fault each page, in calls that take a part of that time. Without memory it does so.
        let _ = region.populate(spec.ring_place().data, spec.ring_bytes as usize);
        Ok(Self {
            ring: Producer::new(region.clone(), spec.ring_place(), peer),
            staging: Staging::new(region.clone(), spec.staging_at(), spec.staging_bytes as usize),
            lanes: Lanes::new(),
            hub: Hub::new(waiter, liveness),
            caller: Caller::default(),
            spin: Spin::new(SPIN),
            broken: OnceLock::new(),
            patience: OnceLock::new(),
            record_limit: spec.record_limit,
            region,
            peer,
            doorbell,
        })
    }

    /// Who is on the other side.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The longest payload of a record, in bytes.
    pub fn record_limit(&self) -> usize {
        self.record_limit as usize
    }

    /// Queues a record whose payload of `len` bytes `fill` writes in place. Returns its sequence. Waits only while the ring is full.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`], [`ChannelError::PeerGone`], and what broke the channel.
    #[inline]
    pub fn submit(
        &self,
        op: u16,
        ctx: u32,
        len: usize,
        fill: impl FnOnce(&mut Payload<'_>),
    ) -> Result<u32, ChannelError> {
        self.send(Header { flags: 0, op, lane: NO_LANE, ctx }, len, None, fill).map(|(seq, _)| seq)
    }

    /// Queues a record with these bytes.
    ///
    /// # Errors
    /// As [`Submitter::submit`].
    #[inline]
    pub fn submit_bytes(&self, op: u16, ctx: u32, bytes: &[u8]) -> Result<u32, ChannelError> {
        self.submit(op, ctx, bytes.len(), |payload| payload.put(bytes))
    }

    /// Sends a record and waits for its reply, which is copied into `reply` (at most [`REPLY_BYTES_MAX`] bytes come). Without a limit it
    /// waits as long as the peer lives.
    ///
    /// # Errors
    /// As [`Submitter::submit`]; [`ChannelError::TimedOut`], after which a late reply is thrown away; [`ChannelError::PeerReply`] when the
    /// reply does not fit into `reply`.
    pub fn call(
        &self,
        op: u16,
        ctx: u32,
        bytes: &[u8],
        reply: &mut [u8],
        limit: Option<Duration>,
    ) -> Result<Reply, ChannelError> {
        self.call_with(op, ctx, bytes.len(), |payload| payload.put(bytes), reply, limit)
    }

    /// [`Submitter::call`] with a payload that `fill` writes in place.
    ///
    /// # Errors
    /// As [`Submitter::call`].
    pub fn call_with(
        &self,
        op: u16,
        ctx: u32,
        len: usize,
        fill: impl FnOnce(&mut Payload<'_>),
        reply: &mut [u8],
        limit: Option<Duration>,
    ) -> Result<Reply, ChannelError> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let in_vain = || self.in_vain("a call", limit);
        let answered = |lane, seq| self.region.word(Slot::of(lane).seq()).load(Acquire) == seq;
        let lane = self.lanes.take(deadline, || self.is_gone(), answered).ok_or_else(in_vain)?;
        // No old sequence of this lane may pass for the answer. Published with the record.
        self.region.word(Slot::of(lane.number()).seq()).store(0, Relaxed);
        let header = Header { flags: FLAG_SYNC, op, lane: lane.number(), ctx };
        let sent = self.send(header, len, deadline, fill)?;
        self.await_reply(lane, op, sent, deadline, reply)?.ok_or_else(in_vain)
    }

    /// How far the records of all threads reach. As long as this is where a call's own record ended ([`Reply::end`]), no thread has
    /// submitted anything after it. What a thread submitted before it told another one of it is seen by that one.
    #[inline]
    pub fn submitted_until(&self) -> u64 {
        self.ring.reserved_until()
    }

    /// Takes a part of the staging area, waiting for one at most `limit`.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] when the area could never hold it, [`ChannelError::TimedOut`], [`ChannelError::PeerGone`].
    pub fn stage(&self, bytes: usize, limit: Option<Duration>) -> Result<Chunk<'_>, ChannelError> {
        let area = self.staging.bytes();
        if bytes > area {
            return Err(ChannelError::TooLong { what: "a staging chunk", bytes, limit: area });
        }
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let chunk = self.staging.take(bytes, deadline, || self.is_gone());
        chunk.ok_or_else(|| self.in_vain("staging", limit))
    }

    /// Waits until `ready` says so: polling first, then asleep; asked again after each wake-up. For words in staging that the consumer
    /// writes before it calls [`super::StagingView::wake`].
    ///
    /// # Errors
    /// [`ChannelError::PeerGone`].
    pub fn wait_until(&self, ready: impl FnMut() -> bool) -> Result<(), ChannelError> {
        self.wait_for(Awaited::Word, ready, None).map(drop)
    }

    /// From now on, each wait that lasts longer than `patience` is told of once, to `tell`, and goes on. The first one to ask is heard.
    pub fn tell_of_long_waits(&self, patience: Duration, tell: Tell) {
        let _ = self.patience.set((patience, tell));
    }

    /// How many errors the consumer has told of: one relaxed load, to be compared with the last value seen.
    #[inline]
    pub fn error_count(&self) -> u32 {
        error_word::count(&self.region)
    }

    /// The last error that the consumer told of, with the count that goes with it.
    pub fn last_error(&self) -> Option<(u32, ErrorWord)> {
        error_word::read(&self.region)
    }

    /// Whether the peer is gone. Asks the kernel: not for the fast path.
    pub fn is_gone(&self) -> bool {
        self.hub.ask_liveness();
        self.peer_is_gone()
    }

    /// What tells of the peer's death. A child of `fork` closes its copy, or the peer would not notice the parent's death.
    pub fn liveness(&self) -> Option<&Liveness> {
        self.hub.liveness()
    }

    /// How often a thread of this side slept in a system call.
    pub fn sleeps(&self) -> u64 {
        self.hub.sleeps()
    }

    /// The record's sequence, and where it ends.
    #[inline]
    fn send(
        &self,
        header: Header,
        len: usize,
        deadline: Option<Instant>,
        fill: impl FnOnce(&mut Payload<'_>),
    ) -> Result<(u32, u64), ChannelError> {
        let bytes = match u32::try_from(len) {
            Ok(bytes) if bytes <= self.record_limit => bytes,
            _ => {
                return Err(ChannelError::TooLong {
                    what: "a record",
                    bytes: len,
                    limit: self.record_limit(),
                });
            }
        };
        if let Some(why) = self.broken.get() {
            return Err(why.clone());
        }
        if self.peer_is_gone() {
            return Err(ChannelError::PeerGone(self.peer));
        }
        let reserved = match self.ring.reserve(bytes).map_err(|e| self.break_off(e))? {
            Some(reserved) => reserved,
            None => self.reserve_when_free(bytes, deadline)?,
        };
        fill(&mut reserved.payload());
        let end = reserved.end();
        let seq = reserved.publish(header);
        if self.caller.must_ring(self.region.word(CONSUMER_PARKED)) {
            self.doorbell.ring().map_err(ChannelError::system("ring the peer"))?;
        }
        Ok((seq, end))
    }

    #[cold]
    fn reserve_when_free(&self, bytes: u32, deadline: Option<Instant>) -> Result<Reserved<'_>, ChannelError> {
        let start = Instant::now();
        loop {
            if !self.wait_for(Awaited::Room(bytes), || self.ring.has_room(bytes), deadline)? {
                return Err(ChannelError::TimedOut {
                    peer: self.peer,
                    what: "a full ring",
                    limit: start.elapsed(),
                });
            }
            if let Some(reserved) = self.ring.reserve(bytes).map_err(|e| self.break_off(e))? {
                return Ok(reserved);
            }
        }
    }

    /// Waits for the answer to a record; `None` when the deadline came first.
    fn await_reply(
        &self,
        lane: Lane<'_>,
        op: u16,
        (seq, end): (u32, u64),
        deadline: Option<Instant>,
        reply: &mut [u8],
    ) -> Result<Option<Reply>, ChannelError> {
        let slot = Slot::of(lane.number());
        let answered = || self.region.word(slot.seq()).load(Acquire) == seq;
        let awaited = Awaited::Reply { op, lane: lane.number(), seq };
        match self.wait_for(awaited, answered, deadline) {
            Ok(true) => {}
            // The lane is lost in both cases as long as the reply may come.
            Ok(false) => {
                lane.give_up(seq);
                return Ok(None);
            }
            Err(e) => {
                lane.give_up(seq);
                return Err(e);
            }
        }
        let status = self.region.word(slot.status()).load(Relaxed);
        let claimed = self.region.word(slot.length()).load(Relaxed);
        let len = claimed as usize;
        let limit = reply.len().min(REPLY_BYTES_MAX);
        if len > limit {
            #[expect(clippy::cast_possible_truncation, reason = "at most a slot")]
            let error = ChannelError::PeerReply { peer: self.peer, claimed, limit: limit as u32 };
            return Err(self.break_off(error));
        }
        self.region.read(slot.payload(), &mut reply[..len]);
        Ok(Some(Reply { status, len, end }))
    }

    /// Polls, then sleeps, until `ready` (true) or the deadline (false).
    pub(super) fn wait_for(
        &self,
        awaited: Awaited,
        mut ready: impl FnMut() -> bool,
        deadline: Option<Instant>,
    ) -> Result<bool, ChannelError> {
        let Some(start) = self.spin.until(&mut ready) else { return Ok(true) };
        let mut end = Ok(End::TimedOut);
        let told_at = self.patience.get().and_then(|(patience, _)| start.checked_add(*patience));
        if let Some(at) = told_at.filter(|at| deadline.is_none_or(|deadline| *at < deadline)) {
            end = self.sleep_for(&mut ready, Some(at));
            self.tell_if_long(awaited, start, at, matches!(end, Ok(End::Ready)));
        }
        if let Ok(End::TimedOut) = end {
            end = self.sleep_for(&mut ready, deadline);
        }
        self.spin.slept(start);
        match end.map_err(ChannelError::system("wait for the peer"))? {
            End::TimedOut => Ok(false),
            End::Ready => Ok(true),
            End::Gone => Err(ChannelError::PeerGone(self.peer)),
        }
    }

    /// Sleeps until `ready`, the peer's end or the deadline. What was seen may be another thread's a moment later, as room is: that is no end
    /// of the peer's.
    fn sleep_for(&self, ready: &mut impl FnMut() -> bool, deadline: Option<Instant>) -> io::Result<End> {
        let parked = self.region.word(SUBMITTER_PARKED);
        loop {
            let end = self.hub.wait_until(parked, deadline, || ready() || self.peer_is_gone())?;
            let is_gone = end == End::Gone || self.peer_is_gone();
            // Asked again: what came before the peer's end counts.
            match end {
                End::TimedOut => return Ok(end),
                End::Ready | End::Gone if ready() => return Ok(End::Ready),
                End::Ready | End::Gone if is_gone => return Ok(End::Gone),
                End::Ready | End::Gone => {}
            }
        }
    }

    /// Why a wait ended without what was waited for.
    #[cold]
    fn in_vain(&self, what: &'static str, limit: Option<Duration>) -> ChannelError {
        match self.broken.get() {
            Some(why) => why.clone(),
            None if self.peer_is_gone() => ChannelError::PeerGone(self.peer),
            None => ChannelError::TimedOut { peer: self.peer, what, limit: limit.unwrap_or_default() },
        }
    }

    #[inline]
    fn peer_is_gone(&self) -> bool {
        self.hub.is_gone() || {
            let gone = life::read(self.region.word(CONSUMER_LIFE)) == Life::Gone;
            if gone {
                self.hub.set_gone();
            }
            gone
        }
    }

    #[cold]
    fn break_off(&self, why: ChannelError) -> ChannelError {
        let why = self.broken.get_or_init(|| why).clone();
        self.leave();
        why
    }

    fn leave(&self) {
        life::leave(self.region.word(SUBMITTER_LIFE));
        // Asleep or not, the peer has to hear of it; one that can no more be reached is no concern.
        let _ = self.doorbell.ring();
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        self.leave();
    }
}
