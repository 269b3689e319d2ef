//! One page of 64-bit words that the supervisor and a container's workers share. The peer may be hostile: only whole words are
//! read and written, and no reference to the page's bytes is ever made. The last word is a bell: one side sleeps until the other rings it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex::{self, Timespec};

const BYTES: usize = 4096;
const WORDS: usize = BYTES / 8;
/// Words that can be read and written: all but the bell.
const PLAIN: usize = WORDS - 1;

#[repr(C)]
struct Layout {
    words: [AtomicU64; PLAIN],
    /// How often it was rung.
    bell: AtomicU32,
    pad: AtomicU32,
}

const _: () = assert!(size_of::<Layout>() == BYTES);

/// A mapped page.
#[derive(Debug)]
pub struct SharedPage {
    start: NonNull<Layout>,
    fd: OwnedFd,
}

// SAFETY: the mapping belongs to the value, is reached through atomics only, and does not move.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// A fresh page of zeros, whose size nobody can change.
    ///
    /// # Errors
    /// What the system says.
    pub fn create() -> io::Result<Self> {
        let fd = memfd_create("vgpu-grant", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, BYTES as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map_owned(fd)
    }

    /// Maps a page that another process made.
    ///
    /// # Errors
    /// What the system says, or that it is no such page.
    pub fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Self::map_owned(fd.try_clone_to_owned()?)
    }

    fn map_owned(fd: OwnedFd) -> io::Result<Self> {
        let whole = u64::try_from(fstat(&fd)?.st_size) == Ok(BYTES as u64);
        if !whole || !fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a page made by SharedPage::create"));
        }
        // SAFETY: a new mapping at an address of the kernel's choice; the file has that size and can't shrink.
        let start = unsafe {
            mmap(ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, fd })
    }

    /// The page's file, to be given to another process.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reads a word.
    ///
    /// # Panics
    /// Past the page: our own mistake.
    #[must_use]
    #[inline]
    pub fn load(&self, word: usize) -> u64 {
        self.words()[word].load(Ordering::SeqCst)
    }

    /// Writes a word.
    ///
    /// # Panics
    /// Past the page: our own mistake.
    pub fn store(&self, word: usize, value: u64) {
        self.words()[word].store(value, Ordering::SeqCst);
    }

    /// Writes `new` where `old` is; whether it was there.
    ///
    /// # Panics
    /// Past the page: our own mistake.
    pub fn replace(&self, word: usize, old: u64, new: u64) -> bool {
        self.words()[word].compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Adds to a word, around its end.
    ///
    /// # Panics
    /// Past the page: our own mistake.
    pub fn add(&self, word: usize, value: u64) {
        self.words()[word].fetch_add(value, Ordering::SeqCst);
    }

    /// How often the bell was rung: to be read before one looks at words, for [`SharedPage::sleep`].
    #[must_use]
    pub fn rings(&self) -> u32 {
        self.layout().bell.load(Ordering::SeqCst)
    }

    /// Wakes who sleeps.
    pub fn ring(&self) {
        self.layout().bell.fetch_add(1, Ordering::SeqCst);
        // One that wakes nobody is no failure.
        let _ = futex::wake(&self.layout().bell, futex::Flags::empty(), i32::MAX.unsigned_abs());
    }

    /// Sleeps until the bell has been rung more than `rings` times, or for `limit`; sometimes less.
    pub fn sleep(&self, rings: u32, limit: Option<Duration>) {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        // Whatever it says, the caller looks again.
        let _ = futex::wait(&self.layout().bell, futex::Flags::empty(), rings, limit.as_ref());
    }

    fn words(&self) -> &[AtomicU64; PLAIN] {
        &self.layout().words
    }

    fn layout(&self) -> &Layout {
        // SAFETY: mapped by `map_owned` until drop, page-aligned; the peer may change any word, all of them are atomics.
        unsafe { self.start.as_ref() }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map_owned`, unmapped once; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), BYTES) };
        debug_assert!(unmapped.is_ok(), "unmapping a whole mapping cannot fail");
    }
}
