//! Addresses and memory apart.

use vgpu_api::*;

use super::{FakeDevice, OF_THE_PROCESS, PIECE};

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn cuMemGetAllocationGranularity(
        &mut self,
        _: Call,
        _device: u32,
        _option: u32,
    ) -> CuResult<u64> {
        self.saw("granularity")?;
        Ok(PIECE)
    }

    /// Small ones are memory at once: what is mapped there is the guest's and the worker's to know.
    pub(super) fn cuMemAddressReserve(
        &mut self,
        _: Call,
        bytes: u64,
        _: u64,
        wanted: DevicePtr,
    ) -> CuResult<DevicePtr> {
        self.saw("reserve")?;
        let address = if wanted.0 == 0 { self.next.next_multiple_of(PIECE) } else { wanted.0 };
        if wanted.0 == 0 {
            self.next = address + bytes;
        }
        if bytes <= 1 << 28 {
            self.memory.insert(address, vec![0; usize::try_from(bytes).unwrap()]);
        }
        Ok(DevicePtr(address))
    }

    pub(super) fn cuMemAddressFree(&mut self, _: Call, at: DevicePtr, _bytes: u64) -> CuResult<()> {
        self.memory.remove(&at.0);
        self.saw("unreserve")
    }

    pub(super) fn cuMemCreate(
        &mut self,
        _: Call,
        memory: NewHandle<kind::Memory>,
        bytes: u64,
        _device: u32,
    ) -> CuResult<()> {
        self.saw("create")?;
        if bytes > 1 << 28 {
            return Err(CuError::OUT_OF_MEMORY);
        }
        self.occupy(OF_THE_PROCESS, "memory", memory.0)
    }

    pub(super) fn cuMemRelease(&mut self, _: Call, memory: GoneHandle<kind::Memory>) -> CuResult<()> {
        self.places.remove(&("memory", memory.0.index()));
        self.saw("memory release")
    }

    pub(super) fn cuMemMap(
        &mut self,
        _: Call,
        _at: DevicePtr,
        _bytes: u64,
        memory: MemoryHandle,
    ) -> CuResult<()> {
        assert!(self.places.contains_key(&("memory", memory.index())), "it was created");
        self.saw("map")
    }

    pub(super) fn cuMemUnmap(&mut self, _: Call, _at: DevicePtr, _bytes: u64) -> CuResult<()> {
        self.saw("unmap")
    }

    pub(super) fn cuMemSetAccess(
        &mut self,
        _: Call,
        _: DevicePtr,
        _: u64,
        device: u32,
        _: Access,
    ) -> CuResult<()> {
        self.saw(if device == 0 { "set access" } else { "set access of the second" })
    }
}
