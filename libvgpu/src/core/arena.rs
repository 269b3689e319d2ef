//! Pinned host memory: pieces of the arena, whose pages the worker has at the same addresses.
//!
//! A piece of more than [`SMALL_BYTES`] is a part of the arena by itself, which the worker is told of; smaller ones share parts of
//! [`SLAB_BYTES`]. Pages are touched before the worker hears of them, so that they are this process's to pay for, and given back when it
//! has let go. Where the arena is kept, as over Xen, chunks are touched whole and never given back: the worker has the pages that were there
//! when it was first told of them. A piece is given out again only after all work that was queued is done: a copy may still be on its way to it.
//!
//! Locks are never held while a call travels.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use idm::Region;
use idm::arena::CHUNK_BYTES;
use idm::region::PAGE_BYTES;
use vgpu_api::{ContextId, CuError, CuResult, DevicePtr, ask};

use super::channel::Channel;
use super::slab::lock;
use super::spans::Spans;
use crate::log::say;

/// Pieces start at multiples of a page, those up to [`SMALL_BYTES`] at multiples of this.
const SMALL_UNIT: u64 = 512;
const SMALL_BYTES: u64 = 512 << 10;
const SLAB_BYTES: u64 = 2 << 20;
const PAGE: u64 = PAGE_BYTES as u64;

/// The arena of this process.
#[derive(Debug)]
pub struct Arena {
    region: Region,
    start: u64,
    is_kept: bool,
    state: Mutex<State>,
    /// Counts pieces that were given back: who found no room may find some then.
    given_back: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// What no part is made of.
    free: Spans,
    slabs: Vec<Slab>,
}

/// A part that small pieces are cut from.
#[derive(Debug)]
struct Slab {
    start: u64,
    free: Spans,
}

impl Slab {
    fn holds(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < SLAB_BYTES
    }

    fn is_unused(&self) -> bool {
        self.free.is_whole(self.start, SLAB_BYTES)
    }
}

impl Arena {
    /// Over pages that nothing is made of yet.
    pub fn new(region: Region, is_kept: bool) -> Self {
        let start = region.base().as_ptr().expose_provenance() as u64;
        let state = State { free: Spans::of(start, region.len() as u64), slabs: Vec::new() };
        Self { region, start, is_kept, state: Mutex::new(state), given_back: AtomicU64::new(0) }
    }

    /// How many pieces were given back so far.
    pub fn given_back(&self) -> u64 {
        self.given_back.load(Ordering::Relaxed)
    }

    /// Whether an address lies in it.
    #[inline]
    pub fn holds(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.region.len() as u64
    }

    /// The word at an address inside that is a multiple of 8.
    pub fn word(&self, address: u64) -> &AtomicU64 {
        &self.region.words(self.offset(address), 1)[0]
    }

