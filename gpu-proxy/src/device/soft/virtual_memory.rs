//! Addresses and memory apart, in the software GPU's checked memory.

use vgpu_api::{Access, CuResult};
use vgpu_soft as gpu;

use super::{Soft, error};
use crate::device::{Raw, VirtualMemory};

impl VirtualMemory for Soft {
    fn mapping_bytes(&self) -> u64 {
        gpu::MAPPING_ALIGN
    }

    fn reserve(&mut self, bytes: u64, alignment: u64, wanted: u64) -> CuResult<u64> {
        self.gpu.memory().reserve(bytes, alignment, wanted).map_err(|refused| error(refused.cu_result()))
    }

    fn unreserve(&mut self, address: u64, bytes: u64) -> CuResult<()> {
        self.gpu.memory().unreserve(address, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn create(&mut self, device: u32, bytes: u64) -> CuResult<Raw> {
        self.gpu.memory().create_on(device, bytes).map(Raw).map_err(|refused| error(refused.cu_result()))
    }

    fn release(&mut self, memory: Raw) -> CuResult<()> {
        self.gpu.memory().release(memory.0).map_err(|refused| error(refused.cu_result()))
    }

    fn map(&mut self, address: u64, bytes: u64, memory: Raw) -> CuResult<()> {
        self.gpu.memory().map(address, bytes, memory.0).map_err(|refused| error(refused.cu_result()))
    }

    fn unmap(&mut self, address: u64, bytes: u64) -> CuResult<()> {
        self.gpu.memory().unmap(address, bytes).map_err(|refused| error(refused.cu_result()))
    }

    fn set_access(&mut self, device: u32, address: u64, bytes: u64, access: Access) -> CuResult<()> {
        let protection = match access {
            Access::None => gpu::Protection::None,
            Access::Read => gpu::Protection::Read,
            Access::ReadWrite => gpu::Protection::ReadWrite,
        };
        let protected = self.gpu.memory().protect_for(device, address, bytes, protection);
        protected.map_err(|refused| error(refused.cu_result()))
    }
}
