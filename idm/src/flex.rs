//! Bytes both ways through a pair of Xen's "flex" rings: an index page, and data pages of which each direction has half.
//!
//! ```text
//!   0 in_cons  4 in_prod │ 64 out_cons  68 out_prod │ 128 ring_order  132 ref[1 << ring_order] │ 4096 in: half the data │ out: the rest
//! ```
//! "In" is from the back end to the front end. Source: Xen `public/io/ring.h`, `DEFINE_XEN_FLEX_RING`, and `public/io/9pfs.h`,
//! `struct xen_9pfs_data_intf`. Nobody says in these pages that it sleeps, so a side is rung after each change: for bytes at once, for room
//! with the next bytes, or before this side sleeps. That is one event for a request and one for its answer. What a ring can hold is written
//! whole or not yet: Linux's 9pfs takes a message that has begun for one that is there (`net/9p/trans_xen.c`, `p9_xen_response`).
//! Not here: how the pages come to be shared, `xen/flex.rs`.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::doorbell::{Doorbell, Waiter};
use crate::error::{ChannelError, Peer};
use crate::hub::Hub;
use crate::life::Liveness;
use crate::region::{Region, sealed_memory};
use crate::ring::{Place, Reader, Writer};
use crate::spin::Spin;
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering::AcqRel, Ordering::Release, lock};

/// Largest `ring_order` that we take: 2 MiB of data, as much as Linux's front end makes of one.
pub const ORDER_MAX: u32 = 9;
/// Bytes of the index page.
pub const INDEX_BYTES: usize = 4096;
/// Where the index page says how many data pages there are, and which.
pub(crate) const ORDER_AT: usize = 128;
pub(crate) const REFS_AT: usize = 132;
const PAGE_BYTES: usize = 4096;
/// How long a side polls before it sleeps.
const SPIN: Duration = Duration::from_micros(20);

/// Which end of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlexSide {
    /// Writes "in", reads "out".
    Back,
    /// Writes "out", reads "in": the domain that granted the pages.
    Front,
}

/// What a transport brings to make a pair of rings.
#[derive(Debug)]
pub struct FlexParts {
    /// The index page and `1 << order` data pages behind it.
    pub region: Region,
    /// The number of data pages, as a power of two: 1 to [`ORDER_MAX`].
    pub order: u32,
    /// Which side this is.
    pub side: FlexSide,
    /// Who is on the other side.
    pub peer: Peer,
    /// Where the peer rings.
    pub waiter: Waiter,
    /// What rings the peer.
    pub doorbell: Doorbell,
    /// Tells of the peer's end, which the pages do not.
    pub liveness: Option<Liveness>,
}

/// Bytes to and from a peer. Cheap to clone; each direction is one thread's at a time.
#[derive(Debug, Clone)]
pub struct FlexRings {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    peer: Peer,
    hub: Hub,
    /// In the place of the word by which a channel says that it sleeps: nobody else reads it.
    parked: AtomicU32,
    doorbell: Doorbell,
    spin: Spin,
    reader: Mutex<Reader>,
    writer: Mutex<Writer>,
    /// Room was made of which the peer has not been told.
    owed: AtomicBool,
    /// Why the rings broke, told to every later call.
    broken: OnceLock<ChannelError>,
}

/// Bytes of the region of a pair with `1 << order` data pages.
pub const fn region_bytes(order: u32) -> usize {
    INDEX_BYTES + (PAGE_BYTES << order)
}

