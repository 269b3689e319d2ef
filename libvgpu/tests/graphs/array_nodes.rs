//! Copies with arrays in graphs: single nodes and captured ones, their parameters, what of them may change.

use super::*;

const HOST: u64 = 1;
const DEVICE: u64 = 2;
const ARRAY: u64 = 3;

/// One side of `CUDA_MEMCPY3D`: x, y, z, level, kind, host, device, array, context, pitch, height.
fn side(kind: u64, what: u64, [x, y, z]: [u64; 3], pitch: u64, height: u64) -> [u64; 11] {
    let only = |wanted| if kind == wanted { what } else { 0 };
    [x, y, z, 0, kind, only(HOST), only(DEVICE), only(ARRAY), 0, pitch, height]
}

fn params(from: [u64; 11], to: [u64; 11], size: [u64; 3]) -> [u64; 25] {
    [&from[..], &to, &size].concat().try_into().unwrap()
}

fn add(session: &Session, graph: u64, needs: &[u64], params: &[u64; 25]) -> (u32, u64) {
    let context = vgpu_api::ContextId::primary(0).handle().raw();
    let (needs_at, count, params_at, mut node) = (needs.as_ptr(), needs.len(), params.as_ptr(), 0u64);
    let at = &raw mut node;
    let code = cu!(session.libcuda, cuGraphAddMemcpyNode(at: *mut u64, graph: u64, needs_at: *const u64, count: usize,
        params_at: *const u64, context: u64));
    (code, node)
}

/// Floats: `width` by `height` by `depth`.
fn array(session: &Session, width: u64, height: u64, depth: u64) -> u64 {
    let shape = [width, height, depth, 0x20 | 1 << 32, 0];
    let shape = shape.as_ptr();
    made!(session, cuArray3DCreate_v2(shape: *const u64))
}

#[test]
fn nodes_copy_boxes_between_the_program_arrays_and_memory() {
    let session = session();
    let (from, to, at) = (array(&session, 4, 3, 2), array(&session, 4, 3, 2), memory(&session));
    let mut source: Vec<u32> = (0..24).collect();
    let mut out = vec![0u32; 24];
    let (source_at, out_at) = (source.as_mut_ptr() as u64, out.as_mut_ptr() as u64);
    let in_array = |array| side(ARRAY, array, [0; 3], 0, 0);
    let graph = made!(session, cuGraphCreate(0: u32));
    let whole = [16, 3, 2];
    let given = params(side(HOST, source_at, [0; 3], 16, 3), in_array(from), whole);
    let put = add(&session, graph, &[], &given).1;
    let between = add(&session, graph, &[put], &params(in_array(from), in_array(to), whole)).1;
    let get = params(in_array(to), side(HOST, out_at, [0; 3], 16, 3), whole);
    let get = add(&session, graph, &[between], &get).1;
    // Two words of the last row of the last slice, to device memory and from there to the first.
    let corner = side(ARRAY, to, [8, 2, 1], 0, 0);
    let on_device = side(DEVICE, at, [0; 3], 8, 0);
    let down = add(&session, graph, &[get], &params(corner, on_device, [8, 1, 1])).1;
    let up = add(&session, graph, &[down], &params(on_device, in_array(to), [8, 1, 1])).1;
    let last = params(in_array(to), side(HOST, out_at + 88, [0; 3], 8, 0), [8, 1, 1]);
    assert_eq!(add(&session, graph, &[up], &last).0, OK);
    assert_eq!(kind(&session, put), 1);

    let mut told = [0u64; 25];
    let told_at = told.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphMemcpyNodeGetParams(put: u64, told_at: *mut u64)), OK);
    assert_eq!(told, given);

    let exec = instantiate(&session, graph);
    assert_eq!(out, [0; 24], "nothing has run");
    for round in 0..2 {
        source.iter_mut().for_each(|word| *word += 100);
        assert_eq!(launch(&session, exec, 0), OK);
        let mut wanted: Vec<u32> = (0..24).map(|word| word + 100 * (round + 1)).collect();
        assert_eq!(out[..22], wanted[..22]);
        let (first, _) = wanted.split_at_mut(22);
        assert_eq!(
            out[22..],
            [first[0] + 22, first[0] + 23],
            "by way of memory, over the first of the array"
        );
    }
    assert_eq!(words(&session, at)[..2], [222, 223]);

    // A node that is switched off copies nothing.
    assert_eq!(cu!(session.libcuda, cuGraphNodeSetEnabled(exec: u64, put: u64, 0: u32)), OK);
    source.fill(7);
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!(out[3], 203, "what the array had before");

    let clone = made!(session, cuGraphClone(graph: u64));
    let cloned = instantiate(&session, clone);
    assert_eq!((launch(&session, cloned, 0), out[3]), (OK, 7));
    assert_eq!(cu!(session.libcuda, cuArrayDestroy(from: u64)), OK);
    assert_eq!((launch(&session, cloned, 0), out[3]), (INVALID_HANDLE, 7), "an array that has ended");
    reset(&session);
}

