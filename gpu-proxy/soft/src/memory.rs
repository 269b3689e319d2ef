//! The addresses of devices: what `cuMemAlloc` gives out, what is mapped (`memory/mapped.rs`), what their host shares, and so what
//! kernels may touch. Several devices have one space of addresses, and each its own bytes; which of them a kernel reaches: `memory/peers.rs`.
//!
//! Start at [`Memory`]. Addresses are numbers of our own, never those of this process: they start at a place drawn from the
//! worker's seed, lie apart by guard gaps, and a freed range is only given again when the whole range has been gone through.
//! The rule: every access names an address and a length, and both lie inside one living allocation, or inside mappings, or
//! shared memory, that follow each other without a hole and may be touched.
//! Words are atomics, because the blocks of a grid run on several host threads. Not here: shared, local and parameter memory,
//! which belong to one block or thread (`exec/`).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use crate::block::{Block, SharedWords, Words};

mod mapped;
mod moved;
mod peers;

pub use mapped::{MAPPING_ALIGN, Protection};

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
    /// A range outside of what may be touched.
    #[error("{bytes} bytes at {address:#x} are not inside one allocation, or mappings in a row")]
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

/// A part of a block.
struct Piece {
    block: Arc<Block>,
    offset: u64,
    bytes: u64,
}

/// The memory of one device, or of several. Shared by reference; every method may be called from several threads. Methods that name no
/// device are about the first one.
#[derive(Debug)]
pub struct Memory {
    /// Of each device.
    capacity_bytes: u64,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// What can be touched: allocations, mappings that may be, shared memory.
    blocks: BTreeMap<u64, Arc<Block>>,
    /// Addresses in use, by the first.
    taken: BTreeMap<u64, Taken>,
    mapped: mapped::Mapped,
    peers: peers::Peers,
    /// Of each device.
    used_bytes: Vec<u64>,
    next: u64,
    random: u64,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    bytes: u64,
    by: By,
}

/// What takes addresses, and only as that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Allocation,
    Reservation,
    Shared,
}

impl Memory {
    /// Memory of `capacity_bytes`, whose addresses start at a place that follows from `seed`.
    pub fn new(capacity_bytes: u64, seed: u64) -> Self {
        Self::of_devices(1, capacity_bytes, seed)
    }

    /// As [`Memory::new`], of so many devices with `capacity_bytes` each.
    pub fn of_devices(devices: u32, capacity_bytes: u64, seed: u64) -> Self {
        let mut random = seed;
        let start = RANGE_START + align_up(splitmix(&mut random) % ((RANGE_END - RANGE_START) / 2), 2 << 20);
        let state = State {
            blocks: BTreeMap::new(),
            taken: BTreeMap::new(),
            mapped: mapped::Mapped::default(),
            peers: peers::Peers::default(),
            used_bytes: vec![0; devices as usize],
            next: start,
            random,
        };
        Self { capacity_bytes, state: RwLock::new(state) }
    }

