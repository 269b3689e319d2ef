//! The consuming side of the submission ring: finds the next record, checks it, copies it out.
//!
//! Where the next record starts is private; the ring's words only say whether it is there and how long it is. Each is loaded once.
//! Not here: lanes and replies (`consumer.rs`).

use std::sync::Arc;

use super::layout::{FLAG_SKIP, FLAG_SYNC, RECORD_HEADER_BYTES, RingPlace, footprint, granules, sequence};
use crate::error::{ChannelError, Peer, RecordFlaw};
use crate::region::Region;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// The consuming side of a submission ring.
#[derive(Debug)]
pub(crate) struct Puller {
    region: Arc<Region>,
    place: RingPlace,
    peer: Peer,
    head: u64,
    /// The head that the producers know.
    head_told: u64,
}

/// A record whose payload was copied out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pulled {
    pub(crate) position: u64,
    pub(crate) seq: u32,
    pub(crate) sync: bool,
    pub(crate) op: u16,
    pub(crate) lane: u16,
    pub(crate) ctx: u32,
    pub(crate) bytes: u32,
}

/// Skipped records in a row before the caller gets its turn again: an honest peer needs one or two.
const SKIPS_MAX: u32 = 8;

impl Puller {
    pub(crate) fn new(region: Arc<Region>, place: RingPlace, peer: Peer) -> Self {
        Self { region, place, peer, head: 0, head_told: 0 }
    }

    /// Whether something stands where the next record would.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.region.word(self.place.at(self.head) + 12).load(Relaxed) != 0
    }

    /// Takes the next record; its payload lies at the start of `to`, which holds the record limit.
    ///
    /// # Errors
    /// [`ChannelError::PeerRecord`] ends the channel.
    #[inline]
    pub(crate) fn pull(&mut self, to: &mut [u8]) -> Result<Option<Pulled>, ChannelError> {
        for _ in 0..SKIPS_MAX {
            let position = self.head;
            let at = self.place.at(position);
            let expected = sequence(position);
            let found = self.region.word(at + 12).load(Acquire);
            if found == 0 {
                return Ok(None);
            }
            if found != expected {
                return Err(self.flaw(RecordFlaw::Sequence { found, expected }));
            }
            let [flags, a, b, c] = self.region.word(at).load(Relaxed).to_be_bytes();
            let bytes = u32::from_be_bytes([0, a, b, c]);
            let skip = flags & FLAG_SKIP != 0;
            if flags & !(FLAG_SYNC | FLAG_SKIP) != 0 {
                return Err(self.flaw(RecordFlaw::Flags(flags)));
            }
            let room = self.place.rest(position) - RECORD_HEADER_BYTES as u32;
            let limit = if skip { room } else { room.min(self.place.record_limit) };
            if bytes > limit {
                return Err(self.flaw(RecordFlaw::Length { claimed: bytes, limit }));
            }
            let [lane_high, lane_low, op_high, op_low] = self.region.word(at + 4).load(Relaxed).to_be_bytes();
            let ctx = self.region.word(at + 8).load(Relaxed);
            if !skip {
                self.region.read(at + RECORD_HEADER_BYTES, &mut to[..bytes as usize]);
            }
            self.head = position + u64::from(footprint(bytes));
            if !skip {
                return Ok(Some(Pulled {
                    position,
                    seq: expected,
                    sync: flags & FLAG_SYNC != 0,
                    op: u16::from_be_bytes([op_high, op_low]),
                    lane: u16::from_be_bytes([lane_high, lane_low]),
                    ctx,
                    bytes,
                }));
            }
        }
        Ok(None)
    }

    /// Whether so much was consumed since [`Puller::tell_head`] that a producer may wait for it.
    #[inline]
    pub(crate) fn owes_head(&self) -> bool {
        self.head - self.head_told >= u64::from(self.place.bytes / 8)
    }

    /// Gives the room of what was consumed back. Returns whether there was any.
    pub(crate) fn tell_head(&mut self) -> bool {
        let news = self.head != self.head_told;
        if news {
            self.head_told = self.head;
            self.region.word(self.place.head).store(granules(self.head), Release);
        }
        news
    }

    fn flaw(&self, flaw: RecordFlaw) -> ChannelError {
        ChannelError::PeerRecord { peer: self.peer, at: self.head, flaw }
    }
}
