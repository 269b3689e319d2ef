//! Memory that other devices may have as well: it is moved into memory of the host, which they map. What they change in it is seen here at
//! once, and the other way round.
//!
//! Nothing runs while memory is moved: the caller sees to that. Blocks that a launch had before are not changed under it.

use std::sync::Arc;

use super::mapped::{Created, MAPPING_ALIGN};
use super::{By, Memory, MemoryError};
use crate::block::{Block, SharedWords, Words};

impl Memory {
    /// Moves the allocation that starts at `address` to `words`, which are at least as many.
    /// # Errors
    /// [`MemoryError::InvalidValue`].
    pub fn move_allocation(&self, address: u64, words: Arc<dyn SharedWords>) -> Result<(), MemoryError> {
        let mut state = self.change_state();
        state
            .taken
            .get(&address)
            .filter(|taken| taken.by == By::Allocation)
            .ok_or(MemoryError::InvalidValue)?;
        let block = state.blocks.get_mut(&address).ok_or(MemoryError::InvalidValue)?;
        let words = block.moved_to(words)?;
        let moved = Block::new(address, block.bytes(), words, true);
        *block = Arc::new(match block.device() {
            Some(device) => moved.of_device(device),
            None => moved,
        });
        Ok(())
    }

    /// Moves memory that [`Memory::create`] made to `words`, which are at least as many; its mappings show them.
    /// # Errors
    /// [`MemoryError::InvalidValue`].
    pub fn move_memory(&self, memory: u64, words: Arc<dyn SharedWords>) -> Result<(), MemoryError> {
        let mut state = self.change_state();
        let created = state.mapped.memories.get_mut(&memory).ok_or(MemoryError::InvalidValue)?;
        created.words = Block::new(0, created.bytes, created.words.clone(), false).moved_to(words)?;
        let words = created.words.clone();
        let of_it = |(base, mapping): (&u64, &super::mapped::Mapping)| {
            (mapping.memory == memory).then_some((*base, mapping.bytes))
        };
        let mappings: Vec<_> = state.mapped.mappings.iter().filter_map(of_it).collect();
        for (base, bytes) in mappings {
            if let Some(block) = state.blocks.get_mut(&base) {
                *block = Arc::new(Block::new(base, bytes, words.clone(), block.is_writable()));
            }
        }
        Ok(())
    }

    /// Names memory of another process's `device`, as [`Memory::create`] names its own. It is no part of this one's.
    /// # Errors
    /// [`MemoryError::InvalidValue`] for what is no multiple of [`MAPPING_ALIGN`].
    pub fn import(&self, device: u32, words: Arc<dyn SharedWords>) -> Result<u64, MemoryError> {
        let bytes = words.words().len() as u64 * 8;
        if bytes == 0 || !bytes.is_multiple_of(MAPPING_ALIGN) {
            return Err(MemoryError::InvalidValue);
        }
        let mut state = self.change_state();
        state.mapped.next_memory += 1;
        let memory = state.mapped.next_memory;
        let created = Created { words: Words::Shared(words), bytes, device, uses: 1, is_own: false };
        state.mapped.memories.insert(memory, created);
        Ok(memory)
    }
}

impl Block {
    /// Puts what it holds into `words`.
    fn moved_to(&self, words: Arc<dyn SharedWords>) -> Result<Words, MemoryError> {
        if (words.words().len() as u64) < self.bytes().div_ceil(8) {
            return Err(MemoryError::InvalidValue);
        }
        let moved = Block::new(0, self.bytes(), Words::Shared(words.clone()), true);
        let mut piece = vec![0; 64 << 10];
        let mut at = 0;
        while at < self.bytes() {
            let length = usize::try_from((self.bytes() - at).min(piece.len() as u64)).unwrap_or(piece.len());
            self.read(at, &mut piece[..length]);
            // Pages of zeros stay holes.
            if piece[..length].iter().any(|byte| *byte != 0) {
                moved.write(at, &piece[..length]);
            }
            at += length as u64;
        }
        Ok(Words::Shared(words))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::super::Protection;
    use super::*;

    #[derive(Debug)]
    struct Host(Box<[AtomicU64]>);

    impl SharedWords for Host {
        fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }

    fn host(bytes: u64) -> Arc<Host> {
        let words = (0..bytes / 8).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Host(words))
    }

