//! Layouts, little endian. A frame is an 8-byte header and its body:
//!
//! ```text
//!   0 kind u16 | 2 zero u16 | 4 body length u32 | 8 body …
//!
//!   Connect   1    0 channel u32 | 4 pid u32 | 8 wire hash u64 | 16 port u32 | 20 refs u16 | 22 id length u16
//!                  | 24 id, padded with zeros to 128 | 152 refs × u32
//!   Close     2    0 channel u32 | 4 zero u32
//!   Ask       3    0 question u32 | 4 zero u16 | 6 id length u16 | 8 id, padded with zeros to 128
//!   Chunk     4    0 channel u32 | 4 chunk u32 | 8 refs × u32, 512 of them
//!   Lack      5    0 channel u32 | 4 chunk u32
//!   Accepted  129  0 channel u32 | 4 arena MiB u32
//!   Refused   130  0 channel u32 | 4 code u32
//!   Unmapped  131  0 channel u32 | 4 zero u32
//!   Died      132  0 channel u32 | 4 code u32
//!   Told      133  0 question u32 | 4 code u32 | 8 the answer, none with a code ([`facts`](super::facts))
//!   Want      134  0 channel u32 | 4 chunk u32
//! ```
//! `Ask` and `Told` are there where both hellos have 1 or more as their application's minor version; `Want`, `Chunk`, `Lack` and an arena
//! where both have 2 or more.

use idm::arena::CHUNK_PAGES;

use super::facts::BYTES_MAX;
use super::ids::{ChannelId, ContainerId, ID_BYTES};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;
/// The longest frame, header included. It is what a reader has to keep.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// The most grant references in one [`Connect`]: 62 MiB of shared pages. The supervisor's own limit is lower.
pub const REFS_MAX: usize = 16_000;

const CONNECT_FIXED_BYTES: usize = 24 + ID_BYTES;
const SHORT_BYTES: usize = 8;
const ASK_BYTES: usize = 8 + ID_BYTES;
const CHUNK_BODY_BYTES: usize = SHORT_BYTES + 4 * CHUNK_PAGES;

/// Why bytes are no message. Whoever reads one ends the stream: the peer cannot be followed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A kind that this direction does not have.
    #[error("a message of unknown kind {0}")]
    Kind(u16),
    /// A length that does not fit the kind.
    #[error("a message of kind {kind} with {bytes} bytes")]
    Length {
        /// The kind.
        kind: u16,
        /// The body's length.
        bytes: u32,
    },
    /// A field that cannot be.
    #[error("a message of kind {kind} with a bad {field}")]
    Field {
        /// The kind.
        kind: u16,
        /// Which field.
        field: &'static str,
    },
}

/// A message of one direction.
pub trait Message: Sized {
    /// Appends the whole frame to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Parses a body that is complete.
    ///
    /// # Errors
    /// [`Malformed`].
    fn decode(kind: u16, body: &[u8]) -> Result<Self, Malformed>;

    /// Whether a body of `bytes` can belong to `kind`: asked before the body is waited for.
    ///
    /// # Errors
    /// [`Malformed`].
    fn check_len(kind: u16, bytes: u32) -> Result<(), Malformed>;
}

/// A guest process wants a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The channel's number from now on.
    pub channel: ChannelId,
    /// The container in which the process runs: selects its grant.
    pub container: ContainerId,
    /// The process id in the guest: a label for people.
    pub pid: u32,
    /// Hash of the CUDA wire that the process's libvgpu speaks.
    pub wire_hash: u64,
    /// An event channel port of the guest, unbound, offered to the proxy's domain.
    pub port: u32,
    /// Grant references of the shared region, page by page in order. 1 to [`REFS_MAX`].
    pub refs: Vec<u32>,
}

/// guest-init to proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToProxy {
    /// A process connected.
    Connect(Connect),
    /// The process is gone: end its worker and unmap.
    Close {
        /// Which.
        channel: ChannelId,
    },
    /// A process wants to know what its container's devices are. It is answered by one [`ToGuest::Told`].
    Ask {
        /// Its number.
        question: ChannelId,
        /// The container in which the process runs.
        container: ContainerId,
    },
    /// The answer to [`ToGuest::Want`]: the chunk is granted until [`ToGuest::Unmapped`].
    Chunk {
        /// Which channel's.
        channel: ChannelId,
        /// Which of its arena, by its number.
        chunk: u32,
        /// Grant references, page by page in order: [`CHUNK_PAGES`].
        refs: Vec<u32>,
    },
    /// The other answer to it: the guest has no memory or grants for it, or the channel no such chunk.
    Lack {
        /// Which channel's.
        channel: ChannelId,
        /// Which chunk.
        chunk: u32,
    },
}

