//! A range of this process's addresses that is unmapped on drop, and what the two grant devices share.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use super::ioctl::Arg;
use super::metrics::COUNTERS;
use super::table::notify;

/// What the mapping domain may do with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads only; Xen enforces it.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Mapped addresses, owned. The peer may change every byte at any time: copy out, never borrow.
#[derive(Debug)]
pub struct Span {
    base: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: a span is an address range of the process, not of a thread; it hands out a raw pointer only.
unsafe impl Send for Span {}
// SAFETY: as above: nothing is read or written through a `&Span` itself.
unsafe impl Sync for Span {}

impl Span {
    /// First byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes, a multiple of the page size.
    pub fn len(&self) -> usize {
        self.len_bytes
    }

    /// Never: a span has a page at least. Here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }

    /// Maps `len_bytes` of `file` from `offset` on at an address of the kernel's choice.
    pub(super) fn of_file(
        file: BorrowedFd<'_>,
        offset: u64,
        len_bytes: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Self> {
        // SAFETY: without MAP_FIXED (no caller passes it) a new mapping takes nobody's memory.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len_bytes, protection, flags, file, offset) }?;
        Self::new(base, len_bytes)
    }

    /// Keeps `len_bytes` of address space free of anything else, at `at` if given.
    ///
    /// # Errors
    /// `EEXIST`: something is mapped at `at`.
    pub(super) fn reserve(at: Option<usize>, len_bytes: usize) -> io::Result<Self> {
        let mut flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        if at.is_some() {
            flags |= MapFlags::FIXED_NOREPLACE;
        }
        let wanted = std::ptr::without_provenance_mut(at.unwrap_or(0));
        // SAFETY: MAP_FIXED_NOREPLACE fails where something is mapped already, so nobody's memory is replaced.
        let base = unsafe { rustix::mm::mmap_anonymous(wanted, len_bytes, ProtFlags::empty(), flags) }?;
        Self::new(base, len_bytes)
    }

    /// Puts `len_bytes` of `file` from `offset` on over the bytes at `at_bytes` of this reservation.
    pub(super) fn place(
        &self,
        at_bytes: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        len_bytes: usize,
        protection: ProtFlags,
    ) -> io::Result<()> {
        if at_bytes.checked_add(len_bytes).is_none_or(|end| end > self.len_bytes) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let target = self.base.as_ptr().wrapping_add(at_bytes).cast();
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the target was just checked to lie inside this reservation, which we own and nobody uses yet.
        unsafe { rustix::mm::mmap(target, len_bytes, protection, flags, file, offset) }?;
        Ok(())
    }

    /// Makes sure that nothing else comes to the bytes at `at_bytes` of this reservation, where [`Span::place`] failed. Whatever lies
    /// there stays.
    pub(super) fn reserve_again(&self, at_bytes: usize, len_bytes: usize) {
        if at_bytes.checked_add(len_bytes).is_none_or(|end| end > self.len_bytes) {
            return;
        }
        let target = self.base.as_ptr().wrapping_add(at_bytes).cast();
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: MAP_FIXED_NOREPLACE fails where something is mapped, as the reservation itself; a hole in it is ours.
        let _ = unsafe { rustix::mm::mmap_anonymous(target, len_bytes, ProtFlags::empty(), flags) };
    }

    fn new(base: *mut std::ffi::c_void, len_bytes: usize) -> io::Result<Self> {
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { base, len_bytes })
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by this struct, which alone owns it; whoever was given the base keeps the owner alive.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len_bytes) };
        if unmapped.is_err() {
            COUNTERS.teardown_failures.add(1);
        }
    }
}

/// Action and port of SET_UNMAP_NOTIFY, the same for both devices: clear the byte, and send an event if there is a port.
pub(super) fn put_notify_action(arg: &mut Arg<[u64; 3]>, port: Option<u32>) {
    arg.put_u32(notify::ACTION, notify::CLEAR_BYTE | if port.is_some() { notify::SEND_EVENT } else { 0 });
    arg.put_u32(notify::PORT, port.unwrap_or(0));
}
