//! A byte stream both ways through one shared region: two rings, a doorbell each way, an end for each direction.
//!
//! [`Stream`] reads and writes with limits, from any thread; with the feature `tokio`, `AsyncStream` does the same for
//! tasks. A direction ends in-band ([`Stream::finish`]): the reader gets all bytes, then 0. A peer that goes without ending its
//! direction is [`ChannelError::PeerGone`], after all bytes that it wrote. Not here: how pages come to be shared.

mod layout;
#[cfg(feature = "tokio")]
#[expect(unsafe_code, reason = "lends the reactor a descriptor")]
mod tokio;

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use layout::{MAKER_LIFE, STREAM_RING_BYTES_MAX, Side, StreamSpec, TAKER_LIFE};

#[cfg(feature = "tokio")]
pub use self::tokio::AsyncStream;
use crate::doorbell::{Doorbell, Waiter};
use crate::error::{ChannelError, Peer};
use crate::hub::Hub;
use crate::life::{self, Life, Liveness};
use crate::park::Caller;
use crate::region::{Region, sealed_memory};
use crate::ring::{Reader, Writer};
use crate::spin::Spin;
use crate::sync::{
    Mutex,
    Ordering::{Acquire, Relaxed, Release},
    lock,
};
use layout::{MAGIC, MAGIC_AT, VERSION, VERSION_AT, Words};

/// How long a blocked side polls before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// What a transport brings to make a stream.
#[derive(Debug)]
pub struct StreamParts {
    /// The shared pages, [`StreamSpec::region_bytes`] long; zeroed when the maker attaches.
    pub region: Arc<Region>,
    /// The sizes.
    pub spec: StreamSpec,
    /// Which side this is.
    pub side: Side,
    /// Who is on the other side.
    pub peer: Peer,
    /// Where the peer rings.
    pub waiter: Waiter,
    /// What rings the peer.
    pub doorbell: Doorbell,
    /// Tells of the peer's death, where the life word alone cannot wake a sleeper.
    pub liveness: Option<Liveness>,
}

/// A byte stream to a peer. Cheap to clone; it ends for the peer when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Stream {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    region: Arc<Region>,
    peer: Peer,
    mine: Words,
    theirs: Words,
    hub: Hub,
    doorbell: Doorbell,
    caller: Caller,
    spin: Spin,
    reader: Mutex<Reader>,
    writer: Mutex<Sending>,
    /// Why the stream broke, told to every later call.
    broken: OnceLock<ChannelError>,
}

#[derive(Debug)]
struct Sending {
    ring: Writer,
    finished: bool,
}

impl Stream {
    /// Attaches to a stream. The maker does so before it tells the taker of the pages.
    ///
    /// # Errors
    /// [`ChannelError::Layout`] for sizes that make no stream, [`ChannelError::PeerOffer`] for pages that are none.
    pub fn new(parts: StreamParts) -> Result<Self, ChannelError> {
        let StreamParts { region, spec, side, peer, waiter, doorbell, liveness } = parts;
        spec.check()?;
        if region.len() < spec.region_bytes() {
            return Err(ChannelError::Layout {
                what: "a region of this many bytes",
                value: region.len() as u64,
            });
        }
        match side {
            Side::Maker => {
                region.word(VERSION_AT).store(VERSION, Relaxed);
                region.word(MAGIC_AT).store(MAGIC, Release);
            }
            Side::Taker => {
                let found = (region.word(MAGIC_AT).load(Acquire), region.word(VERSION_AT).load(Relaxed));
                if found != (MAGIC, VERSION) {
                    return Err(ChannelError::PeerOffer { peer, what: "pages that are no stream" });
                }
            }
        }
        let (mine, theirs) = (side.words(), side.other().words());
        life::attach(region.word(mine.life));
        let core = Core {
            reader: Mutex::new(Reader::new(region.clone(), spec.place_written_by(side.other()), peer)),
            writer: Mutex::new(Sending {
                ring: Writer::new(region.clone(), spec.place_written_by(side), peer),
                finished: false,
            }),
            hub: Hub::new(waiter, liveness),
            caller: Caller::default(),
            spin: Spin::new(SPIN),
            broken: OnceLock::new(),
            region,
            peer,
            mine,
            theirs,
            doorbell,
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Two ends of a stream in this process, over a memfd and eventfds. For tests, and where two threads speak as domains would.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn pair(spec: StreamSpec) -> Result<(Self, Self), ChannelError> {
        let memory =
            sealed_memory("vgpu-stream", spec.region_bytes()).map_err(ChannelError::system("make memory"))?;
        let bell = || crate::doorbell::eventfd_pair().map_err(ChannelError::system("make an eventfd"));
        let ((to_taker, taker_hears), (to_maker, maker_hears)) = (bell()?, bell()?);
        let end = |side, waiter, doorbell| {
            let region =
                Region::map(&memory, spec.region_bytes()).map_err(ChannelError::system("map memory"))?;
            Self::new(StreamParts {
                region: Arc::new(region),
                spec,
                side,
                peer: Peer::Process(rustix::process::getpid().as_raw_nonzero().get()),
                waiter: Waiter::EventFd(waiter),
                doorbell: Doorbell::EventFd(doorbell),
                liveness: None,
            })
        };
        let maker = end(Side::Maker, maker_hears, to_taker)?;
        Ok((maker, end(Side::Taker, taker_hears, to_maker)?))
    }

    /// Who is on the other side.
    pub fn peer(&self) -> Peer {
        self.core.peer
    }

    /// Reads at least one byte, or 0 at the end of the peer's direction. Waits at most `limit`, without one for ever.
    ///
    /// # Errors
    /// [`ChannelError::PeerGone`] when the peer went without ending its direction, [`ChannelError::TimedOut`], and what ends a stream.
    pub fn read(&self, to: &mut [u8], limit: Option<Duration>) -> Result<usize, ChannelError> {
        let mut reader = lock(&self.core.reader);
        self.core.block("bytes", limit, || self.core.step_read(&mut reader, to))
    }

    /// Writes at least one byte of `from` and returns how many. Waits for room at most `limit`, without one for ever.
    ///
    /// # Errors
    /// [`ChannelError::Finished`], [`ChannelError::PeerGone`], [`ChannelError::TimedOut`], and what ends a stream.
    pub fn write(&self, from: &[u8], limit: Option<Duration>) -> Result<usize, ChannelError> {
        let mut writer = lock(&self.core.writer);
        self.core.block("room", limit, || self.core.step_write(&mut writer, from))
    }

    /// Writes all of `from`; the limit is for each wait.
    ///
    /// # Errors
    /// As [`Stream::write`].
    pub fn write_all(&self, mut from: &[u8], limit: Option<Duration>) -> Result<(), ChannelError> {
        while !from.is_empty() {
            let count = self.write(from, limit)?;
            from = &from[count..];
        }
        Ok(())
    }

    /// Ends this side's direction: the peer reads what was written, then 0. Calling it again changes nothing.
    ///
    /// # Errors
    /// Those of the doorbell.
    pub fn finish(&self) -> Result<(), ChannelError> {
        self.core.finish()
    }

    /// How often this side slept in a system call.
    pub fn sleeps(&self) -> u64 {
        self.core.hub.sleeps()
    }
}

impl io::Read for Stream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        Ok(Stream::read(self, to, None)?)
    }
}

