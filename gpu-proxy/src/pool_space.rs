//! The addresses of one pool: what is mapped of them, what is given out, what is free and for whom. Pure: the session maps and
//! counts (`worker/session/pool.rs`), and `cuda` for its small allocations (`device/cuda/pieces.rs`).
//!
//! ```text
//! | chunk: used | free, done | free, after stream 3 | ... | chunk | hole (not mapped) |
//! ```
//! Memory that was freed in the order of a stream is given out again to that stream at once, to others when the stream is
//! known to have got there. Only a chunk that is free and done throughout is given back.

use std::collections::{BTreeMap, BTreeSet};

use vgpu_api::ContextId;

/// From when on freed memory may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Now.
    Done,
    /// After the work that a stream of the context held: its default stream (`None`) or one that the device calls so.
    Stream(ContextId, Option<u64>),
    /// After all work that the context held: its stream was destroyed.
    Context(ContextId),
}

#[derive(Clone, Copy, Debug)]
struct Free {
    bytes: u64,
    order: Order,
}

/// Figures of `CUmemPool_attribute`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Mapped now.
    pub reserved: u64,
    /// The most of it since it was reset.
    pub reserved_high: u64,
    /// Given out now.
    pub used: u64,
    /// The most of it since it was reset.
    pub used_high: u64,
}

/// The addresses of a pool.
#[derive(Debug)]
pub struct PoolSpace {
    start: u64,
    bytes: u64,
    /// Mapped pieces: length by first address.
    chunks: BTreeMap<u64, u64>,
    /// Whether no piece lies in two chunks.
    is_apart: bool,
    /// No chunk was ever shorter.
    chunk_min: u64,
    free: BTreeMap<u64, Free>,
    /// The same, to find the smallest that fits.
    by_size: BTreeSet<(Order, u64, u64)>,
    used: BTreeMap<u64, u64>,
    figures: Figures,
}

impl PoolSpace {
    /// `bytes` addresses from `start` on, of which nothing is mapped.
    #[must_use]
    pub fn new(start: u64, bytes: u64) -> Self {
        Self {
            start,
            bytes,
            chunks: BTreeMap::new(),
            chunk_min: bytes,
            is_apart: false,
            free: BTreeMap::new(),
            by_size: BTreeSet::new(),
            used: BTreeMap::new(),
            figures: Figures::default(),
        }
    }

    /// Its chunks are kept apart, so that each can go to somebody else with all that it holds a part of.
    #[must_use]
    pub fn apart(self) -> Self {
        Self { is_apart: true, ..self }
    }

    /// The chunk that holds an address.
    #[must_use]
    pub fn chunk_of(&self, address: u64) -> Option<u64> {
        let (chunk, bytes) = self.chunks.range(..=address).next_back()?;
        (address - chunk < *bytes).then_some(*chunk)
    }

    /// Its figures.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// Starts the high marks anew.
    pub fn reset_high(&mut self, reserved: bool) {
        if reserved {
            self.figures.reserved_high = self.figures.reserved;
        } else {
            self.figures.used_high = self.figures.used;
        }
    }

    /// Whether [`PoolSpace::take`] would find a piece.
    #[must_use]
    pub fn has(&self, bytes: u64, order: Order) -> bool {
        self.fitting(bytes, order).is_some()
    }

    fn fitting(&self, bytes: u64, order: Order) -> Option<(Order, u64, u64)> {
        let fits =
            |order| self.by_size.range((order, bytes, 0)..=(order, u64::MAX, u64::MAX)).next().copied();
        fits(order).or_else(|| fits(Order::Done))
    }

    /// Gives out `bytes`: the smallest free piece that `order` may use, else one that all may.
    pub fn take(&mut self, bytes: u64, order: Order) -> Option<u64> {
        let (order, whole, address) = self.fitting(bytes, order)?;
        self.remove_free(address);
        if whole > bytes {
            self.insert_free(address + bytes, whole - bytes, order);
        }
        self.use_up(address, bytes);
        Some(address)
    }

    /// Gives out `bytes` at `address`, or what is given out already, as somebody else says; whether that can be.
    pub fn take_at(&mut self, address: u64, bytes: u64) -> bool {
        if self.used.contains_key(&address) {
            return self.used.get(&address) == Some(&bytes);
        }
        let before = self.free.range(..=address).next_back();
        let fits = |(start, free): (&u64, &Free)| {
            free.bytes.checked_sub(address - start).is_some_and(|left| bytes <= left)
        };
        if bytes == 0 || !before.is_some_and(fits) {
            return false;
        }
        self.cut(address, bytes);
        self.use_up(address, bytes);
        true
    }

    fn use_up(&mut self, address: u64, bytes: u64) {
        self.used.insert(address, bytes);
        self.figures.used += bytes;
        self.figures.used_high = self.figures.used_high.max(self.figures.used);
    }

