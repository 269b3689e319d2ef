//! Device memory: allocation under the quota, copies and sets inside the allocation map.

use std::sync::atomic::{Ordering, fence};

use vgpu_api::memory::Memset;
use vgpu_api::{
    Call, CopyWord, CuError, CuResult, DevicePtr, MemInfo, MemoryOp, MemoryOpKind, Staged, Stream,
};

use super::Session;
use crate::device::Place;
use crate::pool_space::Order;
use crate::worker::ranges::Origin;
use crate::worker::staging::{self, CHUNK_BYTES};

impl Session {
    pub(super) fn alloc(&mut self, call: Call, bytes: u64) -> CuResult<DevicePtr> {
        let context = self.context(call.context)?;
        if bytes == 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let device = self.device_of(call.context);
        let charged_bytes = match self.device.piece_growth(context, bytes) {
            Some(growth) => self.quotas.charge_piece(device, growth).map(|()| 0)?,
            None => self.charge(device, bytes)?,
        };
        match self.device.alloc(context, bytes) {
            Ok(address) => {
                self.ranges.insert(address, bytes, charged_bytes, Origin::Alloc(call.context));
                Ok(DevicePtr(address))
            }
            Err(error) => {
                self.quotas.not_made(device, charged_bytes, self.device.pieces_bytes(device));
                self.settle(call.context, Err(error))
            }
        }
    }

    /// Counts an allocation as large as a device makes it; what was counted.
    pub(super) fn charge(&mut self, device: u32, bytes: u64) -> CuResult<u64> {
        let charged = self.device.allocation_bytes(bytes).ok_or(CuError::OUT_OF_MEMORY)?;
        self.quotas.charge(device, charged)?;
        Ok(charged)
    }

    /// Pieces that the device has ended count no longer.
    pub(super) fn count_pieces(&mut self, device: u32) {
        self.let_go_of_ended();
        self.quotas.pieces_are(device, self.device.pieces_bytes(device));
    }

    pub(super) fn free(&mut self, call: Call, at: DevicePtr) -> CuResult<()> {
        if at == DevicePtr(0) {
            return Ok(());
        }
        self.context(call.context)?;
        let owner = match self.ranges.freeable(at)? {
            Origin::Alloc(owner) => owner,
            // CUDA's contract: nothing uses it any more.
            Origin::Pooled(pool) => return self.free_pooled(pool, at, Order::Done),
            Origin::Global(_) | Origin::Arena | Origin::Opened | Origin::Mapped { .. } => {
                return Err(CuError::INVALID_VALUE);
            }
        };
        let context = self.context(owner)?;
        let result = self.device.free(context, at.0);
        self.settle(owner, result)?;
        self.graphs.something_ended();
        self.allocation_ended(at.0);
        if let Some(charged_bytes) = self.ranges.remove(at.0) {
            self.quotas.release(self.device_of(owner), charged_bytes);
        }
        self.count_pieces(self.device_of(owner));
        Ok(())
    }

    pub(super) fn mem_info(&mut self, call: Call) -> CuResult<MemInfo> {
        let context = self.context(call.context)?;
        // A grant may be larger than the device, as that of who is given all; and others use the device too.
        let device = self.device.memory(context)?;
        let quota = self.quotas.of(self.device_of(call.context))?;
        Ok(MemInfo {
            free: device.free.min(quota.free_bytes()),
            total: device.total.min(quota.limit_bytes()),
        })
    }

