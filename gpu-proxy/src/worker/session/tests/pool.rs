//! Pools: the order of streams, what counts, what is given back.

use vgpu_api::CuResult;

use super::*;
use crate::device::Soft;

const PIECE: u64 = MAPPING_BYTES;
const THRESHOLD: u32 = 4;
const RESERVED: u32 = 5;
const RESERVED_HIGH: u32 = 6;
const USED: u32 = 7;
const USED_HIGH: u32 = 8;
const REFUSED: CuResult<()> = Err(CuError::INVALID_VALUE);
const FULL: CuError = CuError::OUT_OF_MEMORY;

fn pool(number: u64) -> PoolHandle {
    PoolHandle::new(0, number)
}

/// A process with a pool and two streams.
fn world_of_pool(device: impl Device + 'static, pieces: u64) -> (World, [Stream; 2]) {
    let world = world_of(device, pieces * PIECE);
    world.make(0, 0);
    let streams = [0, 1].map(|number| {
        let handle = StreamHandle::new(0, number);
        ask::cuStreamCreateWithPriority(&world.guest, C, NewHandle(handle), 0, 0).unwrap();
        Stream::Made(handle)
    });
    (world, streams)
}

impl World {
    fn make(&self, number: u64, bytes_max: u64) {
        ask::cuMemPoolCreate(&self.guest, C, NewHandle(pool(number)), 0, bytes_max, false).unwrap();
        assert_eq!(self.guest.take_error(), None);
    }

    fn take(&self, number: u64, bytes: u64, stream: Stream) -> CuResult<DevicePtr> {
        ask::cuMemAllocFromPoolAsync(&self.guest, C, bytes, pool(number), stream)
    }

    fn give(&self, at: DevicePtr, stream: Stream) -> CuResult<()> {
        ask::cuMemFreeAsync(&self.guest, C, at, stream)?;
        self.guest.take_error().map_or(Ok(()), Err)
    }

    fn trim_to(&self, number: u64, keep: u64) {
        ask::cuMemPoolTrimTo(&self.guest, C, pool(number), keep).unwrap();
        assert_eq!(self.guest.take_error(), None);
    }

    fn attribute(&self, number: u32) -> u64 {
        ask::cuMemPoolGetAttribute(&self.guest, C, pool(0), number).unwrap()
    }

    fn keep(&self, number: u64, bytes: u64) {
        ask::cuMemPoolSetAttribute(&self.guest, C, pool(number), THRESHOLD, bytes).unwrap();
    }

    fn wait(&self, stream: Stream) {
        ask::cuStreamSynchronize(&self.guest, C, stream).unwrap();
    }
}

#[test]
fn what_a_pool_keeps_counts_and_beyond_the_grant_is_exactly_two() {
    let (world, [a, _]) = world_of_pool(Soft::new(4 * PIECE).unwrap(), 4);
    assert_eq!(world.used_bytes(), 0, "a pool without memory costs nothing");
    let first = world.take(0, 100, a).unwrap();
    let second = world.take(0, PIECE + 1, a).unwrap();
    assert_eq!(world.used_bytes(), 3 * PIECE);
    assert_eq!((world.attribute(RESERVED), world.attribute(USED)), (3 * PIECE, 512 + PIECE + 512));
    assert_eq!(world.take(0, 2 * PIECE, a), Err(FULL));
    assert_eq!(world.take(0, u64::MAX, a), Err(FULL));
    assert_eq!(world.take(0, 0, a).map(drop), REFUSED);
    world.keep(0, u64::MAX);
    world.give(first, a).unwrap();
    world.give(second, a).unwrap();
    world.wait(a);
    assert_eq!((world.used_bytes(), world.attribute(USED)), (3 * PIECE, 0), "kept");
    assert_eq!(ask::cuMemAlloc_v2(&world.guest, C, 2 * PIECE), Err(FULL));
    assert_eq!(ask::cuMemGetInfo_v2(&world.guest, C).unwrap().free, PIECE);
    world.trim_to(0, 2 * PIECE);
    assert_eq!(world.used_bytes(), 2 * PIECE);
    world.trim_to(0, 0);
    assert_eq!((world.used_bytes(), world.attribute(RESERVED)), (0, 0));
    assert!(ask::cuMemAlloc_v2(&world.guest, C, 4 * PIECE).is_ok());
}

