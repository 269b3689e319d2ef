//! Why a channel ended or a call on it failed: our own mistake or lack, the peer's fault, or the peer's end.
//!
//! The three kinds ask for three reactions ([`ChannelError::fault`]). Errors are small and can be cloned, so that every thread of
//! a broken channel is told the first reason.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// Who is on the other side. Prints as `domain 5` or `pid 812`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A Xen domain, by its id.
    Domain(u16),
    /// A process of this machine, by its pid.
    Process(i32),
    /// The server behind a socket that we connected to.
    Server,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(id) => write!(f, "domain {id}"),
            Self::Process(pid) => write!(f, "pid {pid}"),
            Self::Server => f.write_str("the server"),
        }
    }
}

/// Who has to act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// This process or its machine: a wrong argument, no memory, a limit that ran out.
    Ours,
    /// The peer broke the protocol: log it, close the channel, tell the supervisor.
    Peer,
    /// The peer ended. Ordinary.
    Gone,
}

/// What was wrong with a record that the peer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordFlaw {
    /// The word that publishes a record is neither zero nor the one of its place.
    Sequence {
        /// What stood there.
        found: u32,
        /// The only value that publishes a record at this place.
        expected: u32,
    },
    /// The record is longer than agreed, in bytes.
    Length {
        /// The claimed length.
        claimed: u32,
        /// The longest allowed at this place.
        limit: u32,
    },
    /// A record that wants a reply names a lane that does not exist.
    Lane(u16),
    /// A record that wants a reply names a lane whose last call is not answered yet.
    LaneBusy(u16),
    /// Flags without a meaning.
    Flags(u8),
}

impl fmt::Display for RecordFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence { found, expected } => {
                write!(f, "sequence {found:#x} where only {expected:#x} can stand")
            }
            Self::Length { claimed, limit } => write!(f, "{claimed} bytes long, {limit} are allowed"),
            Self::Lane(lane) => write!(f, "wants its reply on lane {lane}, which does not exist"),
            Self::LaneBusy(lane) => write!(f, "wants its reply on lane {lane}, which still waits for one"),
            Self::Flags(flags) => write!(f, "unknown flags {flags:#04x}"),
        }
    }
}

/// Why a channel ended, or why a call on it failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The peer moved one of its indexes where it cannot be.
    #[error("{peer} moved its {index} index to {claimed}, past {limit}")]
    PeerIndex {
        /// Who did.
        peer: Peer,
        /// Which index: `read`, `write` or `head`.
        index: &'static str,
        /// What it wrote.
        claimed: u32,
        /// The farthest value that was possible.
        limit: u32,
    },
    /// The peer wrote a record that cannot be.
    #[error("{peer} wrote a bad record at byte {at}: {flaw}")]
    PeerRecord {
        /// Who did.
        peer: Peer,
        /// Bytes sent through the ring before it.
        at: u64,
        /// What was wrong.
        flaw: RecordFlaw,
    },
    /// The peer's reply does not fit.
    #[error("{peer} answered with {claimed} bytes, {limit} are allowed")]
    PeerReply {
        /// Who did.
        peer: Peer,
        /// The claimed length in bytes.
        claimed: u32,
        /// The room there was, in bytes.
        limit: u32,
    },
    /// The peer named a part of the staging area that does not exist.
    #[error("{peer} named {bytes} bytes at {offset} of a staging area of {limit}")]
    PeerStaging {
        /// Who did.
        peer: Peer,
        /// The claimed start, in bytes.
        offset: u64,
        /// The claimed length, in bytes.
        bytes: u64,
        /// The length of the area, in bytes.
        limit: u64,
    },
    /// The first bytes of the peer are not our hello.
    #[error("{peer} does not speak vgpu's protocol: {found:02x?} instead of its hello")]
    PeerMagic {
        /// Who it is.
        peer: Peer,
        /// Its first eight bytes.
        found: [u8; 8],
    },
    /// The peer's protocol is of another major version.
    #[error("{peer} speaks version {theirs} of the protocol, this side {ours}")]
    PeerVersion {
        /// Who it is.
        peer: Peer,
        /// Its major version.
        theirs: u16,
        /// Our major version.
        ours: u16,
    },
    /// What the peer handed over at connect cannot be used.
    #[error("{peer} handed over {what}")]
    PeerOffer {
        /// Who it is.
        peer: Peer,
        /// What was wrong with it.
        what: &'static str,
    },
    /// The peer refused us and said why: a number of the `VGPU-nnn` list.
    #[error("{peer} refused: VGPU-{code:03}")]
    Refused {
        /// Who did.
        peer: Peer,
        /// The number after `VGPU-`.
        code: u16,
    },
    /// An ordinary end.
    #[error("{0} is gone")]
    PeerGone(Peer),
    /// The limit that the caller set ran out. The channel lives on.
    #[error("no answer of {peer} to {what} within {limit:?}")]
    TimedOut {
        /// Who did not answer.
        peer: Peer,
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The caller asked for more than the channel can carry. The channel lives on.
    #[error("{what} of {bytes} bytes, the channel carries {limit}")]
    TooLong {
        /// What was too long.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The most the channel takes, in bytes.
        limit: usize,
    },
    /// A reply was given to a call that nobody made, or twice. The channel lives on.
    #[error("no call waits on lane {lane} for a reply to {seq:#x}")]
    NoSuchCall {
        /// The lane.
        lane: u16,
        /// The call's sequence.
        seq: u32,
    },
    /// Sizes that make no channel.
    #[error("a channel cannot have {what}: {value}")]
    Layout {
        /// Which size.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// This side has already ended its direction of the stream.
    #[error("this side has ended its direction of the stream")]
    Finished,
    /// The system refused.
    #[error("cannot {doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: Errno,
    },
}

