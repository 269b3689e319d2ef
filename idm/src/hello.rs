//! The hello: the first 64 bytes that each side of a stream or socket sends.
//!
//! ```text
//! 0 "vgpu-idm" | 8 u16 major | 10 u16 minor | 12 u32 record limit | 16 u64 build | 24 u64 application
//!   | 32 u16 application's minor | 34 zeros | 64
//! ```
//! Little endian. The major versions must be equal, of the minor ones the lower holds; what is reserved is sent as zero and not looked at.
//! Not here: what an application hash means and who refuses whom for it.

use std::fmt;
use std::io::{Read, Write};

use crate::error::{ChannelError, Peer};

/// The length of a hello, in bytes.
pub const HELLO_BYTES: usize = 64;
/// The major version of everything in this crate: layouts and this hello.
pub const MAJOR: u16 = 1;
/// The minor version. 1: channels may have an arena. 2: it may be one that is kept.
pub const MINOR: u16 = 2;

const MAGIC: [u8; 8] = *b"vgpu-idm";

/// What a side says of itself first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Changes when old and new cannot speak to each other.
    pub major: u16,
    /// Grows when something is added that can be left out.
    pub minor: u16,
    /// The longest record or message that this side takes, in bytes.
    pub record_limit: u32,
    /// The release that this side is of, for logs.
    pub build: Build,
    /// Names what is spoken over the channel: the hash of the CUDA declarations on a GPU channel, 0 where the version alone decides.
    pub application: u64,
    /// What the side knows of the application beyond its start: 0 in every hello that says nothing of it.
    pub application_minor: u16,
}

/// Which release a side is of: the version that all programs of a release share, three u16 and a zero. For logs alone; what two sides
/// can speak is said by the versions and hashes beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build(pub u64);

impl Build {
    /// This side's.
    pub const OWN: Self = Self(
        number(env!("CARGO_PKG_VERSION_MAJOR"))
            | number(env!("CARGO_PKG_VERSION_MINOR")) << 16
            | number(env!("CARGO_PKG_VERSION_PATCH")) << 32,
    );

    /// A peer's, if it is not this side's: worth a line in the log.
    pub fn other(self) -> Option<Self> {
        (self != Self::OWN).then_some(self)
    }
}

const fn number(text: &str) -> u64 {
    match u16::from_str_radix(text, 10) {
        Ok(number) => number as u64,
        Err(_) => panic!("a part of the version is past 65535"),
    }
}

impl fmt::Display for Build {
    /// Numbers only, whatever the peer sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, ..] = self.0.to_le_bytes();
        let part = |low, high| u16::from_le_bytes([low, high]);
        write!(f, "{}.{}.{}", part(a, b), part(c, d), part(e, g))
    }
}

/// What both sides hold to after their hellos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The lower minor version.
    pub minor: u16,
    /// The lower limit, in bytes.
    pub record_limit: u32,
    /// The peer's release.
    pub peer_build: Build,
    /// The peer's application hash, for the caller to judge.
    pub peer_application: u64,
    /// The lower minor version of the application.
    pub application_minor: u16,
}

impl Hello {
    /// This crate's versions and release, with the caller's application.
    pub fn new(record_limit: u32, application: u64) -> Self {
        Self {
            major: MAJOR,
            minor: MINOR,
            record_limit,
            build: Build::OWN,
            application,
            application_minor: 0,
        }
    }

    /// The bytes to send.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.major.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.minor.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.record_limit.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.build.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.application.to_le_bytes());
        bytes[32..34].copy_from_slice(&self.application_minor.to_le_bytes());
        bytes
    }

    /// Reads what `peer` sent.
    ///
    /// # Errors
    /// [`ChannelError::PeerMagic`].
    pub fn parse(bytes: &[u8; HELLO_BYTES], peer: Peer) -> Result<Self, ChannelError> {
        let found = field::<8>(bytes, 0);
        if found != MAGIC {
            return Err(ChannelError::PeerMagic { peer, found });
        }
        Ok(Self {
            major: u16::from_le_bytes(field(bytes, 8)),
            minor: u16::from_le_bytes(field(bytes, 10)),
            record_limit: u32::from_le_bytes(field(bytes, 12)),
            build: Build(u64::from_le_bytes(field(bytes, 16))),
            application: u64::from_le_bytes(field(bytes, 24)),
            application_minor: u16::from_le_bytes(field(bytes, 32)),
        })
    }

    /// Finds what both can hold to.
    ///
    /// # Errors
    /// [`ChannelError::PeerVersion`].
    pub fn meet(&self, theirs: &Hello, peer: Peer) -> Result<Agreed, ChannelError> {
        if theirs.major != self.major {
            return Err(ChannelError::PeerVersion { peer, theirs: theirs.major, ours: self.major });
        }
        Ok(Agreed {
            minor: self.minor.min(theirs.minor),
            record_limit: self.record_limit.min(theirs.record_limit),
            peer_build: theirs.build,
            peer_application: theirs.application,
            application_minor: self.application_minor.min(theirs.application_minor),
        })
    }
}

