//! The producing side of the submission ring: many threads of one process, no lock on the way.
//!
//! A thread reserves room by moving the private `tail`, writes its record, and stores the record's sequence last: that publishes it.
//! ```text
//! consumed │ published, in the order of positions │ reserved, being written │ cleaned │ of the lap before
//!          head                                                            tail     clean       head + size
//! ```
//! The consumer knows a record only by its sequence word, so no old byte may ever pass for one: room is zeroed before it is
//! reserved, a few records' worth at a time, and always 16 bytes beyond the tail. All of this is private but the consumer's `head`.
//! Not here: waiting for room, waking the consumer (`submitter.rs`).

use std::sync::Arc;

use super::layout::{
    FLAG_SKIP, HEADER_BYTES, NO_LANE, RECORD_HEADER_BYTES, RingPlace, footprint, granules, sequence,
};
use super::payload::Payload;
use crate::error::{ChannelError, Peer};
use crate::region::Region;
use crate::sync::{
    AtomicU64, Mutex,
    Ordering::{Acquire, Relaxed, Release},
    lock,
};

/// The producing side of a submission ring.
#[derive(Debug)]
pub(crate) struct Producer {
    region: Arc<Region>,
    place: RingPlace,
    peer: Peer,
    tail: AtomicU64,
    /// Room up to here is zeroed. Moves only under `cleaning`.
    clean: AtomicU64,
    cleaning: Mutex<()>,
}

/// Room for one record, not published yet. Dropped unpublished (the filling panicked), it becomes a record that is skipped.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    ring: &'a Producer,
    /// Bytes skipped to the end of the ring, 0 or at least 16, before the record.
    filler: u32,
    start: u64,
    payload_bytes: u32,
}

/// What the header of a record says beside its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) flags: u8,
    pub(crate) op: u16,
    pub(crate) lane: u16,
    pub(crate) ctx: u32,
}

/// So much is zeroed at once: few enough bytes that no call waits long for it, and that they are still in the nearest cache when records are
/// written over them.
const CLEANED_BYTES: u64 = 512;
/// So far ahead of that lines are asked for: the consumer's processor has them, and they are on their way while the next records are written.
const FETCHED_BYTES: u64 = 1 << 10;

const SKIP: Header = Header { flags: FLAG_SKIP, op: 0, lane: NO_LANE, ctx: 0 };

impl Producer {
    /// For a region whose ring is all zeros.
    pub(crate) fn new(region: Arc<Region>, place: RingPlace, peer: Peer) -> Self {
        let clean = AtomicU64::new(u64::from(place.bytes));
        Self { region, place, peer, tail: AtomicU64::new(0), clean, cleaning: Mutex::new(()) }
    }