#[test]
fn what_is_no_copy_with_an_array_is_no_node() {
    let session = session();
    let (flat, at, host) = (array(&session, 8, 4, 0), memory(&session), [0u32; 64]);
    let graph = made!(session, cuGraphCreate(0: u32));
    let on_device = side(DEVICE, at, [0; 3], 32, 4);
    let mut levelled = side(ARRAY, flat, [0; 3], 0, 0);
    levelled[3] = 1;
    let wrong = [
        (side(ARRAY, flat, [0; 3], 0, 0), [36, 1, 1], INVALID_VALUE),
        (side(ARRAY, flat, [0, 4, 0], 0, 0), [4, 1, 1], INVALID_VALUE),
        (side(ARRAY, flat, [0, 0, 1], 0, 0), [4, 1, 1], INVALID_VALUE),
        (side(ARRAY, flat, [2, 0, 0], 0, 0), [4, 1, 1], INVALID_VALUE),
        (side(ARRAY, flat, [0; 3], 0, 0), [0, 1, 1], INVALID_VALUE),
        (side(ARRAY, 0, [0; 3], 0, 0), [4, 1, 1], INVALID_VALUE),
        (side(ARRAY, graph, [0; 3], 0, 0), [4, 1, 1], INVALID_HANDLE),
        (levelled, [4, 1, 1], INVALID_VALUE),
    ];
    for (array, size, code) in wrong {
        assert_eq!(add(&session, graph, &[], &params(on_device, array, size)).0, code, "{array:?} {size:?}");
        assert_eq!(add(&session, graph, &[], &params(array, on_device, size)).0, code, "{array:?} {size:?}");
    }
    let beside = params(side(DEVICE, at + 240, [0; 3], 32, 4), side(ARRAY, flat, [0; 3], 0, 0), [32, 1, 1]);
    assert_eq!(add(&session, graph, &[], &beside).0, OK, "the worker knows where memory ends");
    let place = host.as_ptr() as u64;
    let between = params(side(HOST, place, [0; 3], 0, 0), side(HOST, place + 64, [0; 3], 0, 0), [4, 1, 1]);
    assert_eq!(add(&session, graph, &[], &between).0, NOT_SUPPORTED, "no side is the device's");
    assert_eq!(nodes(&session, graph).len(), 1);
    reset(&session);
}

#[test]
fn a_node_changes_where_it_copies_but_not_between_what() {
    let session = session();
    let (one, two, at) = (array(&session, 4, 0, 0), array(&session, 4, 0, 0), memory(&session));
    let (source, mut out) = ([1u32, 2, 3, 4], [0u32; 4]);
    let (source_at, out_at) = (source.as_ptr() as u64, out.as_mut_ptr() as u64);
    let of = |array| side(ARRAY, array, [0; 3], 0, 0);
    let host = |address| side(HOST, address, [0; 3], 0, 0);
    let graph = made!(session, cuGraphCreate(0: u32));
    let put = add(&session, graph, &[], &params(host(source_at), of(one), [16, 1, 1])).1;
    let get = add(&session, graph, &[put], &params(of(two), host(out_at), [16, 1, 1])).1;
    let exec = instantiate(&session, graph);
    let none = 0u64;
    let set = |node: u64, params: [u64; 25]| {
        let at = params.as_ptr();
        cu!(session.libcuda, cuGraphExecMemcpyNodeSetParams(exec: u64, node: u64, at: *const u64, none: u64))
    };
    assert_eq!(set(put, params(host(source_at), of(two), [16, 1, 1])), OK);
    assert_eq!((launch(&session, exec, 0), out), (OK, source));
    let memory = side(DEVICE, at, [0; 3], 0, 0);
    assert_eq!(set(put, params(memory, of(two), [16, 1, 1])), INVALID_VALUE, "other memory");
    assert_eq!(set(put, params(host(source_at), memory, [16, 1, 1])), INVALID_VALUE, "no array");
    assert_eq!(set(put, params(host(source_at), of(two), [8, 1, 1])), INVALID_VALUE, "another size");
    let rows = array(&session, 2, 2, 0);
    assert_eq!(set(get, params(of(rows), host(out_at), [8, 2, 1])), INVALID_VALUE, "more than one row");

    // An update may do as much.
    let set_node = |node: u64, params: [u64; 25]| {
        let at = params.as_ptr();
        cu!(session.libcuda, cuGraphMemcpyNodeSetParams(node: u64, at: *const u64))
    };
    let mut info = [0u64; 3];
    let info_at = info.as_mut_ptr();
    let update = || cu!(session.libcuda, cuGraphExecUpdate_v2(exec: u64, graph: u64, info_at: *mut u64));
    assert_eq!(set_node(get, params(of(one), host(out_at), [16, 1, 1])), OK);
    out.fill(0);
    assert_eq!((update(), launch(&session, exec, 0), out), (OK, OK, source), "both are the first array now");
    assert_eq!(set_node(get, params(of(one), memory, [16, 1, 1])), OK);
    assert_eq!((update(), info[0] & 0xffff_ffff), (UPDATE_FAILURE, 5), "parameters that may not change");
    reset(&session);
}

