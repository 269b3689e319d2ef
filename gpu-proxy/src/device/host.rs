//! Host memory that a device reaches by its address: a part of the arena, whose pages are the guest's and never the worker's own.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use idm::Region;
use idm::arena::WINDOW;

/// A part of the arena, mapped as long as this lives, or other pages that are shared. The guest may change them at any time.
#[derive(Debug, Clone)]
pub struct HostPages {
    arena: Arc<Region>,
    /// The address that the region begins at for who names it.
    base: usize,
    offset: usize,
    bytes: usize,
}

impl HostPages {
    /// `bytes` from the address `at` on, which the guest names; `None` if they are not all in the arena.
    #[must_use]
    pub fn of(arena: &Arc<Region>, at: u64, bytes: u64) -> Option<Self> {
        let offset = usize::try_from(at.checked_sub(WINDOW as u64)?).ok()?;
        let bytes = usize::try_from(bytes).ok()?;
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= arena.len());
        inside.then(|| Self { arena: Arc::clone(arena), base: WINDOW, offset, bytes })
    }

    /// All pages of a region that no guest names: they are where this worker has them.
    #[must_use]
    pub fn of_ours(region: &Arc<Region>) -> Self {
        let base = region.base().addr().get();
        Self { arena: Arc::clone(region), base, offset: 0, bytes: region.len() }
    }

    /// Whether the guest names them.
    #[must_use]
    pub fn is_of_arena(&self) -> bool {
        self.base == WINDOW
    }

    /// Where the guest has them: what its calls and kernels name.
    #[must_use]
    pub fn address(&self) -> u64 {
        (self.base + self.offset) as u64
    }

    /// The guest's addresses of the whole arena: nothing else lies there.
    #[must_use]
    pub fn whole(&self) -> Range<u64> {
        self.base as u64..(self.base + self.arena.len()) as u64
    }

    /// Where in the arena they begin.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Their length.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where this worker has them, if that is where the guest has them: for a driver, which knows no second address.
    #[must_use]
    pub fn place(&self) -> Option<NonNull<u8>> {
        let place = self.arena.base().map_addr(|base| base.saturating_add(self.offset));
        (place.addr().get() as u64 == self.address()).then_some(place)
    }

    /// Makes those of `bytes` from the guest's address `at` on that are among them zeros.
    pub fn zero(&self, at: u64, bytes: u64) {
        let first = at.max(self.address());
        let end = at.saturating_add(bytes).min(self.address() + self.bytes as u64);
        let Some(bytes) = end.checked_sub(first) else { return };
        if let (Ok(from), Ok(bytes)) = (usize::try_from(first - self.address()), usize::try_from(bytes)) {
            self.arena.zero(self.offset + from, bytes);
        }
    }

    /// Puts bytes at the guest's address `at`; none unless all of them are among the pages.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        let from = at.checked_sub(self.address()).and_then(|from| usize::try_from(from).ok());
        let end = from.and_then(|from| from.checked_add(bytes.len()));
        if let Some(from) = from.filter(|_| end.is_some_and(|end| end <= self.bytes)) {
            self.arena.write(self.offset + from, bytes);
        }
    }

    /// Their word of 8 bytes at the guest's address `at`, a multiple of 8.
    #[must_use]
    pub fn word(&self, at: u64) -> Option<&AtomicU64> {
        let index = usize::try_from(at.checked_sub(self.address())? / 8).ok()?;
        self.words().get(index).filter(|_| at.is_multiple_of(8))
    }

    /// Their words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        self.arena.words(self.offset, self.bytes / 8)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use idm::arena::Arena;

    use super::*;

    #[test]
    fn only_what_lies_inside_the_arena_is_host_memory() {
        const END: u64 = WINDOW as u64 + (1 << 20);
        let arena = Arc::new(Arena::make(1 << 20).unwrap().map_elsewhere().unwrap());
        let own = std::ptr::from_ref(&arena) as u64;
        for (at, bytes, inside) in [
            (WINDOW as u64, 1 << 20, true),
            (END - 4096, 4096, true),
            (END - 4096, 4097, false),
            (END, 1, false),
            (WINDOW as u64 - 1, 1, false),
            (WINDOW as u64, u64::MAX, false),
            (u64::MAX, 1, false),
            (0, 4096, false),
            (own, 8, false),
            // Where the worker has it is no address of the guest.
            (arena.base().addr().get() as u64, 8, false),
        ] {
            assert_eq!(HostPages::of(&arena, at, bytes).is_some(), inside, "{bytes} at {at:#x}");
        }
        let pages = HostPages::of(&arena, WINDOW as u64 + 8, 16).unwrap();
        assert_eq!((pages.address(), pages.words().len()), (WINDOW as u64 + 8, 2));
        assert_eq!(pages.whole(), WINDOW as u64..END);
        assert_eq!(pages.place(), None, "a driver would have it elsewhere");
    }

    #[test]
    fn zeros_and_words_stay_among_the_pages() {
        const AT: u64 = WINDOW as u64 + 4096;
        let arena = Arc::new(Arena::make(1 << 20).unwrap().map_elsewhere().unwrap());
        let pages = HostPages::of(&arena, AT, 64).unwrap();
        for (at, bytes, zeros) in [
            (AT, 64, 0..8),
            (AT - 4096, 4096 + 8, 0..1),
            (AT + 56, u64::MAX, 7..8),
            (AT - 8, 8, 0..0),
            (AT + 64, 8, 0..0),
            (0, u64::MAX, 0..8),
        ] {
            let around = HostPages::of(&arena, AT - 8, 80).unwrap();
            around.words().iter().for_each(|word| word.store(u64::MAX, Relaxed));
            pages.zero(at, bytes);
            for (i, word) in around.words().iter().enumerate() {
                let is_zero = i.checked_sub(1).is_some_and(|i| zeros.contains(&i));
                assert_eq!(word.load(Relaxed) == 0, is_zero, "word {i} after {bytes} at {at:#x}");
            }
        }
        for (at, is_among) in [(AT + 56, true), (AT + 57, false), (AT - 8, false), (AT + 64, false)] {
            let around = HostPages::of(&arena, AT - 8, 80).unwrap();
            around.words().iter().for_each(|word| word.store(0, Relaxed));
            pages.write(at, &[1; 8]);
            let written = around.words().iter().filter(|word| word.load(Relaxed) != 0).count();
            assert_eq!(written, usize::from(is_among), "8 bytes at {at:#x}");
        }
        pages.word(AT + 56).unwrap().store(5, Relaxed);
        assert_eq!(pages.words()[7].load(Relaxed), 5);
        assert!([AT - 8, AT + 64, AT + 4, u64::MAX].iter().all(|at| pages.word(*at).is_none()));
    }
}
