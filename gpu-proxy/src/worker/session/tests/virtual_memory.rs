//! Memory and addresses apart: what may be touched, what counts, what is refused.

use vgpu_api::{Access, CuResult};

use super::*;
use crate::device::Soft;

const PIECE: u64 = MAPPING_BYTES;
const GIB: u64 = 1 << 30;
const NOTHING: CuResult<()> = Err(CuError::INVALID_VALUE);

fn soft(pieces: u64) -> World {
    world_of(Soft::new(pieces * PIECE).unwrap(), pieces * PIECE)
}

fn memory(number: u64) -> MemoryHandle {
    MemoryHandle::new(0, number)
}

impl World {
    /// The error of the queued call before, if it failed.
    fn told(&self) -> CuResult<()> {
        self.guest.take_error().map_or(Ok(()), Err)
    }

    fn reserve(&self, bytes: u64) -> CuResult<DevicePtr> {
        ask::cuMemAddressReserve(&self.guest, C, bytes, 0, DevicePtr(0))
    }

    fn create(&self, number: u64, pieces: u64) -> CuResult<()> {
        ask::cuMemCreate(&self.guest, C, NewHandle(memory(number)), pieces * PIECE, 0)
    }

    fn release(&self, number: u64) -> CuResult<()> {
        ask::cuMemRelease(&self.guest, C, GoneHandle(memory(number)))?;
        self.told()
    }

    fn map(&self, at: DevicePtr, pieces: u64, number: u64) -> CuResult<()> {
        ask::cuMemMap(&self.guest, C, at, pieces * PIECE, memory(number))?;
        self.told()
    }

    fn unmap(&self, at: DevicePtr, pieces: u64) -> CuResult<()> {
        ask::cuMemUnmap(&self.guest, C, at, pieces * PIECE)?;
        self.told()
    }

    fn open(&self, at: DevicePtr, pieces: u64, access: Access) -> CuResult<()> {
        ask::cuMemSetAccess(&self.guest, C, at, pieces * PIECE, 0, access)?;
        self.told()
    }

    fn unreserve(&self, at: DevicePtr, bytes: u64) -> CuResult<()> {
        ask::cuMemAddressFree(&self.guest, C, at, bytes)?;
        self.told()
    }

    fn set(&self, dst: DevicePtr, bytes: u64) -> CuResult<()> {
        let memset = Memset { dst, pitch: 0, element_bytes: 1, value: 7, width: bytes, rows: 1 };
        ask::vgpuMemset(&self.guest, C, memset, Stream::Legacy)?;
        self.told()
    }

    fn read(&self, at: DevicePtr, bytes: u64) -> CuResult<()> {
        ask::vgpuMemcpyDtoHStaged(&self.guest, C, Staged { offset: 0, len: bytes }, at, Stream::Legacy)
    }
}

fn at(base: DevicePtr, pieces: u64) -> DevicePtr {
    base.offset(pieces * PIECE).unwrap()
}

/// What PyTorch does: 1.1 times the device's addresses, pieces mapped as they are needed and used as one.
#[test]
fn pieces_that_are_mapped_one_by_one_are_used_as_one() {
    let world = soft(8);
    let base = world.reserve(96 * GIB).unwrap();
    for piece in 0..3 {
        world.create(piece, 1).unwrap();
        world.map(at(base, piece), 1, piece).unwrap();
    }
    assert_eq!(world.set(base, 3 * PIECE), NOTHING, "not opened");
    world.open(base, 2, Access::ReadWrite).unwrap();
    world.open(at(base, 2), 1, Access::ReadWrite).unwrap();
    world.set(base, 3 * PIECE).unwrap();
    world.read(DevicePtr(base.0 + 2 * PIECE - 8), 16).unwrap();
    assert_eq!(world.staging.0.lock().unwrap()[..16], [7; 16]);
    let copy = |to: DevicePtr, from, bytes| {
        ask::cuMemcpyDtoDAsync_v2(&world.guest, C, to, from, bytes, Stream::Legacy)?;
        world.told()
    };
    assert_eq!(copy(DevicePtr(base.0 + 3 * PIECE / 2), base, 3 * PIECE / 2), Ok(()));
    assert_eq!(copy(DevicePtr(base.0 + 3 * PIECE / 2), base, 3 * PIECE / 2 + 1), NOTHING);
    // The middle one goes: a hole.
    world.unmap(at(base, 1), 1).unwrap();
    assert_eq!(world.set(base, 3 * PIECE), NOTHING);
    assert_eq!(world.read(DevicePtr(base.0 + PIECE - 8), 16), NOTHING);
    assert_eq!((world.set(base, PIECE), world.set(at(base, 2), PIECE)), (Ok(()), Ok(())));
    // And another memory comes in its place.
    world.map(at(base, 1), 1, 1).unwrap();
    assert_eq!(world.set(base, 3 * PIECE), NOTHING, "not opened again");
    world.open(at(base, 1), 1, Access::ReadWrite).unwrap();
    world.set(base, 3 * PIECE).unwrap();
}

