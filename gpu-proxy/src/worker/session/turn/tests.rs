//! Work in line, on a device of which streams can be held.

use vgpu_api::{DevicePtr, MemoryOp, MemoryOpKind};

use super::*;
use crate::device::{Null, Streams};
use crate::shared_page::SharedPage;
use crate::worker::turn::{Order, Ruled};

const CONTEXT: Raw = Raw(1);
const MANY: u64 = 1 << 60;

struct World {
    device: Null,
    line: Line,
    turn: Turn,
    ruled: Ruled,
}

fn world() -> World {
    let page = SharedPage::create().unwrap();
    let turn = Turn::new(SharedPage::map(page.fd()).unwrap());
    let ruled = Ruled::new(Arc::new(page));
    World { device: Null::default().stalling(), line: Line::default(), turn, ruled }
}

fn place(stream: u64) -> Place {
    Place { context: CONTEXT, stream: (stream > 0).then_some(Raw(stream)) }
}

impl World {
    /// As a call does: asks, queues, marks. Whether it had to wait.
    fn queue(&mut self, place: Place) -> bool {
        let waits = self.line.must_wait(&mut self.device, &self.turn, true);
        if !waits {
            self.line.queue(&self.turn, place);
            self.line.mark(&mut self.device);
        }
        waits
    }

    fn word(&mut self, stream: u64, kind: MemoryOpKind) {
        let op = MemoryOp { kind, at: DevicePtr(8), bytes: 8, value: 1 };
        self.device.stream_memory(place(stream), &[op]).unwrap();
    }

    fn used(&self) -> u64 {
        self.ruled.said(false, now_ns()).used
    }

    fn rests(&mut self) -> bool {
        !self.line.rest(&mut self.device, &self.turn)
    }
}

#[test]
fn time_is_used_while_something_is_queued_and_not_done() {
    let mut world = world();
    world.ruled.tell(Order::Until(MANY));
    world.word(2, MemoryOpKind::WaitEqual);
    assert!(!world.queue(place(2)));
    std::thread::sleep(Duration::from_millis(5));
    assert!(!world.rests(), "the stream is held");
    let used = world.used();
    assert!(used >= 5_000_000, "{used}");
    world.word(3, MemoryOpKind::Write);
    assert!(world.rests(), "it is done");
    let used = world.used();
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(world.used(), used, "time that nothing is queued in is nobody's");
}

#[test]
fn what_is_done_in_one_stream_does_not_wait_for_another() {
    let mut world = world();
    world.ruled.tell(Order::Until(MANY));
    world.word(2, MemoryOpKind::WaitEqual);
    world.queue(place(2));
    world.queue(place(3));
    assert_eq!(world.line.pieces, 2);
    world.line.look(&mut world.device, now_ns());
    assert_eq!((world.line.pieces, world.line.marked.len()), (1, 1));
    // The event is used again.
    let spare = world.line.spare[&CONTEXT].clone();
    world.queue(place(3));
    assert_eq!(world.line.marked[&(CONTEXT, place(3).stream)][0].event, spare[0]);
}

#[test]
fn the_queue_is_short_but_what_has_no_end_holds_up_nobody() {
    let mut world = world();
    world.ruled.tell(Order::Until(MANY));
    world.word(2, MemoryOpKind::WaitEqual);
    let (max, start) = (world.line.pieces_max(), now_ns());
    let waited = || now_ns() - start;
    for _ in 0..max {
        assert!(!world.queue(place(2)));
    }
    assert!(world.queue(place(3)) || waited() >= PATIENCE_NS, "2 ms are queued");
    // A call that the stream itself may be waiting for.
    assert!(!world.line.must_wait(&mut world.device, &world.turn, false));
    while world.queue(place(3)) {}
    assert!(waited() >= PATIENCE_NS);
    // And then no more.
    assert!(!world.queue(place(3)));
}

#[test]
fn short_pieces_make_a_long_queue() {
    let mut world = world();
    world.ruled.tell(Order::Until(MANY));
    let first = world.line.pieces_max();
    assert_eq!(first, PIECES_MIN);
    for _ in 0..200 {
        while world.queue(place(2)) {}
        world.line.look(&mut world.device, now_ns());
    }
    assert!(world.line.pieces_max() > first, "{}", world.line.piece_ns);
}

#[test]
fn who_is_held_back_uses_nothing_and_goes_on_when_it_may() {
    let mut world = world();
    world.ruled.tell(Order::Until(MANY));
    world.queue(place(2));
    assert!(world.rests());
    let used = world.used();
    world.ruled.tell(Order::Until(used));
    let (ruled, start) = (world.ruled.clone(), now_ns());
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        let held = ruled.said(false, now_ns()).used;
        ruled.tell(Order::Until(held + 1));
        held
    });
    while world.queue(place(2)) {}
    assert!(now_ns() - start >= 10_000_000);
    assert_eq!(later.join().unwrap(), used);
}

#[test]
fn who_is_free_is_not_looked_at() {
    let mut world = world();
    world.ruled.tell(Order::Until(MANY));
    world.word(2, MemoryOpKind::WaitEqual);
    world.queue(place(2));
    world.ruled.tell(Order::Free);
    assert!(world.rests());
    assert_eq!((world.line.pieces, world.line.since, world.line.marked.len()), (0, None, 0));
    assert_eq!(world.line.spare[&CONTEXT].len(), 1);
}

#[test]
fn with_a_context_ends_what_was_queued_in_it() {
    let mut world = world();
    world.ruled.tell(Order::Until(MANY));
    world.word(2, MemoryOpKind::WaitEqual);
    world.queue(place(2));
    world.line.must_wait(&mut world.device, &world.turn, true);
    world.line.queue(&world.turn, Place { context: Raw(9), stream: None });
    world.line.end_context(&mut world.device, CONTEXT);
    assert_eq!((world.line.pieces, world.line.marked.len(), world.line.spare.len()), (1, 0, 0));
    world.line.end_context(&mut world.device, Raw(9));
    assert_eq!(world.line.pieces, 0);
    assert!(world.rests());
}
