//! Writes and waits of words of device memory in the order of a stream.

use vgpu_api::stream_memory::OPS_MAX;
use vgpu_api::{Call, CuError, CuResult, MemoryOp, MemoryOpKind, Stream};

use super::Session;

impl Session {
    pub(super) fn stream_memory(&mut self, call: Call, stream: Stream, ops: &[MemoryOp]) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
        if ops.len() > OPS_MAX {
            return Err(CuError::INVALID_VALUE);
        }
        ops.iter().try_for_each(|op| self.check_op(op))?;
        self.quota.wait_for_credit();
        let result = self.device.stream_memory(place, ops);
        self.settle(context, result)
    }

    fn check_op(&self, op: &MemoryOp) -> CuResult<()> {
        let bytes = u64::from(op.bytes);
        let aligned = matches!(bytes, 4 | 8) && op.at.0.is_multiple_of(bytes);
        match op.kind {
            MemoryOpKind::Barrier if bytes <= 1 => Ok(()),
            MemoryOpKind::Barrier => Err(CuError::INVALID_VALUE),
            _ if !aligned => Err(CuError::INVALID_VALUE),
            MemoryOpKind::Write => self.ranges.check_write(op.at, bytes),
            _ => self.ranges.check(op.at, bytes),
        }
    }
}
