//! What both ends of a pod take from here and not from each other: the agent's device, ring sizes, the words of idm's hello, the share's tag.
//!
//! Each way the same, because the guest makes a stdio stream before anybody knows its direction.

/// Number of the agent's device: `device/vgpu-idm/0`.
pub const DEVICE: u32 = 0;
/// Bytes of each ring of the agent stream.
pub const AGENT_RING_BYTES: u32 = 64 << 10;
/// Bytes of each ring of a stdio stream: 33 pages of the guest with its index page, while the process lives.
pub const STDIO_RING_BYTES: u32 = 64 << 10;
/// The largest message of ttrpc on the agent stream, said in the hello. Source: ttrpc, `MESSAGE_LENGTH_MAX`.
pub const RECORD_BYTES_MAX: u32 = 4 << 20;
/// The longest answer of the guest, as ttrpc frames it; the shim ends the stream at a longer one. What the shim sends may be as long as
/// ttrpc lets it: a process's specification is part of it.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;
/// The longest text of a guest's error, in characters: its end is not sent, and not passed on. Users' words are part of it.
pub const TEXT_CHARS_MAX: usize = 2000;
/// The application of the agent stream in the hello, `vgpuagnt` in memory.
pub const APPLICATION: u64 = u64::from_le_bytes(*b"vgpuagnt");
/// The tag of the 9p share.
pub const SHARE_TAG: &str = "share0";
