//! Memory between two processes of a zone: what either sees, what counts where, what is refused.

use std::os::fd::OwnedFd;

use uuid::Uuid;
use vgpu_api::{Access, SharedPart, Token};
use vgpu_zone_api::shim::ZoneId;

use super::*;
use crate::device::DeviceKind;
use crate::exchange::{Answer, Question};
use crate::supervisor::shared::Given;
use crate::supervisor::worker_id::WorkerId;
use crate::supervisor::zones::{Limits, Zones};
use crate::worker::Exchange;

const PIECE: u64 = MAPPING_BYTES;
const GRANT_BYTES: u64 = 4 * PIECE;
const WRONG: CuError = CuError::INVALID_VALUE;

/// The supervisor of the processes of these tests.
#[derive(Debug, Clone)]
pub(super) struct Node(Arc<Mutex<Zones>>);

#[derive(Debug)]
pub(super) struct Asks {
    node: Node,
    zone: ZoneId,
    worker: WorkerId,
}

impl Exchange for Asks {
    fn ask(&mut self, question: Question, fd: Option<OwnedFd>) -> CuResult<(Answer, Option<OwnedFd>)> {
        let asked = (question, fd.map(Given::look_at));
        let mut zones = self.node.0.lock().unwrap();
        let (answer, fd) = zones.exchange(self.zone, self.worker, DeviceKind::Soft, asked)?;
        Ok((answer, fd.and_then(|fd| fd.try_clone().ok())))
    }
}

pub(super) struct Process {
    pub(super) world: World,
    node: Node,
    zone: ZoneId,
    worker: WorkerId,
}

impl Node {
    /// Two zones, of one container each.
    pub(super) fn new() -> Self {
        Self::of_devices(1)
    }

    /// The same, of containers that have so many devices each.
    pub(super) fn of_devices(devices: u32) -> Self {
        let mut zones = Zones::new(Limits {
            device_bytes: 1 << 30,
            workers_per_zone: 8,
            pages_per_zone: 100,
            pages_max: 1000,
            channel_pages: 1,
            shared_max: 100,
            devices,
            uids: None,
        });
        for number in [1, 2] {
            zones.register(zone(number), "a", None).unwrap();
            zones.grant(zone(number), "c", devices, Some(GRANT_BYTES), None).unwrap();
        }
        Self(Arc::new(Mutex::new(zones)))
    }

    pub(super) fn process(&self, number: u128, device: impl Device + 'static) -> Process {
        let zone = zone(number);
        let place = self.0.lock().unwrap().reserve(zone, "c", 1, 1).unwrap();
        let quota = |page: &SharedPage| Quota::new(SharedPage::map(page.fd()).unwrap(), place.slot).unwrap();
        let quotas: Vec<_> = place.devices.iter().map(|(_, page)| quota(page)).collect();
        let devices = u32::try_from(quotas.len()).unwrap();
        let staging = Heap::new(64 << 10);
        let session = Session::new(Box::new(device), quotas, Box::new(staging.clone()));
        let asks = Asks { node: self.clone(), zone, worker: place.worker };
        let guest = Loopback::new(session.with_exchange(Box::new(asks)));
        for number in 0..devices {
            ask::cuDevicePrimaryCtxRetain(&guest, ContextId::NONE, number, 0).unwrap();
        }
        let grant = Grant::new(Arc::new(SharedPage::create().unwrap()), 0);
        Process { world: World { guest, staging, grant }, node: self.clone(), zone, worker: place.worker }
    }

    pub(super) fn soft(&self, number: u128) -> Process {
        self.process(number, Soft::new(2 * GRANT_BYTES).unwrap())
    }

    /// What all of the zone's container is said to use of its first device.
    pub(super) fn used(&self, number: u128) -> u64 {
        self.used_of_each(number)[0]
    }

    pub(super) fn used_of_each(&self, number: u128) -> Vec<u64> {
        let usage = self.0.lock().unwrap().usage(zone(number), "c").unwrap();
        usage.iter().map(|one| one.used_bytes).collect()
    }
}

