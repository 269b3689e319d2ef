//! The arena: pages that a program and its worker have at the same addresses, so that a pointer of the program means the same bytes
//! to the worker and to the device that it drives.
//!
//! One sparse sealed memfd beside a channel's region, made by who makes the channel and handed over with it. Both sides map it whole at
//! [`WINDOW`], before the first record: no descriptor travels later, and the worker maps nothing behind its closed door.
//!
//! A page costs memory once it is touched, and is paid for by the cgroup of who touched it first. So a program touches what it is about
//! to use ([`Region::populate`]) before it tells the worker of it, and punches a hole ([`Region::give_back`]) once the worker has let go.
//! One that does not is paid for by its own worker, whose cgroup has a limit.
//!
//! Between two domains the worker maps no memfd but grants, a chunk ([`CHUNK_BYTES`]) at a time when a part of it is added, and a grant
//! is of the page that was there then. So such an arena is [kept](Arena::is_kept): whole chunks are touched, and no hole is punched.
//!
//! Not here: who has which part of it (`libvgpu`), which parts a worker lets be named (`gpu-proxy`).

use std::os::fd::{AsFd, OwnedFd};

use crate::error::{ChannelError, Peer};
use crate::region::{PAGE_BYTES, Region, check_memory, sealed_memory};

/// Where both sides map the arena. Linux puts nothing there of its own accord on x86-64: programs lie at 0x55…, what is mapped
/// without an address near 0x7f…; sanitizers, Go, and the addresses of devices lie lower. Where something is mapped there all the same,
/// [`Arena::map`] fails, and that side goes on without an arena.
pub const WINDOW: usize = 0x6800_0000_0000;
/// The window's length, and so the longest arena.
pub const BYTES_MAX: u64 = 64 << 30;
/// The minor version of the hello since which a program knows of arenas: an older one takes no fourth descriptor.
pub const SINCE_MINOR: u16 = 1;

/// The minor version of the hello since which a program knows that arenas may be kept.
pub const KEPT_SINCE_MINOR: u16 = 2;
/// What one domain grants to another of an arena at once: a chunk, by its number from [`WINDOW`] on.
pub const CHUNK_BYTES: usize = 2 << 20;
/// Its pages.
pub const CHUNK_PAGES: usize = CHUNK_BYTES / PAGE_BYTES;

/// An arena's memory, not mapped.
#[derive(Debug)]
pub struct Arena {
    memory: OwnedFd,
    bytes: u64,
    is_kept: bool,
}

impl Arena {
    /// Makes an arena of `bytes`, a multiple of 4 KiB. It takes no memory until it is touched.
    ///
    /// # Errors
    /// [`ChannelError::Layout`], and those of the system calls.
    pub fn make(bytes: u64) -> Result<Self, ChannelError> {
        let len = length(bytes)
            .ok_or(ChannelError::Layout { what: "an arena of this many bytes", value: bytes })?;
        let memory = sealed_memory("vgpu-arena", len).map_err(ChannelError::system("make an arena"))?;
        Ok(Self { memory, bytes, is_kept: false })
    }

    /// An arena that is granted by chunks, of which it has only whole ones.
    ///
    /// # Errors
    /// As [`Arena::make`].
    pub fn make_kept(bytes: u64) -> Result<Self, ChannelError> {
        Ok(Self { is_kept: true, ..Self::make(bytes - bytes % CHUNK_BYTES as u64)? })
    }

    /// An arena that `peer` handed over and says is `bytes` long.
    ///
    /// # Errors
    /// [`ChannelError::PeerOffer`] for a length that cannot be, memory that is shorter or that somebody could shrink.
    pub fn received(memory: OwnedFd, bytes: u64, peer: Peer) -> Result<Self, ChannelError> {
        let len = length(bytes)
            .ok_or(ChannelError::PeerOffer { peer, what: "an arena of a length that cannot be" })?;
        check_memory(&memory, len, peer)?;
        Ok(Self { memory, bytes, is_kept: false })
    }

    /// The same, kept as its maker says.
    #[must_use]
    pub fn kept(self, is_kept: bool) -> Self {
        Self { is_kept, ..self }
    }

    /// Its memory, to be handed on.
    pub fn memory(&self) -> &OwnedFd {
        &self.memory
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a page that was once in an added part has to stay the page that it is.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Maps all of it at [`WINDOW`]. The descriptor is not needed afterwards.
    ///
    /// # Errors
    /// `EEXIST` when something is mapped there, and the others of `mmap`.
    pub fn map(&self) -> Result<Region, ChannelError> {
        self.map_by(|memory, len| Region::map_at(memory, len, WINDOW))
    }

    /// Maps all of it wherever the kernel likes: for who goes by offsets and keeps both ends in one process, as tests do.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub fn map_elsewhere(&self) -> Result<Region, ChannelError> {
        self.map_by(|memory, len| Region::map(memory, len))
    }

