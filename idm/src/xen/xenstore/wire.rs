//! Messages of xenstored: 16 bytes of header, at most 4096 of payload. Pure.
//!
//! Source: Xen 4.20, `xen/include/public/io/xs_wire.h`, `docs/misc/xenstore.txt`. Little endian, as x86.

use std::fmt;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 16;
/// Most payload that xenstored takes or sends (`XENSTORE_PAYLOAD_MAX`).
pub(super) const PAYLOAD_BYTES_MAX: usize = 4096;
/// Most that a message of ours may have in all: what `/dev/xen/xenbus` takes, the smaller limit of the two doors.
pub(super) const REQUEST_BYTES_MAX: usize = 4096;

macro_rules! ops {
    ($($name:ident = $number:literal),* $(,)?) => {
        /// What a message asks or answers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "xenstored's own words")]
        pub enum Op { $($name = $number),* }

        impl Op {
            fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

// Those that we speak. The numbers have gaps: the rest is for toolstacks, or gone.
ops! {
    Directory = 1, Read = 2, GetPerms = 3, Watch = 4, Unwatch = 5, TransactionStart = 6, TransactionEnd = 7, GetDomainPath = 10,
    Write = 11, Mkdir = 12, Rm = 13, SetPerms = 14, WatchEvent = 15, Error = 16, IsDomainIntroduced = 17,
}

macro_rules! refusals {
    ($($name:ident $text:literal $errno:ident),* $(,)?) => {
        /// Why xenstored refused: its errno names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "errno's own words")]
        pub enum Refusal { $($name),* }

        impl Refusal {
            /// A name we don't know counts as EIO.
            fn from_name(name: &[u8]) -> Self {
                match name { $($text => Self::$name,)* _ => Self::Io }
            }

            /// The same from the kernel's own errno: `/dev/xen/xenbus` answers some requests itself.
            pub(super) fn from_errno(errno: rustix::io::Errno) -> Self {
                match errno { $(rustix::io::Errno::$errno => Self::$name,)* _ => Self::Io }
            }
        }

        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name: &[u8] = match self { $(Self::$name => $text),* };
                f.write_str(std::str::from_utf8(name).unwrap_or("EIO"))
            }
        }
    };
}

refusals! {
    Invalid b"EINVAL" INVAL, Access b"EACCES" ACCESS, Exists b"EEXIST" EXIST, IsDirectory b"EISDIR" ISDIR, Missing b"ENOENT" NOENT,
    Memory b"ENOMEM" NOMEM, Space b"ENOSPC" NOSPC, Io b"EIO" IO, NotEmpty b"ENOTEMPTY" NOTEMPTY, Unknown b"ENOSYS" NOSYS,
    ReadOnly b"EROFS" ROFS, Busy b"EBUSY" BUSY, Again b"EAGAIN" AGAIN, Connected b"EISCONN" ISCONN, TooBig b"E2BIG" TOOBIG,
    Permission b"EPERM" PERM, Quota b"EQUOTA" DQUOT,
}

/// A message from xenstored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub op: Op,
    pub request: u32,
    pub transaction: u32,
    pub payload: Vec<u8>,
}

impl Message {
    /// What it says of a request `op` in `transaction`.
    ///
    /// # Errors
    /// `Err(Ok(refusal))`: xenstored said no. `Err(Err(why))`: it answered something else than was asked.
    pub(super) fn answer_to(
        self,
        op: Op,
        transaction: u32,
    ) -> Result<Vec<u8>, Result<Refusal, &'static str>> {
        if self.op == Op::Error {
            let name = self.payload.strip_suffix(b"\0").unwrap_or(&self.payload);
            return Err(Ok(Refusal::from_name(name)));
        }
        if self.op != op {
            return Err(Err("an answer of another type"));
        }
        // xenstored answers TRANSACTION_START with the new id in the payload and 0, or what was sent, in the header.
        if self.transaction != transaction && op != Op::TransactionStart {
            return Err(Err("an answer of another transaction"));
        }
        Ok(self.payload)
    }
}

/// A request, whole, so that one write sends it. `None`: too long.
pub(super) fn request(op: Op, request: u32, transaction: u32, payload: &[&[u8]]) -> Option<Vec<u8>> {
    let payload_bytes: usize = payload.iter().map(|part| part.len()).sum();
    if HEADER_BYTES + payload_bytes > REQUEST_BYTES_MAX {
        return None;
    }
    let mut message = Vec::with_capacity(HEADER_BYTES + payload_bytes);
    for word in [op as u32, request, transaction, u32::try_from(payload_bytes).ok()?] {
        message.extend(word.to_le_bytes());
    }
    payload.iter().for_each(|part| message.extend(*part));
    Some(message)
}

/// Puts messages together from the pieces that arrive. Holds at most one message and one piece.
#[derive(Debug, Default)]
pub(super) struct Decoder(Vec<u8>);