fn zone(number: u128) -> ZoneId {
    ZoneId(Uuid::from_u128(number))
}

fn memory(number: u64) -> MemoryHandle {
    MemoryHandle::new(0, number)
}

impl Process {
    pub(super) fn told(&self) -> CuResult<()> {
        self.world.guest.take_error().map_or(Ok(()), Err)
    }

    pub(super) fn alloc(&self, bytes: u64) -> CuResult<DevicePtr> {
        ask::cuMemAlloc_v2(&self.world.guest, C, bytes)
    }

    pub(super) fn free(&self, at: DevicePtr) -> CuResult<()> {
        ask::cuMemFree_v2(&self.world.guest, C, at)?;
        self.told()
    }

    fn create(&self, number: u64, bytes: u64) -> CuResult<()> {
        ask::cuMemCreate(&self.world.guest, C, NewHandle(memory(number)), bytes, 0)
    }

    fn release(&self, number: u64) -> CuResult<()> {
        ask::cuMemRelease(&self.world.guest, C, GoneHandle(memory(number)))?;
        self.told()
    }

    fn export(&self, number: u64) -> CuResult<Token> {
        ask::vgpuMemoryExport(&self.world.guest, C, memory(number))
    }

    fn import(&self, number: u64, token: Token) -> CuResult<u64> {
        ask::vgpuMemoryImport(&self.world.guest, C, NewHandle(memory(number)), 0, token)
    }

    /// Maps memory of so many bytes.
    fn show(&self, number: u64, bytes: u64) -> DevicePtr {
        let guest = &self.world.guest;
        let at = ask::cuMemAddressReserve(guest, C, bytes, 0, DevicePtr(0)).unwrap();
        ask::cuMemMap(guest, C, at, bytes, memory(number)).unwrap();
        ask::cuMemSetAccess(guest, C, at, bytes, 0, Access::ReadWrite).unwrap();
        self.told().unwrap();
        at
    }

    fn unmap(&self, at: DevicePtr, bytes: u64) -> CuResult<()> {
        ask::cuMemUnmap(&self.world.guest, C, at, bytes)?;
        self.told()
    }

    pub(super) fn export_at(&self, at: DevicePtr) -> CuResult<SharedPart> {
        ask::vgpuIpcExport(&self.world.guest, C, at)
    }

    pub(super) fn open(&self, part: SharedPart) -> CuResult<DevicePtr> {
        ask::vgpuIpcOpen(&self.world.guest, C, part)
    }

    fn close(&self, at: DevicePtr) -> CuResult<()> {
        ask::vgpuIpcClose(&self.world.guest, C, at)
    }

    pub(super) fn write(&self, at: DevicePtr, text: &[u8]) -> CuResult<()> {
        ask::cuMemcpyHtoDAsync_v2(&self.world.guest, C, at, text, Stream::Legacy)?;
        self.told()
    }

    pub(super) fn text(&self, at: DevicePtr) -> CuResult<Vec<u8>> {
        let to = Staged { offset: 0, len: 4 };
        ask::vgpuMemcpyDtoHStaged(&self.world.guest, C, to, at, Stream::Legacy)?;
        Ok(self.world.staging.bytes(4))
    }

    /// Another of its questions to the supervisor.
    pub(super) fn asks(&self) -> Asks {
        Asks { node: self.node.clone(), zone: self.zone, worker: self.worker }
    }

    pub(super) fn end(self) {
        drop(self.world);
        let mut zones = self.node.0.lock().unwrap();
        zones.ended_sharing(self.zone, self.worker);
        zones.worker_ended(self.zone, self.worker);
    }
}

