//! Batches of prefetches and discards: checked whole, then refused as devices without concurrent access do; nothing of it travels.

mod support;

use support::memory::free_device;
use support::session::{Session, session};

const OK: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_DEVICE: u32 = 101;
const INVALID_HANDLE: u32 = 400;
/// `CU_MEM_LOCATION_TYPE_DEVICE`, `…_HOST`, a device's number being 0.
const ON_DEVICE: u64 = 1;
const ON_HOST: u64 = 2;

/// Ranges, and where each part of them goes. What no field of it says is right.
#[derive(Clone)]
struct Batch {
    at: Vec<u64>,
    bytes: Vec<usize>,
    places: Vec<u64>,
    first: Vec<usize>,
    flags: u64,
    stream: u64,
}

impl Batch {
    /// As prefetches, as discards, as both.
    fn codes(&self, session: &Session) -> [u32; 3] {
        let (at, bytes, count) = (self.at.as_ptr(), self.bytes.as_ptr(), self.at.len());
        let (places, first, parts) = (self.places.as_ptr(), self.first.as_ptr(), self.places.len());
        let (flags, stream) = (self.flags, self.stream);
        [
            cu!(session.libcuda, cuMemPrefetchBatchAsync(at: *const u64, bytes: *const usize, count: usize,
                places: *const u64, first: *const usize, parts: usize, flags: u64, stream: u64)),
            cu!(session.libcuda, cuMemDiscardBatchAsync(at: *const u64, bytes: *const usize, count: usize,
                flags: u64, stream: u64)),
            cu!(session.libcuda, cuMemDiscardAndPrefetchBatchAsync(at: *const u64, bytes: *const usize, count: usize,
                places: *const u64, first: *const usize, parts: usize, flags: u64, stream: u64)),
        ]
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut other = self.clone();
        change(&mut other);
        other
    }
}

#[test]
fn a_batch_is_checked_whole_and_then_refused_as_a_prefetch_is() {
    let session = session();
    let (mut memory, mut stream) = (0u64, 0u64);
    let (memory_at, stream_at) = (&raw mut memory, &raw mut stream);
    assert_eq!(cu!(session.libcuda, cuMemAllocManaged(memory_at: *mut u64, 16384: usize, 1: u32)), OK);
    assert_eq!(cu!(session.libcuda, cuStreamCreate(stream_at: *mut u64, 1: u32)), OK);
    let right = Batch {
        at: vec![memory, memory + 4096, memory + 8192],
        bytes: vec![4096, 4096, 8192],
        places: vec![ON_DEVICE, ON_HOST],
        first: vec![0, 2],
        flags: 0,
        stream,
    };
    // The thread's own stream, which is made when it is named first.
    assert_eq!(right.with(|batch| batch.stream = 2).codes(&session), [INVALID_DEVICE; 3]);
    let before = session.call_count();
    assert_eq!(right.codes(&session), [INVALID_DEVICE; 3]);

    // What no batch of any kind has: one range is wrong, whichever.
    let own = 7u64;
    for (range, at, bytes) in [
        (0, memory, 0),
        (1, memory + 4096, 12289),
        (2, memory + 8193, 8192),
        (2, &raw const own as u64, 8),
        (1, 0, 4096),
        (0, memory, usize::MAX),
    ] {
        let wrong = right.with(|batch| (batch.at[range], batch.bytes[range]) = (at, bytes));
        assert_eq!(wrong.codes(&session), [INVALID_VALUE; 3], "range {range}: {bytes} bytes");
    }
    assert_eq!(right.with(|batch| batch.flags = 1).codes(&session), [INVALID_VALUE; 3]);
    assert_eq!(right.with(|batch| batch.stream = 0).codes(&session), [INVALID_VALUE; 3], "the legacy stream");
    assert_eq!(right.with(|batch| batch.stream = 1 << 40).codes(&session), [INVALID_HANDLE; 3]);
    let nothing = right.with(|batch| {
        batch.at.clear();
        batch.places.truncate(0);
    });
    assert_eq!(nothing.codes(&session), [INVALID_VALUE; 3], "no range at all");

    // Places that do not go with the ranges; a discard has none.
    let but_discards = [INVALID_VALUE, INVALID_DEVICE, INVALID_VALUE];
    for (places, first) in [
        (vec![], vec![]),
        (vec![ON_HOST, ON_HOST], vec![1, 2]),
        (vec![ON_HOST, ON_HOST], vec![0, 0]),
        (vec![ON_HOST, ON_HOST], vec![0, 3]),
        (vec![ON_HOST, ON_HOST, ON_HOST], vec![0, 2, 1]),
        (vec![ON_HOST; 4], vec![0, 1, 2, 3]),
        (vec![ON_HOST, 0], vec![0, 1]),
        (vec![5, ON_HOST], vec![0, 1]),
    ] {
        let wrong = right.with(|batch| (batch.places, batch.first) = (places.clone(), first.clone()));
        assert_eq!(wrong.codes(&session), but_discards, "{places:?} from {first:?}");
    }
    assert_eq!(session.call_count(), before, "nothing of it travels");
    free_device(&session, memory);
    assert_eq!(right.codes(&session), [INVALID_VALUE; 3], "memory that is gone");
    assert_eq!(cu!(session.libcuda, cuStreamDestroy_v2(stream: u64)), OK);
}