    /// All of a device's, in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// What living allocations and memory made for mappings hold, each rounded up to [`ALIGN`].
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes_of(0)
    }

    /// As [`Memory::used_bytes`], of a device.
    pub fn used_bytes_of(&self, device: u32) -> u64 {
        self.read_state(|state| state.used_bytes.get(device as usize).copied().unwrap_or(0))
    }

    /// Allocates `bytes` zeroed bytes at a fresh address. Pages of the host are taken only when they are written.
    /// # Errors
    /// [`MemoryError::InvalidValue`] for 0 bytes, [`MemoryError::OutOfMemory`] when the device or the host is full.
    pub fn alloc(&self, bytes: u64) -> Result<u64, MemoryError> {
        self.alloc_on(0, bytes)
    }

    /// As [`Memory::alloc`], on a device.
    /// # Errors
    /// As [`Memory::alloc`].
    pub fn alloc_on(&self, device: u32, bytes: u64) -> Result<u64, MemoryError> {
        if bytes == 0 {
            return Err(MemoryError::InvalidValue);
        }
        let mut state = self.change_state();
        let full = self.room_for(&state, device, bytes)?;
        let address = state.place(bytes, GUARD).ok_or(full)?;
        let words = Words::zeroed(bytes).ok_or(full)?;
        let block = Block::new(address, bytes, words, true).of_device(device);
        state.blocks.insert(address, Arc::new(block));
        state.taken.insert(address, Taken { bytes, by: By::Allocation });
        state.use_bytes(device, align_up(bytes, ALIGN));
        Ok(address)
    }

    /// That a device has `bytes` left; the error for when the host lacks them.
    fn room_for(&self, state: &State, device: u32, bytes: u64) -> Result<MemoryError, MemoryError> {
        let used_bytes = state.used_bytes.get(device as usize).ok_or(MemoryError::InvalidValue)?;
        let free_bytes = self.capacity_bytes.saturating_sub(*used_bytes);
        let full = MemoryError::OutOfMemory { bytes, free_bytes };
        if bytes > free_bytes || align_up(bytes, ALIGN) > free_bytes { Err(full) } else { Ok(full) }
    }

    /// Frees the allocation that starts at `address`. A launch that is running keeps what it started with.
    /// # Errors
    /// [`MemoryError::InvalidValue`] if no allocation starts there.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut state = self.change_state();
        let bytes = state.untake(address, By::Allocation)?;
        let device = state.blocks.remove(&address).and_then(|block| block.device());
        state.free_bytes(device.unwrap_or(0), align_up(bytes, ALIGN));
        Ok(())
    }

    /// Lets others' memory be reached at the addresses from `address` (a multiple of 8) on, as a GPU reaches pinned memory of its host. It
    /// is no part of the device's.
    /// # Errors
    /// [`MemoryError::InvalidValue`] for no memory, or if an address of it belongs to something else.
    pub fn share(&self, address: u64, words: Arc<dyn SharedWords>) -> Result<(), MemoryError> {
        let bytes = words.words().len() as u64 * 8;
        let mut state = self.change_state();
        let fits = bytes > 0 && address.checked_add(bytes).is_some() && address.is_multiple_of(8);
        if !fits || !state.is_hole(address, bytes, 0) {
            return Err(MemoryError::InvalidValue);
        }
        state.blocks.insert(address, Arc::new(Block::new(address, bytes, Words::Shared(words), true)));
        state.taken.insert(address, Taken { bytes, by: By::Shared });
        Ok(())
    }

    /// Ends what [`Memory::share`] began at `address`. A launch that is running keeps what it started with.
    /// # Errors
    /// [`MemoryError::InvalidValue`] if nothing shared starts there.
    pub fn unshare(&self, address: u64) -> Result<(), MemoryError> {
        let mut state = self.change_state();
        state.untake(address, By::Shared)?;
        state.blocks.remove(&address);
        Ok(())
    }

    /// Whether `bytes` bytes from `address` can be read.
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        self.pieces(address, bytes.max(1), false).is_ok()
    }

    /// Copies device memory from `address` into `out`.
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; then `out` is as it was.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let mut rest = out;
        for piece in self.pieces(address, rest.len() as u64, false)? {
            let (head, tail) = rest.split_at_mut(usize::try_from(piece.bytes).unwrap_or(usize::MAX));
            piece.block.read(piece.offset, head);
            rest = tail;
        }
        Ok(())
    }

    /// Copies `data` into device memory at `address`.
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; then nothing was written.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        let mut rest = data;
        for piece in self.pieces(address, rest.len() as u64, true)? {
            let (head, tail) = rest.split_at(usize::try_from(piece.bytes).unwrap_or(usize::MAX));
            piece.block.write(piece.offset, head);
            rest = tail;
        }
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
        let bytes = width.checked_mul(count).ok_or(MemoryError::InvalidValue)?;
        // Mappings begin at multiples of every pattern's length.
        for piece in self.pieces(address, bytes, true)? {
            piece.block.fill(piece.offset, pattern, piece.bytes);
        }
        Ok(())
    }

    /// Copies `bytes` bytes from `source` to `target`, as if through a buffer: the ranges may overlap.
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; then nothing was written.
    pub fn copy(&self, target: u64, source: u64, bytes: u64) -> Result<(), MemoryError> {
        self.pieces(target, bytes, true)?;
        self.pieces(source, bytes, false)?;
        if bytes == 0 {
            return Ok(());
        }
        let mut chunk = vec![0; usize::try_from(bytes.min(1 << 20)).unwrap_or(1 << 20)];
        let step = chunk.len() as u64;
        // Overlapping upwards: start at the end, so that no byte is read after it was written.
        let backwards = target > source;
        let steps = bytes.div_ceil(step);
        for index in 0..steps {
            let at = step * if backwards { steps - 1 - index } else { index };
            let length = usize::try_from(step.min(bytes - at)).unwrap_or(chunk.len());
            self.read(source + at, &mut chunk[..length])?;
            self.write(target + at, &chunk[..length])?;
        }
        Ok(())
    }

    /// What a launch on a device may touch now, by address. An access of a kernel lies in one of them: mappings begin at multiples of
    /// [`MAPPING_ALIGN`], and no aligned access crosses such a border.
    pub(crate) fn snapshot(&self, device: u32) -> Vec<Arc<Block>> {
        self.read_state(|state| match state.used_bytes.len() {
            1 => state.blocks.values().cloned().collect(),
            _ => state.blocks.values().filter_map(|block| state.seen_by(device, block)).collect(),
        })
    }

    /// The pieces that `bytes` bytes from `address` consist of: all can be touched as asked, and no byte is missing.
    fn pieces(&self, address: u64, bytes: u64, write: bool) -> Result<Vec<Piece>, MemoryError> {
        let found = self.read_state(|state| {
            let mut pieces = Vec::new();
            let (mut at, mut left) = (address, bytes);
            while left > 0 {
                let (_, block) = state.blocks.range(..=at).next_back()?;
                let offset = at - block.base();
                let here = block.bytes().checked_sub(offset)?.min(left);
                if here == 0 || (write && !block.is_writable()) {
                    return None;
                }
                pieces.push(Piece { block: block.clone(), offset, bytes: here });
                (at, left) = (at + here, left - here);
            }
            Some(pieces)
        });
        found.ok_or(MemoryError::OutOfBounds { address, bytes })
    }

    fn change_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_state<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn use_bytes(&mut self, device: u32, bytes: u64) {
        self.used_bytes.get_mut(device as usize).into_iter().for_each(|used| *used += bytes);
    }

    fn free_bytes(&mut self, device: u32, bytes: u64) {
        self.used_bytes.get_mut(device as usize).into_iter().for_each(|used| *used -= bytes);
    }

    /// Ends the taking of addresses that begins at `address`; their number.
    fn untake(&mut self, address: u64, by: By) -> Result<u64, MemoryError> {
        let taken =
            self.taken.get(&address).filter(|taken| taken.by == by).ok_or(MemoryError::InvalidValue)?;
        let bytes = taken.bytes;
        self.taken.remove(&address);
        Ok(bytes)
    }

    /// A free address, a multiple of `align`, with guards on both sides; past the range's end, the first hole from its start.
    fn place(&mut self, bytes: u64, align: u64) -> Option<u64> {
        if bytes.max(align) > RANGE_END - RANGE_START {
            return None;
        }
        let gap = GUARD + splitmix(&mut self.random) % 64 * GUARD;
        let length = align_up(bytes, ALIGN) + gap;
        let next = align_up(self.next, align);
        if next + length <= RANGE_END && self.is_hole(next, length, GUARD) {
            self.next = align_up(next + length, GUARD);
            return Some(next);
        }
        let mut address = align_up(RANGE_START, align);
        for (&base, taken) in &self.taken {
            if address + length <= base {
                break;
            }
            address = align_up(base + taken.bytes + GUARD, align);
        }
        if address + length > RANGE_END {
            return None;
        }
        self.next = align_up(address + length, GUARD);
        Some(address)
    }

    /// Whether nothing is taken from `guard` before `address` on.
    fn is_hole(&self, address: u64, length: u64, guard: u64) -> bool {
        let before = self.taken.range(..address).next_back();
        before.is_none_or(|(base, taken)| base + taken.bytes + guard <= address)
            && self.taken.range(address..).next().is_none_or(|(base, _)| address + length <= *base)
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
