//! Memory and pools between two processes that have two devices each: where it lies, which grant counts it, through which device it is had.

use vgpu_api::{SharedPart, Token};

use super::shared::{Node, Process};
use super::*;

const PIECE: u64 = MAPPING_BYTES;
const WRONG: CuError = CuError::INVALID_VALUE;
const OTHER_DEVICE: CuError = CuError::INVALID_DEVICE;
const SECOND: ContextId = ContextId::primary(1);

fn two() -> (Node, [Process; 2]) {
    let node = Node::of_devices(2);
    let processes = [(); 2].map(|()| node.process(1, Soft::with_devices(2, 8 * PIECE).unwrap()));
    (node, processes)
}

fn memory(number: u64) -> MemoryHandle {
    MemoryHandle::new(0, number)
}

fn pool(number: u64) -> PoolHandle {
    PoolHandle::new(0, number)
}

impl Process {
    fn open_on(&self, context: ContextId, part: SharedPart) -> CuResult<DevicePtr> {
        ask::vgpuIpcOpen(&self.world.guest, context, part)
    }

    fn import_on(&self, number: u64, device: u32, token: Token) -> CuResult<u64> {
        ask::vgpuMemoryImport(&self.world.guest, C, NewHandle(memory(number)), device, token)
    }
}

#[test]
fn an_allocation_is_opened_through_its_own_device_and_copied_between_both() {
    let (node, [one, two]) = two();
    let at = ask::cuMemAlloc_v2(&one.world.guest, SECOND, PIECE).unwrap();
    one.write(at, b"made").unwrap();
    let part = ask::vgpuIpcExport(&one.world.guest, SECOND, at).unwrap();
    assert_eq!(node.used_of_each(1), [0, PIECE]);
    assert_eq!(two.open_on(C, part), Err(OTHER_DEVICE));
    let there = two.open_on(SECOND, part).unwrap();
    let own = two.alloc(PIECE).unwrap();
    ask::cuMemcpyDtoDAsync_v2(&two.world.guest, C, own, there, 4, Stream::Legacy).unwrap();
    assert_eq!(two.text(own).unwrap(), b"made");
    assert_eq!(node.used_of_each(1), [PIECE, PIECE]);
    // Counted where it lies once its maker has it no more.
    ask::cuMemFree_v2(&one.world.guest, SECOND, at).unwrap();
    assert_eq!((one.told(), node.used_of_each(1)), (Ok(()), vec![PIECE, PIECE]));
    ask::vgpuIpcClose(&two.world.guest, SECOND, there).unwrap();
    assert_eq!(node.used_of_each(1), [PIECE, 0]);
    one.end();
    two.end();
    assert_eq!(node.used_of_each(1), [0, 0]);
}

#[test]
fn memory_is_imported_as_the_device_has_it_and_counts_there() {
    let (node, [one, two]) = two();
    ask::cuMemCreate(&one.world.guest, C, NewHandle(memory(1)), 2 * PIECE, 1).unwrap();
    let token = ask::vgpuMemoryExport(&one.world.guest, C, memory(1)).unwrap();
    assert_eq!(two.import_on(5, 0, token), Err(WRONG), "it lies on the other");
    assert_eq!(two.import_on(5, 1, token), Ok(2 * PIECE));
    one.end();
    assert_eq!(node.used_of_each(1), [0, 2 * PIECE]);
    let on = |device| ask::cuMemAlloc_v2(&two.world.guest, ContextId::primary(device), 3 * PIECE);
    assert_eq!((on(0).is_ok(), on(1)), (true, Err(CuError::OUT_OF_MEMORY)));
    two.end();
    assert_eq!(node.used_of_each(1), [0, 0]);
}

#[test]
fn a_pool_is_its_devices_and_takes_nothing_of_another() {
    let (node, [one, two]) = two();
    let pieces = [0, 1].map(|device| {
        let (guest, number) = (&one.world.guest, u64::from(device));
        ask::cuMemPoolCreate(guest, C, NewHandle(pool(number)), device, 0, true).unwrap();
        let token = ask::vgpuPoolExport(guest, C, pool(number)).unwrap();
        assert_eq!(ask::vgpuPoolImport(&two.world.guest, C, NewHandle(pool(number)), token), Ok(device));
        let at =
            ask::cuMemAllocFromPoolAsync(guest, ContextId::primary(device), 64, pool(number), Stream::Legacy);
        ask::cuMemPoolExportPointer(guest, C, at.unwrap()).unwrap()
    });
    let guest = &two.world.guest;
    let mixed = vgpu_api::PooledPiece { chunk: pieces[0].chunk, ..pieces[1] };
    assert_eq!(ask::cuMemPoolImportPointer(guest, C, pool(1), mixed), Err(WRONG));
    let there = ask::cuMemPoolImportPointer(guest, C, pool(1), pieces[1]).unwrap();
    // Others reach it as far as they are let.
    ask::cuMemPoolSetAccess(guest, C, pool(1), 0, vgpu_api::Access::ReadWrite).unwrap();
    one.end();
    assert_eq!(node.used_of_each(1), [0, PIECE]);
    ask::cuMemFreeAsync(guest, SECOND, there, Stream::Legacy).unwrap();
    assert_eq!((two.told(), node.used_of_each(1)), (Ok(()), vec![0, 0]));
}
