//! Memory and addresses apart, as `cuMemCreate`, `cuMemAddressReserve` and `cuMemMap` have them.
//!
//! ```text
//! reservation (addresses) ⊇ mapping (shows the first bytes of memory) → memory, which several mappings may show
//! ```
//! What may be touched of it lies in [`State::blocks`], as allocations do. Memory lives until it is released and no mapping
//! shows it; a launch that is running keeps what it started with.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{By, Memory, MemoryError, RANGE_END, RANGE_START, State, Taken};
use crate::block::{Block, Words};

/// Memory and mappings are multiples of this, in bytes, as those of NVIDIA's devices.
pub const MAPPING_ALIGN: u64 = 2 << 20;

/// What may be done with a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Nothing: what it starts with.
    None,
    /// Reads.
    Read,
    /// Reads and writes.
    ReadWrite,
}

/// Mappings and memory; reservations are among [`State::taken`].
#[derive(Debug, Default)]
pub(super) struct Mapped {
    pub(super) mappings: BTreeMap<u64, Mapping>,
    /// What each device may do with a mapping, by the mapping's first address; a device that is missing may do nothing.
    pub(super) access: BTreeMap<u64, BTreeMap<u32, Protection>>,
    pub(super) memories: BTreeMap<u64, Created>,
    pub(super) next_memory: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Mapping {
    pub(super) bytes: u64,
    pub(super) memory: u64,
}

/// Memory that mappings show.
#[derive(Debug)]
pub(super) struct Created {
    pub(super) words: Words,
    pub(super) bytes: u64,
    pub(super) device: u32,
    /// Its name, until it is released, and its mappings.
    pub(super) uses: u64,
    /// Whether it is a part of this device's memory.
    pub(super) is_own: bool,
}

impl Mapped {
    fn has_mapping(&self, address: u64, end: u64) -> bool {
        let before = self.mappings.range(..end).next_back();
        before.is_some_and(|(base, mapping)| base + mapping.bytes > address)
    }

    /// The mappings that the range consists of: whole ones, without a hole.
    fn whole(&self, address: u64, bytes: u64) -> Option<Vec<(u64, Mapping)>> {
        let end = address.checked_add(bytes)?;
        let mut at = address;
        let mut found = Vec::new();
        for (&base, &mapping) in self.mappings.range(address..end) {
            if base != at {
                return None;
            }
            found.push((base, mapping));
            at += mapping.bytes;
        }
        (at == end && bytes > 0).then_some(found)
    }
}

impl Memory {
    /// Takes `bytes` addresses out of use, at `wanted` if they are free there.
    /// # Errors
    /// [`MemoryError::InvalidValue`] for 0 bytes or an alignment that is no power of two, [`MemoryError::OutOfMemory`] when there
    /// are not as many addresses.
    pub fn reserve(&self, bytes: u64, alignment: u64, wanted: u64) -> Result<u64, MemoryError> {
        if bytes == 0 || (alignment != 0 && !alignment.is_power_of_two()) {
            return Err(MemoryError::InvalidValue);
        }
        let align = alignment.max(MAPPING_ALIGN);
        let mut state = self.change_state();
        let hint = Some(wanted).filter(|at| {
            let end = at.checked_add(bytes).filter(|end| *end <= RANGE_END);
            at.is_multiple_of(align) && *at >= RANGE_START && end.is_some() && state.is_hole(*at, bytes, 0)
        });
        let full = MemoryError::OutOfMemory { bytes, free_bytes: RANGE_END - RANGE_START };
        let address = match hint {
            Some(address) => address,
            None => state.place(bytes, align).ok_or(full)?,
        };
        state.taken.insert(address, Taken { bytes, by: By::Reservation });
        Ok(address)
    }

    /// Gives a whole reservation back.
    /// # Errors
    /// [`MemoryError::InvalidValue`] if it is none, or something is mapped in it.
    pub fn unreserve(&self, address: u64, bytes: u64) -> Result<(), MemoryError> {
        let mut state = self.change_state();
        let is_whole = state.taken.get(&address).is_some_and(|taken| taken.bytes == bytes);
        if !is_whole || state.mapped.has_mapping(address, address + bytes) {
            return Err(MemoryError::InvalidValue);
        }
        state.untake(address, By::Reservation).map(drop)
    }

    /// Makes `bytes` zeroed bytes without an address; their name.
    /// # Errors
    /// [`MemoryError::InvalidValue`] for what is no multiple of [`MAPPING_ALIGN`], [`MemoryError::OutOfMemory`] when the device or
    /// the host is full.
    pub fn create(&self, bytes: u64) -> Result<u64, MemoryError> {
        self.create_on(0, bytes)
    }

    /// As [`Memory::create`], on a device.
    /// # Errors
    /// As [`Memory::create`].
    pub fn create_on(&self, device: u32, bytes: u64) -> Result<u64, MemoryError> {
        if bytes == 0 || !bytes.is_multiple_of(MAPPING_ALIGN) {
            return Err(MemoryError::InvalidValue);
        }
        let mut state = self.change_state();
        let full = self.room_for(&state, device, bytes)?;
        let words = Words::zeroed(bytes).ok_or(full)?;
        state.use_bytes(device, bytes);
        state.mapped.next_memory += 1;
        let memory = state.mapped.next_memory;
        state.mapped.memories.insert(memory, Created { words, bytes, device, uses: 1, is_own: true });
        Ok(memory)
    }

