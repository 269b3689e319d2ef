//! Writes and waits of words, and attributes of streams.

use vgpu_api::{CuResult, MemoryOp, MemoryOpKind};

use super::*;
use crate::device::Soft;

fn op(kind: MemoryOpKind, at: DevicePtr, bytes: u32, value: u64) -> MemoryOp {
    MemoryOp { kind, at, bytes, value }
}

impl World {
    fn queue(&self, ops: &[MemoryOp]) -> CuResult<()> {
        ask::vgpuStreamMemory(&self.guest, C, Stream::Legacy, ops.to_vec())?;
        self.guest.take_error().map_or(Ok(()), Err)
    }
}

#[test]
fn words_are_written_and_waited_for_in_order() {
    use MemoryOpKind::{Barrier, WaitAnd, WaitEqual, WaitGreaterOrEqual, WaitNor, Write};
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    let second = at.offset(8).unwrap();
    let ops = [
        op(Write, at, 8, u64::MAX),
        op(Write, at, 4, 5),
        op(WaitEqual, at, 8, 0xffff_ffff_0000_0005),
        op(Barrier, DevicePtr(0), 1, 0),
        op(WaitGreaterOrEqual, at, 4, 4),
        op(WaitAnd, at, 4, 4),
        op(WaitNor, at, 4, 0xf000_0000),
        op(Write, second, 4, 9),
    ];
    world.queue(&ops).unwrap();
    ask::vgpuMemcpyDtoHStaged(&world.guest, C, Staged { offset: 0, len: 12 }, at, Stream::Legacy).unwrap();
    assert_eq!(world.staging.bytes(12), [5, 0, 0, 0, 255, 255, 255, 255, 9, 0, 0, 0]);
}

#[test]
fn words_outside_the_allocation_map_and_bad_shapes_never_reach_the_device() {
    use MemoryOpKind::{Barrier, WaitEqual, Write};
    let world = world();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    let place = |offset| at.offset(offset).unwrap();
    let own_stack = DevicePtr(std::ptr::from_ref(&world) as u64);
    for bad in [
        op(Write, own_stack, 8, 0),
        op(WaitEqual, own_stack, 8, 0),
        op(Write, place(12), 8, 0),
        op(Write, place(16), 4, 0),
        op(Write, place(2), 4, 0),
        op(WaitEqual, at, 0, 0),
        op(WaitEqual, at, 16, 0),
        op(Barrier, at, 2, 0),
    ] {
        assert_eq!(world.queue(&[op(Write, at, 8, 1), bad]), Err(CuError::INVALID_VALUE), "{bad:?}");
    }
    assert_eq!(world.queue(&[op(Write, place(8), 8, 0); 255]), Ok(()));
    assert_eq!(world.queue(&[op(Write, place(8), 8, 0); 256]), Err(CuError::INVALID_VALUE));
}

/// On hardware the stream would wait for good; here all else of the process would wait with it.
#[test]
fn a_word_that_nobody_writes_ends_the_wait_and_the_context() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    let wait = op(MemoryOpKind::WaitEqual, at, 4, 77);
    assert_eq!(world.queue(&[wait]), Err(CuError::LAUNCH_TIMEOUT));
    assert_eq!(world.queue(&[op(MemoryOpKind::Write, at, 4, 77)]), Err(CuError::LAUNCH_TIMEOUT), "sticky");
}

#[test]
fn attributes_of_streams_hold_no_address_of_somebody_else() {
    let world = world();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 4096).unwrap();
    let set = |number, value: &[u8]| {
        ask::vgpuStreamSetAttribute(&world.guest, C, Stream::Legacy, number, value).unwrap();
        world.guest.take_error()
    };
    let window = |address: u64, bytes: u64| {
        let mut value = [0; 64];
        value[..8].copy_from_slice(&address.to_le_bytes());
        value[8..16].copy_from_slice(&bytes.to_le_bytes());
        value
    };
    assert_eq!(set(1, &window(at.0, 4096)), None);
    assert_eq!(set(1, &window(at.0, 4097)), Some(CuError::INVALID_VALUE));
    assert_eq!(set(1, &window(std::ptr::from_ref(&world) as u64, 8)), Some(CuError::INVALID_VALUE));
    assert_eq!([3, 8, 9, 10, 16].map(|number| set(number, &[0; 64])), [None; 5]);
    // A launch's own, and a value that is too short.
    assert_eq!([0, 2, 7, 12, 17].map(|number| set(number, &[0; 64])), [Some(CuError::INVALID_VALUE); 5]);
    assert_eq!(set(3, &[0; 63]), Some(CuError::INVALID_VALUE));
}