#[test]
fn memory_counts_from_its_creation_to_its_last_handle_and_mapping() {
    let world = soft(4);
    let base = world.reserve(GIB).unwrap();
    assert_eq!(world.used_bytes(), 0, "addresses cost nothing");
    world.create(0, 3).unwrap();
    assert_eq!(world.used_bytes(), 3 * PIECE);
    assert_eq!(world.create(1, 2), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(ask::cuMemAlloc_v2(&world.guest, C, PIECE + 1), Err(CuError::OUT_OF_MEMORY));
    world.map(base, 3, 0).unwrap();
    world.map(at(base, 3), 2, 0).unwrap();
    world.release(0).unwrap();
    assert_eq!(world.release(0), NOTHING, "it has ended");
    assert_eq!(world.map(at(base, 5), 1, 0), NOTHING);
    world.unmap(base, 3).unwrap();
    assert_eq!(world.used_bytes(), 3 * PIECE, "still shown");
    world.unmap(at(base, 3), 2).unwrap();
    assert_eq!(world.used_bytes(), 0);
    world.create(0, 4).unwrap();
    world.release(0).unwrap();
    assert_eq!(world.used_bytes(), 0);
    world.unreserve(base, GIB).unwrap();
}

#[test]
fn what_is_no_whole_thing_of_the_process_never_reaches_the_device() {
    let world = soft(8);
    let base = world.reserve(8 * PIECE).unwrap();
    world.create(0, 2).unwrap();
    world.map(at(base, 1), 2, 0).unwrap();
    for (what, place, pieces) in [
        ("over a mapping", at(base, 2), 1),
        ("around it", base, 4),
        ("before the reservation", DevicePtr(base.0 - PIECE), 1),
        ("past its end", at(base, 7), 2),
        ("at the end of all addresses", DevicePtr(u64::MAX - PIECE + 1), 1),
        ("larger than the memory", at(base, 3), 3),
        ("nothing", at(base, 3), 0),
        ("unaligned", DevicePtr(base.0 + 512), 1),
    ] {
        assert_eq!(world.map(place, pieces, 0), NOTHING, "{what}");
    }
    assert_eq!(world.map(at(base, 3), 1, 9), NOTHING, "no memory");
    for (place, pieces) in [(at(base, 1), 1), (base, 3), (at(base, 2), 1), (at(base, 1), 3), (base, 0)] {
        assert_eq!(world.unmap(place, pieces), NOTHING);
        assert_eq!(world.open(place, pieces, Access::ReadWrite), NOTHING);
    }
    let of_device_1 = ask::cuMemSetAccess(&world.guest, C, at(base, 1), 2 * PIECE, 1, Access::Read);
    assert_eq!((of_device_1, world.told()), (Ok(()), Err(CuError::INVALID_DEVICE)));
    assert_eq!(world.unreserve(base, 8 * PIECE), NOTHING, "something is mapped");
    world.unmap(at(base, 1), 2).unwrap();
    assert_eq!((world.unreserve(base, PIECE), world.unreserve(at(base, 1), PIECE)), (NOTHING, NOTHING));
    world.unreserve(base, 8 * PIECE).unwrap();
    assert_eq!(world.unreserve(base, 8 * PIECE), NOTHING, "gone");
    let create = |bytes, device| ask::cuMemCreate(&world.guest, C, NewHandle(memory(1)), bytes, device);
    assert_eq!([create(0, 0), create(PIECE - 1, 0), create(u64::MAX, 0)], [NOTHING; 3]);
    assert_eq!(create(PIECE, 1), Err(CuError::INVALID_DEVICE));
    assert_eq!(world.create(0, 1), Err(CuError::INVALID_HANDLE), "the handle is in use");
    let reserve = |bytes, alignment, wanted| {
        ask::cuMemAddressReserve(&world.guest, C, bytes, alignment, DevicePtr(wanted)).map(drop)
    };
    assert_eq!(
        [reserve(0, 0, 0), reserve(4095, 0, 0), reserve(PIECE, 3, 0), reserve(PIECE, 0, 1)],
        [NOTHING; 4]
    );
    let granularity = |device, option| ask::cuMemGetAllocationGranularity(&world.guest, C, device, option);
    assert_eq!([granularity(0, 0), granularity(0, 1)], [Ok(PIECE); 2]);
    assert_eq!(granularity(0, 2), Err(CuError::INVALID_VALUE));
    assert_eq!(granularity(1, 0), Err(CuError::INVALID_DEVICE));
}

#[test]
fn memory_that_may_only_be_read_is_not_written() {
    let world = soft(4);
    let base = world.reserve(2 * PIECE).unwrap();
    world.create(0, 2).unwrap();
    world.map(base, 1, 0).unwrap();
    world.map(at(base, 1), 1, 0).unwrap();
    world.open(base, 1, Access::ReadWrite).unwrap();
    world.open(at(base, 1), 1, Access::Read).unwrap();
    assert_eq!(world.read(DevicePtr(base.0 + PIECE - 8), 16), Ok(()));
    assert_eq!(world.set(DevicePtr(base.0 + PIECE - 8), 16), NOTHING);
    ask::cuMemcpyDtoDAsync_v2(&world.guest, C, at(base, 1), base, 8, Stream::Legacy).unwrap();
    assert_eq!(world.told(), NOTHING);
    ask::cuMemcpyHtoDAsync_v2(&world.guest, C, at(base, 1), &[1], Stream::Legacy).unwrap();
    assert_eq!(world.told(), NOTHING);
    let staged = Staged { offset: 0, len: 1 };
    assert_eq!(ask::vgpuMemcpyHtoDStaged(&world.guest, C, at(base, 1), staged, Stream::Legacy), NOTHING);
    world.open(base, 2, Access::None).unwrap();
    assert_eq!(world.read(base, 8), NOTHING);
    assert_eq!(ask::cuMemFree_v2(&world.guest, C, base), Ok(()));
    assert_eq!(world.told(), NOTHING, "it is no allocation");
}

/// Addresses cost a guest nothing, but the worker and the driver some memory.
#[test]
fn reservations_and_mappings_are_bounded() {
    let world = world_of(Null::default(), 4 * PIECE);
    let halves: Vec<_> = (0..2).map(|_| world.reserve(16 << 40).unwrap()).collect();
    assert_eq!(world.reserve(PIECE), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(world.reserve(u64::MAX - 4095), Err(CuError::OUT_OF_MEMORY));
    halves.iter().for_each(|half| world.unreserve(*half, 16 << 40).unwrap());
    let base = world.reserve(1 << 40).unwrap();
    for _ in 1..4096 {
        world.reserve(4096).unwrap();
    }
    assert_eq!(world.reserve(4096), Err(CuError::OUT_OF_MEMORY));
    world.create(0, 1).unwrap();
    for piece in 0..256 << 10 {
        world.map(at(base, piece), 1, 0).unwrap();
    }
    assert_eq!(world.map(at(base, 256 << 10), 1, 0), Err(CuError::OUT_OF_MEMORY));
    assert_eq!(world.used_bytes(), PIECE);
}

/// Else a guest whose driver refuses takes any amount of the device.
#[test]
fn memory_that_the_device_does_not_let_go_of_goes_on_counting() {
    let world = world_of(Null::default().refusing(&[Step::Release]), 4 * PIECE);
    let base = world.reserve(GIB).unwrap();
    world.create(0, 1).unwrap();
    world.map(base, 1, 0).unwrap();
    world.create(1, 1).unwrap();
    assert_eq!((world.release(0), world.release(1)), (NOTHING, NOTHING));
    world.unmap(base, 1).unwrap();
    assert_eq!(world.used_bytes(), 2 * PIECE);
    let world = world_of(Null::default().refusing(&[Step::Unmap]), 4 * PIECE);
    let base = world.reserve(GIB).unwrap();
    world.create(0, 1).unwrap();
    world.map(base, 1, 0).unwrap();
    assert_eq!((world.unmap(base, 1), world.release(0), world.unmap(base, 1)), (NOTHING, Ok(()), NOTHING));
    assert_eq!(world.used_bytes(), PIECE);
}

#[test]
fn it_is_the_process_s_and_no_contexts() {
    let world = soft(4);
    let base = world.reserve(PIECE).unwrap();
    world.create(0, 1).unwrap();
    world.map(base, 1, 0).unwrap();
    world.open(base, 1, Access::ReadWrite).unwrap();
    ask::cuDevicePrimaryCtxReset_v2(&world.guest, ContextId::NONE, 0).unwrap();
    let none = ask::cuMemAddressReserve(&world.guest, ContextId::NONE, PIECE, 0, DevicePtr(0));
    assert!(none.is_ok(), "without a context");
    ask::cuDevicePrimaryCtxRetain(&world.guest, ContextId::NONE, 0, 0).unwrap();
    world.set(base, PIECE).unwrap();
    assert_eq!(world.used_bytes(), PIECE);
}
