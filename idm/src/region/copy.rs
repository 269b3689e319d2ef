//! Copies between private memory and memory that another process writes at the same time.
//!
//! Each byte moves by a relaxed atomic access, eight at a time where the shared address allows, and many by the processor's string
//! instruction: a race with the peer gives mixed bytes, never undefined behaviour. Accesses of different width may meet on the same byte
//! only across processes, where no optimizer sees both.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// From so many bytes on `rep movsb` is faster than words: it reads no line that it overwrites whole.
const STRING_BYTES: usize = 1 << 10;

/// Copies `bytes`, if they are many and the processor has an instruction for it; whether it did.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of so many bytes during the call. They are apart.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, clippy::missing_const_for_fn))]
unsafe fn string_copy(from: *const u8, to: *mut u8, bytes: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    if bytes >= STRING_BYTES {
        // SAFETY: the caller's ranges and nothing else is reached; the direction flag is clear, as every ABI demands. What assembly does
        // to memory no optimizer assumes anything of, so that a peer's writes at the same time give mixed bytes.
        unsafe {
            std::arch::asm!(
                "rep movsb",
                inout("rcx") bytes => _, inout("rsi") from => _, inout("rdi") to => _,
                options(nostack, preserves_flags)
            );
        }
        return true;
    }
    false
}

/// Bytes before the next multiple of 8, at most `len`.
fn lead(address: *const u8, len: usize) -> usize {
    address.align_offset(8).min(len)
}

/// Copies `to.len()` bytes out of shared memory.
///
/// # Safety
/// `from` is valid for reads and writes of `to.len()` bytes of shared memory during the call.
pub(super) unsafe fn copy_out(from: *mut u8, to: &mut [u8]) {
    // SAFETY: the caller's range, and private memory.
    if unsafe { string_copy(from, to.as_mut_ptr(), to.len()) } {
        return;
    }
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
    // SAFETY: private memory, and the caller's range.
    if unsafe { string_copy(from.as_ptr(), to, from.len()) } {
        return;
    }
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
