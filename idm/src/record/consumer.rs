//! The worker's side of a GPU channel: one thread takes the records in order.
//!
//! ```text
//! loop { while let Some(record) = consumer.next()? { … }   consumer.wait(limit)? }
//! ```
//! A record is copied into private memory and checked before it is handed out; whoever parses it sees no shared byte. A record that
//! is reserved but not published is the same as none: the consumer polls for a bounded time, then sleeps.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::layout::{CONSUMER_LIFE, CONSUMER_PARKED, SUBMITTER_LIFE};
use super::puller::{Pulled, Puller};
use super::replies::{Replies, lane_of};
use super::staging::StagingView;
use super::{ChannelParts, SPIN, check_region};
use crate::error::{ChannelError, Peer, RecordFlaw};
use crate::hub::{End, Hub};
use crate::life::{self, Life};
use crate::region::Region;
use crate::spin::Spin;

/// The worker's side of a GPU channel.
#[derive(Debug)]
pub struct Consumer {
    region: Arc<Region>,
    peer: Peer,
    puller: Puller,
    replies: Replies,
    staging: StagingView,
    hub: Hub,
    spin: Spin,
    /// Where records are copied to, as long as the longest.
    buffer: Vec<u8>,
    broken: OnceLock<ChannelError>,
}

/// A record, in private memory.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// What it asks for. Any value.
    pub op: u16,
    /// The lane on which a reply is waited for, with [`Replies::reply`]; `None` if none is.
    pub lane: Option<u16>,
    /// The context it names. Any value.
    pub ctx: u32,
    /// Its number, for the reply and the error word.
    pub seq: u32,
    /// Its payload, at most the record limit.
    pub payload: &'a [u8],
}

/// Why [`Consumer::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// Something came: look with [`Consumer::next`].
    Record,
    /// The limit ran out.
    TimedOut,
}

impl Consumer {
    /// Attaches to a channel that nobody has consumed from yet.
    ///
    /// # Errors
    /// [`ChannelError::Layout`], [`ChannelError::PeerOffer`] for memory that is no channel.
    pub fn from_parts(parts: ChannelParts) -> Result<Self, ChannelError> {
        let ChannelParts { region, spec, peer, waiter, doorbell, liveness } = parts;
        check_region(&region, &spec, peer)?;
        life::attach(region.word(CONSUMER_LIFE));
        let replies = Replies::new(region.clone(), doorbell);
        Ok(Self {
            puller: Puller::new(region.clone(), spec.ring_place(), peer),
            staging: StagingView::new(
                region.clone(),
                spec.staging_at(),
                spec.staging_bytes as usize,
                peer,
                replies.clone(),
            ),
            replies,
            hub: Hub::new(waiter, liveness),
            spin: Spin::new(SPIN),
            buffer: vec![0; spec.record_limit as usize],
            broken: OnceLock::new(),
            region,
            peer,
        })
    }

    /// Who is on the other side.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Sends back: to be cloned for threads that answer later.
    pub fn replies(&self) -> &Replies {
        &self.replies
    }

    /// The staging area.
    pub fn staging(&self) -> &StagingView {
        &self.staging
    }

    /// The next record, if there is one. Does not wait.
    ///
    /// # Errors
    /// [`ChannelError::PeerRecord`] ends the channel.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its buffer")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ChannelError> {
        if let Some(why) = self.broken.get() {
            return Err(why.clone());
        }
        let pulled = match self.puller.pull(&mut self.buffer) {
            Ok(pulled) => pulled,
            Err(e) => return Err(self.break_off(e)),
        };
        if pulled.is_none() || self.puller.owes_head() {
            self.give_room_back()?;
        }
        let Some(pulled) = pulled else { return Ok(None) };
        if pulled.sync
            && let Err(flaw) = self.replies.expect(pulled.lane, pulled.seq)
        {
            return Err(self.bad_record(&pulled, flaw));
        }
        Ok(Some(Record {
            op: pulled.op,
            lane: lane_of(pulled.sync, pulled.lane),
            ctx: pulled.ctx,
            seq: pulled.seq,
            payload: &self.buffer[..pulled.bytes as usize],
        }))
    }

    /// Waits for the next record: polling first, then asleep. Without a limit as long as the peer lives.
    ///
    /// # Errors
    /// [`ChannelError::PeerGone`], once everything that the peer submitted was taken.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<Ready, ChannelError> {
        self.give_room_back()?;
        let (puller, region, hub) = (&self.puller, &self.region, &self.hub);
        let Some(start) = self.spin.until(|| puller.is_ready()) else { return Ok(Ready::Record) };
        let left = || life::read(region.word(SUBMITTER_LIFE)) == Life::Gone;
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        // Asked in this order, so that what the peer wrote before its end is seen.
        let end = hub.wait_until(region.word(CONSUMER_PARKED), deadline, || left() || puller.is_ready());
        self.spin.slept(start);
        match end.map_err(ChannelError::system("wait for the peer"))? {
            End::Ready | End::Gone if puller.is_ready() => Ok(Ready::Record),
            End::TimedOut => Ok(Ready::TimedOut),
            End::Ready | End::Gone => Err(ChannelError::PeerGone(self.peer)),
        }
    }

    /// How often this side slept in a system call.
    pub fn sleeps(&self) -> u64 {
        self.hub.sleeps()
    }

    fn give_room_back(&mut self) -> Result<(), ChannelError> {
        if self.puller.tell_head() {
            return self.replies.ring_if_asleep();
        }
        Ok(())
    }

    #[cold]
    fn bad_record(&self, pulled: &Pulled, flaw: RecordFlaw) -> ChannelError {
        self.break_off(ChannelError::PeerRecord { peer: self.peer, at: pulled.position, flaw })
    }

    #[cold]
    fn break_off(&self, why: ChannelError) -> ChannelError {
        let why = self.broken.get_or_init(|| why).clone();
        self.leave();
        why
    }

    fn leave(&self) {
        life::leave(self.region.word(CONSUMER_LIFE));
        // Asleep or not, the peer has to hear of it; one that can no more be reached is no concern.
        let _ = self.replies.ring();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.leave();
    }
}
