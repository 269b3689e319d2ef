//! A region as loom sees it: each word an atomic, each byte a cell whose races loom reports.
//!
//! A copy that covers a whole word also changes the word's atomic, as it does in real memory, so that a reader who mistakes old bytes
//! for a published word is found out.

use loom::cell::UnsafeCell;

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// Memory shared between the threads of a model.
pub struct Region {
    words: Vec<(AtomicU32, [UnsafeCell<u8>; 4])>,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("len", &self.len()).finish_non_exhaustive()
    }
}

// SAFETY: the cells are checked by loom on each access.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// A zeroed region of `len` bytes (a multiple of 4).
    pub(crate) fn model(len: usize) -> Self {
        let word = || (AtomicU32::new(0), std::array::from_fn(|_| UnsafeCell::new(0)));
        Self { words: (0..len / 4).map(|_| word()).collect() }
    }

    /// Only models run under loom.
    pub fn map(_memory: impl std::os::fd::AsFd, _len: usize) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Only models run under loom.
    pub fn map_at(_memory: impl std::os::fd::AsFd, _len: usize, _address: usize) -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.words.len() * 4
    }

    /// Whether the region has no bytes.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The shared word at `offset`.
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        &self.words[offset / 4].0
    }

    /// Copies out.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        for (at, byte) in (offset..).zip(to) {
            // SAFETY: loom reports a race with a writer.
            *byte = self.words[at / 4].1[at % 4].with(|cell| unsafe { *cell });
        }
    }

    /// Copies in.
    pub fn write(&self, offset: usize, from: &[u8]) {
        for (at, byte) in (offset..).zip(from) {
            // SAFETY: loom reports a race with a reader or another writer.
            self.words[at / 4].1[at % 4].with_mut(|cell| unsafe { *cell = *byte });
        }
        let lead = offset.next_multiple_of(4) - offset;
        for (i, word) in from.get(lead..).unwrap_or_default().as_chunks::<4>().0.iter().enumerate() {
            self.words[(offset + lead) / 4 + i].0.store(u32::from_le_bytes(*word), Relaxed);
        }
    }

    /// Where the region is mapped: nowhere.
    pub fn base(&self) -> std::ptr::NonNull<u8> {
        std::ptr::NonNull::dangling()
    }

    /// A model has its memory.
    pub fn populate(&self, _offset: usize, _len: usize) -> std::io::Result<()> {
        Ok(())
    }

    /// A model has no caches.
    pub fn fetch_to_write(&self, _offset: usize, _len: usize) {}

    /// Zeroes.
    pub fn zero(&self, offset: usize, len: usize) {
        self.write(offset, &vec![0; len]);
    }
}

/// Only models run under loom.
pub fn sealed_memory(_name: &str, _len: usize) -> std::io::Result<std::os::fd::OwnedFd> {
    Err(std::io::ErrorKind::Unsupported.into())
}
