//! Pools between two processes of a zone: what either sees, what counts where, what is refused.

use vgpu_api::{PooledPiece, Token};

use super::shared::{Node, Process};
use super::*;

const PIECE: u64 = MAPPING_BYTES;
const WRONG: CuError = CuError::INVALID_VALUE;

fn pool(number: u64) -> PoolHandle {
    PoolHandle::new(0, number)
}

impl Process {
    fn make(&self, number: u64, shareable: bool) {
        ask::cuMemPoolCreate(&self.world.guest, C, NewHandle(pool(number)), 0, 0, shareable).unwrap();
        self.told().unwrap();
    }

    /// A shareable pool, and the token of it.
    fn shared(&self, number: u64) -> Token {
        self.make(number, true);
        self.export_pool(number).unwrap()
    }

    fn export_pool(&self, number: u64) -> CuResult<Token> {
        ask::vgpuPoolExport(&self.world.guest, C, pool(number))
    }

    fn import_pool(&self, number: u64, token: Token) -> CuResult<u32> {
        ask::vgpuPoolImport(&self.world.guest, C, NewHandle(pool(number)), token)
    }

    fn end_pool(&self, number: u64) {
        ask::cuMemPoolDestroy(&self.world.guest, C, GoneHandle(pool(number))).unwrap();
        self.told().unwrap();
    }

    fn take(&self, number: u64, bytes: u64) -> CuResult<DevicePtr> {
        ask::cuMemAllocFromPoolAsync(&self.world.guest, C, bytes, pool(number), Stream::Legacy)
    }

    fn export_piece(&self, at: DevicePtr) -> CuResult<PooledPiece> {
        ask::cuMemPoolExportPointer(&self.world.guest, C, at)
    }

    fn import_piece(&self, number: u64, piece: PooledPiece) -> CuResult<DevicePtr> {
        ask::cuMemPoolImportPointer(&self.world.guest, C, pool(number), piece)
    }

    fn give(&self, at: DevicePtr) -> CuResult<()> {
        ask::cuMemFreeAsync(&self.world.guest, C, at, Stream::Legacy)?;
        self.told()
    }

    fn settle(&self) {
        ask::cuCtxSynchronize(&self.world.guest, C).unwrap();
    }
}

#[test]
fn either_process_sees_what_the_other_writes_and_what_both_have_counts_once() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    let token = one.shared(0);
    assert_eq!((one.export_pool(0), two.import_pool(7, token)), (Ok(token), Ok(0)));
    let [first, second] = [1000, 3000].map(|bytes| one.take(0, bytes).unwrap());
    one.write(second, b"made").unwrap();
    let [one_piece, other_piece] = [first, second].map(|at| one.export_piece(at).unwrap());
    assert_eq!((one_piece.chunk, one_piece.bytes, other_piece.bytes), (other_piece.chunk, 1000, 3000));
    let there = two.import_piece(7, other_piece).unwrap();
    assert_eq!(two.text(there).unwrap(), b"made");
    two.write(DevicePtr(there.0 + 2996), b"back").unwrap();
    assert_eq!(one.text(DevicePtr(second.0 + 2996)).unwrap(), b"back");
    // What was not given is not there, though it lies beside.
    let beside = DevicePtr(there.0 - other_piece.offset);
    assert_eq!(two.text(beside), Err(WRONG));
    assert_eq!((two.import_piece(7, one_piece), two.import_piece(7, other_piece)), (Ok(beside), Ok(there)));
    assert_eq!(node.used(1), PIECE);
    // The importer has no more of it; its maker has.
    two.give(there).unwrap();
    assert_eq!((two.text(there), two.give(there)), (Err(WRONG), Err(WRONG)));
    two.free(beside).unwrap();
    assert_eq!((node.used(1), one.text(second).unwrap().as_slice()), (PIECE, b"made".as_slice()));
    for at in [first, second] {
        one.give(at).unwrap();
    }
    one.settle();
    assert_eq!(node.used(1), 0);
}

#[test]
fn what_its_maker_has_given_back_counts_with_who_has_it_until_that_one_frees_it() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    let token = one.shared(0);
    two.import_pool(0, token).unwrap();
    let at = one.take(0, 3 * PIECE).unwrap();
    one.write(at, b"kept").unwrap();
    let piece = one.export_piece(at).unwrap();
    let there = two.import_piece(0, piece).unwrap();
    assert_eq!(two.alloc(2 * PIECE), Err(CuError::OUT_OF_MEMORY), "three of four pieces are used");
    one.give(at).unwrap();
    one.settle();
    assert_eq!((node.used(1), two.text(there).unwrap().as_slice()), (3 * PIECE, b"kept".as_slice()));
    assert_eq!(one.take(0, 2 * PIECE), Err(CuError::OUT_OF_MEMORY));
    // An ended pool keeps what was imported of it.
    two.end_pool(0);
    assert_eq!((two.import_piece(0, piece), two.text(there).unwrap()), (Err(WRONG), b"kept".to_vec()));
    two.give(there).unwrap();
    assert_eq!(node.used(1), 0);
    one.take(0, 4 * PIECE).unwrap();
    assert_eq!(two.import_pool(1, token), Ok(0));
    assert_eq!(two.import_piece(1, piece), Err(WRONG), "that memory is gone");
    one.end();
    assert_eq!((two.import_pool(2, token), node.used(1)), (Err(WRONG), 0));
}

