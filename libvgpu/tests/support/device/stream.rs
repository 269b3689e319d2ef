//! Streams, and words of memory that they write and wait for.

use std::sync::atomic::Ordering;

use vgpu_api::*;

use super::{FakeDevice, WORDS_STAY};

impl FakeDevice {
    pub(super) fn stream(&self, stream: Stream) -> CuResult<()> {
        match stream {
            Stream::Legacy => Ok(()),
            Stream::Made(handle) if self.streams.contains(&handle.raw()) => Ok(()),
            Stream::Made(_) => Err(CuError::INVALID_HANDLE),
        }
    }
}

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn cuStreamCreateWithPriority(
        &mut self,
        call: Call,
        stream: NewHandle<kind::Stream>,
        _: u32,
        _: i32,
    ) -> CuResult<()> {
        self.streams.insert(stream.0.raw());
        self.occupy(call, "stream", stream.0)?;
        self.saw("stream create")
    }

    pub(super) fn cuStreamDestroy_v2(&mut self, _: Call, stream: GoneHandle<kind::Stream>) -> CuResult<()> {
        self.streams.remove(&stream.0.raw());
        self.places.remove(&("stream", stream.0.index()));
        self.saw("stream destroy")
    }

    pub(super) fn cuStreamSynchronize(&mut self, _: Call, stream: Stream) -> CuResult<()> {
        self.saw("stream sync")?;
        self.stream(stream)
    }

    pub(super) fn cuStreamQuery(&mut self, _: Call, _: Stream) -> CuResult<()> {
        self.saw("stream query")
    }

    pub(super) fn cuStreamWaitEvent(&mut self, _: Call, _: Stream, _: EventHandle, _: u32) -> CuResult<()> {
        self.saw("wait event")
    }

    pub(super) fn vgpuStreamSetAttribute(
        &mut self,
        _: Call,
        stream: Stream,
        _: u32,
        value: &[u8],
    ) -> CuResult<()> {
        assert_eq!(value.len(), 64);
        self.stream(stream)?;
        self.saw("set stream attribute")
    }

    pub(super) fn vgpuStreamMemory(&mut self, _: Call, stream: Stream, ops: Vec<MemoryOp>) -> CuResult<()> {
        self.saw("stream memory")?;
        self.stream(stream)?;
        for op in ops.into_iter().filter(|op| op.kind != MemoryOpKind::Barrier) {
            let mut word = [0; 8];
            let len = op.bytes as usize;
            word[..len].copy_from_slice(&self.get(op.at, len as u64)?);
            if op.kind == MemoryOpKind::Write && WORDS_STAY.load(Ordering::Relaxed) {
                // Not yet.
            } else if op.kind == MemoryOpKind::Write {
                self.set(op.at, &op.value.to_le_bytes()[..len])?;
            } else if !op.is_met(u64::from_le_bytes(word)) {
                return Err(CuError::TIMEOUT);
            }
        }
        Ok(())
    }
}
