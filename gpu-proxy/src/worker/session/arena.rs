//! The arena: which parts of it copies, sets and kernels may name. Its pages are the guest's own, and mapped before the first record or,
//! from another domain, before the part is added; what the allocation map says of it lets the driver see them.
//!
//! It belongs to no context: pinned memory is every context's of the process. Host memory is not counted against the grant; what a
//! guest makes this worker touch is bounded by the worker's cgroup.

use vgpu_api::{ContextId, CuError, CuResult, DevicePtr};

use super::{Context, Session};
use crate::device::HostPages;
use crate::worker::ranges::Origin;

/// Parts at once. Each may be a registration with the driver.
pub(super) const PARTS_MAX: usize = 16 << 10;
const PAGE_BYTES: u64 = idm::region::PAGE_BYTES as u64;

impl Session {
    pub(super) fn arena_add(&mut self, at: DevicePtr, bytes: u64) -> CuResult<()> {
        let arena = self.arena.as_ref().ok_or(CuError::NOT_SUPPORTED)?;
        let whole = bytes > 0 && bytes.is_multiple_of(PAGE_BYTES) && at.0.is_multiple_of(PAGE_BYTES);
        let pages = HostPages::of(arena, at.0, bytes).filter(|_| whole).ok_or(CuError::INVALID_VALUE)?;
        if !self.ranges.is_apart(at, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        if self.arena_parts >= PARTS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        if let Some(chunks) = &mut self.chunks {
            chunks.have(pages.offset(), pages.bytes())?;
        }
        self.device.pin(pages)?;
        self.arena_parts += 1;
        self.ranges.insert(at.0, bytes, 0, Origin::Arena);
        Ok(())
    }

    /// What the driver does not let go of stays in the map: the guest is told, and leaves the pages alone.
    pub(super) fn arena_remove(&mut self, at: DevicePtr) -> CuResult<()> {
        if !self.ranges.is_arena(at) {
            return Err(CuError::INVALID_VALUE);
        }
        self.arena_settle()?;
        self.device.unpin(at.0)?;
        self.graphs.something_ended();
        self.ranges.remove(at.0);
        self.arena_parts -= 1;
        Ok(())
    }

    /// The word of 8 bytes at `at`, in a part that was added.
    pub(super) fn arena_word(&self, at: DevicePtr) -> CuResult<HostPages> {
        let arena = self.arena.as_ref().ok_or(CuError::NOT_SUPPORTED)?;
        let word = HostPages::of(arena, at.0, 8).filter(|_| at.0.is_multiple_of(8));
        self.ranges.check(at, 8).and(word.ok_or(CuError::INVALID_VALUE))
    }

    /// Waits for all work. What it ended with is its context's to tell, not that of who frees host memory.
    pub(super) fn arena_settle(&mut self) -> CuResult<()> {
        self.all_must_be_done()?;
        let whole =
            |(id, context): (&ContextId, &Context)| context.sticky.is_none().then_some((*id, context.raw));
        let alive: Vec<_> = self.contexts.iter().filter_map(whole).collect();
        for (id, raw) in alive {
            let result = self.device.context_synchronize(raw);
            let _ = self.settle(id, result);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