    /// Ends the name of memory. Called once for each.
    /// # Errors
    /// [`MemoryError::InvalidValue`] for no name.
    pub fn release(&self, memory: u64) -> Result<(), MemoryError> {
        self.change_state().unuse(memory)
    }

    /// Shows the first `bytes` of `memory` at `address`, where nothing is mapped yet. It cannot be touched there yet.
    /// # Errors
    /// [`MemoryError::InvalidValue`].
    pub fn map(&self, address: u64, bytes: u64, memory: u64) -> Result<(), MemoryError> {
        let mut state = self.change_state();
        let end = address.checked_add(bytes).ok_or(MemoryError::InvalidValue)?;
        let aligned = address.is_multiple_of(MAPPING_ALIGN) && bytes.is_multiple_of(MAPPING_ALIGN);
        let before = state.taken.range(..=address).next_back();
        let reserved = before.filter(|(_, taken)| taken.by == By::Reservation);
        let inside = reserved.is_some_and(|(base, taken)| end <= base + taken.bytes);
        let mapped = &mut state.mapped;
        let free = bytes > 0 && !mapped.has_mapping(address, end);
        let fits = mapped.memories.get_mut(&memory).filter(|created| bytes <= created.bytes);
        let created = fits.filter(|_| aligned && inside && free).ok_or(MemoryError::InvalidValue)?;
        created.uses += 1;
        mapped.mappings.insert(address, Mapping { bytes, memory });
        Ok(())
    }

    /// Takes away whole mappings in a row.
    /// # Errors
    /// [`MemoryError::InvalidValue`]; then nothing has changed.
    pub fn unmap(&self, address: u64, bytes: u64) -> Result<(), MemoryError> {
        let mut state = self.change_state();
        for (base, mapping) in state.mapped.whole(address, bytes).ok_or(MemoryError::InvalidValue)? {
            state.blocks.remove(&base);
            state.mapped.access.remove(&base);
            state.mapped.mappings.remove(&base);
            state.unuse(mapping.memory)?;
        }
        Ok(())
    }

    /// Says what may be done with whole mappings in a row.
    /// # Errors
    /// [`MemoryError::InvalidValue`]; then nothing has changed.
    pub fn protect(&self, address: u64, bytes: u64, protection: Protection) -> Result<(), MemoryError> {
        self.protect_for(0, address, bytes, protection)
    }

