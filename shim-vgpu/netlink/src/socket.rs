//! Asking the kernel. Its answers are whole when a call returns: rtnetlink and nfnetlink answer within send(2).

use std::{io, os::fd::OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The kernel's parts of a dump are of 32 KiB at most. Source: Linux, `net/netlink/af_netlink.c`, `netlink_recvmsg`.
const ANSWER_BYTES: usize = 64 << 10;
/// How often a dump is begun again that a change has cut across.
const TRIES: u32 = 8;

/// rtnetlink's socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Rtnetlink(pub(crate) Socket);

impl Rtnetlink {
    /// Opens it.
    /// # Errors
    /// socket(2)'s.
    pub fn open() -> io::Result<Self> {
        // No protocol is NETLINK_ROUTE.
        Socket::open(None).map(Rtnetlink)
    }

    /// All that there is of a kind, as of one moment.
    /// # Errors
    /// The kernel's, or it changes without a pause.
    pub fn dump(&mut self, what: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.0.dump(what)
    }

    /// Has the kernel do something. `flags` are `NLM_F_…` of what is to be there already.
    /// # Errors
    /// The kernel's.
    pub fn ask(&mut self, what: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.0.exchange(what, NLM_F_ACK | flags).map(drop)
    }
}

/// A netlink socket, of whichever protocol.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What a protocol asks and answers.
pub(crate) trait Message: NetlinkSerializable + NetlinkDeserializable + Clone {}

impl<M: NetlinkSerializable + NetlinkDeserializable + Clone> Message for M {}

/// What came as an answer to one request.
#[derive(Debug)]
pub(crate) struct Answer<M> {
    messages: Vec<M>,
    /// Something changed while it was put together.
    torn: bool,
}

impl Socket {
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let kind = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = rustix::net::socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, protocol)?;
        Ok(Socket { socket, sequence: 0, buffer: vec![0; ANSWER_BYTES] })
    }

    pub(crate) fn dump<M: Message>(&mut self, what: &M) -> io::Result<Vec<M>> {
        for _ in 0..TRIES {
            let answer = self.exchange(what.clone(), NLM_F_DUMP)?;
            if !answer.torn {
                return Ok(answer.messages);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the network changes without a pause"))
    }

    fn exchange<M: Message>(&mut self, what: M, flags: u16) -> io::Result<Answer<M>> {
        self.send([(what, flags)])?;
        self.receive()
    }

    /// Sends messages as one, with what each is flagged as beside a request.
    pub(crate) fn send<M: Message>(&mut self, all: impl IntoIterator<Item = (M, u16)>) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for (what, flags) in all {
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            header.sequence_number = self.sequence;
            let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(what));
            request.finalize();
            let at = bytes.len();
            bytes.resize(at + request.buffer_len(), 0);
            request.serialize(&mut bytes[at..]);
        }
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    pub(crate) fn receive<M: Message>(&mut self) -> io::Result<Answer<M>> {
        let mut answer = Answer { messages: Vec::new(), torn: false };
        loop {
            let (_, length) = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC)?;
            let mut rest = self.buffer.get(..length).ok_or(io::ErrorKind::OutOfMemory)?;
            while !rest.is_empty() {
                let message = NetlinkMessage::<M>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                // Each begins at a multiple of four bytes. The parser saw to it that none is shorter than its header.
                let length = usize::try_from(message.header.length).map_err(io::Error::other)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if message.header.sequence_number == self.sequence && take(message, &mut answer)? {
                    return Ok(answer);
                }
            }
        }
    }
}

/// Takes a message of an answer. True: it was the last.
fn take<M: Message>(message: NetlinkMessage<M>, answer: &mut Answer<M>) -> io::Result<bool> {
    answer.torn |= message.header.flags & NLM_F_DUMP_INTR != 0;
    match message.payload {
        NetlinkPayload::InnerMessage(message) => {
            answer.messages.push(message);
            Ok(false)
        }
        NetlinkPayload::Done(done) if done.code < 0 => {
            Err(io::Error::from_raw_os_error(done.code.saturating_neg()))
        }
        NetlinkPayload::Done(_) => Ok(true),
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        NetlinkPayload::Error(_) => Ok(true),
        NetlinkPayload::Overrun(_) => Err(io::Error::other("the kernel's answer was cut")),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    #[test]
    fn the_kernel_answers_and_says_why_not() {
        let mut netlink = Rtnetlink::open().unwrap();
        let links = netlink.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default())).unwrap();
        assert!(
            links.iter().all(|link| matches!(link, RouteNetlinkMessage::NewLink(_))) && !links.is_empty()
        );
        let mut none = LinkMessage::default();
        none.header.index = u32::from(u16::MAX);
        let error = netlink.ask(RouteNetlinkMessage::DelLink(none), 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NODEV.raw_os_error()));
    }
}
