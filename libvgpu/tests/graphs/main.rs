//! Captures and graphs, from the C border to a device of a few lines and back.

#[path = "../support/mod.rs"]
mod support;

use std::ffi::c_void;

use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const OPERATING_SYSTEM: u32 = 304;
const INVALID_HANDLE: u32 = 400;
const ILLEGAL_STATE: u32 = 401;
const LOSSY_QUERY: u32 = 402;
const NOT_SUPPORTED: u32 = 801;
const UNSUPPORTED: u32 = 900;
const INVALIDATED: u32 = 901;
const MERGE: u32 = 902;
const UNMATCHED: u32 = 903;
const UNJOINED: u32 = 904;
const ISOLATION: u32 = 905;
const IMPLICIT: u32 = 906;
const CAPTURED_EVENT: u32 = 907;
const WRONG_THREAD: u32 = 908;
const UPDATE_FAILURE: u32 = 910;

const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
const RELAXED: u32 = 2;
const NON_BLOCKING: u32 = 1;

/// Makes something by a call whose first parameter is where it goes.
macro_rules! made {
    ($session:expr, $name:ident($($value:tt: $t:ty),*)) => {{
        let mut made = 0u64;
        let place = &raw mut made;
        assert_eq!(cu!($session.libcuda, $name(place: *mut u64 $(, $value: $t)*)), OK, stringify!($name));
        made
    }};
}

fn stream(session: &Session, flags: u32) -> u64 {
    made!(session, cuStreamCreate(flags: u32))
}

fn event(session: &Session) -> u64 {
    made!(session, cuEventCreate(0: u32))
}

fn function(session: &Session) -> u64 {
    let (image, name) = (c".version 8.0 graphs".as_ptr(), c"fill".as_ptr());
    let module = made!(session, cuModuleLoadData(image: *const i8));
    made!(session, cuModuleGetFunction(module: u64, name: *const i8))
}

/// Device memory of 256 bytes of zeros.
fn memory(session: &Session) -> u64 {
    let address = made!(session, cuMemAlloc_v2(256: usize));
    assert_eq!(cu!(session.libcuda, cuMemsetD8_v2(address: u64, 0: u8, 256: usize)), OK);
    address
}

/// Launches `fill(memory, value, 4)`: four words.
fn fill(session: &Session, function: u64, memory: u64, value: u32, stream: u64) -> u32 {
    let count = 4u32;
    let params = [(&raw const memory).cast(), (&raw const value).cast(), (&raw const count).cast::<c_void>()];
    let (list, null) = (params.as_ptr(), std::ptr::null::<*const c_void>());
    let (one, none) = (1u32, 0u32);
    cu!(session.libcuda, cuLaunchKernel(function: u64, one: u32, one: u32, one: u32, one: u32, one: u32, one: u32,
        none: u32, stream: u64, list: *const *const c_void, null: *const *const c_void))
}

fn words(session: &Session, address: u64) -> [u32; 4] {
    let mut words = [0u32; 4];
    let place = words.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuMemcpyDtoH_v2(place: *mut u32, address: u64, 16: usize)), OK);
    words
}

fn begin(session: &Session, stream: u64, mode: u32) -> u32 {
    cu!(session.libcuda, cuStreamBeginCapture_v2(stream: u64, mode: u32))
}

fn end(session: &Session, stream: u64) -> (u32, u64) {
    let mut graph = 9u64;
    let place = &raw mut graph;
    (cu!(session.libcuda, cuStreamEndCapture(stream: u64, place: *mut u64)), graph)
}

fn status(session: &Session, stream: u64) -> (u32, u32) {
    let mut status = 9u32;
    let place = &raw mut status;
    (cu!(session.libcuda, cuStreamIsCapturing(stream: u64, place: *mut u32)), status)
}

fn instantiate(session: &Session, graph: u64) -> u64 {
    made!(session, cuGraphInstantiateWithFlags(graph: u64, 0: u64))
}

fn launch(session: &Session, exec: u64, stream: u64) -> u32 {
    cu!(session.libcuda, cuGraphLaunch(exec: u64, stream: u64))
}

fn nodes(session: &Session, graph: u64) -> Vec<u64> {
    let mut count = 0usize;
    let (count_at, null) = (&raw mut count, std::ptr::null_mut::<u64>());
    assert_eq!(cu!(session.libcuda, cuGraphGetNodes(graph: u64, null: *mut u64, count_at: *mut usize)), OK);
    let mut nodes = vec![0; count];
    let place = nodes.as_mut_ptr();
    assert_eq!(cu!(session.libcuda, cuGraphGetNodes(graph: u64, place: *mut u64, count_at: *mut usize)), OK);
    nodes
}

fn kind(session: &Session, node: u64) -> u32 {
    let mut kind = 99u32;
    let place = &raw mut kind;
    assert_eq!(cu!(session.libcuda, cuGraphNodeGetType(node: u64, place: *mut u32)), OK);
    kind
}

fn dependencies(session: &Session, node: u64) -> Vec<u64> {
    let (mut nodes, mut count) = ([0u64; 8], 8usize);
    let (place, count_at) = (nodes.as_mut_ptr(), &raw mut count);
    assert_eq!(
        cu!(session.libcuda, cuGraphNodeGetDependencies(node: u64, place: *mut u64, count_at: *mut usize)),
        OK
    );
    nodes[..count].to_vec()
}

fn set_mode(session: &Session, mode: u32) -> u32 {
    let mut mode = mode;
    let place = &raw mut mode;
    assert_eq!(cu!(session.libcuda, cuThreadExchangeStreamCaptureMode(place: *mut u32)), OK);
    mode
}

/// A batch of two copies, of 16 bytes each, in an order of access to their sources.
fn batch(session: &Session, to: u64, from: u64, order: u32, stream: u64) -> u32 {
    let (to, from, sizes) = ([to, to + 16], [from, from + 16], [16usize; 2]);
    let (attributes, first, mut failed) = ([order, 0, 0, 0, 0, 0], 0usize, 9usize);
    let (to, from, sizes, failed) = (to.as_ptr(), from.as_ptr(), sizes.as_ptr(), &raw mut failed);
    let (attributes, first) = (attributes.as_ptr(), &raw const first);
    cu!(session.libcuda, cuMemcpyBatchAsync(to: *const u64, from: *const u64, sizes: *const usize, 2: usize,
        attributes: *const u32, first: *const usize, 1: usize, failed: *mut usize, stream: u64))
}

fn record(session: &Session, event: u64, stream: u64) -> u32 {
    cu!(session.libcuda, cuEventRecord(event: u64, stream: u64))
}

fn wait(session: &Session, stream: u64, event: u64) -> u32 {
    cu!(session.libcuda, cuStreamWaitEvent(stream: u64, event: u64, 0: u32))
}

/// Ends everything that a test made: the next begins with a fresh context.
fn reset(session: &Session) {
    assert_eq!(cu!(session.libcuda, cuDevicePrimaryCtxReset_v2(0: i32)), OK);
}

mod array_nodes;
mod captures;
mod conditional_nodes;
mod host_nodes;
mod memory_kept;
mod memory_nodes;
mod nodes;
mod user_objects;
mod word_nodes;
