//! What becomes of memory of graphs when nothing names it any more, and launches may go on.

use std::sync::atomic::Ordering;

use support::device::EVENTS_PENDING;

use super::memory_nodes::*;
use super::*;

#[test]
fn memory_of_a_launch_that_goes_on_is_given_back_behind_it() {
    let session = session();
    let graph = graph_of(&session);
    let (node, at) = alloc(&session, graph, &[], 4096);
    assert_eq!(free_node(&session, graph, &[node], at).0, OK);
    let (_, exec) = try_instantiate(&session, graph, 0);
    assert_eq!(launch(&session, exec, 0), OK);
    EVENTS_PENDING.store(true, Ordering::Relaxed);
    destroy(&session, exec);
    assert_eq!(figures(&session)[..3].to_vec(), [0, PIECE, PIECE]);
    assert_eq!(cu!(session.libcuda, cuDeviceGraphMemTrim(0: i32)), OK);
    assert_eq!(figures(&session)[2], PIECE, "it goes on");
    // Where memory is short it is waited for: this is more than there is.
    let gigabyte = 1usize << 30;
    let mut address = 0u64;
    let place = &raw mut address;
    assert_eq!(cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, gigabyte: usize)), OUT_OF_MEMORY);
    assert_eq!(figures(&session)[2], 0);
    // The next has it without mapping anything.
    let (_, exec) = try_instantiate(&session, graph, 0);
    assert_eq!(launch(&session, exec, 0), OK);
    EVENTS_PENDING.store(true, Ordering::Relaxed);
    destroy(&session, exec);
    let before = calls(&session).len();
    let (code, exec) = try_instantiate(&session, graph, 0);
    let made = calls(&session);
    assert_eq!((code, made[before..].contains(&"map"), figures(&session)[0]), (OK, false, PIECE));
    // The stream waits, once; nobody else does.
    assert_eq!([0; 2].map(|stream| launch(&session, exec, stream)), [OK; 2]);
    let launched = calls(&session)[made.len()..].to_vec();
    let waits = |call: &&&str| matches!(**call, "wait event" | "graph launch");
    assert_eq!(
        launched.iter().filter(waits).copied().collect::<Vec<_>>(),
        ["wait event", "graph launch", "graph launch"]
    );
    assert!(EVENTS_PENDING.load(Ordering::Relaxed), "the call did not wait");
    destroy(&session, exec);
    assert_eq!(figures(&session)[2], PIECE);
    EVENTS_PENDING.store(false, Ordering::Relaxed);
    assert_eq!(figures(&session)[2], 0);
    reset(&session);
}

#[test]
fn what_asks_for_memory_gets_what_launches_have_done_with() {
    let session = session();
    let graph = graph_of(&session);
    let (node, at) = alloc(&session, graph, &[], 4096);
    assert_eq!(free_node(&session, graph, &[node], at).0, OK);
    let mut address = 0u64;
    let (place, gigabyte) = (&raw mut address, 1usize << 30);
    let pool = made!(session, cuDeviceGetDefaultMemPool(0: i32));
    // Pinned memory of device 0.
    let properties = [1u64, 1, 0, 0];
    let given = properties.as_ptr();
    let asks: [(&dyn Fn() -> u32, &str); 4] = [
        (&|| cu!(session.libcuda, cuMemAlloc_v2(place: *mut u64, gigabyte: usize)), "alloc"),
        (&|| cu!(session.libcuda, cuMemAllocAsync(place: *mut u64, gigabyte: usize, 0: u64)), "alloc"),
        (
            &|| cu!(session.libcuda, cuMemAllocFromPoolAsync(place: *mut u64, gigabyte: usize, pool: u64, 0: u64)),
            "alloc",
        ),
        (
            &|| cu!(session.libcuda, cuMemCreate(place: *mut u64, gigabyte: usize, given: *const u64, 0: u64)),
            "create",
        ),
    ];
    let retire = || {
        let (code, exec) = try_instantiate(&session, graph, 0);
        assert_eq!((code, launch(&session, exec, 0)), (OK, OK));
        EVENTS_PENDING.store(true, Ordering::Relaxed);
        destroy(&session, exec);
        calls(&session).len()
    };
    for (ask, name) in asks {
        let before = retire();
        assert_eq!(ask(), OUT_OF_MEMORY);
        let asked = calls(&session)[before..].to_vec();
        let these = asked.iter().filter(|call| [name, "unmap"].contains(*call));
        assert_eq!(these.copied().collect::<Vec<_>>(), [name, "unmap", name]);
    }
    let before = retire();
    EVENTS_PENDING.store(false, Ordering::Relaxed);
    let (mut free, mut total) = (0usize, 0usize);
    let (free_at, total_at) = (&raw mut free, &raw mut total);
    assert_eq!(cu!(session.libcuda, cuMemGetInfo_v2(free_at: *mut usize, total_at: *mut usize)), OK);
    assert!(calls(&session)[before..].contains(&"unmap"));
    reset(&session);
}

#[test]
fn memory_that_one_thread_gives_back_and_another_wants_is_mapped_once() {
    let session = session();
    let graph = graph_of(&session);
    let (_, at) = alloc(&session, graph, &[], 4096);
    let context = vgpu_api::ContextId::primary(0).handle().raw();
    let (library, begins) = (&session.libcuda, std::sync::Barrier::new(2));
    for _ in 0..300 {
        let (code, exec) = try_instantiate(&session, graph, 0);
        assert_eq!((code, launch(&session, exec, 0)), (OK, OK));
        destroy(&session, exec);
        // Only the allocation holds it now.
        let (freed, (code, exec)) = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                assert_eq!(cu!(library, cuCtxSetCurrent(context: u64)), OK);
                begins.wait();
                cu!(library, cuMemFree_v2(at: u64))
            });
            begins.wait();
            let made = try_instantiate(&session, graph, 0);
            (other.join().unwrap(), made)
        });
        assert_eq!((freed, code, launch(&session, exec, 0)), (OK, OK, OK));
        assert_eq!(memory_type(&session, at), (OK, 2));
        assert_eq!(free(&session, at), OK);
        destroy(&session, exec);
    }
    let all = calls(&session);
    let changes: Vec<_> = all.iter().filter(|call| matches!(**call, "map" | "unmap")).collect();
    assert!(changes.chunks(2).all(|pair| pair == [&"map", &"unmap"]));
    // It is mapped once a round, or twice if it was given back before it was wanted again.
    assert!((2 * 300..=4 * 300).contains(&changes.len()), "{} changes", changes.len());
    reset(&session);
}

#[test]
fn a_launch_that_is_not_queued_allocates_nothing() {
    let session = session();
    let graph = graph_of(&session);
    let (node, at) = alloc(&session, graph, &[], 4096);
    let mut copy = [0u64; 25];
    // From address 0 of the host.
    (copy[4], copy[15], copy[17]) = (1, 2, at);
    copy[22..].copy_from_slice(&[16, 1, 1]);
    let context = vgpu_api::ContextId::primary(0).handle().raw();
    let (copy_at, node_at) = (copy.as_ptr(), &raw const node);
    made!(session, cuGraphAddMemcpyNode(graph: u64, node_at: *const u64, 1: usize, copy_at: *const u64, context: u64));
    let (code, exec) = try_instantiate(&session, graph, 0);
    assert_eq!((code, launch(&session, exec, 0)), (OK, INVALID_VALUE));
    assert!(!calls(&session).contains(&"graph launch"));
    assert_eq!((free(&session, at), memory_type(&session, at).0), (INVALID_VALUE, INVALID_VALUE));
    reset(&session);
}
