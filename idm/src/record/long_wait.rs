//! A wait that lasts, for people: what a program's thread waits for, and what both sides' words say meanwhile.
//!
//! Nothing here decides anything: the peer's words are shown as it wrote them.

use std::fmt;
use std::time::{Duration, Instant};

use super::Submitter;
use super::layout::{CONSUMER_PARKED, HEAD, granules};
use crate::sync::Ordering::Relaxed;

/// Who is told.
pub type Tell = fn(&LongWait);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The reply to a call of this kind.
    Reply {
        /// What was asked, in the application's numbers.
        op: u16,
        /// The lane.
        lane: u16,
        /// The record.
        seq: u32,
    },
    /// Room in the ring for a record of so many bytes.
    Room(u32),
    /// What the caller of [`super::Submitter::wait_until`] looks at.
    Word,
}

/// A channel whose thread has waited for long, as its program sees it.
#[derive(Debug, Clone, Copy)]
pub struct LongWait {
    /// For what.
    pub awaited: Awaited,
    /// For how long so far.
    pub waited: Duration,
    /// It was there when it was looked for, and no ring had come.
    pub unrung: bool,
    /// Bytes of records that this side has reserved.
    pub reserved: u64,
    /// The consumer's index, in sixteenths of bytes; [`LongWait::queued`] makes sense of it.
    pub(super) head: u32,
    /// The consumer's sleep; 0: it is awake, busy with a record.
    pub peer_asleep: u32,
    /// The last of the consumer's sleeps that this side has rung for.
    pub rung: u32,
    /// How often a thread of this side has polled for a ring.
    pub sleeps: u64,
    /// Errors that the consumer has told of.
    pub errors: u32,
}

impl LongWait {
    /// Bytes of records that the consumer has not given back.
    pub fn queued(&self) -> u64 {
        u64::from(granules(self.reserved).wrapping_sub(self.head)) << 4
    }
}

impl Submitter {
    /// Tells of a wait that began at `start`, if it lasted until `at`: then the clock ended it, and `ready` says what a look found.
    pub(super) fn tell_if_long(&self, awaited: Awaited, start: Instant, at: Instant, ready: bool) {
        let Some((_, tell)) = self.patience.get() else { return };
        if Instant::now() < at {
            return;
        }
        let word = |at| self.region.word(at).load(Relaxed);
        tell(&LongWait {
            awaited,
            waited: start.elapsed(),
            unrung: ready,
            reserved: self.ring.reserved_until(),
            head: word(HEAD),
            peer_asleep: word(CONSUMER_PARKED),
            rung: self.caller.rung(),
            sleeps: self.hub.sleeps(),
            errors: self.error_count(),
        });
    }
}

impl fmt::Display for LongWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "has waited {:?} ", self.waited)?;
        match self.awaited {
            Awaited::Reply { lane, seq, .. } => write!(f, "for record {seq:#x} on lane {lane}")?,
            Awaited::Room(bytes) => write!(f, "for room for {bytes} bytes")?,
            Awaited::Word => f.write_str("for a word")?,
        }
        f.write_str(if self.unrung { ", which was there: no ring came" } else { "" })?;
        let Self { reserved, peer_asleep, rung, sleeps, errors, .. } = self;
        write!(f, "; {reserved} bytes sent, {} of them not taken; ", self.queued())?;
        write!(f, "{sleeps} sleeps; the worker ")?;
        match peer_asleep {
            0 => f.write_str("is awake")?,
            sleep if sleep == rung => write!(f, "sleeps, number {sleep}, and was rung")?,
            sleep => write!(f, "sleeps, number {sleep}, the last ring was for {rung}")?,
        }
        write!(f, "; {errors} errors told")
    }
}
