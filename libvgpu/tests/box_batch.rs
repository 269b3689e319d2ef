//! Batches of boxes: pointers and arrays, sizes in elements, what is refused and where.

mod support;

use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_HANDLE: u32 = 400;
const UNSUPPORTED: u32 = 900;

/// `CUmemcpySrcAccessOrder`: of the stream, during the call.
const STREAM: u64 = 1;
const DURING_CALL: u64 = 2;
/// The place that stands for none.
const NO_COPY: usize = usize::MAX;

/// `CUmemcpy3DOperand` of a pointer: an address, elements of a row, rows of a layer.
fn pointer(address: u64, row: u64, rows: u64) -> [u64; 5] {
    [1, address, row, rows, 0]
}

/// And of an array: where in it.
fn in_array(array: u64, [x, y, z]: [u64; 3]) -> [u64; 5] {
    [2, array, x, y, z]
}

fn op(from: [u64; 5], to: [u64; 5], size: [u64; 3], order: u64) -> [u64; 14] {
    [&from[..], &to, &size, &[order]].concat().try_into().unwrap()
}

/// What it says, and of which copy.
fn batch(session: &Session, ops: &[[u64; 14]], flags: u64, stream: u64) -> (u32, usize) {
    let (mut failed, count, ops) = (77usize, ops.len(), ops.as_ptr());
    let failed_at = &raw mut failed;
    let code = cu!(session.libcuda, cuMemcpy3DBatchAsync(count: usize, ops: *const [u64; 14], failed_at: *mut usize,
        flags: u64, stream: u64));
    (code, failed)
}

/// A float2 array of 4 by 3 by 2.
fn array(session: &Session) -> u64 {
    let (mut array, shape) = (0u64, [4u64, 3, 2, 0x20 | 2 << 32, 0]);
    let (place, shape) = (&raw mut array, shape.as_ptr());
    assert_eq!(cu!(session.libcuda, cuArray3DCreate_v2(place: *mut u64, shape: *const u64)), OK);
    array
}

fn memory(session: &Session) -> u64 {
    let mut at = 0u64;
    let place = &raw mut at;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, 512: usize)), OK);
    at
}

fn stream(session: &Session) -> u64 {
    let mut stream = 0u64;
    let place = &raw mut stream;
    assert_eq!(cu!(session.libcuda, cuStreamCreate(place: *mut u64, 1: u32)), OK);
    stream
}

#[test]
fn boxes_go_between_pointers_and_arrays_in_the_order_of_the_list() {
    let session = session();
    let (array, at, side) = (array(&session), memory(&session), stream(&session));
    let source: Vec<u64> = (0..24).collect();
    let mut out = [0u64; 24];
    let (from, to) = (source.as_ptr() as u64, out.as_mut_ptr() as u64);
    let whole = [4, 3, 2];
    let ops = [
        // Eight bytes an element; rows as long as they are, and apart.
        op(pointer(from, 0, 0), in_array(array, [0; 3]), whole, DURING_CALL),
        op(in_array(array, [0; 3]), pointer(at, 5, 4), whole, STREAM),
        op(pointer(at + 160, 5, 4), in_array(array, [0; 3]), [4, 3, 1], STREAM),
        op(in_array(array, [1, 2, 0]), in_array(array, [0, 0, 1]), [3, 1, 1], STREAM),
        op(in_array(array, [0; 3]), pointer(to, 4, 3), whole, STREAM),
    ];
    assert_eq!(batch(&session, &ops, 0, side), (OK, 77));
    assert_eq!(cu!(session.libcuda, cuStreamSynchronize(side: u64)), OK);
    let mut wanted: Vec<u64> = (12..24).chain(12..24).collect();
    wanted[12..15].copy_from_slice(&[21, 22, 23]);
    assert_eq!(out.to_vec(), wanted);

    // Bytes between two pointers.
    let bytes = [op(pointer(at + 5 * 8, 0, 0), pointer(to, 0, 0), [16, 1, 1], STREAM)];
    let (ops, one) = (bytes.as_ptr(), 1usize);
    assert_eq!(
        cu!(session.libcuda, cuMemcpy3DBatchAsync_v2(one: usize, ops: *const [u64; 14], 0: u64, side: u64)),
        OK
    );
    assert_eq!(cu!(session.libcuda, cuStreamSynchronize(side: u64)), OK);
    assert_eq!(out[..3], [4, 5, 14]);
}