/// Sends our hello over `stream` and reads the peer's. The caller sets the limits of the stream.
///
/// # Errors
/// Those of the stream, [`ChannelError::PeerMagic`], [`ChannelError::PeerVersion`].
pub fn exchange(mut stream: impl Read + Write, mine: &Hello, peer: Peer) -> Result<Agreed, ChannelError> {
    stream.write_all(&mine.encode()).map_err(|e| ended(e, peer, "send the hello"))?;
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).map_err(|e| ended(e, peer, "read the hello"))?;
    mine.meet(&Hello::parse(&bytes, peer)?, peer)
}

/// [`exchange`] for tasks.
///
/// # Errors
/// As [`exchange`].
#[cfg(feature = "tokio")]
pub async fn exchange_async(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    mine: &Hello,
    peer: Peer,
) -> Result<Agreed, ChannelError> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    stream.write_all(&mine.encode()).await.map_err(|e| ended(e, peer, "send the hello"))?;
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).await.map_err(|e| ended(e, peer, "read the hello"))?;
    mine.meet(&Hello::parse(&bytes, peer)?, peer)
}

/// An I/O error as what it means for the channel.
fn ended(error: std::io::Error, peer: Peer, doing: &'static str) -> ChannelError {
    use std::io::ErrorKind;
    // A stream of this crate carries its own error; a socket only says how it ended.
    if let Some(own) = error.get_ref().and_then(|e| e.downcast_ref::<ChannelError>()) {
        return own.clone();
    }
    match error.kind() {
        ErrorKind::UnexpectedEof
        | ErrorKind::BrokenPipe
        | ErrorKind::ConnectionReset
        | ErrorKind::WriteZero => ChannelError::PeerGone(peer),
        _ => ChannelError::system(doing)(error),
    }
}

/// `N` bytes of the hello. The offsets are the constants above, so the range is always inside.
fn field<const N: usize>(bytes: &[u8; HELLO_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::stream::{Stream, StreamSpec};

    #[test]
    fn a_hello_survives_the_wire() {
        let hello = Hello {
            major: 1,
            minor: 3,
            record_limit: 65536,
            build: Build(0x0123_4567_89ab_cdef),
            application: u64::MAX,
            application_minor: 2,
        };
        assert_eq!(Hello::parse(&hello.encode(), Peer::Server), Ok(hello));
    }

    #[test]
    fn two_sides_agree_on_the_lower_of_each() {
        let (a, b) = Stream::pair(StreamSpec::default()).unwrap();
        let old = Hello { minor: 1, application_minor: 7, ..Hello::new(1000, 9) };
        let new = Hello { minor: 4, build: Build(8), application_minor: 5, ..Hello::new(2000, 10) };
        let other = std::thread::spawn(move || exchange(b, &new, Peer::Server));
        let agreed = exchange(a, &old, Peer::Server).unwrap();
        assert_eq!(
            agreed,
            Agreed {
                minor: 1,
                record_limit: 1000,
                peer_build: Build(8),
                peer_application: 10,
                application_minor: 5
            }
        );
        assert_eq!(other.join().unwrap().unwrap().record_limit, 1000);
    }

    #[test]
    fn a_build_is_the_release_and_another_one_is_told() {
        assert_eq!(Build::OWN.to_string(), env!("CARGO_PKG_VERSION"));
        assert_eq!(Build(u64::MAX).to_string(), "65535.65535.65535");
        let ours = Hello::new(1, 0);
        let meet = |theirs| ours.meet(&theirs, Peer::Server).unwrap().peer_build.other();
        assert_eq!(meet(Hello::parse(&ours.encode(), Peer::Server).unwrap()), None);
        assert_eq!(meet(Hello { build: Build(3), ..ours }), Some(Build(3)));
    }

    #[test]
    fn strangers_and_other_majors_are_refused() {
        let noise = [0x47; HELLO_BYTES];
        assert!(matches!(Hello::parse(&noise, Peer::Domain(3)), Err(ChannelError::PeerMagic { .. })));
        let newer = Hello { major: MAJOR + 1, ..Hello::new(1, 0) };
        let error = Hello::new(1, 0).meet(&newer, Peer::Domain(3)).unwrap_err();
        assert_eq!(error.to_string(), "domain 3 speaks version 2 of the protocol, this side 1");
    }
}
