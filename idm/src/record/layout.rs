//! Where the parts of a GPU channel lie. The drawing is in `idm/README.md`; the tests below hold it.

use crate::error::ChannelError;
use crate::region::PAGE_BYTES;

/// Reply slots, and so the most calls that can wait at one time.
pub const LANES: u16 = 64;
/// The longest reply that fits a slot, in bytes. Longer ones travel through staging.
pub const REPLY_BYTES_MAX: usize = SLOT_BYTES - SLOT_HEADER_BYTES;
/// The header of a record, in bytes; records start at multiples of it.
pub const RECORD_HEADER_BYTES: usize = HEADER_BYTES as usize;
/// The longest payload of a record that can be configured, in bytes.
pub const RECORD_LIMIT_MAX: u32 = 64 << 10;
/// The longest region, in bytes.
pub const REGION_BYTES_MAX: usize = 64 << 20;
/// The byte that the kernel clears when the submitter's side dies (Xen: unmap-notify), in bytes from the start of the region.
pub const SUBMITTER_LIFE: usize = 64;
/// The byte that the kernel clears when the consumer's side dies.
pub const CONSUMER_LIFE: usize = 128;

/// "vgch" in memory, and the version of this layout.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"vgch");
pub(crate) const VERSION: u32 = 1;
pub(crate) const MAGIC_AT: usize = 0;
pub(crate) const VERSION_AT: usize = 4;
pub(crate) const SUBMITTER_PARKED: usize = 68;
pub(crate) const CONSUMER_PARKED: usize = 132;
pub(crate) const HEAD: usize = 192;
pub(crate) const ERROR_COUNT: usize = 320;
pub(crate) const ERROR_SEQ: usize = 324;
pub(crate) const ERROR_CODE: usize = 328;
pub(crate) const ERROR_STICKY: usize = 332;
pub(crate) const ERROR_CTX: usize = 336;

/// [`RECORD_HEADER_BYTES`] beside lengths of records, which are u32.
pub(crate) const HEADER_BYTES: u32 = 16;

const SLOT_BYTES: usize = 4096;
const SLOT_HEADER_BYTES: usize = 16;
const SLOTS: usize = PAGE_BYTES;
const RING: usize = SLOTS + LANES as usize * SLOT_BYTES;

/// Flags of a record, the top byte of its first word.
pub(crate) const FLAG_SYNC: u8 = 1;
pub(crate) const FLAG_SKIP: u8 = 4;
/// The lane of a record that wants no reply.
pub(crate) const NO_LANE: u16 = u16::MAX;

/// The sizes of a GPU channel: our own, never the peer's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSpec {
    /// The submission ring: a power of two, at least four times `record_limit`.
    pub ring_bytes: u32,
    /// The staging area: a multiple of 64 KiB, or 0.
    pub staging_bytes: u32,
    /// The longest payload of a record: a multiple of 16, at most 64 KiB.
    pub record_limit: u32,
}

impl Default for RegionSpec {
    /// 1 MiB of ring (about 5000 launches), 8 MiB of staging, 64 KiB records.
    fn default() -> Self {
        Self { ring_bytes: 1 << 20, staging_bytes: 8 << 20, record_limit: RECORD_LIMIT_MAX }
    }
}

impl RegionSpec {
    /// The length of the region in bytes: a multiple of 4 KiB, at most [`REGION_BYTES_MAX`].
    ///
    /// # Errors
    /// [`ChannelError::Layout`] for sizes that make no channel.
    pub fn region_bytes(&self) -> Result<usize, ChannelError> {
        self.check()?;
        Ok(self.staging_at() + self.staging_bytes as usize)
    }

    fn check(&self) -> Result<(), ChannelError> {
        let bad = |what, value: u32| Err(ChannelError::Layout { what, value: value.into() });
        let limit = self.record_limit;
        if limit == 0 || limit > RECORD_LIMIT_MAX || !limit.is_multiple_of(16) {
            return bad("records of this many bytes", limit);
        }
        if !self.ring_bytes.is_power_of_two() || self.ring_bytes < 4096 || self.ring_bytes / 4 < limit {
            return bad("a submission ring of this many bytes", self.ring_bytes);
        }
        let total = RING as u64 + u64::from(self.ring_bytes) + u64::from(self.staging_bytes);
        if !self.staging_bytes.is_multiple_of(64 << 10) || total > REGION_BYTES_MAX as u64 {
            return bad("a staging area of this many bytes", self.staging_bytes);
        }
        Ok(())
    }