    /// Copies bytes in, at an address of a piece that has room for them.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.region.write(self.offset(address), bytes);
    }

    /// Copies bytes out, from an address of a piece that has so many.
    pub fn read(&self, address: u64, bytes: &mut [u8]) {
        self.region.read(self.offset(address), bytes);
    }

    /// Of an address inside. One outside is our own mistake, and no offset of the region.
    fn offset(&self, address: u64) -> usize {
        usize::try_from(address.wrapping_sub(self.start)).unwrap_or(usize::MAX)
    }

    /// A piece of `bytes`, not 0; its address.
    /// # Errors
    /// 2 when the arena, this process's memory or the worker has no room; 801 when the worker's device reaches no host memory.
    pub fn take(&self, channel: &Channel, bytes: u64) -> CuResult<u64> {
        if bytes > SMALL_BYTES {
            return self
                .make_part(channel, bytes.checked_next_multiple_of(PAGE).ok_or(CuError::OUT_OF_MEMORY)?);
        }
        let bytes = bytes.next_multiple_of(SMALL_UNIT);
        if let Some(piece) = lock(&self.state).slabs.iter_mut().find_map(|slab| slab.free.take(bytes)) {
            return Ok(piece);
        }
        let start = self.make_part(channel, SLAB_BYTES)?;
        let mut slab = Slab { start, free: Spans::of(start, SLAB_BYTES) };
        let piece = slab.free.take(bytes);
        lock(&self.state).slabs.push(slab);
        piece.ok_or(CuError::UNKNOWN)
    }

    /// A small piece of a part that is there already, for good: no reply, no more memory.
    pub fn take_of_parts(&self, bytes: u64) -> Option<u64> {
        let bytes = bytes.next_multiple_of(SMALL_UNIT);
        lock(&self.state).slabs.iter_mut().find_map(|slab| slab.free.take(bytes))
    }

    /// Ends pieces that [`Arena::take`] gave, by their addresses and the lengths that were asked for.
    /// # Errors
    /// The worker is gone, or has not let go of a part: then its addresses are not given out again.
    pub fn give(&self, channel: &Channel, pieces: &[(u64, u64)]) -> CuResult<()> {
        let (small, large): (Vec<_>, Vec<_>) =
            pieces.iter().copied().partition(|(_, bytes)| *bytes <= SMALL_BYTES);
        if !small.is_empty() {
            ask::vgpuArenaSettle(channel, ContextId::NONE)?;
        }
        let mut parts = self.give_small(&small);
        parts.extend(large.into_iter().map(|(start, bytes)| (start, bytes.next_multiple_of(PAGE))));
        let ended = parts.into_iter().map(|(start, bytes)| self.end_part(channel, start, bytes));
        // All of them, whatever becomes of one.
        let ended = ended.fold(Ok(()), Result::and);
        self.given_back.fetch_add(1, Ordering::Relaxed);
        ended
    }

    /// Puts small pieces back into their slabs; the slabs that nobody needs any more, but for one.
    fn give_small(&self, pieces: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let slabs = &mut lock(&self.state).slabs;
        for (start, bytes) in pieces {
            if let Some(slab) = slabs.iter_mut().find(|slab| slab.holds(*start)) {
                slab.free.give(*start, bytes.next_multiple_of(SMALL_UNIT));
            }
        }
        let mut kept_one = false;
        let mut ended = Vec::new();
        slabs.retain(|slab| {
            let keep = !slab.is_unused() || !std::mem::replace(&mut kept_one, true);
            if !keep {
                ended.push((slab.start, SLAB_BYTES));
            }
            keep
        });
        ended
    }

    fn make_part(&self, channel: &Channel, bytes: u64) -> CuResult<u64> {
        let start = lock(&self.state).free.take(bytes).ok_or(CuError::OUT_OF_MEMORY)?;
        let (offset, len) = self.place(start, bytes)?;
        let (touched, end) = self.touched(offset, len);
        let added = match self.region.populate(touched, end - touched) {
            Ok(()) => ask::vgpuArenaAdd(channel, ContextId::NONE, DevicePtr(start), bytes),
            Err(error) => {
                say!("no memory for {bytes} bytes of pinned memory: {error}");
                Err(CuError::OUT_OF_MEMORY)
            }
        };
        if let Err(error) = added {
            self.free(start, bytes)?;
            return Err(error);
        }
        Ok(start)
    }

    fn end_part(&self, channel: &Channel, start: u64, bytes: u64) -> CuResult<()> {
        ask::vgpuArenaRemove(channel, ContextId::NONE, DevicePtr(start))?;
        self.free(start, bytes)
    }

    /// From where to where pages are touched before the worker is told of some.
    fn touched(&self, offset: usize, len: usize) -> (usize, usize) {
        let end = offset + len;
        if !self.is_kept {
            return (offset, end);
        }
        (offset - offset % CHUNK_BYTES, end.next_multiple_of(CHUNK_BYTES).min(self.region.len()))
    }

    fn free(&self, start: u64, bytes: u64) -> CuResult<()> {
        let (offset, len) = self.place(start, bytes)?;
        if !self.is_kept
            && let Err(error) = self.region.give_back(offset, len)
        {
            say!("{bytes} bytes of pinned memory stay with this process: {error}");
        }
        lock(&self.state).free.give(start, bytes);
        Ok(())
    }

    /// Offset and length in the region. What was taken from it lies inside.
    fn place(&self, start: u64, bytes: u64) -> CuResult<(usize, usize)> {
        let number = |value: u64| usize::try_from(value).map_err(|_| CuError::UNKNOWN);
        Ok((number(start - self.start)?, number(bytes)?))
    }
}