#[test]
fn captured_copies_with_arrays_become_nodes() {
    let session = session();
    let (line, at) = (array(&session, 8, 0, 0), memory(&session));
    let shape = [8u64, 4, 0, 0x20 | 1 << 32, 0];
    let shape = shape.as_ptr();
    let mipmap = made!(session, cuMipmappedArrayCreate(shape: *const u64, 2: u32));
    let level = made!(session, cuMipmappedArrayGetLevel(mipmap: u64, 1: u32));
    let side_stream = stream(&session, NON_BLOCKING);
    let (source, mut out) = ([5u32, 6, 7, 8, 9, 10, 11, 12], [0u32; 8]);
    let (source_at, out_at) = (source.as_ptr(), out.as_mut_ptr());
    let array_params = |from, to| params(from, to, [16, 2, 1]);
    let of_level = side(ARRAY, level, [0; 3], 0, 0);
    assert_eq!(begin(&session, side_stream, GLOBAL), OK);
    assert_eq!(
        cu!(session.libcuda, cuMemcpyHtoAAsync_v2(line: u64, 0: usize, source_at: *const u32, 32: usize, side_stream: u64)),
        OK
    );
    let copy = |params: [u64; 25]| {
        let at = params.as_ptr();
        cu!(session.libcuda, cuMemcpy3DAsync_v2(at: *const u64, side_stream: u64))
    };
    let rows = side(DEVICE, at, [0; 3], 16, 2);
    assert_eq!(
        copy(params(side(ARRAY, line, [0; 3], 0, 0), rows, [32, 1, 1])),
        INVALID_VALUE,
        "longer than a row"
    );
    assert_eq!(
        copy(params(side(ARRAY, line, [0; 3], 0, 0), side(DEVICE, at, [0; 3], 32, 1), [32, 1, 1])),
        OK,
        "what was wrong with the one before was its own matter"
    );
    assert_eq!((copy(array_params(rows, of_level)), copy(array_params(of_level, rows))), (OK, OK));
    assert_eq!(
        cu!(session.libcuda, cuMemcpyAtoHAsync_v2(out_at: *mut u32, line: u64, 8: usize, 16: usize, side_stream: u64)),
        OK
    );
    let (code, graph) = end(&session, side_stream);
    assert_eq!(code, OK);
    let all = nodes(&session, graph);
    assert_eq!(all.iter().map(|node| kind(&session, *node)).collect::<Vec<_>>(), [1; 5]);
    assert_eq!(dependencies(&session, all[4]), [all[3]], "in the order of the stream");
    assert_eq!(out, [0; 8], "nothing has run");
    let exec = instantiate(&session, graph);
    assert_eq!(launch(&session, exec, 0), OK);
    assert_eq!((out[..4].to_vec(), words(&session, at)), (source[2..6].to_vec(), [5, 6, 7, 8]));

    // A level ends with the whole.
    assert_eq!(cu!(session.libcuda, cuMipmappedArrayDestroy(mipmap: u64)), OK);
    assert_eq!(launch(&session, exec, 0), INVALID_HANDLE);
    reset(&session);
}
