//! What the kernel answers to one question over rtnetlink: messages and their attributes.
//!
//! The kernel is no enemy here, but a length is checked before it is believed all the same.

use std::{collections::BTreeMap, io};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// Source: `linux/netlink.h`.
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Of a message and of an attribute.
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// The two uppermost bits of an attribute's kind are flags.
const ATTRIBUTE_KIND: u16 = 0x3fff;

/// What stands behind a message's header.
pub struct Message(Vec<u8>);

pub type Attributes<'a> = BTreeMap<u16, &'a [u8]>;

/// All that the kernel has of a kind; `fixed` is the size of what each message of it begins with.
pub fn dump(kind: u16, fixed: usize) -> io::Result<Vec<Message>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let length = HEADER_BYTES + fixed;
    let mut question = vec![0; length];
    question[..4].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes());
    question[4..6].copy_from_slice(&kind.to_ne_bytes());
    question[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    send(&socket, &question, SendFlags::empty())?;
    let (mut messages, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let (received, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if take(&buffer[..received], &mut messages)? {
            return Ok(messages);
        }
    }
}

/// The messages of a datagram. Whether they were the last ones.
fn take(mut rest: &[u8], messages: &mut Vec<Message>) -> io::Result<bool> {
    while rest.len() >= HEADER_BYTES {
        let length = number(rest, 0).unwrap_or(0) as usize;
        let Some(body) = rest.get(HEADER_BYTES..length) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match u16::from_ne_bytes([rest[4], rest[5]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let error = number(body, 0).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(error.saturating_neg()));
            }
            _ => messages.push(Message(body.to_vec())),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

impl Message {
    /// A byte of the fixed part; 0 where it is too short.
    pub fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// A number of 32 bits of the fixed part.
    pub fn number(&self, at: usize) -> u32 {
        number(&self.0, at).unwrap_or(0)
    }

    /// What stands behind the fixed part.
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        attributes(self.0.get(fixed..).unwrap_or_default())
    }
}

/// The whole ones, by their kinds.
pub fn attributes(mut rest: &[u8]) -> Attributes<'_> {
    let mut found = BTreeMap::new();
    while rest.len() >= ATTRIBUTE_HEADER_BYTES {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & ATTRIBUTE_KIND;
        let Some(value) = rest.get(ATTRIBUTE_HEADER_BYTES..length) else { break };
        found.insert(kind, value);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// 32 bits at a place.
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, length: u32, body: &[u8]) -> Vec<u8> {
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn messages_are_taken_to_the_last_one() {
        let mut messages = Vec::new();
        let datagram = [message(16, 20, b"abcd"), message(NLMSG_DONE, 16, b"")].concat();
        assert!(take(&datagram, &mut messages).unwrap());
        assert_eq!((messages.len(), messages[0].byte(0), messages[0].byte(9)), (1, b'a', 0));
        assert!(!take(&message(16, 16, b""), &mut messages).unwrap());
        let refused = message(NLMSG_ERROR, 20, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(take(&refused, &mut messages).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn a_length_that_is_not_there_is_not_believed() {
        for length in [0, 15, 21, u32::MAX] {
            assert!(take(&message(16, length, b"abcd"), &mut Vec::new()).is_err(), "{length}");
        }
        for length in [0u16, 3, 9, u16::MAX] {
            let bytes = [&length.to_ne_bytes()[..], &1u16.to_ne_bytes(), b"abcd"].concat();
            assert!(attributes(&bytes).is_empty(), "{length}");
        }
        let bytes = [&5u16.to_ne_bytes()[..], &0x8003u16.to_ne_bytes(), b"a\0\0\0"].concat();
        assert_eq!(attributes(&bytes), BTreeMap::from([(3, &b"a"[..])]));
    }
}
