//! A program whose arena is kept, as over Xen: its worker has the pages that were there when it was told of them, so none becomes a hole, and
//! what was in them is there again.

mod support;

use std::sync::atomic::Ordering;

use support::memory::{calls, device, free_device, pattern};
use support::session::{KEPT_ARENA, session};

const OK: u32 = 0;
const MIB: usize = 1 << 20;

#[test]
fn pages_stay_and_what_lay_in_them_is_no_word_of_a_later_copy() {
    KEPT_ARENA.store(true, Ordering::Relaxed);
    let session = session();
    let pin = |bytes: usize| {
        let mut address = 0u64;
        let at = &raw mut address;
        assert_eq!(cu!(session.libcuda, cuMemHostAlloc(at: *mut u64, bytes: usize, 2: u32)), OK);
        let place: *mut u8 = std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap());
        (address, place)
    };
    // SAFETY: each place has as many bytes as were allocated, and nobody else in this process has them.
    let whole = |place: *mut u8, bytes: usize| unsafe { std::slice::from_raw_parts_mut(place, bytes) };
    let free = |address: u64| assert_eq!(cu!(session.libcuda, cuMemFreeHost(address: u64)), OK);

    calls(&session);
    // As the word of a copy's slot would say that it is done: the first one, in all of them.
    const LARGE: usize = 20 * MIB + 4096;
    let (first, place) = pin(LARGE);
    for word in whole(place, LARGE).as_chunks_mut::<8>().0 {
        *word = 1u64.to_le_bytes();
    }
    free(first);
    let (second, place) = pin(5 * MIB);
    assert_eq!(second, first);
    assert!(whole(place, 5 * MIB).as_chunks::<8>().0.iter().all(|word| *word == 1u64.to_le_bytes()));
    free(second);
    assert_eq!(calls(&session), ["arena add", "arena remove", "arena add", "arena remove"]);

    const BYTES: usize = 6 * MIB;
    let on_device = device(&session, BYTES);
    let sent = pattern(BYTES, 3);
    let from = sent.as_ptr();
    let copied = cu!(session.libcuda, cuMemcpyHtoD_v2(on_device: u64, from: *const u8, BYTES: usize));
    assert_eq!(copied, OK);
    let mut back = vec![0u8; BYTES];
    let to = back.as_mut_ptr();
    let copied = cu!(session.libcuda, cuMemcpyDtoH_v2(to: *mut u8, on_device: u64, BYTES: usize));
    assert_eq!(copied, OK);
    assert!(back == sent, "a slot was read before the device had written it");
    assert!(calls(&session).contains(&"copy, then write"), "it passed through slots");
    free_device(&session, on_device);
}