impl ChannelError {
    /// Who has to act.
    pub fn fault(&self) -> Fault {
        match self {
            Self::PeerIndex { .. }
            | Self::PeerRecord { .. }
            | Self::PeerReply { .. }
            | Self::PeerStaging { .. }
            | Self::PeerMagic { .. }
            | Self::PeerVersion { .. }
            | Self::PeerOffer { .. } => Fault::Peer,
            Self::PeerGone(_) => Fault::Gone,
            Self::Refused { .. }
            | Self::TimedOut { .. }
            | Self::TooLong { .. }
            | Self::NoSuchCall { .. }
            | Self::Layout { .. }
            | Self::Finished
            | Self::System { .. } => Fault::Ours,
        }
    }

    /// Makes the closure that turns an errno into an error: `.map_err(ChannelError::system("map the region"))`.
    pub fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> ChannelError {
        move |e| {
            let error: io::Error = e.into();
            Self::System { doing, source: Errno::from_io_error(&error).unwrap_or(Errno::IO) }
        }
    }
}

impl From<ChannelError> for io::Error {
    fn from(error: ChannelError) -> Self {
        let kind = match &error {
            ChannelError::PeerGone(_) => io::ErrorKind::BrokenPipe,
            ChannelError::TimedOut { .. } => io::ErrorKind::TimedOut,
            ChannelError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            ChannelError::System { source, .. } => source.kind(),
            ChannelError::Finished => io::ErrorKind::BrokenPipe,
            ChannelError::TooLong { .. } | ChannelError::NoSuchCall { .. } | ChannelError::Layout { .. } => {
                io::ErrorKind::InvalidInput
            }
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_who_and_what() {
        let error =
            ChannelError::PeerIndex { peer: Peer::Domain(5), index: "write", claimed: 9000, limit: 4096 };
        assert_eq!(error.to_string(), "domain 5 moved its write index to 9000, past 4096");
        assert_eq!(error.fault(), Fault::Peer);
        assert_eq!(ChannelError::PeerGone(Peer::Process(812)).to_string(), "pid 812 is gone");
        assert_eq!(
            ChannelError::Refused { peer: Peer::Server, code: 42 }.to_string(),
            "the server refused: VGPU-042"
        );
    }
}
