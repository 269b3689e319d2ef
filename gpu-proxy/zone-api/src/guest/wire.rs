//! What both ends of the GPU stream (`device/vgpu-idm/1`) and of its channels take from here and not from each other.

use idm::hello::Hello;
use idm::record::RegionSpec;

use super::FRAME_BYTES_MAX;

/// Number of the stream's device: `device/vgpu-idm/1`.
pub const DEVICE: u32 = 1;
/// Bytes of each ring of the stream. A `Connect` with every reference it may hold passes in pieces.
pub const RING_BYTES: u32 = 64 << 10;
/// The application of the GPU stream in idm's hello, `vgpudoor` in memory.
pub const APPLICATION: u64 = u64::from_le_bytes(*b"vgpudoor");
/// What this release knows of the stream: its application's minor version in idm's hello. 0: channels. 1: questions as well.
/// 2: channels may have an arena.
pub const MINOR: u16 = 2;
/// From this minor version on there are questions.
pub const MINOR_ASK: u16 = 1;
/// From this one on a channel may have an arena, and its chunks are asked for.
pub const MINOR_ARENA: u16 = 2;

/// The hello of either end.
#[must_use]
pub fn hello() -> Hello {
    let record_limit = u32::try_from(FRAME_BYTES_MAX).unwrap_or(u32::MAX);
    Hello { application_minor: MINOR, ..Hello::new(record_limit, APPLICATION) }
}

/// The sizes of every channel: constants of a release, no part of any configuration.
#[must_use]
pub fn region() -> RegionSpec {
    RegionSpec::default()
}
