//! Device memory: what `cuMemAlloc` gives out and what kernels may touch.
//!
//! Start at [`Memory`]. Addresses are numbers of our own, never those of this process: they start at a place drawn from the
//! worker's seed, lie apart by guard gaps, and a freed range is only given again when the whole range has been gone through.
//! The rule: every access names an address and a length, and both lie inside one living allocation.
//! Words are atomics, because the blocks of a grid run on several host threads. Not here: shared, local and parameter memory,
//! which belong to one block or thread (`exec/`).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::block::{Block, SharedWords};

/// Every allocation starts at a multiple of this, as the driver's do.
pub const ALIGN: u64 = 512;
/// Untouchable space behind each allocation, at least.
const GUARD: u64 = 64 << 10;
/// The device's addresses lie in a part of the 47-bit space where Linux maps nothing of its own accord, so that a program can
/// tell them from host pointers.
const RANGE_START: u64 = 0x0200_0000_0000;
const RANGE_END: u64 = 0x1000_0000_0000;

/// Why a memory call was refused. The launch's own errors are [`crate::Fault`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The device's memory, or this host's, does not hold that much more.
    #[error("out of device memory: {bytes} bytes asked for, {free_bytes} free")]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
        /// What the device had left.
        free_bytes: u64,
    },
    /// Zero bytes, or an address that no allocation starts at.
    #[error("invalid value")]
    InvalidValue,
    /// A range outside every allocation.
    #[error("{bytes} bytes at {address:#x} are not inside one allocation")]
    OutOfBounds {
        /// First address.
        address: u64,
        /// Length of the range.
        bytes: u64,
    },
}

impl MemoryError {
    /// The CUDA driver's number for it. Source: `CUresult` of cuda.h.
    pub fn cu_result(&self) -> u32 {
        match self {
            MemoryError::OutOfMemory { .. } => 2,
            MemoryError::InvalidValue | MemoryError::OutOfBounds { .. } => 1,
        }
    }
}

/// The memory of one device. Shared by reference; every method may be called from several threads.
#[derive(Debug)]
pub struct Memory {
    capacity_bytes: u64,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    blocks: BTreeMap<u64, Arc<Block>>,
    used_bytes: u64,
    next: u64,
    random: u64,
}

impl Memory {
    /// Memory of `capacity_bytes`, whose addresses start at a place that follows from `seed`.
    pub fn new(capacity_bytes: u64, seed: u64) -> Self {
        let mut random = seed;
        let start = RANGE_START + align_up(splitmix(&mut random) % ((RANGE_END - RANGE_START) / 2), 2 << 20);
        let state = State { blocks: BTreeMap::new(), used_bytes: 0, next: start, random };
        Self { capacity_bytes, state: RwLock::new(state) }
    }

    /// All of it, in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// What living allocations hold, each rounded up to [`ALIGN`].
    pub fn used_bytes(&self) -> u64 {
        self.read_state(|state| state.used_bytes)
    }

    /// Allocates `bytes` zeroed bytes at a fresh address. Pages of the host are taken only when they are written.
    /// # Errors
    /// [`MemoryError::InvalidValue`] for 0 bytes, [`MemoryError::OutOfMemory`] when the device or the host is full.
    pub fn alloc(&self, bytes: u64) -> Result<u64, MemoryError> {
        if bytes == 0 {
            return Err(MemoryError::InvalidValue);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let free_bytes = self.capacity_bytes.saturating_sub(state.used_bytes);
        let full = MemoryError::OutOfMemory { bytes, free_bytes };
        if bytes > free_bytes || align_up(bytes, ALIGN) > free_bytes {
            return Err(full);
        }
        let address = state.place(bytes).ok_or(full)?;
        let block = Block::zeroed(address, bytes).ok_or(full)?;
        state.blocks.insert(address, Arc::new(block));
        state.used_bytes += align_up(bytes, ALIGN);
        Ok(address)
    }

    /// Frees the allocation that starts at `address`. A launch that is running keeps what it started with.
    /// # Errors
    /// [`MemoryError::InvalidValue`] if no allocation starts there.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let block = state.take(address, false).ok_or(MemoryError::InvalidValue)?;
        state.used_bytes -= align_up(block.bytes(), ALIGN);
        Ok(())
    }

    /// Lets others' memory be reached at the addresses from `address` (a multiple of 8) on, as a GPU reaches pinned memory of its host. It
    /// is no part of the device's.
    /// # Errors
    /// [`MemoryError::InvalidValue`] for no memory, or if an address of it belongs to something else.
    pub fn share(&self, address: u64, words: Arc<dyn SharedWords>) -> Result<(), MemoryError> {
        let block = Block::shared(address, words);
        let end = address.checked_add(block.bytes()).ok_or(MemoryError::InvalidValue)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let before = state.blocks.range(..end).next_back();
        let apart = before.is_none_or(|(base, before)| base + before.bytes() <= address);
        if block.bytes() == 0 || !address.is_multiple_of(8) || !apart {
            return Err(MemoryError::InvalidValue);
        }
        state.blocks.insert(address, Arc::new(block));
        Ok(())
    }