/// Proxy to guest-init.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGuest {
    /// A worker has the channel.
    Accepted {
        /// Which.
        channel: ChannelId,
        /// How long an arena it may have; 0: none.
        arena_mib: u32,
    },
    /// No worker; the pages are not (or no longer) mapped.
    Refused {
        /// Which.
        channel: ChannelId,
        /// The number of the `VGPU-nnn` code.
        code: u32,
    },
    /// The pages are unmapped and the port is closed.
    Unmapped {
        /// Which.
        channel: ChannelId,
    },
    /// The worker ended although nobody asked it to. [`ToGuest::Unmapped`] follows.
    Died {
        /// Which.
        channel: ChannelId,
        /// The number of the `VGPU-nnn` code.
        code: u32,
    },
    /// The answer to [`ToProxy::Ask`].
    Told {
        /// Which.
        question: ChannelId,
        /// 0, or the number of the `VGPU-nnn` code.
        code: u32,
        /// With code 0, [`Facts`](super::facts::Facts) in their wire form: they are parsed by whoever reads them.
        answer: Vec<u8>,
    },
    /// The worker needs a chunk of the channel's arena. Answered by [`ToProxy::Chunk`] or [`ToProxy::Lack`].
    Want {
        /// Which channel's.
        channel: ChannelId,
        /// Which chunk.
        chunk: u32,
    },
}

const CONNECT: u16 = 1;
const CLOSE: u16 = 2;
const ASK: u16 = 3;
const CHUNK: u16 = 4;
const LACK: u16 = 5;
const ACCEPTED: u16 = 129;
const REFUSED: u16 = 130;
const UNMAPPED: u16 = 131;
const DIED: u16 = 132;
const TOLD: u16 = 133;
const WANT: u16 = 134;

impl Message for ToProxy {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Connect(connect) => connect.encode(out),
            Self::Close { channel } => short(out, CLOSE, *channel, 0),
            Self::Ask { question, container } => {
                header(out, ASK, ASK_BYTES);
                out.extend_from_slice(&question.get().to_le_bytes());
                out.extend_from_slice(&[0; 2]);
                container.encode(out);
            }
            Self::Chunk { channel, chunk, refs } => {
                header(out, CHUNK, CHUNK_BODY_BYTES);
                out.extend_from_slice(&channel.get().to_le_bytes());
                out.extend_from_slice(&chunk.to_le_bytes());
                // Another number is our mistake; the frame stays valid.
                let all = refs.iter().chain(std::iter::repeat(&0)).take(CHUNK_PAGES);
                all.for_each(|reference| out.extend_from_slice(&reference.to_le_bytes()));
            }
            Self::Lack { channel, chunk } => short(out, LACK, *channel, *chunk),
        }
    }

    fn decode(kind: u16, body: &[u8]) -> Result<Self, Malformed> {
        match kind {
            CONNECT => Connect::decode(body).map(Self::Connect),
            CLOSE => Ok(Self::Close { channel: read_short_zero(kind, body)? }),
            ASK => read_ask(body),
            CHUNK => read_chunk(body),
            LACK => read_short(kind, body).map(|(channel, chunk)| Self::Lack { channel, chunk }),
            _ => Err(Malformed::Kind(kind)),
        }
    }

    fn check_len(kind: u16, bytes: u32) -> Result<(), Malformed> {
        let fits = match kind {
            CONNECT => {
                let refs = (bytes as usize).wrapping_sub(CONNECT_FIXED_BYTES) / 4;
                bytes.is_multiple_of(4) && (1..=REFS_MAX).contains(&refs)
            }
            CLOSE | LACK => bytes as usize == SHORT_BYTES,
            CHUNK => bytes as usize == CHUNK_BODY_BYTES,
            ASK => bytes as usize == ASK_BYTES,
            _ => return Err(Malformed::Kind(kind)),
        };
        if fits { Ok(()) } else { Err(Malformed::Length { kind, bytes }) }
    }
}

impl Message for ToGuest {
    fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Accepted { channel, arena_mib } => short(out, ACCEPTED, channel, arena_mib),
            Self::Refused { channel, code } => short(out, REFUSED, channel, code),
            Self::Unmapped { channel } => short(out, UNMAPPED, channel, 0),
            Self::Died { channel, code } => short(out, DIED, channel, code),
            Self::Want { channel, chunk } => short(out, WANT, channel, chunk),
            Self::Told { question, code, ref answer } => {
                // A longer one is our mistake and is cut, so that the frame stays valid: it then is no answer.
                let answer = answer.get(..BYTES_MAX).unwrap_or(answer);
                header(out, TOLD, SHORT_BYTES + answer.len());
                out.extend_from_slice(&question.get().to_le_bytes());
                out.extend_from_slice(&code.to_le_bytes());
                out.extend_from_slice(answer);
            }
        }
    }

    fn decode(kind: u16, body: &[u8]) -> Result<Self, Malformed> {
        Self::check_len(kind, u32::try_from(body.len()).unwrap_or(u32::MAX))?;
        let (short, rest) = body.split_at_checked(SHORT_BYTES).unwrap_or((body, &[]));
        let (channel, code) = read_short(kind, short)?;
        match kind {
            ACCEPTED => Ok(Self::Accepted { channel, arena_mib: code }),
            REFUSED => Ok(Self::Refused { channel, code }),
            UNMAPPED => Ok(Self::Unmapped { channel }),
            DIED => Ok(Self::Died { channel, code }),
            WANT => Ok(Self::Want { channel, chunk: code }),
            TOLD if code != 0 && !rest.is_empty() => Err(Malformed::Field { kind, field: "answer" }),
            TOLD => Ok(Self::Told { question: channel, code, answer: rest.to_vec() }),
            _ => Err(Malformed::Kind(kind)),
        }
    }

    fn check_len(kind: u16, bytes: u32) -> Result<(), Malformed> {
        match kind {
            ACCEPTED | REFUSED | UNMAPPED | DIED | WANT if bytes as usize == SHORT_BYTES => Ok(()),
            TOLD if (SHORT_BYTES..=SHORT_BYTES + BYTES_MAX).contains(&(bytes as usize)) => Ok(()),
            ACCEPTED | REFUSED | UNMAPPED | DIED | WANT | TOLD => Err(Malformed::Length { kind, bytes }),
            _ => Err(Malformed::Kind(kind)),
        }
    }
}