#[test]
fn either_process_sees_what_the_other_writes_and_memory_counts_once() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    one.create(1, 2 * PIECE).unwrap();
    let at = one.show(1, 2 * PIECE);
    one.write(at, b"made").unwrap();
    let token = one.export(1).unwrap();
    assert_eq!(one.export(1), Ok(token), "it has one name");
    assert_eq!(two.import(5, token), Ok(2 * PIECE));
    let there = two.show(5, 2 * PIECE);
    assert_eq!(two.text(there).unwrap(), b"made");
    two.write(DevicePtr(there.0 + 2 * PIECE - 4), b"back").unwrap();
    assert_eq!(one.text(DevicePtr(at.0 + 2 * PIECE - 4)).unwrap(), b"back");
    assert_eq!(node.used(1), 2 * PIECE);

    // Its maker has no more of it: it stays for the other, and counts as long as that one has it.
    one.unmap(at, 2 * PIECE).unwrap();
    one.release(1).unwrap();
    assert_eq!((node.used(1), two.text(there).unwrap().as_slice()), (2 * PIECE, b"made".as_slice()));
    assert_eq!(one.create(2, 2 * PIECE + PIECE), Err(CuError::OUT_OF_MEMORY), "two of four pieces are used");
    one.create(2, 2 * PIECE).unwrap();
    assert_eq!(two.import(6, token), Err(WRONG), "there is no maker to give it");
    two.release(5).unwrap();
    assert_eq!(node.used(1), 4 * PIECE, "it is mapped");
    two.unmap(there, 2 * PIECE).unwrap();
    assert_eq!(node.used(1), 2 * PIECE);
}

#[test]
fn an_allocation_of_any_length_is_opened_and_closed_and_is_not_the_openers_to_free() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    let at = one.alloc(1000).unwrap();
    one.write(DevicePtr(at.0 + 996), b"last").unwrap();
    let part = one.export_at(at).unwrap();
    let used = node.used(1);
    let there = two.open(part).unwrap();
    assert_eq!(two.text(DevicePtr(there.0 + 996)).unwrap(), b"last");
    two.write(there, b"more").unwrap();
    assert_eq!((one.text(at).unwrap().as_slice(), node.used(1)), (b"more".as_slice(), used));
    assert_eq!(two.free(there), Err(WRONG));
    assert_eq!(two.export_at(there), Err(WRONG), "it is not its to give");
    assert_eq!(two.close(DevicePtr(there.0 + 8)), Err(WRONG));
    two.close(there).unwrap();
    assert_eq!((two.close(there), two.text(there).err()), (Err(WRONG), Some(WRONG)));
    one.free(at).unwrap();
    assert_eq!((node.used(1), two.open(part)), (0, Err(WRONG)));
}

#[test]
fn nothing_goes_to_another_zone() {
    let node = Node::new();
    let (one, stranger) = (node.soft(1), node.soft(2));
    let at = one.alloc(64).unwrap();
    one.create(1, PIECE).unwrap();
    let (allocation, created) = (one.export_at(at).unwrap(), one.export(1).unwrap());
    for memory in [allocation.memory, created] {
        let part = SharedPart { memory, ..allocation };
        assert_eq!((stranger.open(part), stranger.import(1, memory)), (Err(WRONG), Err(WRONG)));
    }
    assert_eq!(node.used(2), 0);
}

#[test]
fn a_death_takes_away_what_only_the_dead_had() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    let at = one.alloc(PIECE).unwrap();
    one.create(1, PIECE).unwrap();
    one.write(at, b"left").unwrap();
    let (kept, lost) = (one.export_at(at).unwrap(), one.export(1).unwrap());
    let there = two.open(kept).unwrap();
    assert_eq!(node.used(1), 2 * PIECE);
    one.end();
    assert_eq!((two.text(there).unwrap().as_slice(), node.used(1)), (b"left".as_slice(), PIECE));
    let lost = SharedPart { memory: lost, ..kept };
    assert_eq!((two.open(lost), two.open(kept)), (Err(WRONG), Err(WRONG)));
    two.end();
    assert_eq!(node.used(1), 0);
}

#[test]
fn a_context_takes_along_what_was_opened_in_it_and_what_it_allocated() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    let at = one.alloc(PIECE).unwrap();
    let part = one.export_at(at).unwrap();
    two.open(part).unwrap();
    two.open(part).unwrap();
    ask::cuDevicePrimaryCtxReset_v2(&one.world.guest, ContextId::NONE, 0).unwrap();
    assert_eq!((node.used(1), two.open(part)), (PIECE, Err(WRONG)));
    ask::cuDevicePrimaryCtxReset_v2(&two.world.guest, ContextId::NONE, 0).unwrap();
    assert_eq!(node.used(1), 0);
}

