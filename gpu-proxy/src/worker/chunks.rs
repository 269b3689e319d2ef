//! How a worker comes to the pages of an arena that lies in another domain: chunk by chunk, as parts of it are added.
//!
//! ```text
//! worker ── Need ──▶ supervisor ── looks at the limits, has the guest grant it and its gntdev record it ── Answer ──▶ mmap
//! ```
//! Over a socket of their own: one message each way at a time. The worker needs `read`, `write` and `mmap` for it and nothing that its
//! filter did not let pass before. The supervisor takes a worker for its guest: it believes no number, and what it has answered counts until
//! the worker ends, whether that could map it or says so. [`Need`] and [`Answer`] are both sides', [`Chunks`] the worker's.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use idm::arena::CHUNK_BYTES;
use idm::xen::chunks::ChunkWindow;
use rustix::io::Errno;
use vgpu_api::{CuError, CuResult};

/// What a worker says: it needs a chunk, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need(pub u32);

/// What a worker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The chunk that was needed.
    pub chunk: u32,
    /// Where its gntdev maps it; `None`: it cannot be had.
    pub index: Option<u64>,
}

impl Need {
    /// Bytes of one.
    pub const BYTES: usize = 4;

    /// As it is sent.
    #[must_use]
    pub fn encode(self) -> [u8; Self::BYTES] {
        self.0.to_le_bytes()
    }

    /// From the bytes of one.
    #[must_use]
    pub fn decode(bytes: [u8; Self::BYTES]) -> Self {
        Self(u32::from_le_bytes(bytes))
    }
}

impl Answer {
    /// Bytes of one.
    pub const BYTES: usize = 16;

    /// As it is sent: u32 chunk, u32 1 if it can be had, u64 where.
    #[must_use]
    pub fn encode(self) -> [u8; Self::BYTES] {
        let had = u64::from(self.index.is_some());
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&(u64::from(self.chunk) | had << 32).to_le_bytes());
        bytes[8..].copy_from_slice(&self.index.unwrap_or_default().to_le_bytes());
        bytes
    }

    /// From the bytes of one.
    #[must_use]
    pub fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        let [chunk, had] = halves(word(0));
        Self { chunk, index: (had != 0).then_some(word(8)) }
    }
}

/// The low half and the high one.
#[expect(clippy::cast_possible_truncation, reason = "halves are meant")]
fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// The chunks of a worker's arena.
pub struct Chunks {
    supervisor: OwnedFd,
    gntdev: OwnedFd,
    window: Arc<ChunkWindow>,
    placed: Vec<bool>,
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let placed = self.placed.iter().filter(|placed| **placed).count();
        f.debug_struct("Chunks").field("placed", &placed).finish_non_exhaustive()
    }
}

impl Chunks {
    /// None in its place yet, of a window of `bytes`.
    #[must_use]
    pub fn new(supervisor: OwnedFd, gntdev: OwnedFd, window: Arc<ChunkWindow>, bytes: usize) -> Self {
        Self { supervisor, gntdev, window, placed: vec![false; bytes / CHUNK_BYTES] }
    }

    /// Sees to it that `bytes`, not 0, from `offset` on in the arena can be reached.
    ///
    /// # Errors
    /// 2: a chunk of them cannot be had. Those that could stay, for later parts.
    pub fn have(&mut self, offset: usize, bytes: usize) -> CuResult<()> {
        let end = offset.checked_add(bytes).ok_or(CuError::INVALID_VALUE)?;
        (offset / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES)).try_for_each(|chunk| match self.placed.get(chunk) {
            None => Err(CuError::INVALID_VALUE),
            Some(true) => Ok(()),
            Some(false) => {
                self.fetch(chunk).map_err(|error| {
                    log::info!("chunk {chunk} of the arena cannot be had: {error}");
                    CuError::OUT_OF_MEMORY
                })?;
                self.placed[chunk] = true;
                Ok(())
            }
        })
    }

    fn fetch(&self, chunk: usize) -> io::Result<()> {
        let chunk = u32::try_from(chunk).map_err(io::Error::other)?;
        rustix::io::write(&self.supervisor, &Need(chunk).encode())?;
        let mut bytes = [0; Answer::BYTES];
        let got = loop {
            match rustix::io::read(&self.supervisor, &mut bytes) {
                Err(Errno::INTR) => {}
                got => break got?,
            }
        };
        // A supervisor that is gone is the end of this worker, which its loop finds.
        let answer = (got == bytes.len()).then(|| Answer::decode(bytes)).filter(|told| told.chunk == chunk);
        let index = answer.and_then(|answer| answer.index).ok_or(io::ErrorKind::OutOfMemory)?;
        self.window.place(chunk, self.gntdev.as_fd(), index)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use idm::Region;
    use idm::arena::WINDOW;
    use idm::region::sealed_memory;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn messages_survive_the_socket() {
        for need in [Need(0), Need(7), Need(u32::MAX)] {
            assert_eq!(Need::decode(need.encode()), need);
        }
        for index in [None, Some(0), Some(u64::MAX)] {
            let answer = Answer { chunk: 9, index };
            assert_eq!(Answer::decode(answer.encode()), answer);
        }
    }

    /// A memfd stands for the gntdev, places in it for what was recorded.
    #[test]
    fn a_chunk_is_asked_for_once_and_what_cannot_be_had_or_mapped_is_no_memory() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let pages = sealed_memory("pages", 2 * CHUNK_BYTES).unwrap();
        let far = Region::map(&pages, 2 * CHUNK_BYTES).unwrap();
        far.write(CHUNK_BYTES + 5, b"far");
        let supervisor = thread::spawn(move || {
            let mut asked = Vec::new();
            loop {
                let mut bytes = [0; Need::BYTES];
                if rustix::io::read(&theirs, &mut bytes).unwrap() == 0 {
                    return asked;
                }
                let Need(chunk) = Need::decode(bytes);
                asked.push(chunk);
                let index = match chunk {
                    0 => Some(CHUNK_BYTES as u64),
                    // No place that can be mapped.
                    1 => Some(1),
                    _ => None,
                };
                rustix::io::write(&theirs, &Answer { chunk, index }.encode()).unwrap();
            }
        });
        let bytes = 4 * CHUNK_BYTES;
        let window = ChunkWindow::reserve(bytes as u64).unwrap();
        let region = window.region();
        assert_eq!(region.base().addr().get(), WINDOW);
        let mut chunks = Chunks::new(ours, pages, window, bytes);
        assert_eq!((chunks.have(0, 1), chunks.have(4096, CHUNK_BYTES - 4096)), (Ok(()), Ok(())));
        let mut seen = [0; 3];
        region.read(5, &mut seen);
        assert_eq!(&seen, b"far");
        assert_eq!(chunks.have(CHUNK_BYTES - 1, 2), Err(CuError::OUT_OF_MEMORY), "the second one is wrong");
        assert_eq!(chunks.have(2 * CHUNK_BYTES, 1), Err(CuError::OUT_OF_MEMORY), "there is none");
        assert_eq!(chunks.have(bytes, 1), Err(CuError::INVALID_VALUE), "outside");
        assert_eq!(chunks.have(usize::MAX, 2), Err(CuError::INVALID_VALUE));
        drop(chunks);
        assert_eq!(supervisor.join().unwrap(), [0, 1, 2]);
    }
}