#[test]
fn a_death_leaves_what_others_have_and_nothing_else() {
    let node = Node::new();
    let (one, two) = (node.soft(1), node.soft(1));
    let token = one.shared(0);
    two.import_pool(0, token).unwrap();
    let [kept, lost] = [(); 2].map(|()| one.export_piece(one.take(0, PIECE).unwrap()).unwrap());
    assert_ne!(kept.chunk, lost.chunk, "no allocation lies in two");
    two.import_piece(0, kept).unwrap();
    assert_eq!(node.used(1), 2 * PIECE);
    one.end();
    assert_eq!((node.used(1), two.import_piece(0, lost)), (PIECE, Err(WRONG)));
    // With its device's context all that a pool has goes.
    ask::cuDevicePrimaryCtxReset_v2(&two.world.guest, ContextId::NONE, 0).unwrap();
    assert_eq!(node.used(1), 0);
}

#[test]
fn what_was_not_given_is_not_had() {
    let node = Node::new();
    let (one, two, stranger) = (node.soft(1), node.soft(1), node.soft(2));
    one.make(0, true);
    let at = one.take(0, 2000).unwrap();
    assert_eq!(one.export_piece(at), Err(WRONG), "its pool is not exported");
    let token = one.export_pool(0).unwrap();
    let piece = one.export_piece(at).unwrap();
    assert_eq!(one.export_piece(DevicePtr(at.0 + 512)), Err(WRONG));
    assert_eq!(one.export_piece(one.alloc(64).unwrap()), Err(WRONG), "no pool's");
    one.make(1, false);
    assert_eq!((one.export_pool(1), one.export_pool(9)), (Err(WRONG), Err(WRONG)));
    assert_eq!(one.export_piece(one.take(1, 64).unwrap()), Err(WRONG));

    assert_eq!(
        (stranger.import_pool(0, token), two.import_pool(0, Token([9; 16]))),
        (Err(WRONG), Err(WRONG))
    );
    two.import_pool(0, token).unwrap();
    assert_eq!(two.import_pool(0, token), Err(CuError::INVALID_HANDLE), "a handle in use");
    assert_eq!((two.take(0, 64), two.export_pool(0)), (Err(WRONG), Err(WRONG)), "nothing of it is given out");
    let other = one.shared(2);
    two.import_pool(2, other).unwrap();
    two.make(3, true);
    let forged = |change: fn(&mut PooledPiece)| {
        let mut forged = piece;
        change(&mut forged);
        forged
    };
    for (number, piece) in [
        (2, piece),
        (3, piece),
        (0, PooledPiece { pool: other, ..piece }),
        (2, PooledPiece { pool: other, ..forged(|piece| piece.chunk.0[3] ^= 1) }),
        (0, forged(|piece| piece.bytes = 0)),
        (0, forged(|piece| piece.bytes = PIECE + 1)),
        (0, forged(|piece| piece.bytes = u64::MAX)),
        (0, forged(|piece| piece.offset = PIECE)),
        (0, forged(|piece| piece.offset += 1)),
        (0, forged(|piece| piece.offset = u64::MAX - 511)),
    ] {
        assert_eq!(two.import_piece(number, piece), Err(WRONG), "{number} {piece:?}");
    }
    let there = two.import_piece(0, piece).unwrap();
    // Half of what is there already.
    assert_eq!(two.import_piece(0, forged(|piece| piece.bytes = 100)), Err(WRONG));
    assert_eq!(two.export_piece(there), Err(WRONG), "it is its maker's to give");
    one.give(at).unwrap();
    assert_eq!(one.export_piece(at), Err(WRONG));
    two.give(there).unwrap();
    one.end_pool(0);
    assert_eq!(two.import_pool(5, token), Err(WRONG), "its maker has it no more");
    assert_eq!(node.used(2), 0);
}

#[test]
fn a_process_may_have_its_own_pool_twice() {
    let node = Node::new();
    let one = node.soft(1);
    let token = one.shared(0);
    let at = one.take(0, 64).unwrap();
    one.write(at, b"same").unwrap();
    one.import_pool(1, token).unwrap();
    let again = one.import_piece(1, one.export_piece(at).unwrap()).unwrap();
    assert_eq!((again == at, one.text(again).unwrap()), (false, b"same".to_vec()));
    assert_eq!(node.used(1), PIECE);
    one.give(again).unwrap();
    one.give(at).unwrap();
    one.settle();
    assert_eq!(node.used(1), 0);
}

/// What the device refuses leaves nothing behind.
#[test]
fn a_chunk_that_cannot_be_mapped_is_given_back() {
    let node = Node::new();
    let one = node.soft(1);
    let token = one.shared(0);
    let piece = one.export_piece(one.take(0, PIECE).unwrap()).unwrap();
    let refusing = node.process(1, Null::default().refusing(&[Step::Access]));
    refusing.import_pool(0, token).unwrap();
    assert_eq!(refusing.import_piece(0, piece), Err(WRONG));
    assert_eq!(node.used(1), PIECE);
    one.end();
    assert_eq!(node.used(1), 0, "nobody has it");
    // Nobody to exchange with.
    let alone = world_of(Soft::new(4 * PIECE).unwrap(), 4 * PIECE);
    ask::cuMemPoolCreate(&alone.guest, C, NewHandle(pool(0)), 0, 0, true).unwrap();
    assert_eq!(ask::vgpuPoolExport(&alone.guest, C, pool(0)), Err(CuError::NOT_SUPPORTED));
    assert_eq!(ask::vgpuPoolImport(&alone.guest, C, NewHandle(pool(1)), token), Err(CuError::NOT_SUPPORTED));
}