impl io::Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(Stream::write(self, from, None)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Core {
    /// One try to read: `None` when there is nothing yet.
    fn step_read(&self, reader: &mut Reader, to: &mut [u8]) -> Result<Option<usize>, ChannelError> {
        self.check()?;
        if to.is_empty() {
            return Ok(Some(0));
        }
        // Both are asked before the index: what the peer wrote before its end is then seen.
        let ended = self.region.word(self.theirs.ended).load(Acquire) != 0;
        let gone = self.peer_is_gone();
        let count = reader.pull(to).map_err(|e| self.break_off(e))?;
        match count {
            0 if ended => Ok(Some(0)),
            0 if gone => Err(ChannelError::PeerGone(self.peer)),
            0 => Ok(None),
            _ => {
                if reader.room_is_worth_a_ring() {
                    self.ring_if_asleep()?;
                }
                Ok(Some(count))
            }
        }
    }

    /// One try to write: `None` when there is no room yet.
    fn step_write(&self, writer: &mut Sending, from: &[u8]) -> Result<Option<usize>, ChannelError> {
        self.check()?;
        if writer.finished {
            return Err(ChannelError::Finished);
        }
        if self.peer_is_gone() {
            return Err(ChannelError::PeerGone(self.peer));
        }
        if from.is_empty() {
            return Ok(Some(0));
        }
        let count = writer.ring.push(from).map_err(|e| self.break_off(e))?;
        if count == 0 {
            return Ok(None);
        }
        self.ring_if_asleep()?;
        Ok(Some(count))
    }

    fn finish(&self) -> Result<(), ChannelError> {
        let mut writer = lock(&self.writer);
        writer.finished = true;
        self.region.word(self.mine.ended).store(1, Release);
        self.ring_if_asleep()
    }

    fn block(
        &self,
        what: &'static str,
        limit: Option<Duration>,
        step: impl FnMut() -> Result<Option<usize>, ChannelError>,
    ) -> Result<usize, ChannelError> {
        self.hub.block((self.peer, what), &self.spin, self.region.word(self.mine.parked), limit, step)
    }

    fn check(&self) -> Result<(), ChannelError> {
        self.broken.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    fn peer_is_gone(&self) -> bool {
        if life::read(self.region.word(self.theirs.life)) == Life::Gone {
            self.hub.set_gone();
        }
        self.hub.is_gone()
    }

    /// The peer broke the protocol: nothing is read or written any more, and it is told that this side is gone.
    fn break_off(&self, why: ChannelError) -> ChannelError {
        let why = self.broken.get_or_init(|| why).clone();
        self.leave();
        why
    }

    fn ring_if_asleep(&self) -> Result<(), ChannelError> {
        if self.caller.must_ring(self.region.word(self.theirs.parked)) {
            return self.doorbell.ring().map_err(ChannelError::system("ring the peer"));
        }
        Ok(())
    }

    fn leave(&self) {
        life::leave(self.region.word(self.mine.life));
        // Whether it sleeps or not, it has to hear of this; that it can no more be reached is no concern then.
        let _ = self.doorbell.ring();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