impl Decoder {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// What is wrong with the bytes. There is no way back into step: the connection has to end.
    pub(super) fn next(&mut self) -> Result<Option<Message>, &'static str> {
        let Some(header) = self.0.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let word = |n: usize| u32::from_le_bytes([header[n], header[n + 1], header[n + 2], header[n + 3]]);
        let (number, request, transaction, payload_bytes) = (word(0), word(4), word(8), word(12) as usize);
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err("a message of more than 4096 bytes");
        }
        if self.0.len() < HEADER_BYTES + payload_bytes {
            return Ok(None);
        }
        let op = Op::from_number(number).ok_or("a message of a type we never ask for")?;
        let payload = self.0[HEADER_BYTES..HEADER_BYTES + payload_bytes].to_vec();
        self.0.drain(..HEADER_BYTES + payload_bytes);
        Ok(Some(Message { op, request, transaction, payload }))
    }
}

/// The strings of a payload that is a list of them, each closed by a NUL.
pub(super) fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    payload.split_inclusive(|&byte| byte == 0).map(|text| text.strip_suffix(b"\0").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(op: u32, request: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
        let words = [op, request, transaction, u32::try_from(payload.len()).unwrap()];
        words.iter().flat_map(|word| word.to_le_bytes()).chain(payload.iter().copied()).collect()
    }

    #[test]
    fn a_request_is_the_bytes_of_the_protocol() {
        let request = request(Op::Write, 7, 9, &[b"a/b", b"\0", b"value"]).unwrap();
        assert_eq!(request, bytes(11, 7, 9, b"a/b\0value"));
    }

    #[test]
    fn a_request_that_either_door_would_refuse_is_not_made() {
        let fits = [0; REQUEST_BYTES_MAX - HEADER_BYTES];
        assert!(request(Op::Write, 1, 0, &[&fits]).is_some());
        assert!(request(Op::Write, 1, 0, &[&fits, b"x"]).is_none());
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_arrive() {
        let stream =
            [bytes(2, 1, 0, b"value"), bytes(15, 0, 0, b"path\0token\0"), bytes(13, 2, 0, b"")].concat();
        for piece in [1, 3, 16, 17, stream.len()] {
            let mut decoder = Decoder::default();
            let mut messages = Vec::new();
            for part in stream.chunks(piece) {
                decoder.push(part);
                while let Some(message) = decoder.next().unwrap() {
                    messages.push((message.op, message.request, message.payload));
                }
            }
            assert_eq!(
                messages,
                [
                    (Op::Read, 1, b"value".to_vec()),
                    (Op::WatchEvent, 0, b"path\0token\0".to_vec()),
                    (Op::Rm, 2, Vec::new())
                ],
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn a_message_that_claims_too_much_or_is_unknown_ends_it() {
        for bad in [
            [2_u32, 1, 0, 4097].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>(),
            [2_u32, 1, 0, u32::MAX].iter().flat_map(|word| word.to_le_bytes()).collect(),
            bytes(99, 1, 0, b""),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(&bad);
            assert!(decoder.next().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn answers_are_held_against_what_was_asked() {
        let message = |op| Message { op, request: 1, transaction: 4, payload: b"ENOENT\0".to_vec() };
        assert_eq!(message(Op::Error).answer_to(Op::Read, 4), Err(Ok(Refusal::Missing)));
        assert!(matches!(message(Op::Rm).answer_to(Op::Read, 4), Err(Err(_))));
        assert!(matches!(message(Op::Read).answer_to(Op::Read, 5), Err(Err(_))));
        assert!(message(Op::Read).answer_to(Op::Read, 4).is_ok());
        let odd = Message { op: Op::Error, request: 1, transaction: 0, payload: b"\xffEWHAT".to_vec() };
        assert_eq!(odd.answer_to(Op::Read, 0), Err(Ok(Refusal::Io)));
    }

    #[test]
    fn lists_are_split_at_their_nuls() {
        let list = |payload: &'static [u8]| strings(payload).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(list(b""), Vec::<Vec<u8>>::new());
        assert_eq!(list(b"a\0bc\0"), [b"a".to_vec(), b"bc".to_vec()]);
        assert_eq!(list(b"open"), [b"open".to_vec()]);
    }

    proptest::proptest! {
        /// Whatever xenstored sends, in whatever pieces: messages or an end, never a panic, never more kept than a message and a piece.
        #[test]
        fn any_bytes_are_messages_or_an_end(pieces in proptest::collection::vec(proptest::collection::vec(0_u8..20, 0..40), 0..60)) {
            let mut decoder = Decoder::default();
            'stream: for piece in &pieces {
                decoder.push(piece);
                loop {
                    match decoder.next() {
                        Ok(Some(message)) => assert!(message.payload.len() <= PAYLOAD_BYTES_MAX),
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
                assert!(decoder.0.len() < HEADER_BYTES + PAYLOAD_BYTES_MAX);
            }
        }
    }
}
