//! Memory at a device's addresses: words that several host threads may use at once. An allocation has words of its own; mapped
//! memory shows a part of words that may be seen at other addresses as well; shared memory is the host's.
//!
//! An access of 8 aligned bytes or fewer is one access to one atomic word, so it is never torn and never a data race.
//! The offsets have been checked by the caller (`memory.rs`, `exec/access.rs`); a wrong one panics here, it cannot stray.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory that is not this device's: of who runs it, and of others that may change it at any time.
pub trait SharedWords: fmt::Debug + Send + Sync {
    /// All of it, always the same.
    fn words(&self) -> &[AtomicU64];
}

/// Memory without an address, which several blocks may show.
#[derive(Clone, Debug)]
pub(crate) enum Words {
    /// The device's.
    Own(Arc<Box<[AtomicU64]>>),
    Shared(Arc<dyn SharedWords>),
}

impl Words {
    /// `bytes` zeroed bytes. Pages of the host are taken only when they are written. `None` if the host has no room.
    pub fn zeroed(bytes: u64) -> Option<Self> {
        let words = usize::try_from(bytes.div_ceil(8)).ok()?;
        bytemuck::try_zeroed_slice_box(words).ok().map(|words| Self::Own(Arc::new(words)))
    }

    fn all(&self) -> &[AtomicU64] {
        match self {
            Self::Own(words) => words,
            Self::Shared(shared) => shared.words(),
        }
    }
}

/// Memory at an address. `bytes` is what was asked for; the last word may reach past it, no access may.
#[derive(Debug)]
pub(crate) struct Block {
    base: u64,
    bytes: u64,
    words: Words,
    writable: bool,
    /// Of an allocation: the device that it lies on.
    device: Option<u32>,
}

impl Block {
    /// The first `bytes` of `words`, which has so many, at the addresses from `base` on.
    pub fn new(base: u64, bytes: u64, words: Words, writable: bool) -> Self {
        Self { base, bytes, words, writable, device: None }
    }

    /// This one, as an allocation of a device's.
    pub fn of_device(self, device: u32) -> Self {
        Self { device: Some(device), ..self }
    }

    /// The same words at the same place, for who may do something else there.
    pub fn with_writable(&self, writable: bool) -> Self {
        Self { base: self.base, bytes: self.bytes, words: self.words.clone(), writable, device: self.device }
    }

    pub fn device(&self) -> Option<u32> {
        self.device
    }

    pub fn is_writable(&self) -> bool {
        self.writable
    }

    pub fn base(&self) -> u64 {
        self.base
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn holds(&self, address: u64, bytes: u64) -> bool {
        let offset = address.wrapping_sub(self.base);
        offset <= self.bytes && bytes <= self.bytes - offset
    }

    /// `width` bytes (1, 2, 4 or 8) at `offset`, a multiple of `width`.
    pub fn load(&self, offset: u64, width: u32) -> u64 {
        let word = self.word(offset).load(Ordering::Acquire);
        (word >> shift(offset)) & mask(width)
    }

    /// Stores the low `width` bytes (1, 2, 4 or 8) of `value` at `offset`, a multiple of `width`.
    pub fn store(&self, offset: u64, width: u32, value: u64) {
        if width == 8 {
            self.word(offset).store(value, Ordering::Release);
        } else {
            self.update(offset, width, |_| value);
        }
    }

    /// Replaces the `width` bytes at `offset`, which lie in one word, by `f` of them in one step and returns what was there.
    pub fn update(&self, offset: u64, width: u32, mut f: impl FnMut(u64) -> u64) -> u64 {
        let (shift, mask) = (shift(offset), mask(width));
        let merge = |word: u64| {
            let new = f((word >> shift) & mask);
            Some((word & !(mask << shift)) | ((new & mask) << shift))
        };
        let word = self.word(offset).fetch_update(Ordering::AcqRel, Ordering::Acquire, merge);
        // `merge` never returns None, so both arms hold the old word.
        let (Ok(old) | Err(old)) = word;
        (old >> shift) & mask
    }

    pub fn read(&self, offset: u64, out: &mut [u8]) {
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let within = (at % 8) as usize;
            let count = rest.len().min(8 - within);
            let word = self.word(at).load(Ordering::Acquire).to_le_bytes();
            let (head, tail) = rest.split_at_mut(count);
            head.copy_from_slice(&word[within..within + count]);
            at += count as u64;
            rest = tail;
        }
    }

    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let within = (at % 8) as usize;
            let (head, tail) = rest.split_at(rest.len().min(8 - within));
            if let Ok(whole) = <[u8; 8]>::try_from(head) {
                self.word(at).store(u64::from_le_bytes(whole), Ordering::Release);
            } else {
                // One step as well: the host may watch a word that a stream writes.
                let mut value = [0; 8];
                value[..head.len()].copy_from_slice(head);
                self.update(at, u32::try_from(head.len()).unwrap_or(8), |_| u64::from_le_bytes(value));
            }
            at += head.len() as u64;
            rest = tail;
        }
    }

    /// Repeats `pattern` (1, 2 or 4 bytes, `offset` a multiple of its length) over `bytes` bytes.
    pub fn fill(&self, offset: u64, pattern: &[u8], bytes: u64) {
        let mut page = [0; 4096];
        for chunk in page.chunks_mut(pattern.len()) {
            chunk.copy_from_slice(pattern);
        }
        let mut at = offset;
        let end = offset + bytes;
        while at < end {
            let count = (end - at).min(4096 - at % 4096);
            // `at` stays a multiple of the pattern's length, so each piece starts with a whole pattern.
            self.write(at, &page[..usize::try_from(count).unwrap_or(page.len())]);
            at += count;
        }
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        // Offsets come checked against `bytes`, which came from a usize.
        &self.words.all()[usize::try_from(offset / 8).unwrap_or(usize::MAX)]
    }
}

fn shift(offset: u64) -> u32 {
    (offset % 8) as u32 * 8
}

/// The low `width` bytes of a word.
fn mask(width: u32) -> u64 {
    u64::MAX >> (64 - 8 * width)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Others see all of what a write puts into a word or nothing of it, wherever in the word it lies.
    #[test]
    fn no_part_of_a_word_is_seen_half_written() {
        let block = Block::new(0, 16, Words::zeroed(16).unwrap(), true);
        for (offset, bytes) in [(0, 4), (4, 4), (10, 2), (9, 3)] {
            thread::scope(|threads| {
                let writer = threads.spawn(|| {
                    for value in (0..200_000).map(|turn| if turn % 2 == 0 { 0xff } else { 0 }) {
                        block.write(offset, &[value; 4][..bytes]);
                    }
                });
                while !writer.is_finished() {
                    let mut seen = [0; 4];
                    block.read(offset, &mut seen[..bytes]);
                    assert!(seen[..bytes].iter().all(|byte| *byte == seen[0]), "{seen:x?}");
                }
            });
            assert_eq!(block.load(8, 8) | block.load(0, 8), 0, "nothing beside it");
        }
    }
}