    /// Ends what [`Memory::share`] began at `address`. A launch that is running keeps what it started with.
    /// # Errors
    /// [`MemoryError::InvalidValue`] if nothing shared starts there.
    pub fn unshare(&self, address: u64) -> Result<(), MemoryError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.take(address, true).map(drop).ok_or(MemoryError::InvalidValue)
    }

    /// Whether `bytes` bytes from `address` lie inside one allocation.
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        self.find(address, bytes).is_ok()
    }

    /// Copies device memory from `address` into `out`.
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; then `out` is as it was.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        if out.is_empty() {
            return Ok(());
        }
        let block = self.find(address, out.len() as u64)?;
        block.read(address - block.base(), out);
        Ok(())
    }

    /// Copies `data` into device memory at `address`.
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; then nothing was written.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        if data.is_empty() {
            return Ok(());
        }
        let block = self.find(address, data.len() as u64)?;
        block.write(address - block.base(), data);
        Ok(())
    }

    /// Writes `pattern` (1, 2 or 4 bytes) `count` times from `address` on.
    /// # Errors
    /// [`MemoryError::OutOfBounds`], or [`MemoryError::InvalidValue`] if `address` is no multiple of the pattern's length.
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), MemoryError> {
        let width = pattern.len() as u64;
        if !matches!(width, 1 | 2 | 4) || !address.is_multiple_of(width) {
            return Err(MemoryError::InvalidValue);
        }
        if count == 0 {
            return Ok(());
        }
        let bytes = width.checked_mul(count).ok_or(MemoryError::InvalidValue)?;
        let block = self.find(address, bytes)?;
        block.fill(address - block.base(), pattern, bytes);
        Ok(())
    }

    /// Copies `bytes` bytes from `source` to `target`, as if through a buffer: the ranges may overlap.
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; then nothing was written.
    pub fn copy(&self, target: u64, source: u64, bytes: u64) -> Result<(), MemoryError> {
        if bytes == 0 {
            return Ok(());
        }
        let (to, from) = (self.find(target, bytes)?, self.find(source, bytes)?);
        let mut chunk = vec![0; usize::try_from(bytes.min(1 << 20)).unwrap_or(1 << 20)];
        let step = chunk.len() as u64;
        // Overlapping upwards: start at the end, so that no byte is read after it was written.
        let backwards = target > source;
        let steps = bytes.div_ceil(step);
        for index in 0..steps {
            let at = step * if backwards { steps - 1 - index } else { index };
            let length = usize::try_from(step.min(bytes - at)).unwrap_or(chunk.len());
            from.read(source - from.base() + at, &mut chunk[..length]);
            to.write(target - to.base() + at, &chunk[..length]);
        }
        Ok(())
    }

    /// What a launch may touch: the allocations that live now, by address.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Block>> {
        self.read_state(|state| state.blocks.values().cloned().collect())
    }

    fn find(&self, address: u64, bytes: u64) -> Result<Arc<Block>, MemoryError> {
        let found =
            self.read_state(|state| state.blocks.range(..=address).next_back().map(|(_, b)| b.clone()));
        found.filter(|block| block.holds(address, bytes)).ok_or(MemoryError::OutOfBounds { address, bytes })
    }

    fn read_state<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Takes out the allocation, or the shared memory, that starts at `address`.
    fn take(&mut self, address: u64, shared: bool) -> Option<Arc<Block>> {
        self.blocks.get(&address).filter(|block| block.is_shared() == shared)?;
        self.blocks.remove(&address)
    }

    /// A free address with guards on both sides; past the range's end, the first hole from its start.
    fn place(&mut self, bytes: u64) -> Option<u64> {
        let gap = GUARD + splitmix(&mut self.random) % 64 * GUARD;
        let length = align_up(bytes, ALIGN).checked_add(gap)?;
        if self.next.checked_add(length).is_some_and(|end| end <= RANGE_END)
            && self.is_hole(self.next, length)
        {
            let address = self.next;
            self.next = align_up(address + length, GUARD);
            return Some(address);
        }
        let mut address = RANGE_START;
        for (&base, block) in &self.blocks {
            if address + length <= base {
                break;
            }
            address = align_up(base + block.bytes() + GUARD, GUARD);
        }
        if address + length > RANGE_END {
            return None;
        }
        self.next = align_up(address + length, GUARD);
        Some(address)
    }

    fn is_hole(&self, address: u64, length: u64) -> bool {
        let before = self.blocks.range(..address).next_back();
        before.is_none_or(|(base, block)| base + block.bytes() + GUARD <= address)
            && self.blocks.range(address..).next().is_none_or(|(base, _)| address + length <= *base)
    }
}

pub(crate) fn align_up(value: u64, to: u64) -> u64 {
    value.div_ceil(to).saturating_mul(to)
}

/// SplitMix64: a plain public-domain generator; it spreads addresses, it keeps no secrets.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
