//! Writes and waits of words, and attributes of streams.

use vgpu_api::CuResult;

use super::*;
use crate::device::Soft;

const NON_BLOCKING: u32 = 1;

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

/// A stream of the context.
fn stream(world: &World, number: u64, flags: u32) -> Stream {
    let handle = StreamHandle::new(0, number);
    ask::cuStreamCreateWithPriority(&world.guest, C, NewHandle(handle), flags, 0).unwrap();
    Stream::Made(handle)
}

/// One thread waits for a stream that waits for a word; another's call is to write it, and comes through the same loop.
#[test]
fn who_waits_behind_a_word_is_put_aside_until_it_is_written() {
    let world = world_with(Null::default().stalling().busy());
    let (waits, writes) = (stream(&world, 0, NON_BLOCKING), stream(&world, 1, NON_BLOCKING));
    let event = EventHandle::new(0, 0);
    ask::cuEventCreate(&world.guest, C, NewHandle(event), 0).unwrap();
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    let queue = |stream, kind| {
        ask::vgpuStreamMemory(&world.guest, C, stream, vec![op(kind, at, 4, 1)]).unwrap();
        assert_eq!(world.guest.take_error(), None);
    };
    let calls: [&dyn Fn() -> CuResult<()>; 3] = [
        &|| ask::cuStreamSynchronize(&world.guest, C, waits),
        &|| ask::cuCtxSynchronize(&world.guest, C),
        &|| ask::cuEventSynchronize(&world.guest, C, event),
    ];
    for call in calls {
        queue(waits, MemoryOpKind::WaitEqual);
        ask::cuEventRecordWithFlags(&world.guest, C, event, waits, 0).unwrap();
        assert_eq!([call(), call()], [Err(CuError::NOT_READY); 2]);
        queue(writes, MemoryOpKind::Write);
        // The device would say of a stream that it is busy: nobody asks.
        assert_eq!(call(), Ok(()));
    }
}

#[test]
fn a_wait_for_a_word_goes_on_without_its_stream() {
    let world = world_with(Null::default().stalling());
    let (waits, writes) = (stream(&world, 0, NON_BLOCKING), stream(&world, 1, NON_BLOCKING));
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    let queue = |stream, kind| {
        ask::vgpuStreamMemory(&world.guest, C, stream, vec![op(kind, at, 4, 1)]).unwrap();
        assert_eq!(world.guest.take_error(), None);
    };
    queue(waits, MemoryOpKind::WaitEqual);
    let Stream::Made(handle) = waits else { unreachable!() };
    ask::cuStreamDestroy_v2(&world.guest, C, GoneHandle(handle)).unwrap();
    assert_eq!(ask::cuCtxSynchronize(&world.guest, C), Err(CuError::NOT_READY));
    queue(writes, MemoryOpKind::Write);
    assert_eq!(ask::cuCtxSynchronize(&world.guest, C), Ok(()));
}

/// The legacy stream's work comes after that of all streams that block, and theirs after its.
#[test]
fn a_staged_copy_is_put_aside_behind_the_streams_that_come_before_it_and_no_others() {
    const ASIDE: CuResult<()> = Err(CuError::NOT_READY);
    let world = world_with(Null::default().stalling());
    let [held, blocking] = [0, 1].map(|number| stream(&world, number, 0));
    let [free, writes] = [2, 3].map(|number| stream(&world, number, NON_BLOCKING));
    let at = ask::cuMemAlloc_v2(&world.guest, C, 64).unwrap();
    let queue = |stream, kind| {
        ask::vgpuStreamMemory(&world.guest, C, stream, vec![op(kind, at, 4, 1)]).unwrap();
        assert_eq!(world.guest.take_error(), None);
    };
    let fill = |stream| {
        let memset = Memset { dst: at, pitch: 0, element_bytes: 1, value: 7, width: 8, rows: 1 };
        ask::vgpuMemset(&world.guest, C, memset, stream).unwrap();
        assert_eq!(world.guest.take_error(), None);
    };
    let copies = |stream| {
        let staged = Staged { offset: 0, len: 8 };
        [
            ask::vgpuMemcpyDtoHStaged(&world.guest, C, staged, at, stream),
            ask::vgpuMemcpyHtoDStaged(&world.guest, C, at, staged, stream),
        ]
    };
    // What the legacy stream was given before is no reason to wait.
    fill(Stream::Legacy);
    for _ in 0..2 {
        queue(held, MemoryOpKind::WaitEqual);
        assert_eq!((copies(held), copies(Stream::Legacy)), ([ASIDE; 2], [ASIDE; 2]));
        queue(writes, MemoryOpKind::Write);
        assert_eq!((copies(held), copies(Stream::Legacy)), ([Ok(()); 2], [Ok(()); 2]));
        queue(held, MemoryOpKind::WaitEqual);
        assert_eq!((copies(blocking), copies(free)), ([Ok(()); 2], [Ok(()); 2]), "nothing comes between");
        fill(Stream::Legacy);
        assert_eq!((copies(blocking), copies(free)), ([ASIDE; 2], [Ok(()); 2]));
        assert_eq!(ask::cuStreamSynchronize(&world.guest, C, blocking), Ok(()), "it holds nothing");
        assert_eq!(ask::cuStreamSynchronize(&world.guest, C, Stream::Legacy), ASIDE);
        queue(writes, MemoryOpKind::Write);
        assert_eq!((copies(blocking), copies(Stream::Legacy)), ([Ok(()); 2], [Ok(()); 2]));
    }
    // For a stream that does not block, the legacy one does not wait, nor the other way round.
    queue(free, MemoryOpKind::WaitEqual);
    fill(Stream::Legacy);
    assert_eq!([copies(Stream::Legacy), copies(blocking)], [[Ok(()); 2]; 2]);
    assert_eq!(copies(free), [ASIDE; 2]);
}

#[test]
fn waits_for_words_are_bounded_by_those_that_are_not_over() {
    let world = world_with(Null::default().stalling());
    let (waits, writes) = (stream(&world, 0, NON_BLOCKING), stream(&world, 1, NON_BLOCKING));
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    let queue = |stream, kind| {
        ask::vgpuStreamMemory(&world.guest, C, stream, vec![op(kind, at, 4, 1)]).unwrap();
        world.guest.take_error()
    };
    for _ in 0..1 << 16 {
        assert_eq!(queue(waits, MemoryOpKind::WaitEqual), None);
    }
    assert_eq!(queue(waits, MemoryOpKind::WaitEqual), Some(CuError::OUT_OF_MEMORY));
    assert_eq!(queue(writes, MemoryOpKind::Write), None);
    assert_eq!(queue(waits, MemoryOpKind::WaitEqual), None);
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
