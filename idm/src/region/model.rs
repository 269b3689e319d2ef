//! A region as loom sees it: each word an atomic, each word's bytes a cell whose races loom reports.
//!
//! A write also changes the atomic of the same word, as it does in real memory, so that a reader who mistakes old bytes for a
//! published word is found out.

use loom::cell::UnsafeCell;

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// Memory shared between the threads of a model.
pub struct Region {
    words: Vec<(AtomicU32, UnsafeCell<[u8; 4]>)>,
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
        Self { words: (0..len / 4).map(|_| (AtomicU32::new(0), UnsafeCell::new([0; 4]))).collect() }
    }

    /// Only models run under loom.
    pub fn map(_memory: impl std::os::fd::AsFd, _len: usize) -> std::io::Result<Self> {
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
        for (i, byte) in to.iter_mut().enumerate() {
            let at = offset + i;
            // SAFETY: loom reports a race with a writer.
            *byte = self.words[at / 4].1.with(|cell| unsafe { (*cell)[at % 4] });
        }
    }

    /// Copies in.
    pub fn write(&self, offset: usize, from: &[u8]) {
        for (i, byte) in from.iter().enumerate() {
            let at = offset + i;
            // SAFETY: loom reports a race with a reader or another writer.
            let word = self.words[at / 4].1.with_mut(|cell| unsafe {
                (*cell)[at % 4] = *byte;
                *cell
            });
            if at % 4 == 3 || i + 1 == from.len() {
                self.words[at / 4].0.store(u32::from_ne_bytes(word), Relaxed);
            }
        }
    }

    /// Zeroes.
    pub fn zero(&self, offset: usize, len: usize) {
        self.write(offset, &vec![0; len]);
    }
}

/// Only models run under loom.
pub fn sealed_memory(_name: &str, _len: usize) -> std::io::Result<std::os::fd::OwnedFd> {
    Err(std::io::ErrorKind::Unsupported.into())
}
