//! Where the parts of a stream lie. The drawing is in `idm/README.md`; the test below holds it.

use crate::error::ChannelError;
use crate::region::PAGE_BYTES;
use crate::ring::Place;

/// Which side of the stream this is. Nothing else tells the two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who made the pages: the granter, in Xen's words.
    Maker,
    /// Who was given them: the mapper.
    Taker,
}

/// The sizes of a stream's two rings. Both sides have them as constants, neither from the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSpec {
    /// Bytes of the ring from the maker to the taker: a power of two, 4 KiB to 256 KiB.
    pub to_taker_bytes: u32,
    /// Bytes of the ring from the taker to the maker: a power of two, 4 KiB to 256 KiB.
    pub to_maker_bytes: u32,
}

/// The largest ring of a stream, in bytes.
pub const STREAM_RING_BYTES_MAX: u32 = 256 << 10;
/// The smallest, in bytes: a page, for pages are what is granted.
const STREAM_RING_BYTES_MIN: u32 = 4 << 10;
/// The byte that the kernel clears when the maker dies (Xen: unmap-notify), in bytes from the start of the region.
pub const MAKER_LIFE: usize = 64;
/// The byte that the kernel clears when the taker dies.
pub const TAKER_LIFE: usize = 192;

/// "vgst" in memory: these pages are a stream of layout 1.
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"vgst");
pub(super) const VERSION: u32 = 1;
pub(super) const MAGIC_AT: usize = 0;
pub(super) const VERSION_AT: usize = 4;

/// The shared words of one side, by who writes them: all of these are written by that side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    pub(super) life: usize,
    pub(super) parked: usize,
    /// 1 once the side has ended its direction.
    pub(super) ended: usize,
}

impl Default for StreamSpec {
    /// 64 KiB each way: 33 pages.
    fn default() -> Self {
        Self { to_taker_bytes: 64 << 10, to_maker_bytes: 64 << 10 }
    }
}

impl StreamSpec {
    /// The pages of the region: one index page, then the ring to the taker, then the ring to the maker.
    pub fn pages(&self) -> usize {
        self.region_bytes() / PAGE_BYTES
    }

    /// The pages that the taker never writes and may map read-only: those of the ring to the taker.
    pub fn taker_reads_pages(&self) -> std::ops::Range<usize> {
        1..1 + self.to_taker_bytes as usize / PAGE_BYTES
    }

    /// The length of the region in bytes.
    pub fn region_bytes(&self) -> usize {
        PAGE_BYTES + self.to_taker_bytes as usize + self.to_maker_bytes as usize
    }

    pub(super) fn check(&self) -> Result<(), ChannelError> {
        for bytes in [self.to_taker_bytes, self.to_maker_bytes] {
            let fits =
                bytes.is_power_of_two() && (STREAM_RING_BYTES_MIN..=STREAM_RING_BYTES_MAX).contains(&bytes);
            if !fits {
                return Err(ChannelError::Layout {
                    what: "a stream ring of this many bytes",
                    value: bytes.into(),
                });
            }
        }
        Ok(())
    }

    /// The ring that `side` writes.
    pub(super) fn place_written_by(&self, side: Side) -> Place {
        match side {
            Side::Maker => {
                Place { write_index: 320, read_index: 384, data: PAGE_BYTES, bytes: self.to_taker_bytes }
            }
            Side::Taker => Place {
                write_index: 448,
                read_index: 512,
                data: PAGE_BYTES + self.to_taker_bytes as usize,
                bytes: self.to_maker_bytes,
            },
        }
    }
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::Maker => Side::Taker,
            Side::Taker => Side::Maker,
        }
    }

    pub(super) fn words(self) -> Words {
        match self {
            Side::Maker => Words { life: MAKER_LIFE, parked: 128, ended: 324 },
            Side::Taker => Words { life: TAKER_LIFE, parked: 256, ended: 452 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_words_of_different_writers_share_a_cache_line() {
        let mut lines = std::collections::HashMap::new();
        for side in [Side::Maker, Side::Taker] {
            let words = side.words();
            let writes = StreamSpec::default().place_written_by(side);
            let reads = StreamSpec::default().place_written_by(side.other());
            for word in [words.life, words.parked, words.ended, writes.write_index, reads.read_index] {
                assert_eq!(*lines.entry(word / 64).or_insert(side), side, "the line of word {word}");
            }
        }
    }

    #[test]
    fn the_rings_fill_the_region_without_overlap() {
        let spec = StreamSpec { to_taker_bytes: 8192, to_maker_bytes: 4096 };
        assert_eq!((spec.pages(), spec.taker_reads_pages()), (4, 1..3));
        assert_eq!(spec.place_written_by(Side::Taker).data, 4096 + 8192);
    }

    #[test]
    fn odd_sizes_are_refused() {
        for bytes in [0, 4095, 5000, 2048, 512 << 10] {
            assert!(StreamSpec { to_taker_bytes: bytes, to_maker_bytes: 4096 }.check().is_err(), "{bytes}");
        }
    }
}
