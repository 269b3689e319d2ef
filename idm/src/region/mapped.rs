//! A region as it is outside of models: pages mapped into this process.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::copy;
use crate::sync::AtomicU32;

/// Memory shared with a peer, mapped here as long as this lives.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    /// Keeps the mapping alive, and undoes it when dropped.
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: the memory is reached by atomic accesses only, from any thread; `_owner` is Send and Sync.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// A region of pages that `owner` keeps mapped: grants, or a mapping at a fixed address.
    ///
    /// # Safety
    /// `base` is a multiple of 8 and valid for reads and writes of `len` bytes until `owner` is dropped; no Rust reference to
    /// these bytes exists meanwhile. The peer may write them at any time.
    pub unsafe fn from_raw_parts(base: NonNull<u8>, len: usize, owner: Box<dyn Any + Send + Sync>) -> Self {
        assert!(base.as_ptr().addr().is_multiple_of(8), "a region starts at a multiple of 8");
        Self { base, len, _owner: owner }
    }

    /// Maps the first `len` bytes of `memory`, at whatever address. Its owner must not be able to shrink it (a shrunken file kills
    /// its readers by SIGBUS): see [`sealed_memory`], and `connect.rs` for the check on what came from elsewhere.
    ///
    /// # Errors
    /// Those of `mmap`, and `EINVAL` for an empty region.
    pub fn map(memory: impl AsFd, len: usize) -> io::Result<Self> {
        let mapping = Mapping::new(memory, len)?;
        let base = mapping.base;
        // SAFETY: a mapping is page-aligned and stays until it is dropped; nobody else knows its address.
        Ok(unsafe { Self::from_raw_parts(base, len, Box::new(mapping)) })
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the region has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the region is mapped here: for what takes addresses and lives outside of Rust, as a driver that registers the
    /// pages for DMA. Valid while the region lives.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The shared word at `offset` (a multiple of 4), in bytes.
    #[inline]
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "a word lies at a multiple of 4, not at {offset}");
        let address = self.address(offset, 4);
        // SAFETY: inside the mapping, aligned, and reached by atomic accesses only, here and in the peer.
        unsafe { AtomicU32::from_ptr(address.cast()) }
    }

    /// Copies `to.len()` bytes at `offset` out. The peer may write them meanwhile: parse the copy, never look twice.
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        let from = self.address(offset, to.len());
        // SAFETY: `address` checked the range, which stays mapped while `self` lives.
        unsafe { copy::copy_out(from, to) };
    }

    /// Copies `from` in, at `offset`.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) {
        let to = self.address(offset, from.len());
        // SAFETY: `address` checked the range, which stays mapped while `self` lives.
        unsafe { copy::copy_in(from, to) };
    }

    /// Writes zeros over `len` bytes at `offset`.
    pub fn zero(&self, offset: usize, len: usize) {
        const ZEROS: [u8; 1024] = [0; 1024];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(ZEROS.len());
            self.write(offset + done, &ZEROS[..step]);
            done += step;
        }
    }

    #[inline]
    fn address(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{len} bytes at {offset} of a region of {}",
            self.len
        );
        self.base.as_ptr().wrapping_add(offset)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("base", &self.base).field("len", &self.len).finish_non_exhaustive()
    }
}

/// New zeroed memory that another process can map and nobody can shrink or grow. It stays writable, as udmabuf demands.
///
/// # Errors
/// Those of `memfd_create`, `ftruncate` and `fcntl`.
pub fn sealed_memory(name: &str, len: usize) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memory, len as u64)?;
    rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memory)
}

/// A `mmap` that ends when dropped.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: only the address and the length, used to unmap.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(memory: impl AsFd, len: usize) -> io::Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel picks touches no memory of this process.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, memory, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `new`; the Region that could reach it is being dropped. The only failure is a range
        // that is no mapping, which the constructor excludes.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(len: usize) -> Region {
        Region::map(sealed_memory("test", len).unwrap(), len).unwrap()
    }

    #[test]
    fn bytes_come_back_at_every_alignment_and_length() {
        let region = region(4096);
        for offset in 0..17 {
            for len in 0..40 {
                let bytes: Vec<u8> = (1..=255).step_by(7).cycle().skip(offset).take(len).collect();
                region.zero(0, 128);
                region.write(offset, &bytes);
                let mut back = vec![0; len];
                region.read(offset, &mut back);
                assert_eq!(back, bytes);
                let mut around = [0xff; 2];
                region.read(offset + len, &mut around);
                assert_eq!(around, [0, 0], "wrote past {len} bytes at {offset}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "of a region")]
    fn an_offset_outside_is_our_own_mistake() {
        region(4096).read(4090, &mut [0; 8]);
    }

    #[test]
    fn nobody_can_shrink_sealed_memory() {
        let memory = sealed_memory("test", 8192).unwrap();
        assert_eq!(rustix::fs::ftruncate(&memory, 4096), Err(rustix::io::Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&memory, 16384), Err(rustix::io::Errno::PERM));
    }
}
