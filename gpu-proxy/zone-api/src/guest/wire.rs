//! What both ends of the GPU stream (`device/vgpu-idm/1`) and of its channels take from here and not from each other.

use idm::record::RegionSpec;

/// Number of the stream's device: `device/vgpu-idm/1`.
pub const DEVICE: u32 = 1;
/// Bytes of each ring of the stream. A `Connect` with every reference it may hold passes in pieces.
pub const RING_BYTES: u32 = 64 << 10;
/// The application of the GPU stream in idm's hello, `vgpudoor` in memory.
pub const APPLICATION: u64 = u64::from_le_bytes(*b"vgpudoor");

/// The sizes of every channel: constants of a release, no part of any configuration.
#[must_use]
pub fn region() -> RegionSpec {
    RegionSpec::default()
}
