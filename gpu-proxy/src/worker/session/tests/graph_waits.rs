//! Graphs that call functions of the guest's, and that write and wait for words: what may wait for the guest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use vgpu_api::graph::{Body, GraphEdge, GraphNode, GraphWork};
use vgpu_api::wire::to_vec;

use super::*;

const GRAPH: GraphExecHandle = GraphExecHandle::new(0, 0);

fn node(needs: &[u32], work: GraphWork<'static>) -> GraphNode<'static> {
    let edge = |from: &u32| GraphEdge { from: *from, from_port: 0, to_port: 0, kind: 0 };
    GraphNode { context: C, body: Body::NONE, needs: needs.iter().map(edge).collect(), work }
}

fn upload(world: &World, nodes: &[GraphNode<'_>]) -> u32 {
    let bytes: Vec<u8> = nodes.iter().flat_map(to_vec).collect();
    for (number, chunk) in (0..).zip(bytes.chunks(32 << 10)) {
        ask::vgpuUpload(&world.guest, C, 7, bytes.len() as u64, number * (32 << 10), chunk).unwrap();
    }
    7
}

fn instantiate(world: &World, nodes: &[GraphNode<'_>]) -> CuResult<()> {
    ask::vgpuGraphInstantiate(&world.guest, C, NewHandle(GRAPH), upload(world, nodes), 0)
}

fn launch(world: &World) -> Option<CuError> {
    ask::cuGraphLaunch(&world.guest, C, GRAPH, Stream::Legacy).unwrap();
    world.guest.take_error()
}

fn open_mailbox(world: &World) {
    let mailbox = Staged { offset: 0, len: host_function::MAILBOX_BYTES as u64 };
    ask::vgpuHostFunctions(&world.guest, C, mailbox).unwrap();
}

/// The thread of a guest that runs functions: it notes their numbers.
struct Guest {
    ends: Arc<AtomicBool>,
    ran: Arc<Mutex<Vec<u64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    fn start(staging: Heap) -> Self {
        let (ends, ran) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (ended, numbers) = (Arc::clone(&ends), Arc::clone(&ran));
        let thread = thread::spawn(move || {
            let mut done = staging.word(host_function::DONE);
            while !ended.load(Ordering::Relaxed) {
                let posted = staging.word(host_function::POSTED);
                if posted != done {
                    numbers.lock().unwrap().push(staging.word(host_function::FUNCTION));
                    done = posted;
                    staging.write(host_function::DONE, &done.to_le_bytes());
                }
                thread::yield_now();
            }
        });
        Self { ends, ran, thread: Some(thread) }
    }

    fn ran(&self) -> Vec<u64> {
        std::mem::take(&mut self.ran.lock().unwrap())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn calls(numbers: &[u64]) -> Vec<GraphNode<'static>> {
    let after = |place: u32| place.checked_sub(1).into_iter().collect::<Vec<_>>();
    (0..).zip(numbers).map(|(place, number)| node(&after(place), GraphWork::Host(*number))).collect()
}

#[test]
fn functions_are_called_at_each_launch_among_the_other_nodes() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    assert_eq!(instantiate(&world, &calls(&[5])), Err(CuError::INVALID_VALUE), "nobody said where");
    open_mailbox(&world);
    let guest = Guest::start(world.staging.clone());
    instantiate(&world, &calls(&[5, u64::MAX])).unwrap();
    assert_eq!((launch(&world), launch(&world)), (None, None));
    assert_eq!(guest.ran(), [5, u64::MAX, 5, u64::MAX]);
    ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 0, GraphWork::Host(6)).unwrap();
    ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 1, GraphWork::Empty).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE), "another kind");
    ask::vgpuGraphNodeEnable(&world.guest, C, GRAPH, 0, false).unwrap();
    assert_eq!(world.guest.take_error(), Some(CuError::INVALID_VALUE), "it cannot be switched off");
    assert_eq!((launch(&world), guest.ran()), (None, vec![6, u64::MAX]));
    assert_eq!(ask::vgpuGraphUpdate(&world.guest, C, GRAPH, upload(&world, &calls(&[7, 8]))), Ok(()));
    assert_eq!((launch(&world), guest.ran()), (None, vec![7, 8]));
}

