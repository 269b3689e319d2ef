//! The first 24 bytes each side sends: `magic` (8) | `major` u16 | `minor` u16 | `record limit` u32 | `build` (8), little endian.

use idm::hello::Build;

use super::frame::REQUEST_BYTES_MAX;

/// Bytes of a hello on the wire.
pub const HELLO_BYTES: usize = 24;

const MAGIC: [u8; 8] = *b"vgpuzone";
const MAJOR: u16 = 1;
const MINOR: u16 = 0;

/// What a side says of itself before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Both sides must have the same: a request may mean something else otherwise.
    pub major: u16,
    /// Grows when something is added that can be left out. Nothing asks for it yet.
    pub minor: u16,
    /// The largest request, in bytes, that the sender reads.
    pub record_limit: u32,
    /// The sender's release, for logs only.
    pub build: Build,
}

/// Why two sides cannot talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Whoever answered is no gpu-proxy.
    #[error("the peer does not speak vgpu's zone protocol")]
    NotOurs,
    /// Two releases that cannot work together.
    #[error(
        "the peer speaks version {theirs} of the zone protocol, we speak {ours}: install the same release of both"
    )]
    Version {
        /// The peer's major version.
        theirs: u16,
        /// Our major version.
        ours: u16,
    },
}

impl Hello {
    /// Our own hello.
    #[must_use]
    pub fn ours() -> Self {
        Self { major: MAJOR, minor: MINOR, record_limit: REQUEST_BYTES_MAX, build: Build::OWN }
    }

    /// The bytes to send.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.major.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.minor.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.record_limit.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.build.0.to_le_bytes());
        bytes
    }

    /// Reads the peer's hello and meets its version.
    ///
    /// # Errors
    /// [`HelloError`] if the peer is something else or its major version is not ours.
    pub fn meet(bytes: &[u8; HELLO_BYTES]) -> Result<Self, HelloError> {
        let [m0, m1, m2, m3, m4, m5, m6, m7, a0, a1, i0, i1, r0, r1, r2, r3, build @ ..] = *bytes;
        if [m0, m1, m2, m3, m4, m5, m6, m7] != MAGIC {
            return Err(HelloError::NotOurs);
        }
        let major = u16::from_le_bytes([a0, a1]);
        if major != MAJOR {
            return Err(HelloError::Version { theirs: major, ours: MAJOR });
        }
        let minor = u16::from_le_bytes([i0, i1]);
        let build = Build(u64::from_le_bytes(build));
        Ok(Self { major, minor, record_limit: u32::from_le_bytes([r0, r1, r2, r3]), build })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_wire() {
        assert_eq!(Hello::meet(&Hello::ours().to_bytes()), Ok(Hello::ours()));
        let other = Hello { build: Build(3), ..Hello::ours() };
        assert_eq!(Hello::meet(&other.to_bytes()), Ok(other));
    }

    #[test]
    fn another_minor_is_met_and_another_major_is_refused() {
        let later = Hello { minor: 9, ..Hello::ours() };
        assert_eq!(Hello::meet(&later.to_bytes()), Ok(later));
        let other = Hello { major: 2, ..Hello::ours() };
        assert_eq!(Hello::meet(&other.to_bytes()), Err(HelloError::Version { theirs: 2, ours: 1 }));
        assert_eq!(Hello::meet(&[0; HELLO_BYTES]), Err(HelloError::NotOurs));
    }
}
