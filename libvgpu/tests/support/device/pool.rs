//! Pools.

use vgpu_api::*;

use super::{FakeDevice, OF_THE_PROCESS, THEIRS};

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn cuMemPoolCreate(
        &mut self,
        _: Call,
        pool: NewHandle<kind::Pool>,
        _device: u32,
        _max: u64,
        shareable: bool,
    ) -> CuResult<()> {
        self.saw(if shareable { "shareable pool create" } else { "pool create" })?;
        self.occupy(OF_THE_PROCESS, "pool", pool.0)
    }

    pub(super) fn cuMemPoolDestroy(&mut self, _: Call, pool: GoneHandle<kind::Pool>) -> CuResult<()> {
        self.places.remove(&("pool", pool.0.index()));
        self.saw("pool destroy")
    }

    pub(super) fn vgpuPoolExport(&mut self, _: Call, pool: PoolHandle) -> CuResult<Token> {
        assert!(self.places.contains_key(&("pool", pool.index())), "it was created");
        self.saw("pool export").map(|()| THEIRS)
    }

    /// Of the first device.
    pub(super) fn vgpuPoolImport(
        &mut self,
        _: Call,
        pool: NewHandle<kind::Pool>,
        token: Token,
    ) -> CuResult<u32> {
        self.saw("pool import")?;
        if token != THEIRS {
            return Err(CuError::INVALID_VALUE);
        }
        self.occupy(OF_THE_PROCESS, "pool", pool.0).map(|()| 0)
    }

    pub(super) fn cuMemPoolExportPointer(&mut self, _: Call, dptr: DevicePtr) -> CuResult<PooledPiece> {
        let bytes = self.memory.get(&dptr.0).expect("an allocation starts there").len() as u64;
        self.saw("pointer export")?;
        Ok(PooledPiece { pool: THEIRS, chunk: Token([7; 16]), offset: 512, bytes })
    }

    pub(super) fn cuMemPoolImportPointer(
        &mut self,
        call: Call,
        pool: PoolHandle,
        piece: PooledPiece,
    ) -> CuResult<DevicePtr> {
        assert!(self.places.contains_key(&("pool", pool.index())), "it was imported");
        self.saw("pointer import")?;
        if piece.pool != THEIRS || piece.offset != 512 {
            return Err(CuError::INVALID_VALUE);
        }
        self.cuMemAlloc_v2(call, piece.bytes)
    }

    pub(super) fn cuMemPoolTrimTo(&mut self, _: Call, _pool: PoolHandle, _keep: u64) -> CuResult<()> {
        self.saw("trim")
    }

    pub(super) fn cuMemPoolGetAttribute(&mut self, _: Call, _: PoolHandle, attribute: u32) -> CuResult<u64> {
        Ok(self.pool_values.get(&attribute).copied().unwrap_or(1))
    }

    pub(super) fn cuMemPoolSetAttribute(
        &mut self,
        _: Call,
        _: PoolHandle,
        attribute: u32,
        value: u64,
    ) -> CuResult<()> {
        self.pool_values.insert(attribute, value);
        Ok(())
    }

    pub(super) fn cuMemPoolSetAccess(
        &mut self,
        _: Call,
        _: PoolHandle,
        device: u32,
        access: Access,
    ) -> CuResult<()> {
        // What a driver may refuse.
        if access == Access::Read {
            return Err(CuError::INVALID_DEVICE);
        }
        self.saw(if device == 0 { "pool access of 0" } else { "pool access of another" })
    }

    pub(super) fn cuMemAllocFromPoolAsync(
        &mut self,
        call: Call,
        bytes: u64,
        pool: PoolHandle,
        stream: Stream,
    ) -> CuResult<DevicePtr> {
        self.stream(stream)?;
        assert!(self.places.contains_key(&("pool", pool.index())), "it was created");
        self.cuMemAlloc_v2(call, bytes)
    }

    pub(super) fn cuMemFreeAsync(&mut self, call: Call, dptr: DevicePtr, stream: Stream) -> CuResult<()> {
        self.saw("free in order")?;
        self.stream(stream)?;
        self.cuMemFree_v2(call, dptr)
    }
}