    fn text(memory: &Memory, address: u64) -> [u8; 4] {
        let mut text = [0; 4];
        memory.read(address, &mut text).unwrap();
        text
    }

    #[test]
    fn two_devices_see_what_either_writes_and_each_counts_its_own() {
        const PIECE: u64 = MAPPING_ALIGN;
        let (one, two) = (Memory::new(4 * PIECE, 1), Memory::new(PIECE, 2));
        let allocation = one.alloc(1001).unwrap();
        one.write(allocation + 997, b"kept").unwrap();
        let shared = host(PIECE);
        one.move_allocation(allocation, shared.clone()).unwrap();
        assert_eq!(&text(&one, allocation + 997), b"kept");
        assert!(one.write(allocation + 998, b"past").is_err(), "it is as long as it was");

        let at = two.reserve(PIECE, 0, 0).unwrap();
        let theirs = two.import(0, shared).unwrap();
        two.map(at, PIECE, theirs).unwrap();
        two.protect(at, PIECE, Protection::ReadWrite).unwrap();
        two.release(theirs).unwrap();
        assert_eq!(&text(&two, at + 997), b"kept");
        two.write(at + 8, b"back").unwrap();
        assert_eq!((&text(&one, allocation + 8), two.used_bytes()), (b"back", 0));
        one.free(allocation).unwrap();
        assert_eq!((&text(&two, at + 8), one.used_bytes()), (b"back", 0));
        two.unmap(at, PIECE).unwrap();
        assert_eq!(two.used_bytes(), 0);
    }

    #[test]
    fn mappings_show_memory_where_it_was_moved_to_and_may_be_touched_as_before() {
        const PIECE: u64 = MAPPING_ALIGN;
        let memory = Memory::new(4 * PIECE, 1);
        let base = memory.reserve(3 * PIECE, 0, 0).unwrap();
        let created = memory.create(PIECE).unwrap();
        for place in 0..3 {
            memory.map(base + place * PIECE, PIECE, created).unwrap();
        }
        memory.protect(base, PIECE, Protection::ReadWrite).unwrap();
        memory.protect(base + PIECE, PIECE, Protection::Read).unwrap();
        memory.write(base + 16, b"text").unwrap();
        let shared = host(PIECE);
        memory.move_memory(created, shared.clone()).unwrap();
        assert_eq!(&text(&memory, base + PIECE + 16), b"text");
        shared.0[2].store(0, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(text(&memory, base + 16), [0; 4]);
        assert!(memory.write(base + PIECE, b"no").is_err() && !memory.contains(base + 2 * PIECE, 1));
        memory.protect(base + 2 * PIECE, PIECE, Protection::ReadWrite).unwrap();
        memory.write(base + 2 * PIECE, b"more").unwrap();
        assert_eq!((&text(&memory, base), memory.used_bytes()), (b"more", PIECE));
    }

    #[test]
    fn what_does_not_fit_or_is_not_there_is_refused() {
        let memory = Memory::new(4 * MAPPING_ALIGN, 1);
        let refused = Err(MemoryError::InvalidValue);
        let (allocation, created) = (memory.alloc(1001).unwrap(), memory.create(MAPPING_ALIGN).unwrap());
        assert_eq!(memory.move_allocation(allocation, host(1000)), refused);
        assert_eq!(memory.move_allocation(allocation + 8, host(4096)), refused);
        assert_eq!(memory.move_memory(created, host(4096)), refused);
        assert_eq!(memory.move_memory(created + 1, host(MAPPING_ALIGN)), refused);
        assert_eq!(memory.import(0, host(4096)), Err(MemoryError::InvalidValue));
        assert_eq!(memory.import(0, host(0)), Err(MemoryError::InvalidValue));
    }
}
