//! Allocations of the software GPU, in its checked memory.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use vgpu_api::memory::Memset;
use vgpu_api::{CuError, CuResult, MemInfo};
use vgpu_soft as gpu;

use super::{Soft, error};
use crate::device::{HostPages, Memory, Place, Raw};

impl Memory for Soft {
    fn granule_bytes(&self) -> u64 {
        gpu::ALIGN
    }

    fn alloc(&mut self, context: Raw, bytes: u64) -> CuResult<u64> {
        self.gpu
            .memory()
            .alloc_on(self.context(context)?.device, bytes)
            .map_err(|refused| error(refused.cu_result()))
    }

    fn memory(&mut self, context: Raw) -> CuResult<MemInfo> {
        let (device, memory) = (self.context(context)?.device, self.gpu.memory());
        let (used, total) = (memory.used_bytes_of(device), memory.capacity_bytes());
        Ok(MemInfo { free: total.saturating_sub(used), total })
    }

    fn free(&mut self, _context: Raw, address: u64) -> CuResult<()> {
        self.gpu.memory().free(address).map_err(|refused| error(refused.cu_result()))
    }

    fn write(&mut self, _place: Place, address: u64, bytes: &[u8]) -> CuResult<()> {
        self.gpu.memory().write(address, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn read(&mut self, _place: Place, address: u64, bytes: &mut [u8]) -> CuResult<()> {
        self.gpu.memory().read(address, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn copy(&mut self, _place: Place, to: u64, from: u64, bytes: u64) -> CuResult<()> {
        self.gpu.memory().copy(to, from, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn fill(&mut self, _place: Place, memset: &Memset) -> CuResult<()> {
        let pattern = memset.value.to_le_bytes();
        let pattern = pattern.get(..memset.element_bytes as usize).ok_or(CuError::INVALID_VALUE)?;
        let row = |row: u64| memset.pitch.checked_mul(row)?.checked_add(memset.dst.0);
        (0..memset.rows).try_for_each(|number| {
            let at = row(number).ok_or(CuError::INVALID_VALUE)?;
            let filled = self.gpu.memory().fill(at, pattern, memset.width);
            filled.map_err(|refused| error(refused.cu_result()))
        })
    }

    fn pin(&mut self, pages: HostPages) -> CuResult<()> {
        let shared = self.gpu.memory().share(pages.address(), Arc::new(pages));
        shared.map_err(|refused| error(refused.cu_result()))
    }

    fn unpin(&mut self, address: u64) -> CuResult<()> {
        self.gpu.memory().unshare(address).map_err(|refused| error(refused.cu_result()))
    }
}

impl gpu::SharedWords for HostPages {
    fn words(&self) -> &[AtomicU64] {
        Self::words(self)
    }
}