    /// Where the staging area starts, in bytes.
    pub(crate) fn staging_at(&self) -> usize {
        RING + self.ring_bytes as usize
    }

    pub(crate) fn ring_place(&self) -> RingPlace {
        RingPlace { head: HEAD, data: RING, bytes: self.ring_bytes, record_limit: self.record_limit }
    }
}

/// Where a submission ring lies in its region, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RingPlace {
    /// The consumer's index.
    pub(crate) head: usize,
    pub(crate) data: usize,
    /// A power of two.
    pub(crate) bytes: u32,
    pub(crate) record_limit: u32,
}

impl RingPlace {
    /// The offset in the region of the byte at this position of the ring's endless stream.
    #[inline]
    pub(crate) fn at(&self, position: u64) -> usize {
        self.data + self.index(position) as usize
    }

    /// Bytes from this position to the end of the ring.
    #[inline]
    pub(crate) fn rest(&self, position: u64) -> u32 {
        self.bytes - self.index(position)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked by the ring's size, a u32")]
    fn index(&self, position: u64) -> u32 {
        position as u32 & (self.bytes - 1)
    }
}

/// The only value that publishes a record at this position: never 0, and another one each lap for 32 GiB.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "sequences wrap; they are compared modulo 2^32")]
pub(crate) fn sequence(position: u64) -> u32 {
    ((position >> 4) << 1) as u32 | 1
}

/// The position as the head's word has it: in units of 16 bytes, modulo 2^32.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "wraps; compared modulo 2^32")]
pub(crate) fn granules(position: u64) -> u32 {
    (position >> 4) as u32
}

/// Bytes that a record with this payload takes.
#[inline]
pub(crate) fn footprint(payload: u32) -> u32 {
    (payload + HEADER_BYTES).next_multiple_of(HEADER_BYTES)
}

/// The reply slot of a lane: `seq`, `status`, `length` (u32 each, seq written last), padding, then the payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot(usize);

impl Slot {
    /// Panics for a lane that does not exist: check what came from a peer.
    pub(crate) fn of(lane: u16) -> Self {
        assert!(lane < LANES, "there is no lane {lane}");
        Self(SLOTS + usize::from(lane) * SLOT_BYTES)
    }
    pub(crate) fn seq(self) -> usize {
        self.0
    }
    pub(crate) fn status(self) -> usize {
        self.0 + 4
    }
    pub(crate) fn length(self) -> usize {
        self.0 + 8
    }
    pub(crate) fn payload(self) -> usize {
        self.0 + SLOT_HEADER_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_region_is_drawn_in_the_readme() {
        let spec = RegionSpec::default();
        assert_eq!(Slot::of(0).seq(), 0x1000);
        assert_eq!(spec.ring_place().data, 0x41000);
        assert_eq!(spec.staging_at(), 0x14_1000);
        assert_eq!(spec.region_bytes(), Ok(0x94_1000));
    }

    #[test]
    fn words_of_different_writers_have_their_own_cache_lines() {
        let submitter = [SUBMITTER_LIFE, SUBMITTER_PARKED];
        let consumer = [CONSUMER_LIFE, CONSUMER_PARKED, HEAD, ERROR_COUNT, ERROR_CTX];
        assert!(submitter.iter().all(|s| consumer.iter().all(|c| s / 64 != c / 64)));
    }

    #[test]
    fn sizes_that_make_no_channel_are_refused() {
        let ok = RegionSpec::default();
        for bad in [
            RegionSpec { ring_bytes: 3 << 20, ..ok },
            RegionSpec { ring_bytes: 128 << 10, ..ok },
            RegionSpec { record_limit: 0, ..ok },
            RegionSpec { record_limit: 100, ..ok },
            RegionSpec { record_limit: 128 << 10, ..ok },
            RegionSpec { staging_bytes: 1000, ..ok },
            RegionSpec { staging_bytes: 64 << 20, ..ok },
            RegionSpec { ring_bytes: 1 << 31, staging_bytes: 0, ..ok },
        ] {
            assert!(bad.region_bytes().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_sequence_is_never_zero_and_differs_between_laps() {
        for position in [0, 16, (1 << 20) - 16, 1 << 35, u64::MAX - 15] {
            assert_ne!(sequence(position), 0);
            assert_ne!(sequence(position), sequence(position.wrapping_add(1 << 20)));
        }
    }
}
