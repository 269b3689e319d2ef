//! What the consumer's side sends back: replies and the error word. From any thread.

use std::sync::Arc;

use super::error_word::{self, ErrorWord};
use super::layout::{LANES, NO_LANE, REPLY_BYTES_MAX, SUBMITTER_PARKED, Slot};
use crate::doorbell::Doorbell;
use crate::error::{ChannelError, RecordFlaw};
use crate::park::Caller;
use crate::region::Region;
use crate::sync::{
    AtomicU32, Mutex,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    lock,
};

/// Sends back to the submitter. Cheap to clone; a call that would block is handed to another thread together with one.
#[derive(Debug, Clone)]
pub struct Replies {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    region: Arc<Region>,
    doorbell: Doorbell,
    caller: Caller,
    /// The sequence of the call that waits on each lane, 0 for none. Sequences are odd.
    waiting: [AtomicU32; LANES as usize],
    /// Taken to write the error word, which has several writers here.
    error: Mutex<()>,
}

/// In `waiting`: the reply is being written. Even, so no sequence.
const ANSWERING: u32 = 2;

impl Replies {
    pub(super) fn new(region: Arc<Region>, doorbell: Doorbell) -> Self {
        let shared = Shared {
            region,
            doorbell,
            caller: Caller::default(),
            waiting: std::array::from_fn(|_| AtomicU32::new(0)),
            error: Mutex::new(()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Notes that the peer waits on `lane`, which it named itself.
    #[inline]
    pub(super) fn expect(&self, lane: u16, seq: u32) -> Result<(), RecordFlaw> {
        let waiting = self.shared.waiting.get(usize::from(lane)).ok_or(RecordFlaw::Lane(lane))?;
        waiting.compare_exchange(0, seq, AcqRel, Acquire).map(|_| ()).map_err(|_| RecordFlaw::LaneBusy(lane))
    }

    /// Answers the call `seq` on `lane`: once, from any thread.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] and [`ChannelError::NoSuchCall`] are mistakes of the caller; else those of the doorbell.
    pub fn reply(&self, lane: u16, seq: u32, status: u32, bytes: &[u8]) -> Result<(), ChannelError> {
        let length = match u32::try_from(bytes.len()) {
            Ok(length) if bytes.len() <= REPLY_BYTES_MAX => length,
            _ => {
                return Err(ChannelError::TooLong {
                    what: "a reply",
                    bytes: bytes.len(),
                    limit: REPLY_BYTES_MAX,
                });
            }
        };
        let no_such_call = ChannelError::NoSuchCall { lane, seq };
        let Some(waiting) = self.shared.waiting.get(usize::from(lane)) else { return Err(no_such_call) };
        if seq == 0 || waiting.compare_exchange(seq, ANSWERING, Acquire, Relaxed).is_err() {
            return Err(no_such_call);
        }
        let (region, slot) = (&self.shared.region, Slot::of(lane));
        region.word(slot.status()).store(status, Relaxed);
        region.word(slot.length()).store(length, Relaxed);
        region.write(slot.payload(), bytes);
        // Before the sequence: once the peer has seen that, it may call on this lane again.
        waiting.store(0, Release);
        region.word(slot.seq()).store(seq, Release);
        self.ring_if_asleep()
    }

    /// Tells of an error of work that nobody waits for.
    pub fn set_error(&self, error: ErrorWord) {
        let _one = lock(&self.shared.error);
        error_word::write(&self.shared.region, error);
    }

    #[inline]
    pub(super) fn ring_if_asleep(&self) -> Result<(), ChannelError> {
        if self.shared.caller.must_ring(self.shared.region.word(SUBMITTER_PARKED)) {
            self.ring()?;
        }
        Ok(())
    }

    pub(super) fn ring(&self) -> Result<(), ChannelError> {
        self.shared.doorbell.ring().map_err(ChannelError::system("ring the peer"))
    }
}

/// The lane of a record that waits for a reply.
pub(super) fn lane_of(sync: bool, lane: u16) -> Option<u16> {
    (sync && lane != NO_LANE).then_some(lane)
}