#[test]
fn memory_beyond_the_threshold_is_given_back_by_the_next_wait() {
    let (world, [a, b]) = world_of_pool(Null::default().busy(), 8);
    let waits: [&dyn Fn(&World); 3] = [
        &|world: &World| world.wait(a),
        &|world: &World| ask::cuCtxSynchronize(&world.guest, C).unwrap(),
        // The guest does not wait for the stream once more.
        &|world: &World| {
            let at = ask::cuMemAlloc_v2(&world.guest, C, 512).unwrap();
            ask::vgpuMemcpyDtoHStaged(&world.guest, C, Staged { offset: 0, len: 512 }, at, a).unwrap();
            ask::cuMemFree_v2(&world.guest, C, at).unwrap();
        },
    ];
    for wait in waits {
        let mine = world.take(0, 3 * PIECE, a).unwrap();
        let rest = world.take(0, PIECE, b).unwrap();
        world.give(mine, a).unwrap();
        assert_eq!(world.used_bytes(), 4 * PIECE);
        wait(&world);
        assert_eq!(world.used_bytes(), PIECE, "but what is in use");
        world.give(rest, b).unwrap();
        ask::cuCtxSynchronize(&world.guest, C).unwrap();
        assert_eq!(world.used_bytes(), 0);
    }
    // An event says that a stream got so far; whether it is idle is asked.
    let (world, [a, _]) = world_of_pool(Null::default(), 8);
    let event = EventHandle::new(0, 0);
    ask::cuEventCreate(&world.guest, C, NewHandle(event), 0).unwrap();
    let mine = world.take(0, PIECE, a).unwrap();
    world.give(mine, a).unwrap();
    ask::cuEventSynchronize(&world.guest, C, event).unwrap();
    assert_eq!(world.used_bytes(), 0);
}

#[test]
fn freed_memory_is_the_streams_own_until_the_stream_is_done() {
    let (world, [a, b]) = world_of_pool(Null::default().busy(), 8);
    world.keep(0, u64::MAX);
    let first = world.take(0, PIECE, a).unwrap();
    world.give(first, a).unwrap();
    assert_eq!(world.take(0, PIECE, a), Ok(first), "the same stream at once");
    world.give(first, a).unwrap();
    let other = world.take(0, PIECE, b).unwrap();
    assert_ne!(other, first);
    let of_default = world.take(0, PIECE, Stream::Legacy).unwrap();
    assert!(of_default != first && of_default != other);
    world.wait(a);
    assert_eq!(world.take(0, PIECE, b), Ok(first), "another when the stream is done");
    // The work of a stream goes on when it is destroyed: only its context tells.
    world.give(first, b).unwrap();
    let Stream::Made(handle) = b else { unreachable!() };
    ask::cuStreamDestroy_v2(&world.guest, C, GoneHandle(handle)).unwrap();
    assert_ne!(world.take(0, PIECE, a), Ok(first));
    ask::cuCtxSynchronize(&world.guest, C).unwrap();
    assert_eq!(world.take(0, PIECE, a), Ok(first));
}

#[test]
fn a_stream_that_is_seen_to_be_idle_needs_no_wait_unless_the_program_says_so() {
    let (world, [a, b]) = world_of_pool(Null::default(), 8);
    world.keep(0, u64::MAX);
    let first = world.take(0, PIECE, a).unwrap();
    world.give(first, a).unwrap();
    assert_eq!(world.take(0, PIECE, b), Ok(first));
    world.give(first, b).unwrap();
    ask::cuMemPoolSetAttribute(&world.guest, C, pool(0), 2, 0).unwrap();
    assert_ne!(world.take(0, PIECE, a), Ok(first), "no reuse by chance");
}

#[test]
fn when_the_grant_is_used_up_all_pools_give_back_what_they_keep() {
    let (world, [a, b]) = world_of_pool(Null::default().busy(), 4);
    world.make(1, 0);
    [0, 1].iter().for_each(|number| world.keep(*number, u64::MAX));
    let first = world.take(0, 4 * PIECE, a).unwrap();
    assert_eq!(world.take(1, PIECE, b), Err(FULL));
    world.give(first, a).unwrap();
    let second = world.take(1, 3 * PIECE, b).unwrap();
    assert_eq!(world.used_bytes(), 3 * PIECE);
    world.give(second, b).unwrap();
    assert!(world.take(1, 4 * PIECE, a).is_ok(), "what does not fit is made room for");
    assert_eq!(world.used_bytes(), 4 * PIECE);
}

