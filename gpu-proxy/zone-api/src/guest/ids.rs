//! What messages name: channels and containers.

use std::fmt;

/// Bytes of a container's id at most.
pub(super) const ID_BYTES: usize = 128;

/// The number guest-init gave a channel: never zero, free again after `Unmapped` or `Refused`. Questions are numbered in the same row;
/// theirs are free again after `Told`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(u32);

impl ChannelId {
    /// `None` for zero.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A container's id as containerd allows it: 1 to 128 of `[A-Za-z0-9_.-]`, so that it is safe in logs and paths' components.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks an id. `.` and `..` are refused as well.
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        let length = (1..=ID_BYTES).contains(&id.len());
        let letters = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        (length && letters && id != "." && id != "..").then(|| Self(id.to_owned()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its length and its letters, padded.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let id = self.0.as_bytes();
        out.extend_from_slice(&u16::try_from(id.len()).unwrap_or(u16::MAX).to_le_bytes());
        let mut padded = [0; ID_BYTES];
        padded[..id.len()].copy_from_slice(id);
        out.extend_from_slice(&padded);
    }

    /// From the bytes of [`ContainerId::encode`], as many as it writes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, padding) =
            bytes[2..].split_at_checked(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))?;
        if padding.iter().any(|&byte| byte != 0) {
            return None;
        }
        Self::new(str::from_utf8(id).ok()?)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