    /// Reserves room for a payload of this many bytes, at most the record limit; `None` when the ring is full.
    ///
    /// # Errors
    /// [`ChannelError::PeerIndex`] ends the channel.
    #[inline]
    pub(crate) fn reserve(&self, payload_bytes: u32) -> Result<Option<Reserved<'_>>, ChannelError> {
        let bytes = footprint(payload_bytes);
        let mut tail = self.tail.load(Relaxed);
        loop {
            let rest = self.place.rest(tail);
            let filler = if bytes <= rest { 0 } else { rest };
            let end = tail + u64::from(filler) + u64::from(bytes);
            if end + u64::from(HEADER_BYTES) > self.clean.load(Acquire) {
                if !self.make_room(end + u64::from(HEADER_BYTES))? {
                    return Ok(None);
                }
                tail = self.tail.load(Relaxed);
                continue;
            }
            match self.tail.compare_exchange_weak(tail, end, Relaxed, Relaxed) {
                Ok(_) => return Ok(Some(Reserved { ring: self, filler, start: tail, payload_bytes })),
                Err(moved) => tail = moved,
            }
        }
    }

    /// Up to where records are reserved: moves with each of them.
    pub(crate) fn reserved_until(&self) -> u64 {
        self.tail.load(Relaxed)
    }

    /// Whether a full ring has room again for a record of this size.
    pub(crate) fn has_room(&self, payload_bytes: u32) -> bool {
        let tail = self.tail.load(Relaxed);
        // The most that a record can need: a filler just short of itself, and the zeroed header beyond.
        let needed = tail + 2 * u64::from(footprint(payload_bytes)) + u64::from(HEADER_BYTES);
        // A head that makes no sense counts as room: `reserve` looks again and says what is wrong.
        self.free_until(self.clean.load(Acquire)).is_none_or(|limit| needed <= limit)
    }

    /// Zeroes what the consumer has given back, until `needed` is clean; false when it has not given back enough.
    #[cold]
    fn make_room(&self, needed: u64) -> Result<bool, ChannelError> {
        let _cleaning = lock(&self.cleaning);
        let clean = self.clean.load(Relaxed);
        if needed <= clean {
            return Ok(true);
        }
        let Some(limit) = self.free_until(clean) else {
            let claimed = self.region.word(self.place.head).load(Relaxed);
            let limit = granules(self.tail.load(Relaxed));
            return Err(ChannelError::PeerIndex { peer: self.peer, index: "head", claimed, limit });
        };
        if needed > limit {
            return Ok(false);
        }
        let target = (clean + u64::from(self.place.bytes / 16).min(CLEANED_BYTES)).max(needed).min(limit);
        self.zero(clean, target);
        self.fetch(target, (target + FETCHED_BYTES).min(limit));
        self.clean.store(target, Release);
        Ok(true)
    }

    /// The position up to which the consumer's head lets records be written; `None` for a head that cannot be.
    fn free_until(&self, clean: u64) -> Option<u64> {
        let claimed = self.region.word(self.place.head).load(Acquire);
        // The true head is at most one ring behind `clean`, and never past what was reserved.
        let behind = u64::from(granules(clean).wrapping_sub(claimed)) << 4;
        let head = clean.checked_sub(behind).filter(|head| *head <= self.tail.load(Relaxed))?;
        (behind <= u64::from(self.place.bytes)).then(|| head + u64::from(self.place.bytes))
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most a ring's size, a u32")]
    fn zero(&self, from: u64, to: u64) {
        let bytes = (to - from) as u32;
        let first = bytes.min(self.place.rest(from));
        self.region.zero(self.place.at(from), first as usize);
        self.region.zero(self.place.data, (bytes - first) as usize);
    }

    /// Up to the ring's end; the lines behind it are asked for from its beginning on.
    fn fetch(&self, from: u64, to: u64) {
        let bytes = (to - from).min(u64::from(self.place.rest(from)));
        self.region.fetch_to_write(self.place.at(from), usize::try_from(bytes).unwrap_or(0));
    }

    /// Writes a header and publishes the record.
    #[inline]
    fn publish(&self, position: u64, payload_bytes: u32, header: Header) -> u32 {
        let at = self.place.at(position);
        let seq = sequence(position);
        self.region.word(at).store(payload_bytes | u32::from(header.flags) << 24, Relaxed);
        self.region.word(at + 4).store(u32::from(header.op) | u32::from(header.lane) << 16, Relaxed);
        self.region.word(at + 8).store(header.ctx, Relaxed);
        self.region.word(at + 12).store(seq, Release);
        seq
    }
}

impl Reserved<'_> {
    /// Where the payload goes: zeros, until it is written.
    #[inline]
    pub(crate) fn payload(&self) -> Payload<'_> {
        let at = self.ring.place.at(self.position()) + RECORD_HEADER_BYTES;
        Payload::new(&self.ring.region, at, self.payload_bytes as usize)
    }

    /// Hands the record to the consumer. Returns its sequence.
    #[inline]
    pub(crate) fn publish(self, header: Header) -> u32 {
        let seq = self.publish_as(header);
        std::mem::forget(self);
        seq
    }

    fn position(&self) -> u64 {
        self.start + u64::from(self.filler)
    }

    /// Where the next record begins, unless a filler comes first.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.position() + u64::from(footprint(self.payload_bytes))
    }

    #[inline]
    fn publish_as(&self, header: Header) -> u32 {
        if self.filler > 0 {
            self.ring.publish(self.start, self.filler - HEADER_BYTES, SKIP);
        }
        self.ring.publish(self.position(), self.payload_bytes, header)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.publish_as(SKIP);
    }
}