#[test]
fn what_a_process_does_not_have_it_cannot_give() {
    let node = Node::new();
    let one = node.soft(1);
    let at = one.alloc(PIECE).unwrap();
    assert_eq!(one.export(1).err(), Some(CuError::INVALID_VALUE));
    assert_eq!(one.export_at(DevicePtr(at.0 + 512)), Err(WRONG), "it starts elsewhere");
    one.create(1, PIECE).unwrap();
    let mapped = one.show(1, PIECE);
    assert_eq!(one.export_at(mapped), Err(WRONG), "no allocation");
    let token = one.export(1).unwrap();
    assert_eq!(one.import(1, token), Err(CuError::INVALID_HANDLE), "a handle in use");
    // A process may import its own.
    one.import(2, token).unwrap();
    one.write(mapped, b"same").unwrap();
    let again = one.show(2, PIECE);
    assert_eq!(one.text(again).unwrap(), b"same");
    assert_eq!(node.used(1), 2 * PIECE);

    // Nobody to exchange with, as a worker of an earlier program.
    let alone = world_of(Soft::new(GRANT_BYTES).unwrap(), GRANT_BYTES);
    let at = ask::cuMemAlloc_v2(&alone.guest, C, 64).unwrap();
    assert_eq!(ask::vgpuIpcExport(&alone.guest, C, at), Err(CuError::NOT_SUPPORTED));
    let part = SharedPart { memory: token, offset: 0, bytes: 64 };
    assert_eq!(ask::vgpuIpcOpen(&alone.guest, C, part), Err(CuError::NOT_SUPPORTED));
}

/// What the device refuses leaves nothing behind: neither addresses nor a use of the memory.
#[test]
fn what_cannot_be_mapped_is_given_back() {
    let node = Node::new();
    let one = node.soft(1);
    let part = one.export_at(one.alloc(PIECE).unwrap()).unwrap();
    let refusing = node.process(1, Null::default().refusing(&[Step::Access]));
    assert_eq!(refusing.open(part), Err(WRONG));
    assert_eq!(node.used(1), PIECE);
    one.end();
    assert_eq!(node.used(1), 0, "nobody has it");
}

/// As with `cuda`. Who kept a little of each piece could else have many times what was granted.
#[test]
fn a_piece_counts_whole_as_long_as_any_of_it_lives() {
    let node = Node::new();
    let one = node.process(1, Null::default().in_pieces());
    let [first, second] = [600, 512].map(|bytes| one.alloc(bytes).unwrap());
    assert_eq!(node.used(1), PIECE);
    one.free(first).unwrap();
    assert_eq!(node.used(1), PIECE);
    // It ends behind this piece, in the next one.
    let across = one.alloc(PIECE).unwrap();
    assert_eq!(node.used(1), 2 * PIECE);
    one.free(second).unwrap();
    assert_eq!(node.used(1), 2 * PIECE);
    one.free(across).unwrap();
    assert_eq!(node.used(1), 0);
}