#[test]
fn a_pool_has_a_largest_size_of_its_own() {
    let (world, [a, _]) = world_of_pool(Null::default(), 8);
    world.make(1, 2 * PIECE);
    let first = world.take(1, PIECE, a).unwrap();
    assert_eq!(world.take(1, 2 * PIECE, a), Err(FULL));
    world.give(first, a).unwrap();
    assert!(world.take(1, 2 * PIECE, a).is_ok());
    assert_eq!(world.used_bytes(), 2 * PIECE);
}

#[test]
fn a_destroyed_pool_lives_on_in_its_allocations() {
    let (world, [a, _]) = world_of_pool(Null::default().busy(), 8);
    let first = world.take(0, PIECE, a).unwrap();
    let second = world.take(0, PIECE, a).unwrap();
    ask::cuMemPoolDestroy(&world.guest, C, GoneHandle(pool(0))).unwrap();
    assert_eq!(world.take(0, PIECE, a).map(drop), Err(CuError::INVALID_VALUE));
    let read = |at| {
        let staged = Staged { offset: 0, len: 8 };
        ask::vgpuMemcpyDtoHStaged(&world.guest, C, staged, at, Stream::Legacy)
    };
    assert_eq!((read(first), world.used_bytes()), (Ok(()), 2 * PIECE));
    world.give(first, a).unwrap();
    world.give(second, a).unwrap();
    assert_eq!((read(first), read(second)), (REFUSED, REFUSED));
    world.wait(a);
    assert_eq!(world.used_bytes(), 0);
    // Its addresses are given back too, or a program could not make pools for ever.
    for number in 1..100 {
        let handle = PoolHandle::new(0, number % 8);
        ask::cuMemPoolCreate(&world.guest, C, NewHandle(handle), 0, 0, false).unwrap();
        let at = ask::cuMemAllocFromPoolAsync(&world.guest, C, 8, handle, a).unwrap();
        world.give(at, a).unwrap();
        ask::cuMemPoolDestroy(&world.guest, C, GoneHandle(handle)).unwrap();
        world.wait(a);
        assert_eq!(world.guest.take_error(), None, "pool {number}");
    }
}

/// The device gives a chunk and does not open it, and then perhaps does not take it back either.
#[test]
fn what_a_device_does_not_take_back_of_a_chunk_goes_on_counting() {
    for (refused, counted) in [
        (&[Step::Access][..], 0),
        (&[Step::Access, Step::Unmap], PIECE),
        (&[Step::Access, Step::Release], PIECE),
        (&[Step::Access, Step::Unmap, Step::Release], PIECE),
    ] {
        let (world, [a, _]) = world_of_pool(Null::default().refusing(refused), 2);
        assert_eq!(world.take(0, 100, a).map(drop), REFUSED, "{refused:?}");
        assert_eq!(world.used_bytes(), counted, "{refused:?}");
    }
}

#[test]
fn pools_and_their_allocations_are_bounded() {
    let (world, _) = world_of_pool(Null::default(), 8);
    for number in 1..256 {
        world.make(number, 0);
    }
    ask::cuMemPoolCreate(&world.guest, C, NewHandle(pool(256)), 0, 0, false).unwrap();
    assert_eq!(world.guest.take_error(), Some(FULL));
    ask::cuMemPoolCreate(&world.guest, C, NewHandle(pool(0)), 0, 0, false).unwrap();
    assert!(world.guest.take_error().is_some(), "the handle is in use");
    // The figure of README.md, of all pools together.
    let (world, [a, _]) = world_of_pool(Null::default(), 300);
    world.make(1, 0);
    let last = (0..1 << 20).map(|number| world.take(number % 2, 1, a).unwrap()).last().unwrap();
    assert_eq!((world.take(0, 1, a), world.take(1, 1, a)), (Err(FULL), Err(FULL)));
    world.give(last, a).unwrap();
    assert!(world.take(0, 1, a).is_ok());
}

#[test]
fn the_end_of_the_primary_context_ends_what_was_allocated() {
    let (world, [a, _]) = world_of_pool(Soft::new(4 * PIECE).unwrap(), 4);
    world.keep(0, u64::MAX);
    let mine = world.take(0, PIECE, a).unwrap();
    ask::cuDevicePrimaryCtxReset_v2(&world.guest, ContextId::NONE, 0).unwrap();
    assert_eq!(world.used_bytes(), 0);
    ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, 0, 0).unwrap();
    assert_eq!(world.give(mine, Stream::Legacy), REFUSED);
    assert!(world.take(0, 4 * PIECE, Stream::Legacy).is_ok(), "the pool is still there");
}

