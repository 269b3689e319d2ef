//! What the device is, its contexts and their limits.

use vgpu_api::*;

use super::{FakeDevice, KILLS};

/// Attributes of the fake device: plausible limits, compute capability 9.0.
fn attributes() -> Vec<i32> {
    let mut values = vec![1; 148];
    for (number, value) in [
        (1, 1024),
        (2, 1024),
        (3, 1024),
        (4, 64),
        (5, i32::MAX),
        (6, 65535),
        (7, 65535),
        (8, 49152),
        (10, 32),
        (14, 512),
        (16, 4),
        // Textures and surfaces: alignment of rows, sides, rows of device memory.
        (51, 32),
        (70, 4096),
        (71, 4096),
        (72, 65536),
        (75, 9),
        (76, 0),
        (97, 232_448),
        // Handles of pools that a driver has: more than programs are told.
        (119, 9),
        // Memory domains.
        (126, 4),
    ] {
        values[number] = value;
    }
    for number in (21..=29).chain(42..=43).chain(45..=49).chain(52..=68).chain([73, 74, 77]) {
        values[number] = 4096;
    }
    values
}

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn vgpuSnapshot(&mut self, _: Call, out: Staged) -> CuResult<u64> {
        let device = |number: u8| DeviceSnapshot {
            name: format!("fake {number}"),
            uuid: [number + 1; 16],
            pci: PciAddress { domain: 0, bus: i32::from(number) + 1, device: 0 },
            total_memory: 1 << 30,
            attributes: attributes(),
        };
        let snapshot = Snapshot {
            // Below the library's own, so that it can be told which of the two a program hears of.
            driver_version: 12090,
            priority_greatest: -5,
            priority_least: 0,
            limits: vec![1024; 10],
            devices: vec![device(0), device(1)],
            // The first reaches the second, not the other way.
            peers: Snapshot::all_peers(
                2,
                |number, device, _| if device == 0 { number.cast_signed() } else { 0 },
            ),
        };
        Ok(self.put(out, &snapshot.to_bytes()))
    }

    pub(super) fn cuDevicePrimaryCtxRetain(&mut self, _: Call, device: u32, _flags: u32) -> CuResult<()> {
        self.saw("retain")?;
        assert!(self.retained.insert(device), "only the first retain travels");
        Ok(())
    }

    pub(super) fn cuDevicePrimaryCtxRelease_v2(&mut self, _: Call, device: u32) -> CuResult<()> {
        self.saw("release")?;
        assert!(self.retained.remove(&device), "only the last release travels");
        self.end_context(ContextId::primary(device));
        Ok(())
    }

    pub(super) fn cuDevicePrimaryCtxReset_v2(&mut self, _: Call, device: u32) -> CuResult<()> {
        self.retained.remove(&device);
        self.end_context(ContextId::primary(device));
        self.sticky = None;
        self.saw("reset")
    }

    pub(super) fn cuCtxCreate_v2(
        &mut self,
        _: Call,
        context: ContextId,
        _flags: u32,
        _device: u32,
    ) -> CuResult<()> {
        assert!(context.0 > ContextId::PRIMARY_MAX);
        self.saw("ctx create")
    }

    pub(super) fn cuCtxDestroy_v2(&mut self, _: Call, context: ContextId) -> CuResult<()> {
        self.end_context(context);
        self.saw("ctx destroy")
    }

    pub(super) fn cuCtxSynchronize(&mut self, _: Call) -> CuResult<()> {
        self.saw("ctx sync")
    }

    pub(super) fn cuCtxGetLimit(&mut self, _: Call, _limit: u32) -> CuResult<u64> {
        self.saw("get limit")?;
        Ok(self.limit)
    }

    pub(super) fn cuCtxSetLimit(&mut self, _: Call, _limit: u32, value: u64) -> CuResult<()> {
        self.limit = value;
        self.ends = value == KILLS;
        self.saw("set limit")
    }

    pub(super) fn cuCtxEnablePeerAccess(&mut self, call: Call, peer: ContextId) -> CuResult<()> {
        self.saw("peer enable")?;
        let is_new = self.peers.insert((call.context, peer));
        if is_new { Ok(()) } else { Err(CuError::PEER_ACCESS_ALREADY_ENABLED) }
    }

    pub(super) fn cuCtxDisablePeerAccess(&mut self, call: Call, peer: ContextId) -> CuResult<()> {
        self.saw("peer disable")?;
        let was_there = self.peers.remove(&(call.context, peer));
        if was_there { Ok(()) } else { Err(CuError::PEER_ACCESS_NOT_ENABLED) }
    }
}
