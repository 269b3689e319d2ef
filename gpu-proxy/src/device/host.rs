//! Host memory that a device reaches by its address: a part of the arena, whose pages are the guest's and never the worker's own.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use idm::Region;
use idm::arena::WINDOW;

/// A part of the arena, mapped as long as this lives. The guest may change it at any time.
#[derive(Debug, Clone)]
pub struct HostPages {
    arena: Arc<Region>,
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
        inside.then(|| Self { arena: Arc::clone(arena), offset, bytes })
    }

    /// Where the guest has them: what its calls and kernels name.
    #[must_use]
    pub fn address(&self) -> u64 {
        (WINDOW + self.offset) as u64
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

    /// Their words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        self.arena.words(self.offset, self.bytes / 8)
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(pages.place(), None, "a driver would have it elsewhere");
    }
}
