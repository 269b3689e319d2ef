//! What the kernel answers over netlink: messages and their attributes.
//!
//! The kernel is no enemy here, but a length is checked before it is believed all the same.

use std::{collections::BTreeMap, io, time::Duration};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

/// Of questions. Source: `linux/netlink.h`.
pub const REQUEST: u16 = 1;
pub const ACK: u16 = 4;
pub const CREATE_NEW: u16 = 0x600;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Of a message and of an attribute.
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// The two uppermost bits of an attribute's kind are flags.
const ATTRIBUTE_KIND: u16 = 0x3fff;
const NESTED: u16 = 0x8000;
/// The kernel answers while it is asked; one that does not is not waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// What stands behind a message's header.
pub struct Message(Vec<u8>);

pub type Attributes<'a> = BTreeMap<u16, &'a [u8]>;

/// One message for the kernel: its kind and flags, what each of its kind begins with, and attributes.
pub fn question(kind: u16, flags: u16, fixed: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = [fixed, &attributes.concat()].concat();
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// An attribute, filled up to the place of the next one.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).unwrap_or(u16::MAX);
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// An attribute of attributes.
pub fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}

/// A name, as the kernel wants it: with its end.
pub fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), b"\0"].concat())
}

/// All that the kernel has of a kind, of rtnetlink; `fixed` is the size of what each message of it begins with.
pub fn dump(kind: u16, fixed: usize) -> io::Result<Vec<Message>> {
    dump_of(None, kind, &vec![0; fixed], &[])
}

/// All that the kernel has of a kind, by a protocol (none: rtnetlink's).
pub fn dump_of(
    protocol: Option<Protocol>,
    kind: u16,
    fixed: &[u8],
    attributes: &[Vec<u8>],
) -> io::Result<Vec<Message>> {
    ask(protocol, &[question(kind, REQUEST | DUMP, fixed, attributes)])
}

/// Sends messages, of which one wants an answer that ends the talk ([`ACK`], or a dump), and takes what is answered.
pub fn ask(protocol: Option<Protocol>, messages: &[Vec<u8>]) -> io::Result<Vec<Message>> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(LIMIT))?;
    send(&socket, &messages.concat(), SendFlags::empty())?;
    let (mut answers, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let (received, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if take(&buffer[..received], &mut answers)? {
            return Ok(answers);
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
            NLMSG_ERROR => match number(body, 0).map(u32::cast_signed) {
                Some(0) => return Ok(true),
                error => {
                    return Err(io::Error::from_raw_os_error(error.unwrap_or(0).saturating_neg()));
                }
            },
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
        assert!(take(&message(NLMSG_ERROR, 20, &[0; 4]), &mut Vec::new()).unwrap(), "no error: it is done");
        let refused = message(NLMSG_ERROR, 20, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(take(&refused, &mut messages).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn what_is_asked_is_read_as_it_was_written() {
        let inner = [text(1, "abc"), attribute(2, &[9])];
        let question = question(16, REQUEST, &[7, 0, 0, 0], &[nested(3, &inner), attribute(4, b"")]);
        let mut messages = Vec::new();
        assert!(!take(&question, &mut messages).unwrap());
        assert_eq!(messages[0].byte(0), 7);
        let outer = messages[0].attributes(4);
        assert_eq!(outer.keys().copied().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(attributes(outer[&3]), BTreeMap::from([(1, &b"abc\0"[..]), (2, &[9][..])]));
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