    /// As [`Memory::protect`], for a device, whichever the memory lies on. What is copied there may be what any device may.
    /// # Errors
    /// As [`Memory::protect`].
    pub fn protect_for(
        &self,
        device: u32,
        address: u64,
        bytes: u64,
        protection: Protection,
    ) -> Result<(), MemoryError> {
        let mut state = self.change_state();
        for (base, mapping) in state.mapped.whole(address, bytes).ok_or(MemoryError::InvalidValue)? {
            let words = state.mapped.memories.get(&mapping.memory).map(|created| created.words.clone());
            let words = words.ok_or(MemoryError::InvalidValue)?;
            let access = state.mapped.access.entry(base).or_default();
            access.insert(device, protection);
            let any = |wanted| access.values().any(|given| *given == wanted);
            let (writable, readable) = (any(Protection::ReadWrite), any(Protection::Read));
            if writable || readable {
                state.blocks.insert(base, Arc::new(Block::new(base, mapping.bytes, words, writable)));
            } else {
                state.blocks.remove(&base);
            }
        }
        Ok(())
    }
}

impl State {
    fn unuse(&mut self, memory: u64) -> Result<(), MemoryError> {
        let created = self.mapped.memories.get_mut(&memory).ok_or(MemoryError::InvalidValue)?;
        created.uses -= 1;
        if created.uses == 0 {
            let (device, bytes) = (created.device, if created.is_own { created.bytes } else { 0 });
            self.mapped.memories.remove(&memory);
            self.free_bytes(device, bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = MAPPING_ALIGN;

    fn memory() -> Memory {
        Memory::new(8 * PIECE, 1)
    }

    /// A reservation of 6 pieces, of which the second to fourth are mapped and can be written.
    fn three_of_six(memory: &Memory) -> u64 {
        let base = memory.reserve(6 * PIECE, 0, 0).unwrap();
        for place in 1..4 {
            let piece = memory.create(PIECE).unwrap();
            memory.map(base + place * PIECE, PIECE, piece).unwrap();
            memory.release(piece).unwrap();
        }
        memory.protect(base + PIECE, 3 * PIECE, Protection::ReadWrite).unwrap();
        base
    }

    #[test]
    fn an_access_spans_mappings_in_a_row_and_no_hole() {
        let memory = memory();
        let base = three_of_six(&memory);
        let at = base + 2 * PIECE - 3;
        memory.write(at, &[1, 2, 3, 4, 5, 6]).unwrap();
        let mut back = [0; 6];
        memory.read(at, &mut back).unwrap();
        assert_eq!(back, [1, 2, 3, 4, 5, 6]);
        memory.fill(base + PIECE, &[7, 0], 3 * PIECE / 2).unwrap();
        memory.copy(base + 2 * PIECE + 4, base + PIECE, 2 * PIECE - 4).unwrap();
        memory.read(base + 4 * PIECE - 6, &mut back).unwrap();
        assert_eq!(back, [7, 0, 7, 0, 7, 0]);
        for (at, bytes) in
            [(base, 8), (base + PIECE - 1, 2), (base + 4 * PIECE - 1, 2), (base + 5 * PIECE, 1)]
        {
            assert!(!memory.contains(at, bytes), "{bytes} at {:#x}", at - base);
        }
    }

    #[test]
    fn what_is_mapped_but_not_opened_or_only_to_be_read_is_refused() {
        let memory = memory();
        let base = three_of_six(&memory);
        memory.protect(base + PIECE, PIECE, Protection::Read).unwrap();
        let across = base + 2 * PIECE - 1;
        assert!(memory.contains(across, 2));
        assert!(memory.write(across, &[1, 2]).is_err());
        memory.protect(base + PIECE, PIECE, Protection::None).unwrap();
        assert!(!memory.contains(across, 2));
        assert!(memory.contains(across + 1, 1));
    }

    #[test]
    fn two_mappings_show_the_same_memory_until_the_last_is_gone() {
        let memory = memory();
        let base = memory.reserve(2 * PIECE, 0, 0).unwrap();
        let shared = memory.create(PIECE).unwrap();
        memory.map(base, PIECE, shared).unwrap();
        memory.map(base + PIECE, PIECE, shared).unwrap();
        memory.release(shared).unwrap();
        memory.protect(base, 2 * PIECE, Protection::ReadWrite).unwrap();
        memory.write(base, b"both").unwrap();
        let mut back = [0; 4];
        memory.read(base + PIECE, &mut back).unwrap();
        assert_eq!((&back, memory.used_bytes()), (b"both", PIECE));
        memory.unmap(base, PIECE).unwrap();
        assert_eq!(memory.used_bytes(), PIECE);
        memory.unmap(base + PIECE, PIECE).unwrap();
        assert_eq!(memory.used_bytes(), 0);
        assert!(!memory.contains(base, 1));
        memory.unreserve(base, 2 * PIECE).unwrap();
    }

    #[test]
    fn parts_overlaps_and_what_lies_outside_are_refused() {
        let memory = memory();
        let base = three_of_six(&memory);
        let piece = memory.create(PIECE).unwrap();
        let refused = Err(MemoryError::InvalidValue);
        assert_eq!(memory.map(base + PIECE, PIECE, piece), refused, "mapped already");
        assert_eq!(memory.map(base, 2 * PIECE, piece), refused, "larger than the memory");
        assert_eq!(memory.map(base + 6 * PIECE, PIECE, piece), refused, "outside");
        assert_eq!(memory.map(base + 512, PIECE, piece), refused, "unaligned");
        assert_eq!(memory.map(u64::MAX - PIECE + 1, PIECE, piece), refused, "no address");
        assert_eq!(memory.map(base, PIECE, piece + 1), refused, "no memory");
        assert_eq!(memory.unmap(base + PIECE, PIECE / 2), refused, "a part");
        assert_eq!(memory.unmap(base, 2 * PIECE), refused, "a hole");
        assert_eq!(memory.protect(base + 3 * PIECE, 2 * PIECE, Protection::Read), refused, "a hole");
        assert_eq!(memory.unreserve(base, 6 * PIECE), refused, "something is mapped");
        assert_eq!(memory.free(base + PIECE), refused, "no allocation");
        assert_eq!(memory.reserve(PIECE, 3, 0), Err(MemoryError::InvalidValue));
        assert!(matches!(memory.reserve(u64::MAX, 0, 0), Err(MemoryError::OutOfMemory { .. })));
        assert!(matches!(memory.create(6 * PIECE), Err(MemoryError::OutOfMemory { .. })));
        assert_eq!(memory.create(PIECE - 1), Err(MemoryError::InvalidValue));
    }

    #[test]
    fn a_reservation_is_where_it_was_wanted_and_nothing_else_is_put_into_it() {
        let memory = memory();
        let first = memory.reserve(4 * PIECE, 64 * PIECE, 0).unwrap();
        assert!(first.is_multiple_of(64 * PIECE));
        assert_eq!(memory.reserve(PIECE, 0, first + 4 * PIECE), Ok(first + 4 * PIECE));
        assert_ne!(memory.reserve(PIECE, 0, first + PIECE), Ok(first + PIECE), "taken");
        for _ in 0..100 {
            let at = memory.alloc(512).unwrap();
            assert!(!(first..first + 5 * PIECE).contains(&at));
            memory.free(at).unwrap();
        }
        memory.unreserve(first, 4 * PIECE).unwrap();
        assert_eq!(memory.reserve(4 * PIECE, 0, first), Ok(first));
    }
}