    pub(super) fn write(&mut self, call: Call, at: DevicePtr, bytes: &[u8], stream: Stream) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        self.ranges.check_write(at, bytes.len() as u64)?;
        self.wait_for_turn(place);
        let result = self.device.write(place, at.0, bytes);
        self.settle(context, result)
    }

    pub(super) fn write_staged(
        &mut self,
        call: Call,
        at: DevicePtr,
        from: Staged,
        stream: Stream,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        let range = from.range(self.staging.len()).ok_or(CuError::INVALID_VALUE)?;
        self.ranges.check_write(at, from.len)?;
        // Pageable memory: the driver may wait for its own staging.
        self.must_be_next(stream, context, place)?;
        self.wait_for_turn(place);
        self.buffer.resize(CHUNK_BYTES, 0);
        for (offset, done, length) in staging::pieces(range) {
            let piece = &mut self.buffer[..length];
            self.staging.read(offset, piece);
            let result = self.device.write(place, at.0 + done as u64, piece);
            self.settle(context, result)?;
        }
        Ok(())
    }

    pub(super) fn read_staged(
        &mut self,
        call: Call,
        to: Staged,
        at: DevicePtr,
        stream: Stream,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        let range = to.range(self.staging.len()).ok_or(CuError::INVALID_VALUE)?;
        self.ranges.check(at, to.len)?;
        self.must_be_next(stream, context, place)?;
        self.wait_for_turn(place);
        self.buffer.resize(CHUNK_BYTES, 0);
        for (offset, done, length) in staging::pieces(range) {
            let piece = &mut self.buffer[..length];
            let result = self.device.read(place, at.0 + done as u64, piece);
            if result.is_ok() {
                self.staging.write(offset, piece);
            }
            self.settle(context, result)?;
        }
        // Nobody waits for no bytes.
        if to.len > 0 {
            self.stream_was_waited_for(context, place);
        }
        Ok(())
    }

    pub(super) fn copy(
        &mut self,
        call: Call,
        to: DevicePtr,
        from: DevicePtr,
        bytes: u64,
        stream: Stream,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        self.ranges.check_write(to, bytes)?;
        self.ranges.check(from, bytes)?;
        self.wait_for_turn(place);
        let result = self.copied(place, to, from, bytes);
        self.settle(context, result)
    }

    /// Within a device, or between two; both ends were checked.
    fn copied(&mut self, place: Place, to: DevicePtr, from: DevicePtr, bytes: u64) -> CuResult<()> {
        match self.between(to, from) {
            Some((to_device, from_device)) => {
                self.device.copy_between(place, (to.0, to_device), (from.0, from_device), bytes)
            }
            None => self.device.copy(place, to.0, from.0, bytes),
        }
    }

    /// A copy, and the wait for it.
    pub(super) fn copy_then_wait(
        &mut self,
        call: Call,
        (to, from, bytes): (DevicePtr, DevicePtr, u64),
        stream: Stream,
    ) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        self.ranges.check_write(to, bytes)?;
        self.ranges.check(from, bytes)?;
        // Before the copy: what is put aside is done from its beginning.
        self.must_be_next(stream, context, place)?;
        self.wait_for_turn(place);
        let copied = self.copied(place, to, from, bytes);
        let result = copied.and_then(|()| self.device.stream_synchronize(place));
        self.settle(context, result)?;
        self.stream_was_waited_for(context, place);
        Ok(())
    }

    /// A copy whose end the guest sees in a word of the arena.
    pub(super) fn copy_then_write(
        &mut self,
        call: Call,
        (to, from, bytes): (DevicePtr, DevicePtr, u64),
        stream: Stream,
        CopyWord { at, count }: CopyWord,
    ) -> CuResult<()> {
        let pages = self.arena_word(at)?;
        let done = self.copy(call, to, from, bytes, stream).and_then(|()| {
            let (context, place) = self.place(call, stream)?;
            // A device that copies by this thread has written the bytes by now.
            fence(Ordering::Release);
            let write = MemoryOp { kind: MemoryOpKind::Write, at, bytes: 8, value: count.into() };
            let mut result = self.device.stream_memory(place, &[write]);
            if result.is_err() {
                // The guest uses the copy's memory again when it sees the word.
                result = self.device.stream_synchronize(place).and(result);
            }
            self.settle(context, result)
        });
        if let (Err(error), Some(word)) = (done, pages.word(at.0)) {
            word.store(u64::from(error.code()) << 32 | u64::from(count), Ordering::Release);
        }
        done
    }

    pub(super) fn fill(&mut self, call: Call, memset: &Memset, stream: Stream) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        if self.check_memset(memset)? == 0 {
            return Ok(());
        }
        self.wait_for_turn(place);
        let result = self.device.fill(place, memset);
        self.settle(context, result)
    }

    /// All bytes, from the first of the first row to the last of the last, can be written: so many.
    pub(super) fn check_memset(&self, memset: &Memset) -> CuResult<u64> {
        let bytes = memset.span()?;
        if bytes == 0 {
            return Ok(0);
        }
        self.ranges.check_write(memset.dst, bytes).map(|()| bytes)
    }
}
