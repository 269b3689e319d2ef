use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use super::*;
use crate::doorbell::{Signal, eventfd_pair};
use crate::error::Fault;
use crate::sync::Ordering::Relaxed;

const LIMIT: Option<Duration> = Some(Duration::from_secs(30));
const ORDER: u32 = 1;
/// Of each direction.
const RING_BYTES: usize = PAGE_BYTES << ORDER >> 1;

/// A doorbell, counted.
#[derive(Debug)]
struct Rung(Doorbell, Arc<AtomicU64>);

impl Signal for Rung {
    fn ring(&self) -> io::Result<()> {
        self.1.fetch_add(1, SeqCst);
        self.0.ring()
    }
}

/// Both ends, the pages as the front end's domain has them, and how often each end rang.
struct World {
    back: FlexRings,
    front: FlexRings,
    pages: Region,
    rings: [Arc<AtomicU64>; 2],
}

impl World {
    fn new() -> Self {
        let bytes = region_bytes(ORDER);
        let memory = sealed_memory("test", bytes).unwrap();
        let rings: [Arc<AtomicU64>; 2] = Default::default();
        let ((to_front, front_hears), (to_back, back_hears)) =
            (eventfd_pair().unwrap(), eventfd_pair().unwrap());
        let end = |side, waiter, doorbell, rings: &Arc<AtomicU64>| {
            let region = Region::map(&memory, bytes).unwrap();
            let doorbell = Doorbell::Other(Box::new(Rung(Doorbell::EventFd(doorbell), Arc::clone(rings))));
            let (peer, waiter) = (Peer::Domain(5), Waiter::EventFd(waiter));
            FlexRings::new(FlexParts { region, order: ORDER, side, peer, waiter, doorbell, liveness: None })
                .unwrap()
        };
        Self {
            back: end(FlexSide::Back, back_hears, to_front, &rings[0]),
            front: end(FlexSide::Front, front_hears, to_back, &rings[1]),
            pages: Region::map(&memory, bytes).unwrap(),
            rings,
        }
    }

    /// Rings of the back end and of the front end so far.
    fn rings(&self) -> [u64; 2] {
        self.rings.each_ref().map(|count| count.load(SeqCst))
    }
}

fn read_exact(rings: &FlexRings, to: &mut [u8]) {
    let mut at = 0;
    while at < to.len() {
        at += rings.read(&mut to[at..], LIMIT).unwrap();
    }
}

fn write_all(rings: &FlexRings, from: &[u8]) {
    let mut at = 0;
    while at < from.len() {
        at += rings.write(&from[at..], LIMIT).unwrap();
    }
}

#[test]
fn words_and_bytes_lie_where_linux_has_them() {
    let World { back, front, pages, .. } = World::new();
    write_all(&front, b"ask");
    let mut to = [0; 3];
    read_exact(&back, &mut to);
    write_all(&back, b"said");
    let word = |at| pages.word(at).load(Relaxed);
    assert_eq!([0, 4, 64, 68].map(word), [0, 4, 3, 3], "in_cons, in_prod, out_cons, out_prod");
    let (mut said, mut asked) = ([0; 4], [0; 3]);
    pages.read(4096, &mut said);
    pages.read(4096 + RING_BYTES, &mut asked);
    assert_eq!((&said, &asked), (b"said", b"ask"));
}

#[test]
fn bytes_arrive_whole_both_ways_when_they_are_more_than_the_rings_hold() {
    let (back, front) = FlexRings::pair(ORDER).unwrap();
    let bytes: Vec<u8> = (0..40 * RING_BYTES + 17).map(|n| u8::try_from(n % 251).unwrap()).collect();
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let mut left = bytes.len();
            let mut to = [0; 1000];
            while left > 0 {
                let count = back.read(&mut to, LIMIT).unwrap();
                write_all(&back, &to[..count]);
                left -= count;
            }
        });
        let writer = scope.spawn(|| write_all(&front, &bytes));
        let mut got = vec![0; bytes.len()];
        read_exact(&front, &mut got);
        assert!(got == bytes, "what came back is not what was sent");
        writer.join().unwrap();
        echo.join().unwrap();
    });
}