impl FlexRings {
    /// Attaches to a pair that nobody has used yet.
    ///
    /// # Errors
    /// [`ChannelError::Layout`]: the order is none that is taken, or the region too small for it.
    pub fn new(parts: FlexParts) -> Result<Self, ChannelError> {
        let FlexParts { region, order, side, peer, waiter, doorbell, liveness } = parts;
        if !(1..=ORDER_MAX).contains(&order) {
            return Err(ChannelError::Layout { what: "a ring order", value: u64::from(order) });
        }
        if region.len() < region_bytes(order) {
            let value = region.len() as u64;
            return Err(ChannelError::Layout { what: "a region of this many bytes", value });
        }
        let bytes = 1 << (order + 11);
        let data_in = INDEX_BYTES;
        let into_front = Place { write_index: 4, read_index: 0, data: data_in, bytes };
        let from_front =
            Place { write_index: 68, read_index: 64, data: data_in + (PAGE_BYTES << order) / 2, bytes };
        let (written, read) = match side {
            FlexSide::Back => (into_front, from_front),
            FlexSide::Front => (from_front, into_front),
        };
        let region = Arc::new(region);
        let core = Core {
            reader: Mutex::new(Reader::new(Arc::clone(&region), read, peer)),
            writer: Mutex::new(Writer::new(region, written, peer)),
            hub: Hub::new(waiter, liveness),
            parked: AtomicU32::new(0),
            spin: Spin::new(SPIN),
            owed: AtomicBool::new(false),
            broken: OnceLock::new(),
            peer,
            doorbell,
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Both ends in this process, back end first, over a memfd and eventfds: for tests, and where two threads speak as domains would.
    ///
    /// # Errors
    /// As [`FlexRings::new`]; those of the system calls.
    pub fn pair(order: u32) -> Result<(Self, Self), ChannelError> {
        let bytes = region_bytes(order.min(ORDER_MAX));
        let memory = sealed_memory("vgpu-flex", bytes).map_err(ChannelError::system("make memory"))?;
        let bell = || crate::doorbell::eventfd_pair().map_err(ChannelError::system("make an eventfd"));
        let ((to_front, front_hears), (to_back, back_hears)) = (bell()?, bell()?);
        let end = |side, waiter, doorbell| {
            let region = Region::map(&memory, bytes).map_err(ChannelError::system("map memory"))?;
            let peer = Peer::Process(rustix::process::getpid().as_raw_nonzero().get());
            let (waiter, doorbell) = (Waiter::EventFd(waiter), Doorbell::EventFd(doorbell));
            Self::new(FlexParts { region, order, side, peer, waiter, doorbell, liveness: None })
        };
        let back = end(FlexSide::Back, back_hears, to_front)?;
        Ok((back, end(FlexSide::Front, front_hears, to_back)?))
    }

    /// Reads at least one byte. Waits at most `limit`, without one for ever.
    ///
    /// # Errors
    /// [`ChannelError::PeerGone`], [`ChannelError::TimedOut`], and [`ChannelError::PeerIndex`], after which nothing is read or written.
    pub fn read(&self, to: &mut [u8], limit: Option<Duration>) -> Result<usize, ChannelError> {
        if to.is_empty() {
            return Ok(0);
        }
        let mut reader = lock(&self.core.reader);
        self.core.block("bytes", limit, || self.core.step_read(&mut reader, to))
    }

    /// Writes `from` at once, or of more than the ring holds as much as that, and returns how many bytes those were. Waits for so much room
    /// at most `limit`, without one for ever.
    ///
    /// # Errors
    /// As [`FlexRings::read`].
    pub fn write(&self, from: &[u8], limit: Option<Duration>) -> Result<usize, ChannelError> {
        if from.is_empty() {
            return Ok(0);
        }
        let mut writer = lock(&self.core.writer);
        self.core.block("room", limit, || self.core.step_write(&mut writer, from))
    }
}

impl io::Read for FlexRings {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        Ok(Self::read(self, to, None)?)
    }
}

impl io::Write for FlexRings {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(Self::write(self, from, None)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Core {
    /// One try to read: `None` when there is nothing yet, and the peer knows of all room that it has.
    fn step_read(&self, reader: &mut Reader, to: &mut [u8]) -> Result<Option<usize>, ChannelError> {
        self.check()?;
        let count = reader.pull(to).map_err(|why| self.break_off(why))?;
        if count > 0 {
            self.owed.store(true, Release);
            return Ok(Some(count));
        }
        if self.owed.swap(false, AcqRel) {
            self.ring()?;
        }
        Ok(None)
    }

    /// One try to write: `None` when there is too little room yet, and the peer knows of all that it has.
    fn step_write(&self, writer: &mut Writer, from: &[u8]) -> Result<Option<usize>, ChannelError> {
        self.check()?;
        let count = writer.push_whole(from).map_err(|why| self.break_off(why))?;
        // Before the ring, which tells of that room as well.
        if self.owed.swap(false, AcqRel) || count > 0 {
            self.ring()?;
        }
        Ok((count > 0).then_some(count))
    }

    fn block(
        &self,
        what: &'static str,
        limit: Option<Duration>,
        step: impl FnMut() -> Result<Option<usize>, ChannelError>,
    ) -> Result<usize, ChannelError> {
        self.hub.block((self.peer, what), &self.spin, &self.parked, limit, step)
    }

    fn ring(&self) -> Result<(), ChannelError> {
        self.doorbell.ring().map_err(ChannelError::system("ring the peer"))
    }

    fn check(&self) -> Result<(), ChannelError> {
        self.broken.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    fn break_off(&self, why: ChannelError) -> ChannelError {
        self.broken.get_or_init(|| why).clone()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