#[test]
fn a_wait_for_a_launch_is_put_aside_until_its_functions_have_run() {
    let world = world_with(Null::default().calling_from_a_thread());
    open_mailbox(&world);
    instantiate(&world, &calls(&[5])).unwrap();
    assert_eq!(launch(&world), None);
    let wait = || ask::cuStreamSynchronize(&world.guest, C, Stream::Legacy);
    let settle = || ask::cuCtxSynchronize(&world.guest, C);
    assert_eq!(settle(), Err(CuError::NOT_READY));
    assert_eq!(end_function(&world.staging, wait), Ok(()));
    while settle() == Err(CuError::NOT_READY) {
        thread::yield_now();
    }
    assert_eq!(settle(), Ok(()), "none is queued any more");
}

/// As NVIDIA's driver, the null device holds no function for the session.
#[test]
fn a_launch_calls_what_it_was_made_with_whatever_becomes_of_the_graph() {
    let world = world_with(Null::default().calling_from_a_thread());
    open_mailbox(&world);
    let settle = || {
        while ask::cuCtxSynchronize(&world.guest, C) == Err(CuError::NOT_READY) {
            thread::yield_now();
        }
    };
    instantiate(&world, &calls(&[1, 2, 3])).unwrap();
    assert_eq!(launch(&world), None);
    ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 1, GraphWork::Host(20)).unwrap();
    assert_eq!(ask::vgpuGraphUpdate(&world.guest, C, GRAPH, upload(&world, &calls(&[4, 5, 6]))), Ok(()));
    let guest = Guest::start(world.staging.clone());
    settle();
    assert_eq!(guest.ran(), [1, 2, 3]);
    drop(guest);
    assert_eq!(launch(&world), None);
    ask::cuGraphExecDestroy(&world.guest, C, GoneHandle(GRAPH)).unwrap();
    let guest = Guest::start(world.staging.clone());
    settle();
    assert_eq!((guest.ran(), world.guest.take_error()), (vec![4, 5, 6], None));
}

#[test]
fn no_more_functions_are_queued_than_there_may_be() {
    let world = world_with(Null::default().calling_from_a_thread());
    open_mailbox(&world);
    instantiate(&world, &calls(&[1; 1000])).unwrap();
    let launched = (0..100).take_while(|_| launch(&world).is_none()).count();
    assert_eq!(launched, 65, "65,536 functions");
    assert_eq!(launch(&world), Some(CuError::OUT_OF_MEMORY));
    ask::cuLaunchHostFunc(&world.guest, C, Stream::Legacy, 5).unwrap();
    assert_eq!(world.guest.take_error(), None, "there is room for one");
}

fn word(kind: MemoryOpKind, at: DevicePtr) -> MemoryOp {
    MemoryOp { kind, at, bytes: 4, value: 9 }
}

