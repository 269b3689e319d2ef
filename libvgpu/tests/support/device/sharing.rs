//! What other processes have exported, and what they are shown.

use vgpu_api::*;

use super::{FakeDevice, THEIRS};

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn vgpuEventExport(&mut self, _: Call, event: EventHandle) -> CuResult<Token> {
        assert!(self.places.contains_key(&("event", event.index())), "it was made");
        self.saw("event export").map(|()| Token([6; 16]))
    }

    pub(super) fn vgpuEventImport(
        &mut self,
        call: Call,
        event: NewHandle<kind::Event>,
        token: Token,
    ) -> CuResult<()> {
        self.saw("event import")?;
        if token == THEIRS { self.cuEventCreate(call, event, 2) } else { Err(CuError::INVALID_VALUE) }
    }

    pub(super) fn vgpuMemoryExport(&mut self, _: Call, memory: MemoryHandle) -> CuResult<Token> {
        assert!(self.places.contains_key(&("memory", memory.index())), "it was created");
        self.saw("memory export").map(|()| THEIRS)
    }

    /// All lie in one piece.
    pub(super) fn vgpuIpcExport(&mut self, _: Call, at: DevicePtr) -> CuResult<SharedPart> {
        let bytes = self.memory.get(&at.0).expect("an allocation starts there").len() as u64;
        self.saw("ipc export").map(|()| SharedPart {
            memory: Token([5; 16]),
            offset: at.0 & 0xffff_ffff,
            bytes,
        })
    }

    /// Memory of two pieces.
    pub(super) fn vgpuMemoryImport(
        &mut self,
        call: Call,
        memory: NewHandle<kind::Memory>,
        device: u32,
        token: Token,
    ) -> CuResult<u64> {
        self.saw("memory import")?;
        if token != THEIRS || device != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        self.occupy(call, "memory", memory.0).map(|()| 4 << 20)
    }

    /// Memory of 4096 bytes.
    pub(super) fn vgpuIpcOpen(&mut self, call: Call, part: SharedPart) -> CuResult<DevicePtr> {
        self.saw("ipc open")?;
        let is_there = part.memory == THEIRS && part.offset + part.bytes <= 4096;
        if is_there { self.cuMemAlloc_v2(call, part.bytes) } else { Err(CuError::INVALID_VALUE) }
    }

    pub(super) fn vgpuIpcClose(&mut self, call: Call, at: DevicePtr) -> CuResult<()> {
        self.saw("ipc close")?;
        self.cuMemFree_v2(call, at)
    }
}
