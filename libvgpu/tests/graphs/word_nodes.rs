//! Nodes that write and wait for words of memory. The answers are those of NVIDIA's driver 580 on an H100.

use super::*;

/// `CUstreamBatchMemOpParams`: operation, address, value, flags.
type Op = [u64; 6];

const WAIT: u64 = 1;
const WRITE: u64 = 2;

fn op(operation: u64, at: u64, value: u64) -> Op {
    // Waits: until it is the value.
    [operation, at, value, u64::from(operation == WAIT), 0, 0]
}

/// `CUDA_BATCH_MEM_OP_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    context: u64,
    count: u32,
    ops: *const Op,
    flags: u32,
}

fn params(ops: &[Op]) -> Params {
    let context = vgpu_api::ContextId::primary(0).handle().raw();
    Params { context, count: u32::try_from(ops.len()).unwrap(), ops: ops.as_ptr(), flags: 0 }
}

fn add(session: &Session, graph: u64, needs: &[u64], params: &Params) -> (u32, u64) {
    let (mut node, params) = (0u64, std::ptr::from_ref(params));
    let (node_at, needs_at, count) = (&raw mut node, needs.as_ptr(), needs.len());
    let code = cu!(session.libcuda, cuGraphAddBatchMemOpNode(node_at: *mut u64, graph: u64, needs_at: *const u64, count: usize,
        params: *const Params));
    (code, node)
}

fn set(session: &Session, exec: u64, node: u64, params: &Params) -> u32 {
    let params = std::ptr::from_ref(params);
    cu!(session.libcuda, cuGraphExecBatchMemOpNodeSetParams(exec: u64, node: u64, params: *const Params))
}

fn shown(session: &Session, node: u64) -> Vec<Op> {
    let mut shown = params(&[]);
    let place = &raw mut shown;
    assert_eq!(cu!(session.libcuda, cuGraphBatchMemOpNodeGetParams(node: u64, place: *mut Params)), OK);
    assert_eq!((shown.context, shown.flags), (params(&[]).context, 0));
    if shown.count == 0 {
        return Vec::new();
    }
    // SAFETY: the library keeps the list with the node.
    unsafe { std::slice::from_raw_parts(shown.ops, shown.count as usize) }.to_vec()
}

#[test]
fn captured_words_are_written_and_waited_for_at_each_launch() {
    let session = session();
    let (at, side) = (memory(&session), stream(&session, NON_BLOCKING));
    let (odd, second, third) = (at + 1, at + 4, at + 8);
    assert_eq!(begin(&session, side, GLOBAL), OK);
    assert_eq!(cu!(session.libcuda, cuStreamWriteValue32_v2(side: u64, at: u64, 7: u32, 0: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamWaitValue32_v2(side: u64, at: u64, 7: u32, 1: u32)), OK);
    let batch = [op(WRITE, second, 8), op(WRITE, third, 9)];
    let batch = batch.as_ptr();
    assert_eq!(cu!(session.libcuda, cuStreamBatchMemOp_v2(side: u64, 2: u32, batch: *const Op, 0: u32)), OK);
    assert_eq!(
        cu!(session.libcuda, cuStreamWriteValue32_v2(side: u64, odd: u64, 7: u32, 0: u32)),
        INVALID_VALUE
    );
    let (code, graph) = end(&session, side);
    let made = nodes(&session, graph);
    assert_eq!((code, made.iter().map(|node| kind(&session, *node)).collect::<Vec<_>>()), (OK, vec![12; 3]));
    assert_eq!(shown(&session, made[0]), [op(WRITE, at, 7)]);
    assert_eq!(shown(&session, made[1]), [op(WAIT, at, 7)]);
    assert_eq!(shown(&session, made[2]), [op(WRITE, second, 8), op(WRITE, third, 9)]);
    assert_eq!(words(&session, at), [0; 4]);
    let (exec, first) = (instantiate(&session, graph), made[0]);
    assert_eq!((launch(&session, exec, side), words(&session, at)), (OK, [7, 8, 9, 0]));

    // Other words for what can be launched, as many of them.
    assert_eq!(set(&session, exec, made[2], &params(&[op(WRITE, at, 1), op(WRITE, second, 2)])), OK);
    assert_eq!((launch(&session, exec, side), words(&session, at)), (OK, [1, 2, 9, 0]));
    assert_eq!(set(&session, exec, made[2], &params(&[op(WRITE, at, 1)])), INVALID_VALUE);
    let nowhere = Params { context: 0, ..params(&[op(WRITE, at, 1), op(WRITE, second, 2)]) };
    assert_eq!(set(&session, exec, made[2], &nowhere), INVALID_VALUE);
    assert_eq!(cu!(session.libcuda, cuGraphNodeSetEnabled(exec: u64, first: u64, 0: u32)), INVALID_VALUE);
    // The graph itself may have any number; then it fits what was made of it no more.
    let (other, node) = (params(&[op(WRITE, third, 5)]), made[2]);
    let other = &raw const other;
    assert_eq!(cu!(session.libcuda, cuGraphBatchMemOpNodeSetParams(node: u64, other: *const Params)), OK);
    let mut info = [0u64; 3];
    let info_at = info.as_mut_ptr();
    let update = || cu!(session.libcuda, cuGraphExecUpdate_v2(exec: u64, graph: u64, info_at: *mut u64));
    assert_eq!(update(), UPDATE_FAILURE);
    reset(&session);
}

#[test]
fn a_batch_that_no_stream_would_take_is_no_node() {
    let session = session();
    let at = memory(&session);
    let graph = made!(session, cuGraphCreate(0: u32));
    let add = |params: &Params| add(&session, graph, &[], params).0;
    let good = [op(WRITE, at, 1)];
    assert_eq!((add(&params(&good)), add(&params(&[]))), (OK, OK));
    assert_eq!(add(&Params { context: 0, ..params(&good) }), INVALID_VALUE);
    assert_eq!(add(&Params { flags: 1, ..params(&good) }), INVALID_VALUE);
    assert_eq!(add(&params(&[good[0]; 256])), INVALID_VALUE);
    assert_eq!(add(&params(&[op(0, at, 1)])), INVALID_VALUE);
    assert_eq!(add(&params(&[op(WRITE, at + 1, 1)])), INVALID_VALUE);
    // By its general parameters.
    let mut general = [0u64; 32];
    general[0] = 12;
    general[2..6].copy_from_slice(&[params(&good).context, 1, good.as_ptr() as u64, 0]);
    let (general_at, null) = (general.as_ptr(), std::ptr::null::<u64>());
    let node = made!(session, cuGraphAddNode_v2(graph: u64, null: *const u64, null: *const u64, 0: usize, general_at: *const u64));
    assert_eq!((kind(&session, node), shown(&session, node)), (12, good.to_vec()));
    let exec = instantiate(&session, graph);
    assert_eq!((launch(&session, exec, 0), words(&session, at)), (OK, [1, 0, 0, 0]));
    reset(&session);
}
