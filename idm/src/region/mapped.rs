//! A region as it is outside of models: pages mapped into this process.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::{PAGE_BYTES, copy};
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A line of a processor's cache.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

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
        Ok(Self::of(Mapping::new(memory, len)?))
    }

    /// [`Region::map`] at `address`, a multiple of 4 KiB, where nothing may be mapped. What is in it is left out of core dumps, since a
    /// dump would touch all of its pages.
    ///
    /// # Errors
    /// `EEXIST` when something is mapped there, and the others of `mmap`.
    pub fn map_at(memory: impl AsFd, len: usize, address: usize) -> io::Result<Self> {
        let region = Self::of(Mapping::at(memory, len, address)?);
        // A kernel that refuses dumps more than it need.
        let _ = region.advise(0, len, Advice::LinuxDontDump);
        Ok(region)
    }

    fn of(mapping: Mapping) -> Self {
        let (base, len) = (mapping.base, mapping.len);
        // SAFETY: a mapping is page-aligned and stays until it is dropped; nobody else knows its address.
        unsafe { Self::from_raw_parts(base, len, Box::new(mapping)) }
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

    /// `count` shared words of 64 bits from `offset` (a multiple of 8) on: for who gives them a meaning of its own.
    ///
    /// # Panics
    /// When they do not lie inside.
    pub fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        assert!(offset.is_multiple_of(8), "words of 64 bits lie at multiples of 8, not at {offset}");
        let first = self.address(offset, count.saturating_mul(8));
        // SAFETY: inside the mapping, aligned, and reached by atomic accesses only, here and in the peer.
        unsafe { std::slice::from_raw_parts(first.cast_const().cast(), count) }
    }

    /// Takes memory for whole pages now, and lets this process's cgroup pay for it. Bytes that are there stay.
    ///
    /// # Errors
    /// There is no memory to be had.
    pub fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        loop {
            match self.advise(offset, len, Advice::LinuxPopulateWrite) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                // Kernels before 5.14.
                Err(Errno::INVAL) => break,
                done => return Ok(done?),
            }
        }
        for page in (offset..offset + len).step_by(PAGE_BYTES) {
            self.word(page).fetch_or(0, Relaxed);
        }
        Ok(())
    }

    /// Gives the memory of whole pages back to the system, for both sides: they are zeros then.
    ///
    /// # Errors
    /// `EINVAL` where the memory is no file that can have holes.
    pub fn give_back(&self, offset: usize, len: usize) -> io::Result<()> {
        Ok(self.advise(offset, len, Advice::LinuxRemove)?)
    }

    fn advise(&self, offset: usize, len: usize, advice: Advice) -> rustix::io::Result<()> {
        let start = self.address(offset, len);
        // SAFETY: `address` checked the range. The advices above change where bytes are kept, or make them zeros as a peer may at
        // any time; the mapping stays.
        unsafe { rustix::mm::madvise(start.cast(), len, advice) }
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

    /// Has the processor get the lines of these bytes from others' caches, without waiting for them: they will be written soon.
    pub fn fetch_to_write(&self, offset: usize, len: usize) {
        let start = self.address(offset, len);
        #[cfg(target_arch = "x86_64")]
        for at in (0..len).step_by(LINE_BYTES) {
            let line = start.wrapping_add(at);
            // SAFETY: a hint: it changes no byte and raises no fault. As an instruction, since compilers for any x86-64 make a hint to read
            // of it, and the peer reads these lines.
            unsafe {
                std::arch::asm!("prefetchw [{}]", in(reg) line, options(readonly, nostack, preserves_flags));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = start;
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

    fn at(memory: impl AsFd, len: usize, address: usize) -> io::Result<Self> {
        let (prot, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED_NOREPLACE);
        let wanted = std::ptr::without_provenance_mut(address);
        // SAFETY: a new mapping that replaces none touches no memory of this process.
        let base = unsafe { rustix::mm::mmap(wanted, len, prot, flags, memory, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mapping = Self { base, len };
        // Kernels before 4.17 take the address for a hint.
        if base.as_ptr().addr() == address { Ok(mapping) } else { Err(Errno::EXIST.into()) }
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
            for len in (0..40).chain(1020..1030) {
                let bytes: Vec<u8> = (1..=255).step_by(7).cycle().skip(offset).take(len).collect();
                region.zero(0, 2048);
                region.write(offset, &bytes);
                let mut back = vec![0; len];
                region.read(offset, &mut back);
                assert_eq!(back, bytes);
                let mut around = [0xff; 2];
                region.read(offset + len, &mut around);
                assert_eq!(around, [0, 0], "wrote past {len} bytes at {offset}");
                assert!(offset == 0 || region.word(0).load(Relaxed) & 0xff == 0, "wrote before {offset}");
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
        assert_eq!(rustix::fs::ftruncate(&memory, 4096), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&memory, 16384), Err(Errno::PERM));
    }
}