#[test]
fn a_pool_has_high_marks_and_flags_and_nothing_else() {
    let (world, [a, _]) = world_of_pool(Null::default(), 8);
    let mine = world.take(0, 3 * PIECE, a).unwrap();
    world.give(mine, a).unwrap();
    world.wait(a);
    assert_eq!(
        [RESERVED, RESERVED_HIGH, USED, USED_HIGH].map(|number| world.attribute(number)),
        [0, 3 * PIECE, 0, 3 * PIECE]
    );
    let set = |number, value| ask::cuMemPoolSetAttribute(&world.guest, C, pool(0), number, value);
    assert_eq!((set(RESERVED_HIGH, 0), set(USED_HIGH, 0)), (Ok(()), Ok(())));
    assert_eq!((world.attribute(RESERVED_HIGH), world.attribute(USED_HIGH)), (0, 0));
    assert_eq!([1, 2, 3, THRESHOLD].map(|number| world.attribute(number)), [1, 1, 1, 0]);
    assert_eq!((set(3, 0), world.attribute(3)), (Ok(()), 0));
    assert_eq!((set(THRESHOLD, 9), world.attribute(THRESHOLD)), (Ok(()), 9));
    for (number, value) in [(0, 0), (RESERVED, 0), (USED, 0), (9, 0), (RESERVED_HIGH, 1), (USED_HIGH, 1)] {
        assert_eq!(set(number, value), REFUSED, "{number}");
    }
    let get = |number| ask::cuMemPoolGetAttribute(&world.guest, C, pool(0), number);
    assert_eq!([get(0), get(9)], [Err(CuError::INVALID_VALUE); 2]);
}

/// A pool's addresses are not the program's to map, and its memory ends at what was asked for.
#[test]
fn only_what_was_allocated_can_be_touched_and_only_as_an_allocation() {
    let (world, [a, b]) = world_of_pool(Soft::new(8 * PIECE).unwrap(), 8);
    let mine = world.take(0, 100, a).unwrap();
    let set = |width| {
        let memset = Memset { dst: mine, pitch: 0, element_bytes: 1, value: 7, width, rows: 1 };
        ask::vgpuMemset(&world.guest, C, memset, a).unwrap();
        world.guest.take_error()
    };
    assert_eq!((set(100), set(101)), (None, Some(CuError::INVALID_VALUE)));
    let refused = |queued| {
        assert_eq!((queued, world.guest.take_error()), (Ok(()), Some(CuError::INVALID_VALUE)));
    };
    refused(ask::cuMemUnmap(&world.guest, C, mine, PIECE));
    refused(ask::cuMemAddressFree(&world.guest, C, mine, PIECE));
    refused(ask::cuMemSetAccess(&world.guest, C, mine, PIECE, 0, vgpu_api::Access::None));
    assert_eq!(world.give(mine.offset(1).unwrap(), a), REFUSED);
    world.give(mine, b).unwrap();
    assert_eq!(world.give(mine, b), REFUSED, "once");
    let again = world.take(0, 100, a).unwrap();
    ask::cuMemFree_v2(&world.guest, C, again).unwrap();
    assert_eq!(world.guest.take_error(), None);
    let plain = ask::cuMemAlloc_v2(&world.guest, C, 100).unwrap();
    world.give(plain, a).unwrap();
    world.wait(a);
    assert_eq!(world.used_bytes(), 0);
    let nobody = Stream::Made(StreamHandle::new(0, 9));
    assert_eq!(world.take(0, 100, nobody), Err(CuError::INVALID_HANDLE));
}

#[test]
fn a_full_pool_waits_for_no_function_of_the_program() {
    let (world, [a, _]) = world_of_pool(Null::default().calling_from_a_thread(), 2);
    let all = world.take(0, 2 * PIECE, a).unwrap();
    begin_function(&world.guest);
    assert_eq!(world.give(all, a), Ok(()));
    let taken = end_function(&world.staging, || world.take(0, 2 * PIECE, Stream::Legacy));
    assert_eq!(taken, Ok(all), "what was freed is there when all work is done");
}