/// As with `cuda`: what goes to others is all of a piece.
#[test]
fn small_allocations_of_one_piece_go_as_one_memory_and_each_is_opened_at_its_place() {
    let node = Node::new();
    let (one, two) = (node.process(1, Null::default().in_pieces()), node.process(1, Null::default()));
    let [first, second] = [600, 512].map(|bytes| one.alloc(bytes).unwrap());
    let used = node.used(1);
    let (part, next) = (one.export_at(first).unwrap(), one.export_at(second).unwrap());
    assert_eq!((one.export_at(first), next.memory), (Ok(part), part.memory));
    assert_eq!((next.offset - part.offset, part.bytes, next.bytes), (second.0 - first.0, 600, 512));
    let there = two.open(part).unwrap();
    let near = two.open(next).unwrap();
    assert_eq!(([there.0, near.0].map(|at| at % PIECE), node.used(1)), ([part.offset, next.offset], used));
    // Calls reach what was named of it.
    let write = |at: DevicePtr, bytes: usize| two.write(at, &vec![0; bytes]);
    assert_eq!(
        (write(there, 600), write(there, 601), write(DevicePtr(there.0 - 1), 1)),
        (Ok(()), Err(WRONG), Err(WRONG))
    );
    for wrong in [
        SharedPart { bytes: 0, ..part },
        SharedPart { offset: 8, ..part },
        SharedPart { offset: PIECE, ..part },
        SharedPart { bytes: PIECE - part.offset + 1, ..part },
        SharedPart { bytes: u64::MAX, ..part },
        SharedPart { offset: u64::MAX - 511, ..part },
    ] {
        assert_eq!(two.open(wrong), Err(WRONG), "{wrong:?}");
    }
    two.close(there).unwrap();
    assert_eq!((two.close(there), write(near, 512)), (Err(WRONG), Ok(())));

    // It can be had as long as any of it lives, and counts as a piece once nobody but others has it.
    one.free(first).unwrap();
    two.close(two.open(next).unwrap()).unwrap();
    one.free(second).unwrap();
    assert_eq!((two.open(next), node.used(1)), (Err(WRONG), PIECE));
    let third = one.alloc(512).unwrap();
    assert_ne!(one.export_at(third).unwrap().memory, part.memory, "it is another memory to others");
    two.close(near).unwrap();
    assert_eq!(node.used(1), PIECE);
}

/// As with `cuda`: an allocation that never was anybody else's keeps the piece.
#[test]
fn a_piece_that_its_maker_and_others_have_counts_once_until_the_last_lets_go_of_it() {
    let node = Node::new();
    let (one, two) = (node.process(1, Null::default().in_pieces()), node.process(1, Null::default()));
    let [first, second] = [600, 512].map(|bytes| one.alloc(bytes).unwrap());
    let part = one.export_at(first).unwrap();
    let there = two.open(part).unwrap();
    one.free(first).unwrap();
    assert_eq!(node.used(1), PIECE, "the maker's, and nobody's beside it");
    // What is exported of it next is of the same memory.
    let next = one.export_at(second).unwrap();
    assert_eq!((next.memory, next.offset), (part.memory, part.offset + (second.0 - first.0)));
    let near = two.open(next).unwrap();
    one.free(second).unwrap();
    assert_eq!((node.used(1), two.open(next)), (PIECE, Err(WRONG)), "the others'");
    two.close(there).unwrap();
    assert_eq!(node.used(1), PIECE);
    two.close(near).unwrap();
    assert_eq!(node.used(1), 0);

    // So it does where the maker's context takes the last of it along.
    let [third, _fourth] = [600, 512].map(|bytes| one.alloc(bytes).unwrap());
    let there = two.open(one.export_at(third).unwrap()).unwrap();
    one.free(third).unwrap();
    ask::cuDevicePrimaryCtxReset_v2(&one.world.guest, ContextId::NONE, 0).unwrap();
    assert_eq!(node.used(1), PIECE);
    two.close(there).unwrap();
    assert_eq!(node.used(1), 0);
}

/// Else a device's refusal is memory that nobody pays for.
#[test]
fn what_the_device_does_not_let_go_of_counts_until_its_worker_ends() {
    for steps in [&[Step::Release][..], &[Step::Access, Step::Unmap], &[Step::Access, Step::Release]] {
        let node = Node::new();
        let one = node.soft(1);
        let part = one.export_at(one.alloc(PIECE).unwrap()).unwrap();
        let refusing = node.process(1, Null::default().refusing(steps));
        assert_eq!(refusing.open(part), Err(WRONG), "{steps:?}");
        one.end();
        assert_eq!(node.used(1), PIECE, "{steps:?}: it still has it");
        refusing.end();
        assert_eq!(node.used(1), 0, "{steps:?}: nobody has it");
    }
}
