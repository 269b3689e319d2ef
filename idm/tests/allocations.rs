//! After a channel is connected and a thread has called once, no record allocates. Alone in its program, for it counts every allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use idm::record::{RegionSpec, pair};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: hands everything to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn no_record_and_no_call_allocates() {
    let (submitter, mut consumer) = pair(RegionSpec::default()).unwrap();
    let limit = Some(Duration::from_secs(20));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let replies = consumer.replies().clone();
            loop {
                match consumer.next().unwrap() {
                    Some(record) if record.op == 9 => break,
                    Some(record) => {
                        if let Some(lane) = record.lane {
                            replies.reply(lane, record.seq, 0, record.payload).unwrap();
                        }
                    }
                    None => {
                        consumer.wait(limit).unwrap();
                    }
                }
            }
        });
        let round = || {
            for _ in 0..50 {
                submitter.submit_bytes(1, 0, &[1; 170]).unwrap();
            }
            submitter.call(2, 0, &[2; 30], &mut [0; 64], limit).unwrap();
        };
        round();
        let before = ALLOCATIONS.load(Relaxed);
        for _ in 0..1000 {
            round();
        }
        assert_eq!(ALLOCATIONS.load(Relaxed) - before, 0);
        // A full ring's wait and a sleep do not either; the canary: this does.
        let boxed = std::hint::black_box(Box::new(1));
        assert!(ALLOCATIONS.load(Relaxed) > before, "the count counts nothing: {boxed}");
        submitter.submit_bytes(9, 0, &[]).unwrap();
    });
}