impl Connect {
    fn encode(&self, out: &mut Vec<u8>) {
        // The type's own limits: more references than REFS_MAX are our mistake and are cut, so that the frame stays valid.
        let refs = self.refs.get(..REFS_MAX).unwrap_or(&self.refs);
        header(out, CONNECT, CONNECT_FIXED_BYTES + 4 * refs.len());
        out.extend_from_slice(&self.channel.get().to_le_bytes());
        out.extend_from_slice(&self.pid.to_le_bytes());
        out.extend_from_slice(&self.wire_hash.to_le_bytes());
        out.extend_from_slice(&self.port.to_le_bytes());
        out.extend_from_slice(&u16::try_from(refs.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.container.encode(out);
        refs.iter().for_each(|reference| out.extend_from_slice(&reference.to_le_bytes()));
    }

    fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let bad = |field| Malformed::Field { kind: CONNECT, field };
        ToProxy::check_len(CONNECT, u32::try_from(body.len()).unwrap_or(u32::MAX))?;
        let (fixed, refs) = body.split_at(CONNECT_FIXED_BYTES);
        let count = usize::from(u16_at(fixed, 20));
        if refs.len() != 4 * count {
            return Err(bad("number of references"));
        }
        Ok(Self {
            channel: ChannelId::new(u32_at(fixed, 0)).ok_or(bad("channel"))?,
            container: ContainerId::decode(&fixed[22..]).ok_or(bad("container id"))?,
            pid: u32_at(fixed, 4),
            wire_hash: u64::from(u32_at(fixed, 8)) | u64::from(u32_at(fixed, 12)) << 32,
            port: u32_at(fixed, 16),
            refs: refs.chunks_exact(4).map(|word| u32_at(word, 0)).collect(),
        })
    }
}

fn header(out: &mut Vec<u8>, kind: u16, body_bytes: usize) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&u32::try_from(body_bytes).unwrap_or(u32::MAX).to_le_bytes());
}

fn short(out: &mut Vec<u8>, kind: u16, channel: ChannelId, code: u32) {
    header(out, kind, SHORT_BYTES);
    out.extend_from_slice(&channel.get().to_le_bytes());
    out.extend_from_slice(&code.to_le_bytes());
}

fn read_ask(body: &[u8]) -> Result<ToProxy, Malformed> {
    let bad = |field| Malformed::Field { kind: ASK, field };
    ToProxy::check_len(ASK, u32::try_from(body.len()).unwrap_or(u32::MAX))?;
    if u16_at(body, 4) != 0 {
        return Err(bad("reserved word"));
    }
    Ok(ToProxy::Ask {
        question: ChannelId::new(u32_at(body, 0)).ok_or(bad("question"))?,
        container: ContainerId::decode(&body[6..]).ok_or(bad("container id"))?,
    })
}

fn read_chunk(body: &[u8]) -> Result<ToProxy, Malformed> {
    ToProxy::check_len(CHUNK, u32::try_from(body.len()).unwrap_or(u32::MAX))?;
    let (short, refs) = body.split_at(SHORT_BYTES);
    let (channel, chunk) = read_short(CHUNK, short)?;
    Ok(ToProxy::Chunk { channel, chunk, refs: refs.chunks_exact(4).map(|word| u32_at(word, 0)).collect() })
}

/// The body of a short message whose second word is reserved.
fn read_short_zero(kind: u16, body: &[u8]) -> Result<ChannelId, Malformed> {
    let (channel, zero) = read_short(kind, body)?;
    if zero == 0 { Ok(channel) } else { Err(Malformed::Field { kind, field: "reserved word" }) }
}

fn read_short(kind: u16, body: &[u8]) -> Result<(ChannelId, u32), Malformed> {
    if body.len() != SHORT_BYTES {
        return Err(Malformed::Length { kind, bytes: u32::try_from(body.len()).unwrap_or(u32::MAX) });
    }
    let channel = ChannelId::new(u32_at(body, 0)).ok_or(Malformed::Field { kind, field: "channel" })?;
    Ok((channel, u32_at(body, 4)))
}

/// The word at a constant offset of a slice whose length the caller has checked.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