    fn map_by(
        &self,
        map: impl FnOnce(std::os::fd::BorrowedFd<'_>, usize) -> std::io::Result<Region>,
    ) -> Result<Region, ChannelError> {
        // It was a usize when it was checked.
        let len = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        map(self.memory.as_fd(), len).map_err(ChannelError::system("map the arena"))
    }
}

/// The length of an arena, if one can be so long.
fn length(bytes: u64) -> Option<usize> {
    let fits = (1..=BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(PAGE_BYTES as u64);
    fits.then_some(usize::try_from(bytes).ok()?)
}

/// There is one window in a process, and tests share theirs.
#[cfg(all(test, not(loom)))]
pub(crate) static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(all(test, not(loom)))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn both_sides_see_each_others_bytes_and_pages_that_were_given_back_are_zeros() {
        let _alone = ALONE.lock().unwrap();
        let arena = Arena::make(1 << 30).unwrap();
        let (here, there) = (arena.map().unwrap(), arena.map_elsewhere().unwrap());
        assert_eq!(here.base().as_ptr().addr(), WINDOW);
        here.populate(1 << 20, 3 * PAGE_BYTES).unwrap();
        here.write((1 << 20) + 7, b"pinned");
        let mut seen = [0; 6];
        there.read((1 << 20) + 7, &mut seen);
        assert_eq!(&seen, b"pinned");
        let kept_blocks = || rustix::fs::fstat(arena.memory()).unwrap().st_blocks;
        let touched = kept_blocks();
        assert!(
            (24..1 << 14).contains(&touched),
            "{touched} blocks of a GiB of which three pages were touched"
        );
        here.give_back(1 << 20, 3 * PAGE_BYTES).unwrap();
        assert!(kept_blocks() < touched);
        there.read((1 << 20) + 7, &mut seen);
        assert_eq!(seen, [0; 6]);
    }

    #[test]
    fn a_window_that_is_taken_is_an_error_and_nothing_that_lies_there_changes() {
        let _alone = ALONE.lock().unwrap();
        let (first, second) = (Arena::make(1 << 20).unwrap(), Arena::make(2 << 20).unwrap());
        let mapped = first.map().unwrap();
        mapped.write(0, b"first");
        let refused = second.map().unwrap_err();
        assert_eq!(refused, ChannelError::System { doing: "map the arena", source: Errno::EXIST });
        let mut seen = [0; 5];
        mapped.read(0, &mut seen);
        assert_eq!(&seen, b"first");
        drop(mapped);
        assert!(second.map().is_ok(), "it is free again");
    }

    #[test]
    fn only_whole_pages_inside_the_window_are_an_arena() {
        for bytes in [0, 1, 4095, 4097, BYTES_MAX + 4096, u64::MAX, u64::MAX - 4095] {
            assert!(matches!(Arena::make(bytes), Err(ChannelError::Layout { .. })), "{bytes}");
            let memory = sealed_memory("test", 1 << 20).unwrap();
            let refused = Arena::received(memory, bytes, Peer::Server).unwrap_err();
            assert_eq!(refused.to_string(), "the server handed over an arena of a length that cannot be");
        }
        assert_eq!(Arena::make(BYTES_MAX).unwrap().bytes(), BYTES_MAX);
    }

    #[test]
    fn an_arena_that_is_kept_has_whole_chunks() {
        let arena = Arena::make_kept(2 * CHUNK_BYTES as u64 + 4096).unwrap();
        assert_eq!((arena.bytes(), arena.is_kept()), (2 * CHUNK_BYTES as u64, true));
        assert!(Arena::make_kept(CHUNK_BYTES as u64 - 1).is_err());
        assert!(!Arena::make(1 << 20).unwrap().is_kept());
    }

    #[test]
    fn memory_that_could_kill_its_reader_is_no_arena() {
        let refused = |memory| Arena::received(memory, 1 << 20, Peer::Server).unwrap_err().to_string();
        let loose = rustix::fs::memfd_create("loose", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&loose, 1 << 20).unwrap();
        assert_eq!(refused(loose), "the server handed over memory that can shrink");
        let short = sealed_memory("short", (1 << 20) - 4096).unwrap();
        assert_eq!(refused(short), "the server handed over memory that is too short");
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(refused(file.into()), "the server handed over memory that can shrink");
    }
}