#[test]
fn what_is_refused_is_told_with_its_place() {
    let session = session();
    let (array, at, side) = (array(&session), memory(&session), stream(&session));
    let right = op(pointer(at, 0, 0), in_array(array, [0; 3]), [4, 1, 1], STREAM);
    assert_eq!(batch(&session, &[], 0, side), (INVALID_VALUE, NO_COPY));
    assert_eq!(batch(&session, &[right], 1, side), (INVALID_VALUE, NO_COPY));
    assert_eq!(batch(&session, &[right], 0, 0), (INVALID_VALUE, NO_COPY), "the default stream");
    assert_eq!(batch(&session, &[right], 0, 9).1, NO_COPY);
    let floats = {
        let (mut floats, shape) = (0u64, [4u64, 0, 0, 0x20 | 1 << 32, 0]);
        let (place, shape) = (&raw mut floats, shape.as_ptr());
        assert_eq!(cu!(session.libcuda, cuArray3DCreate_v2(place: *mut u64, shape: *const u64)), OK);
        floats
    };
    let here = in_array(array, [0; 3]);
    let wrong = [
        (op(pointer(at, 0, 0), here, [0, 1, 1], STREAM), INVALID_VALUE),
        (op(pointer(at, 3, 0), here, [4, 1, 1], STREAM), INVALID_VALUE),
        (op(pointer(at, 4, 1), here, [4, 2, 1], STREAM), INVALID_VALUE),
        (op(pointer(at, 0, 0), here, [4, 1, 1], 0), INVALID_VALUE),
        (op(pointer(at, 0, 0), here, [4, 1, 1], STREAM | 2 << 32), INVALID_VALUE),
        (op(pointer(at, 0, 0), here, [5, 1, 1], STREAM), INVALID_VALUE),
        (op(pointer(at, 0, 0), in_array(array, [1, 0, 0]), [4, 1, 1], STREAM), INVALID_VALUE),
        (op(here, in_array(floats, [0; 3]), [1, 1, 1], STREAM), INVALID_VALUE),
        (op(here, in_array(0, [0; 3]), [1, 1, 1], STREAM), INVALID_VALUE),
        (op(here, in_array(side, [0; 3]), [1, 1, 1], STREAM), INVALID_HANDLE),
        (op([3, 0, 0, 0, 0], here, [1, 1, 1], STREAM), INVALID_VALUE),
        (op(pointer(at, u64::MAX, 0), here, [1, 1, 1], STREAM), INVALID_VALUE),
        (op(pointer(at, 0, 0), pointer(at, 0, 0), [u64::MAX, u64::MAX, 2], STREAM), INVALID_VALUE),
    ];
    for (number, (wrong, code)) in wrong.into_iter().enumerate() {
        assert_eq!(batch(&session, &[right, wrong], 0, side), (code, 1), "the case {number}");
    }

    // A capture has a node of each, but for a source that is only there now.
    assert_eq!(cu!(session.libcuda, cuStreamBeginCapture_v2(side: u64, 0: u32)), OK);
    assert_eq!(batch(&session, &[right, right], 0, side), (OK, 77));
    let mut graph = 0u64;
    let place = &raw mut graph;
    assert_eq!(cu!(session.libcuda, cuStreamEndCapture(side: u64, place: *mut u64)), OK);
    let (mut count, null) = (0usize, std::ptr::null_mut::<u64>());
    let count_at = &raw mut count;
    assert_eq!(cu!(session.libcuda, cuGraphGetNodes(graph: u64, null: *mut u64, count_at: *mut usize)), OK);
    assert_eq!(count, 2);
    assert_eq!(cu!(session.libcuda, cuStreamBeginCapture_v2(side: u64, 0: u32)), OK);
    let now = op(pointer(at, 0, 0), here, [4, 1, 1], DURING_CALL);
    assert_eq!(batch(&session, &[right, now], 0, side), (UNSUPPORTED, 1));
}