#[test]
fn a_request_and_its_answer_cost_one_event_each_way() {
    let world = World::new();
    let (mut to, mut back_to) = ([0; 100], [0; 100]);
    let before = world.rings();
    for _ in 0..100 {
        write_all(&world.front, &[1; 100]);
        read_exact(&world.back, &mut back_to);
        write_all(&world.back, &[2; 100]);
        read_exact(&world.front, &mut to);
    }
    assert_eq!(world.rings().map(|count| count - before[0]), [100, 100]);
}

#[test]
fn who_takes_bytes_and_has_none_to_write_tells_of_the_room_before_it_sleeps() {
    let world = World::new();
    write_all(&world.front, &[7; RING_BYTES]);
    let mut to = [0; RING_BYTES];
    read_exact(&world.back, &mut to);
    assert_eq!(world.rings()[0], 0, "nobody waits yet, as far as it can know");
    let slept = world.back.read(&mut to, Some(Duration::from_millis(5))).unwrap_err();
    assert!(matches!(slept, ChannelError::TimedOut { what: "bytes", .. }), "{slept}");
    assert_eq!(world.rings()[0], 1);
    // What was told once is not told again.
    world.back.read(&mut to, Some(Duration::from_millis(5))).unwrap_err();
    assert_eq!(world.rings()[0], 1);
}

/// Linux's 9pfs reads as many bytes as a message's header says, however many of them are there.
#[test]
fn what_a_ring_can_hold_is_seen_whole_or_not_at_all() {
    let world = World::new();
    let produced = || usize::try_from(world.pages.word(4).load(Relaxed)).unwrap();
    assert_eq!(world.back.write(&[1; RING_BYTES - 10], LIMIT).unwrap(), RING_BYTES - 10);
    let late = world.back.write(&[2; 11], Some(Duration::from_millis(5))).unwrap_err();
    assert!(matches!(late, ChannelError::TimedOut { what: "room", .. }), "{late}");
    assert_eq!(produced(), RING_BYTES - 10, "a part is there");
    assert_eq!(world.front.read(&mut [0], LIMIT).unwrap(), 1);
    assert_eq!(world.back.write(&[2; 11], LIMIT).unwrap(), 11);
    assert_eq!(produced(), RING_BYTES + 1);
    // More than it holds goes in pieces: the first when it is empty.
    let mut to = [0; RING_BYTES];
    read_exact(&world.front, &mut to);
    assert!(to[..RING_BYTES - 11].iter().all(|byte| *byte == 1) && to[RING_BYTES - 11..] == [2; 11]);
    assert_eq!(world.back.write(&[3; RING_BYTES + 1], LIMIT).unwrap(), RING_BYTES);
}

#[test]
fn who_waits_for_room_tells_of_the_room_that_it_made() {
    let world = World::new();
    write_all(&world.back, &[1; RING_BYTES]);
    write_all(&world.front, &[7; RING_BYTES]);
    read_exact(&world.back, &mut [0; RING_BYTES]);
    let before = world.rings()[0];
    for _ in 0..2 {
        world.back.write(&[2], Some(Duration::from_millis(5))).unwrap_err();
        assert_eq!(world.rings()[0], before + 1);
    }
}

#[test]
fn an_index_that_cannot_be_ends_the_rings() {
    for (at, claimed) in [(68, u32::try_from(RING_BYTES).unwrap() + 1), (68, u32::MAX), (0, 1), (0, u32::MAX)]
    {
        let World { back, pages, .. } = World::new();
        pages.word(at).store(claimed, Relaxed);
        let broken = match at {
            68 => back.read(&mut [0; 8], LIMIT).unwrap_err(),
            _ => back.write(&[1], LIMIT).unwrap_err(),
        };
        assert_eq!(broken.fault(), Fault::Peer, "{at}: {claimed}: {broken}");
        pages.word(at).store(0, Relaxed);
        assert!(
            back.read(&mut [0; 8], LIMIT).is_err() && back.write(&[1], LIMIT).is_err(),
            "they stay broken"
        );
    }
}

#[test]
fn sizes_that_make_no_rings_are_refused() {
    for order in [0, ORDER_MAX + 1, u32::MAX] {
        let refused = FlexRings::pair(order).unwrap_err();
        assert!(matches!(refused, ChannelError::Layout { .. }), "{order}: {refused}");
    }
}
