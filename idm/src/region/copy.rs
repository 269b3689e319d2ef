//! Copies between private memory and memory that another process writes at the same time.
//!
//! Each byte moves by a relaxed atomic access, eight at a time where the shared address allows: a race with the peer gives mixed
//! bytes, never undefined behaviour. Accesses of different width may meet on the same byte only across processes, where no
//! optimizer sees both.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bytes before the next multiple of 8, at most `len`.
fn lead(address: *const u8, len: usize) -> usize {
    address.align_offset(8).min(len)
}

/// Copies `to.len()` bytes out of shared memory.
///
/// # Safety
/// `from` is valid for reads and writes of `to.len()` bytes of shared memory during the call.
pub(super) unsafe fn copy_out(from: *mut u8, to: &mut [u8]) {
    let (head, rest) = to.split_at_mut(lead(from, to.len()));
    // SAFETY: `head` is not longer than `to`.
    unsafe { bytes_out(from, head) };
    let mut from = from.wrapping_add(head.len());
    let mut words = rest.chunks_exact_mut(8);
    for word in &mut words {
        // SAFETY: eight bytes of the range are left, and `from` is a multiple of 8 after `head`.
        let shared = unsafe { AtomicU64::from_ptr(from.cast()) };
        word.copy_from_slice(&shared.load(Relaxed).to_ne_bytes());
        from = from.wrapping_add(8);
    }
    let tail = words.into_remainder();
    let (four, tail) = tail.split_at_mut(tail.len() & 4);
    if !four.is_empty() {
        // SAFETY: four bytes of the range are left, and `from` is a multiple of 8.
        let shared = unsafe { AtomicU32::from_ptr(from.cast()) };
        four.copy_from_slice(&shared.load(Relaxed).to_ne_bytes());
        from = from.wrapping_add(4);
    }
    // SAFETY: `tail` is what is left of the range.
    unsafe { bytes_out(from, tail) };
}

/// Copies `from` into shared memory.
///
/// # Safety
/// `to` is valid for reads and writes of `from.len()` bytes of shared memory during the call.
pub(super) unsafe fn copy_in(from: &[u8], to: *mut u8) {
    let (head, rest) = from.split_at(lead(to, from.len()));
    // SAFETY: `head` is not longer than `from`.
    unsafe { bytes_in(head, to) };
    let mut to = to.wrapping_add(head.len());
    let (words, mut tail) = rest.as_chunks::<8>();
    for word in words {
        // SAFETY: eight bytes of the range are left, and `to` is a multiple of 8 after `head`.
        let shared = unsafe { AtomicU64::from_ptr(to.cast()) };
        shared.store(u64::from_ne_bytes(*word), Relaxed);
        to = to.wrapping_add(8);
    }
    if let Some((four, left)) = tail.split_first_chunk::<4>() {
        // SAFETY: four bytes of the range are left, and `to` is a multiple of 8.
        let shared = unsafe { AtomicU32::from_ptr(to.cast()) };
        shared.store(u32::from_ne_bytes(*four), Relaxed);
        to = to.wrapping_add(4);
        tail = left;
    }
    // SAFETY: `tail` is what is left of the range.
    unsafe { bytes_in(tail, to) };
}

/// # Safety
/// As [`copy_out`].
unsafe fn bytes_out(from: *mut u8, to: &mut [u8]) {
    for (i, byte) in to.iter_mut().enumerate() {
        // SAFETY: `i` is inside the range; a byte has no alignment.
        let shared = unsafe { AtomicU8::from_ptr(from.wrapping_add(i)) };
        *byte = shared.load(Relaxed);
    }
}

/// # Safety
/// As [`copy_in`].
unsafe fn bytes_in(from: &[u8], to: *mut u8) {
    for (i, byte) in from.iter().enumerate() {
        // SAFETY: `i` is inside the range; a byte has no alignment.
        let shared = unsafe { AtomicU8::from_ptr(to.wrapping_add(i)) };
        shared.store(*byte, Relaxed);
    }
}
