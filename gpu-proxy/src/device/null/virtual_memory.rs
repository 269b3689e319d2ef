//! Addresses and memory apart, with nothing behind either.

use vgpu_api::{Access, CuError, CuResult};

use super::{END_ADDRESS, MAPPING_BYTES, Null};
use crate::device::{Raw, Step, VirtualMemory};

impl VirtualMemory for Null {
    fn mapping_bytes(&self) -> u64 {
        MAPPING_BYTES
    }

    fn reserve(&mut self, bytes: u64, alignment: u64, _wanted: u64) -> CuResult<u64> {
        let align = alignment.max(MAPPING_BYTES);
        let address = self.next_address.checked_next_multiple_of(align).ok_or(CuError::OUT_OF_MEMORY)?;
        let next = address.checked_add(bytes).filter(|next| *next < END_ADDRESS);
        self.next_address = next.ok_or(CuError::OUT_OF_MEMORY)?;
        Ok(address)
    }

    fn unreserve(&mut self, _address: u64, _bytes: u64) -> CuResult<()> {
        Ok(())
    }

    fn create(&mut self, _device: u32, _bytes: u64) -> CuResult<Raw> {
        Ok(self.name())
    }

    fn release(&mut self, _memory: Raw) -> CuResult<()> {
        self.refuse(Step::Release)
    }

    fn map(&mut self, _address: u64, _bytes: u64, _memory: Raw) -> CuResult<()> {
        Ok(())
    }

    fn unmap(&mut self, _address: u64, _bytes: u64) -> CuResult<()> {
        self.refuse(Step::Unmap)
    }

    fn set_access(&mut self, _device: u32, _address: u64, _bytes: u64, _access: Access) -> CuResult<()> {
        self.refuse(Step::Access)
    }
}