    /// Takes back what was given out at `address`; whether something was.
    pub fn give(&mut self, address: u64, order: Order) -> bool {
        let Some(bytes) = self.used.remove(&address) else { return false };
        self.figures.used -= bytes;
        self.add_free(address, bytes, order);
        true
    }

    /// What is given out, by its first address.
    pub fn used(&self) -> impl Iterator<Item = u64> + '_ {
        self.used.keys().copied()
    }

    /// The orders that freed memory waits for.
    #[must_use]
    pub fn waited_for(&self) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut after = Order::Done;
        while let Some((order, ..)) = self.by_size.range((after, u64::MAX, u64::MAX)..).next() {
            orders.push(*order);
            after = *order;
        }
        orders
    }

    /// What waits for `order` waits for `instead` from now on.
    pub fn reorder(&mut self, order: Order, instead: Order) {
        let range = (order, 0, 0)..=(order, u64::MAX, u64::MAX);
        let pieces: Vec<_> =
            self.by_size.range(range).map(|(_, bytes, address)| (*address, *bytes)).collect();
        for (address, bytes) in pieces {
            // An earlier one may have grown over it.
            if self.free.get(&address).is_some_and(|free| free.order == order && free.bytes == bytes) {
                self.remove_free(address);
                self.add_free(address, bytes, instead);
            }
        }
    }

    /// Where `bytes` more could be mapped: behind all chunks, else in the first hole between them.
    #[must_use]
    pub fn hole(&self, bytes: u64) -> Option<u64> {
        let end = self.chunks.last_key_value().map_or(self.start, |(chunk, length)| chunk + length);
        if self.start + self.bytes - end >= bytes {
            return Some(end);
        }
        let mut at = self.start;
        for (chunk, length) in &self.chunks {
            if chunk - at >= bytes {
                return Some(at);
            }
            at = chunk + length;
        }
        None
    }

    /// A hole's first `bytes` are mapped now.
    pub fn grown(&mut self, address: u64, bytes: u64) {
        self.chunks.insert(address, bytes);
        self.chunk_min = self.chunk_min.min(bytes);
        self.figures.reserved += bytes;
        self.figures.reserved_high = self.figures.reserved_high.max(self.figures.reserved);
        self.add_free(address, bytes, Order::Done);
    }

    /// The chunks that nobody uses or waits for and without which at least `keep` bytes are left; they are unmapped from now on.
    pub fn shrink(&mut self, keep: u64) -> Vec<u64> {
        let mut can_go = self.figures.reserved.saturating_sub(keep);
        let mut idle = Vec::new();
        let done = (Order::Done, self.chunk_min, 0)..=(Order::Done, u64::MAX, u64::MAX);
        for &(_, bytes, address) in self.by_size.range(done) {
            let end = address + bytes;
            for (&chunk, &length) in self.chunks.range(address..end) {
                if chunk + length <= end && length <= can_go {
                    idle.push((chunk, length));
                    can_go -= length;
                }
            }
        }
        for &(chunk, length) in &idle {
            self.cut(chunk, length);
            self.chunks.remove(&chunk);
            self.figures.reserved -= length;
        }
        idle.into_iter().map(|(chunk, _)| chunk).collect()
    }

    /// Takes a part out of the free piece that holds it.
    fn cut(&mut self, address: u64, bytes: u64) {
        let Some((&start, &free)) = self.free.range(..=address).next_back() else { return };
        self.remove_free(start);
        if start < address {
            self.insert_free(start, address - start, free.order);
        }
        let (end, free_end) = (address + bytes, start + free.bytes);
        if end < free_end {
            self.insert_free(end, free_end - end, free.order);
        }
    }

    /// Adds a free piece, as one with its neighbours of the same order.
    fn add_free(&mut self, address: u64, bytes: u64, order: Order) {
        let (mut start, mut end) = (address, address + bytes);
        let joins = [start, end].map(|border| !self.is_apart || !self.chunks.contains_key(&border));
        let before = self.free.range(..address).next_back().map(|(at, free)| (*at, *free));
        if let Some((at, free)) = before
            && free.order == order
            && at + free.bytes == start
            && joins[0]
        {
            self.remove_free(at);
            start = at;
        }
        if let Some(free) = self.free.get(&end).copied()
            && free.order == order
            && joins[1]
        {
            self.remove_free(end);
            end += free.bytes;
        }
        self.insert_free(start, end - start, order);
    }

    fn insert_free(&mut self, address: u64, bytes: u64, order: Order) {
        self.free.insert(address, Free { bytes, order });
        self.by_size.insert((order, bytes, address));
    }

    fn remove_free(&mut self, address: u64) {
        if let Some(free) = self.free.remove(&address) {
            self.by_size.remove(&(free.order, free.bytes, address));
        }
    }
}

#[cfg(test)]
mod tests;
