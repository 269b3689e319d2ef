//! A hello, an answer, and what comes with them, as they go over the socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::{ANSWER_BYTES, FDS, limit_reading};
use crate::error::{ChannelError, Peer};
use crate::hello::HELLO_BYTES;
use crate::record::RegionSpec;

/// Sends a message whole: it is shorter than any socket's buffer.
pub(super) fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(fds));
        assert!(fits, "the space holds every descriptor of an answer");
    }
    match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Err(ChannelError::PeerGone(Peer::Server)),
        Err(e) => Err(ChannelError::system("send on the GPU socket")(e)),
    }
}

pub(super) fn receive_answer(
    socket: &UnixStream,
    limit: Duration,
) -> Result<([u8; ANSWER_BYTES], Vec<OwnedFd>), ChannelError> {
    let mut bytes = [0; ANSWER_BYTES];
    let fds = receive(socket, &mut bytes, limit)?;
    Ok((bytes, fds))
}

/// Reads until `bytes` is full. What descriptors came with it.
pub(super) fn receive(
    socket: &UnixStream,
    bytes: &mut [u8],
    limit: Duration,
) -> Result<Vec<OwnedFd>, ChannelError> {
    let deadline = Instant::now() + limit;
    let mut fds = Vec::with_capacity(FDS);
    let mut done = 0;
    while done < bytes.len() {
        if !limit_reading(socket, deadline)? {
            return Err(ChannelError::TimedOut { peer: Peer::Server, what: "the hello", limit });
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut rest = [IoSliceMut::new(&mut bytes[done..])];
        let got = match rustix::net::recvmsg(socket, &mut rest, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => got,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(Errno::CONNRESET) => return Err(ChannelError::PeerGone(Peer::Server)),
            Err(e) => return Err(ChannelError::system("read the answer of the GPU socket")(e)),
        };
        if got.bytes == 0 {
            return Err(ChannelError::PeerGone(Peer::Server));
        }
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ChannelError::PeerOffer {
                peer: Peer::Server,
                what: "more descriptors than an answer has",
            });
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        done += got.bytes;
    }
    Ok(fds)
}

pub(super) fn split(bytes: &[u8; ANSWER_BYTES]) -> (&[u8; HELLO_BYTES], &[u8]) {
    let Some((hello, offer)) = bytes.split_first_chunk() else {
        unreachable!("an answer starts with a hello")
    };
    (hello, offer)
}

/// The sizes, the arena's length and whether it is kept, or the refusal.
pub(super) fn read_offer(offer: &[u8]) -> Result<(RegionSpec, u64, bool), ChannelError> {
    check_code(offer)?;
    let spec = RegionSpec {
        ring_bytes: word(offer, 4),
        staging_bytes: word(offer, 8),
        record_limit: word(offer, 12),
    };
    let arena_bytes = u64::from(word(offer, 16)) | u64::from(word(offer, 20)) << 32;
    Ok((spec, arena_bytes, word(offer, 24) != 0))
}

/// The bytes of an answer to a question, or the refusal.
pub(super) fn read_length(offer: &[u8]) -> Result<usize, ChannelError> {
    check_code(offer)?;
    Ok(usize::try_from(word(offer, 4)).unwrap_or(usize::MAX))
}

fn check_code(offer: &[u8]) -> Result<(), ChannelError> {
    match u16::from_le_bytes([offer[0], offer[1]]) {
        0 => Ok(()),
        code => Err(ChannelError::Refused { peer: Peer::Server, code }),
    }
}

fn word(offer: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([offer[at], offer[at + 1], offer[at + 2], offer[at + 3]])
}
