//! The arena's parts that can be named.

use std::sync::atomic::Ordering;

use idm::arena::WINDOW;
use vgpu_api::*;

use super::{ARENA_FULL, FakeDevice};

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn vgpuArenaAdd(&mut self, _: Call, address: DevicePtr, bytes: u64) -> CuResult<()> {
        self.saw("arena add")?;
        if ARENA_FULL.load(Ordering::Relaxed) {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let end = address.0 + bytes;
        assert_eq!((address.0 % 4096, bytes % 4096), (0, 0), "whole pages");
        assert!(address.0 >= WINDOW as u64 && end <= WINDOW as u64 + self.arena.len() as u64, "inside");
        let before = self.parts.range(..end).next_back();
        assert!(before.is_none_or(|(start, bytes)| start + bytes <= address.0), "apart");
        self.parts.insert(address.0, bytes);
        Ok(())
    }

    pub(super) fn vgpuArenaRemove(&mut self, _: Call, address: DevicePtr) -> CuResult<()> {
        self.saw("arena remove")?;
        self.parts.remove(&address.0).map(drop).ok_or(CuError::INVALID_VALUE)
    }

    pub(super) fn vgpuArenaSettle(&mut self, _: Call) -> CuResult<()> {
        self.saw("arena settle")
    }
}
