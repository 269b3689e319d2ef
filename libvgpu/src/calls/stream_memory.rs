//! Writes and waits of words of memory in the order of a stream. The forms of CUDA 11.6 and before are not supported, as with
//! NVIDIA's driver unless it is loaded with a parameter (attributes 92 to 94 are 0). In a capture each call is a node.

use vgpu_api::stream_memory::OPS_MAX;
use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, DevicePtr, MemoryOp, MemoryOpKind, ask};

use crate::abi::{In, Raw, export};
use crate::core::contexts::enter;
use crate::core::graphs::{Words, Work};
use crate::core::streams::{context_of, resolve};

/// `CU_STREAM_WAIT_VALUE_FLUSH`: attribute 98 is 0.
const FLUSH: u32 = 1 << 30;

/// `CUstreamBatchMemOpParams`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Op {
    operation: u32,
    /// Of a barrier or a flush.
    own_flags: u32,
    at: DevicePtr,
    value: u64,
    flags: u32,
    _rest: [u32; 5],
}
const _: () = assert!(size_of::<Op>() == 48);

impl Op {
    /// What a call with one operation stands for.
    fn new(operation: u32, at: DevicePtr, value: u64, flags: u32) -> Self {
        Self { operation, own_flags: 0, at, value, flags, _rest: [0; 5] }
    }
}

fn write(at: DevicePtr, bytes: u32, value: u64, flags: u32) -> CuResult<MemoryOp> {
    // The one flag there is has no meaning in these forms.
    let good = flags == 0 && at.0.is_multiple_of(bytes.into());
    if good {
        Ok(MemoryOp { kind: MemoryOpKind::Write, at, bytes, value })
    } else {
        Err(CuError::INVALID_VALUE)
    }
}

fn wait(at: DevicePtr, bytes: u32, value: u64, flags: u32) -> CuResult<MemoryOp> {
    if flags & FLUSH != 0 {
        return Err(CuError::NOT_SUPPORTED);
    }
    let kind = MemoryOpKind::wait_of_flags(flags).filter(|_| at.0.is_multiple_of(bytes.into()));
    Ok(MemoryOp { kind: kind.ok_or(CuError::INVALID_VALUE)?, at, bytes, value })
}

/// Numbers: `CUstreamBatchMemOpType`.
fn of_batch(op: Op) -> CuResult<MemoryOp> {
    // The value of 32 bits is the low half.
    let low = op.value & u64::from(u32::MAX);
    match op.operation {
        1 => wait(op.at, 4, low, op.flags),
        2 => write(op.at, 4, low, op.flags),
        3 => Err(CuError::NOT_SUPPORTED),
        4 => wait(op.at, 8, op.value, op.flags),
        5 => write(op.at, 8, op.value, op.flags),
        6 if op.own_flags <= 1 => {
            Ok(MemoryOp { kind: MemoryOpKind::Barrier, at: DevicePtr(0), bytes: op.own_flags, value: 0 })
        }
        _ => Err(CuError::INVALID_VALUE),
    }
}

/// What a batch of a program comes to.
pub fn of_all(given: &[Op]) -> CuResult<Vec<MemoryOp>> {
    given.iter().map(|op| of_batch(*op)).collect()
}

fn queue(stream: Raw, mode: Mode, given: CuResult<Vec<Op>>) -> CuResult<()> {
    let entered = enter()?;
    let (stream, given) = (resolve(entered, stream.0, mode)?, given?);
    let ops = of_all(&given)?;
    let node = |context| Work::Words(Words { context, ops: ops.clone(), given: given.into() });
    if entered.process.graphs.captured(entered, stream, |_| context_of(entered, stream).map(node))? {
        return Ok(());
    }
    ask::vgpuStreamMemory(&entered.process.channel, entered.context, stream, ops)
}

fn one(op: Op) -> CuResult<Vec<Op>> {
    Ok(vec![op])
}

export! {
    fn cuStreamWriteValue32_v2 | cuStreamWriteValue32_v2_ptsz(mode, stream: Raw, at: DevicePtr, value: u32, flags: u32) {
        queue(stream, mode, one(Op::new(2, at, value.into(), flags)))
    }

    fn cuStreamWriteValue64_v2 | cuStreamWriteValue64_v2_ptsz(mode, stream: Raw, at: DevicePtr, value: u64, flags: u32) {
        queue(stream, mode, one(Op::new(5, at, value, flags)))
    }

    fn cuStreamWaitValue32_v2 | cuStreamWaitValue32_v2_ptsz(mode, stream: Raw, at: DevicePtr, value: u32, flags: u32) {
        queue(stream, mode, one(Op::new(1, at, value.into(), flags)))
    }

    fn cuStreamWaitValue64_v2 | cuStreamWaitValue64_v2_ptsz(mode, stream: Raw, at: DevicePtr, value: u64, flags: u32) {
        queue(stream, mode, one(Op::new(4, at, value, flags)))
    }

    fn cuStreamBatchMemOp_v2 | cuStreamBatchMemOp_v2_ptsz(mode, stream: Raw, count: u32, ops: In<Op>, flags: u32) {
        let count = count as usize;
        if count > OPS_MAX || flags != 0 {
            return queue(stream, mode, Err(CuError::INVALID_VALUE));
        }
        queue(stream, mode, (0..count).map(|i| ops.at(i)).collect())
    }
}
