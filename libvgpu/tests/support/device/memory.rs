//! Allocations that are real memory, copies and sets.

use std::sync::atomic::Ordering;

use idm::arena::WINDOW;
use vgpu_api::memory::Memset;
use vgpu_api::*;

use super::{FakeDevice, REFUSED_AFTER, WORDS_STAY};

impl FakeDevice {
    pub(super) fn bytes(&mut self, address: DevicePtr, len: u64) -> CuResult<&mut [u8]> {
        let (start, block) = self.memory.range_mut(..=address.0).next_back().ok_or(CuError::INVALID_VALUE)?;
        let from = usize::try_from(address.0 - start).unwrap();
        block.get_mut(from..from + usize::try_from(len).unwrap()).ok_or(CuError::INVALID_VALUE)
    }

    /// Where in the arena bytes lie that can be named; `None` for an address outside of the window.
    pub(super) fn pinned(&self, address: DevicePtr, len: u64) -> Option<CuResult<usize>> {
        let offset =
            address.0.checked_sub(WINDOW as u64).filter(|offset| *offset < self.arena.len() as u64)?;
        let part = self.parts.range(..=address.0).next_back();
        let inside = part.is_some_and(|(start, bytes)| address.0 + len <= start + bytes);
        Some(if inside { Ok(usize::try_from(offset).unwrap()) } else { Err(CuError::INVALID_VALUE) })
    }

    pub(super) fn get(&mut self, address: DevicePtr, len: u64) -> CuResult<Vec<u8>> {
        let Some(offset) = self.pinned(address, len) else { return Ok(self.bytes(address, len)?.to_vec()) };
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        self.arena.read(offset?, &mut bytes);
        Ok(bytes)
    }

    pub(super) fn set(&mut self, address: DevicePtr, bytes: &[u8]) -> CuResult<()> {
        match self.pinned(address, bytes.len() as u64) {
            Some(offset) => self.arena.write(offset?, bytes),
            None => self.bytes(address, bytes.len() as u64)?.copy_from_slice(bytes),
        }
        Ok(())
    }
}

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn cuMemAlloc_v2(&mut self, _: Call, bytes: u64) -> CuResult<DevicePtr> {
        self.saw("alloc")?;
        if bytes > 1 << 28 {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let address = self.next;
        self.next += (bytes + 0xffff) & !0xffff;
        self.memory.insert(address, vec![0xcd; usize::try_from(bytes).unwrap()]);
        Ok(DevicePtr(address))
    }

    pub(super) fn cuMemFree_v2(&mut self, _: Call, dptr: DevicePtr) -> CuResult<()> {
        self.saw("free")?;
        self.memory.remove(&dptr.0).map(|_| ()).ok_or(CuError::INVALID_VALUE)
    }

    pub(super) fn cuMemGetInfo_v2(&mut self, _: Call) -> CuResult<MemInfo> {
        let used: usize = self.memory.values().map(Vec::len).sum();
        Ok(MemInfo { free: (1 << 30) - used as u64, total: 1 << 30 })
    }

    pub(super) fn cuMemcpyHtoDAsync_v2(
        &mut self,
        _: Call,
        dst: DevicePtr,
        bytes: &[u8],
        stream: Stream,
    ) -> CuResult<()> {
        self.saw("htod")?;
        self.stream(stream)?;
        self.set(dst, bytes)
    }

    pub(super) fn vgpuMemcpyHtoDStaged(
        &mut self,
        _: Call,
        dst: DevicePtr,
        src: Staged,
        stream: Stream,
    ) -> CuResult<()> {
        self.saw("htod staged")?;
        self.stream(stream)?;
        let bytes = self.staging.read(src);
        self.set(dst, &bytes)
    }

    pub(super) fn vgpuMemcpyDtoHStaged(
        &mut self,
        _: Call,
        dst: Staged,
        src: DevicePtr,
        stream: Stream,
    ) -> CuResult<()> {
        self.saw("dtoh")?;
        self.stream(stream)?;
        let bytes = self.get(src, dst.len)?;
        self.staging.write(dst, &bytes);
        Ok(())
    }

    pub(super) fn cuMemcpyDtoDAsync_v2(
        &mut self,
        _: Call,
        dst: DevicePtr,
        src: DevicePtr,
        bytes: u64,
        _: Stream,
    ) -> CuResult<()> {
        self.saw("dtod")?;
        let copy = self.get(src, bytes)?;
        self.set(dst, &copy)
    }

    pub(super) fn vgpuMemset(&mut self, _: Call, memset: Memset, _: Stream) -> CuResult<()> {
        self.saw("memset")?;
        let element = &memset.value.to_le_bytes()[..memset.element_bytes as usize];
        let bytes = element.repeat(usize::try_from(memset.width).unwrap());
        for row in 0..memset.rows {
            self.set(DevicePtr(memset.dst.0 + row * memset.pitch), &bytes)?;
        }
        Ok(())
    }

    pub(super) fn cuMemcpyAsync(
        &mut self,
        _: Call,
        dst: DevicePtr,
        src: DevicePtr,
        bytes: u64,
        stream: Stream,
    ) -> CuResult<()> {
        self.saw("copy by address")?;
        self.stream(stream)?;
        let copy = self.get(src, bytes)?;
        self.set(dst, &copy)
    }

    pub(super) fn vgpuMemcpyThenWait(
        &mut self,
        _: Call,
        dst: DevicePtr,
        src: DevicePtr,
        bytes: u64,
        stream: Stream,
    ) -> CuResult<()> {
        self.saw("copy, then wait")?;
        self.stream(stream)?;
        if REFUSED_AFTER.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let copy = self.get(src, bytes)?;
        self.set(dst, &copy)
    }

    pub(super) fn vgpuMemcpyThenWrite(
        &mut self,
        _: Call,
        dst: DevicePtr,
        src: DevicePtr,
        bytes: u64,
        stream: Stream,
        CopyWord { at, count }: CopyWord,
    ) -> CuResult<()> {
        self.saw("copy, then write")?;
        self.pinned(at, 8).unwrap()?;
        let copied = self.stream(stream).and_then(|()| {
            if REFUSED_AFTER.fetch_sub(1, Ordering::Relaxed) == 0 {
                return Err(CuError::INVALID_VALUE);
            }
            let copy = self.get(src, bytes)?;
            self.set(dst, &copy)
        });
        if copied.is_ok() && WORDS_STAY.load(Ordering::Relaxed) {
            return Ok(());
        }
        let code = copied.err().map_or(0, CuError::code);
        self.set(at, &(u64::from(code) << 32 | u64::from(count)).to_le_bytes())?;
        copied
    }
}