#[test]
fn words_of_a_graph_pass_the_gates_of_a_stream() {
    let world = world_of(Soft::new(1 << 20).unwrap(), 1 << 20);
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    let place = |offset| at.offset(offset).unwrap();
    let own_stack = DevicePtr(std::ptr::from_ref(&world) as u64);
    let (good, wait) = (word(MemoryOpKind::Write, at), word(MemoryOpKind::WaitEqual, at));
    let nodes = |ops: &[MemoryOp]| vec![node(&[], GraphWork::Words(ops.to_vec()))];
    for bad in [
        word(MemoryOpKind::Write, own_stack),
        word(MemoryOpKind::WaitEqual, own_stack),
        word(MemoryOpKind::Write, place(14)),
        word(MemoryOpKind::Write, place(2)),
        MemoryOp { bytes: 3, ..good },
        MemoryOp { bytes: 16, ..good },
    ] {
        assert_eq!(instantiate(&world, &nodes(&[good, bad])), Err(CuError::INVALID_VALUE), "{bad:?}");
    }
    assert_eq!(instantiate(&world, &nodes(&[good; 256])), Err(CuError::INVALID_VALUE));
    assert_eq!(instantiate(&world, &nodes(&[])), Err(CuError::INVALID_VALUE));
    instantiate(&world, &nodes(&[good, wait])).unwrap();
    let read = |len| {
        ask::vgpuMemcpyDtoHStaged(&world.guest, C, Staged { offset: 0, len }, at, Stream::Legacy).unwrap();
        world.staging.bytes(8)
    };
    assert_eq!((launch(&world), read(8)), (None, vec![9, 0, 0, 0, 0, 0, 0, 0]));
    let set = |ops: Vec<MemoryOp>| {
        ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 0, GraphWork::Words(ops)).unwrap();
        world.guest.take_error()
    };
    // As many as before, of which each is looked at.
    assert_eq!(set(vec![good]), Some(CuError::INVALID_VALUE));
    assert_eq!(set(vec![good, word(MemoryOpKind::Write, own_stack)]), Some(CuError::INVALID_VALUE));
    assert_eq!(set(vec![good, word(MemoryOpKind::Write, place(4))]), None);
    assert_eq!((launch(&world), read(8)), (None, vec![9, 0, 0, 0, 9, 0, 0, 0]));
    ask::cuMemFree_v2(&world.guest, C, at).unwrap();
    assert_eq!(launch(&world), Some(CuError::INVALID_VALUE), "its memory has gone");
}

/// After a change that the device refused both may be what it has.
#[test]
fn words_before_and_after_a_refused_change_are_looked_at() {
    let world = world_with(Null::default().refusing(&[Step::GraphChange]));
    let [first, second] = [0; 2].map(|_| ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap());
    instantiate(&world, &[node(&[], GraphWork::Words(vec![word(MemoryOpKind::Write, first)]))]).unwrap();
    let changed = GraphWork::Words(vec![word(MemoryOpKind::Write, second)]);
    ask::vgpuGraphNodeSet(&world.guest, C, GRAPH, 0, changed).unwrap();
    assert_eq!((world.guest.take_error(), launch(&world)), (Some(CuError::INVALID_VALUE), None));
    ask::cuMemFree_v2(&world.guest, C, second).unwrap();
    assert_eq!(launch(&world), Some(CuError::INVALID_VALUE));
}

#[test]
fn who_waits_behind_a_graph_that_waits_for_a_word_is_put_aside_until_it_is_written() {
    let world = world_with(Null::default().stalling().busy());
    let handles = [0, 1].map(|number| StreamHandle::new(0, number));
    for handle in handles {
        ask::cuStreamCreateWithPriority(&world.guest, C, NewHandle(handle), 1, 0).unwrap();
    }
    let [waits, writes] = handles.map(Stream::Made);
    let at = ask::cuMemAlloc_v2(&world.guest, C, 16).unwrap();
    instantiate(&world, &[node(&[], GraphWork::Words(vec![word(MemoryOpKind::WaitEqual, at)]))]).unwrap();
    let calls: [&dyn Fn() -> CuResult<()>; 2] =
        [&|| ask::cuStreamSynchronize(&world.guest, C, waits), &|| ask::cuCtxSynchronize(&world.guest, C)];
    for call in calls {
        ask::cuGraphLaunch(&world.guest, C, GRAPH, waits).unwrap();
        assert_eq!((world.guest.take_error(), [call(), call()]), (None, [Err(CuError::NOT_READY); 2]));
        ask::vgpuStreamMemory(&world.guest, C, writes, vec![word(MemoryOpKind::Write, at)]).unwrap();
        assert_eq!((world.guest.take_error(), call()), (None, Ok(())));
    }
}
