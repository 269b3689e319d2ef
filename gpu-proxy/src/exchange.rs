//! What a worker and the supervisor say to each other about memory that processes of one zone share, over a socket of its own: a question
//! of the worker's, then an answer, each of fixed length, each with at most one descriptor.
//!
//! ```text
//! question: 0 what u32 | 4 device u32 | 8 bytes u64 | 16 token      answer: 0 CUresult u32 | 4 device u32 | 8 bytes u64 | 16 token
//! ```
//! A device is one of the worker's own, by its number there; 0 where none is meant.
//! The supervisor knows who asks by the socket. A worker counts as taken over by its guest: its questions may be anything.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use vgpu_api::{CuError, CuResult, Token};

/// Bytes of a question and of an answer.
const MESSAGE_BYTES: usize = 32;

/// What a worker asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Others may have memory of this one, of so many bytes: the descriptor that comes with it. Without one the supervisor makes memory
    /// of the host and gives it.
    Put {
        /// Its length.
        bytes: u64,
        /// Where it lies.
        device: u32,
    },
    /// Gives what another one has put.
    Get(Token),
    /// This one has no more what it put.
    LetGo(Token),
    /// This one has no more what it got once.
    Close(Token),
    /// Others may have an event of this one: its seat in the zone's board, which the answer tells in the place of a length.
    PutEvent,
    /// Another seat of an event that a worker has put.
    GetEvent(Token),
    /// This one has no more a seat of an event.
    CloseEvent(Token, u64),
    /// Gives the zone's board of events.
    Board,
    /// Others may have a pool of this one's, of that device.
    PutPool(u32),
    /// Which device a pool is of that another one has put.
    GetPool(Token),
    /// This one has no more the pool that it put.
    LetGoPool(Token),
}

/// The answer to a question that was not refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Length of what was asked for.
    pub bytes: u64,
    /// Where it lies.
    pub device: u32,
    /// Names what was put.
    pub token: Token,
}

impl Question {
    fn encode(self) -> [u8; MESSAGE_BYTES] {
        let none = Token::default();
        match self {
            Self::Put { bytes, device } => message(1, device, bytes, none),
            Self::Get(token) => message(2, 0, 0, token),
            Self::LetGo(token) => message(3, 0, 0, token),
            Self::Close(token) => message(4, 0, 0, token),
            Self::PutEvent => message(5, 0, 0, none),
            Self::GetEvent(token) => message(6, 0, 0, token),
            Self::Board => message(7, 0, 0, none),
            Self::CloseEvent(token, seat) => message(8, 0, seat, token),
            Self::PutPool(device) => message(9, device, 0, none),
            Self::GetPool(token) => message(10, 0, 0, token),
            Self::LetGoPool(token) => message(11, 0, 0, token),
        }
    }

    fn decode(message: &[u8; MESSAGE_BYTES]) -> Option<Self> {
        let (what, device, bytes, token) = parts(message);
        match what {
            1 => Some(Self::Put { bytes, device }),
            2 => Some(Self::Get(token)),
            3 => Some(Self::LetGo(token)),
            4 => Some(Self::Close(token)),
            5 => Some(Self::PutEvent),
            6 => Some(Self::GetEvent(token)),
            7 => Some(Self::Board),
            8 => Some(Self::CloseEvent(token, bytes)),
            9 => Some(Self::PutPool(device)),
            10 => Some(Self::GetPool(token)),
            11 => Some(Self::LetGoPool(token)),
            _ => None,
        }
    }
}

fn message(word: u32, device: u32, bytes: u64, Token(token): Token) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[..4].copy_from_slice(&word.to_le_bytes());
    message[4..8].copy_from_slice(&device.to_le_bytes());
    message[8..16].copy_from_slice(&bytes.to_le_bytes());
    message[16..].copy_from_slice(&token);
    message
}

fn parts(message: &[u8; MESSAGE_BYTES]) -> (u32, u32, u64, Token) {
    let [a, b, c, d, m, n, o, p, e, f, g, h, i, j, k, l, token @ ..] = *message;
    let [word, device] = [[a, b, c, d], [m, n, o, p]].map(u32::from_le_bytes);
    (word, device, u64::from_le_bytes([e, f, g, h, i, j, k, l]), Token(token))
}

/// Asks and waits for the answer. The supervisor answers at once.
///
/// # Errors
/// The supervisor's refusal; 46 when it is gone.
pub fn ask(
    socket: impl AsFd,
    question: Question,
    fd: Option<OwnedFd>,
) -> CuResult<(Answer, Option<OwnedFd>)> {
    let gone = |_| CuError::DEVICE_UNAVAILABLE;
    send(&socket, &question.encode(), fd).map_err(gone)?;
    let (answer, fd) = receive(&socket).map_err(gone)?;
    let (code, device, bytes, token) = parts(&answer);
    CuError::check(code)?;
    Ok((Answer { bytes, device, token }, fd))
}

/// The next question, and what came with it. Does not wait on a socket that is told not to.
///
/// # Errors
/// What the system says; `UnexpectedEof` when the worker is gone, `InvalidData` for what is no question.
pub fn asked(socket: impl AsFd) -> io::Result<(Question, Option<OwnedFd>)> {
    let (message, fd) = receive(socket)?;
    Ok((Question::decode(&message).ok_or(io::ErrorKind::InvalidData)?, fd))
}

/// Answers a question.
///
/// # Errors
/// What the system says.
pub fn answer(socket: impl AsFd, answer: CuResult<(Answer, Option<impl AsFd>)>) -> io::Result<()> {
    match answer {
        Ok((Answer { bytes, device, token }, fd)) => send(socket, &message(0, device, bytes, token), fd),
        Err(error) => send(socket, &message(error.code(), 0, 0, Token::default()), None::<OwnedFd>),
    }
}

fn send(socket: impl AsFd, message: &[u8; MESSAGE_BYTES], fd: Option<impl AsFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_ref().map(|fd| [fd.as_fd()]);
    if let Some(fds) = &fds
        && !control.push(SendAncillaryMessage::ScmRights(fds))
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == MESSAGE_BYTES { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn receive(socket: impl AsFd) -> io::Result<([u8; MESSAGE_BYTES], Option<OwnedFd>)> {
    let mut message = [0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut message)];
    let received = rustix::net::recvmsg(socket, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    // There may be room for a second one.
    let mut fds: Vec<_> = rights.flatten().collect();
    let is_cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    match received.bytes {
        0 if fds.is_empty() && !is_cut => Err(io::ErrorKind::UnexpectedEof.into()),
        MESSAGE_BYTES if fds.len() <= 1 && !is_cut => Ok((message, fds.pop())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn questions_and_answers_come_as_they_were_sent_with_what_is_beside_them() {
        let (worker, supervisor) = pair();
        let token = Token([7; 16]);
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        for (question, fd) in [
            (Question::Put { bytes: 1 << 40, device: 6 }, Some(writer)),
            (Question::Get(token), None),
            (Question::LetGo(token), None),
            (Question::Close(token), None),
            (Question::PutEvent, None),
            (Question::GetEvent(token), None),
            (Question::Board, None),
            (Question::CloseEvent(token, 17), None),
            (Question::PutPool(7), None),
            (Question::GetPool(token), None),
            (Question::LetGoPool(token), None),
        ] {
            let with = fd.is_some();
            send(&worker, &question.encode(), fd).unwrap();
            let (got, fd) = asked(&supervisor).unwrap();
            assert_eq!((got, fd.is_some()), (question, with));
            answer(&supervisor, Ok((Answer { bytes: 5, device: 3, token }, fd))).unwrap();
            let (got, fd) = receive(&worker).unwrap();
            assert_eq!((parts(&got), fd.is_some()), ((0, 3, 5, token), with));
        }
        answer(&supervisor, Err::<(_, Option<OwnedFd>), _>(CuError::OUT_OF_MEMORY)).unwrap();
        assert_eq!(ask(&worker, Question::Get(token), None).unwrap_err(), CuError::OUT_OF_MEMORY);
        drop(supervisor);
        assert_eq!(ask(&worker, Question::Get(token), None).unwrap_err(), CuError::DEVICE_UNAVAILABLE);
    }

    #[test]
    fn what_is_no_question_is_told_from_one() {
        let (worker, supervisor) = pair();
        let whole = Question::Get(Token([1; 16])).encode();
        let after_the_last = Question::LetGoPool(Token::default()).encode()[0] + 1;
        let mut no_number = whole;
        no_number[0] = after_the_last;
        for bad in [&whole[..31], &[&whole[..], &[0]].concat(), &[0; 32], &no_number, &[1]] {
            rustix::net::send(&worker, bad, SendFlags::empty()).unwrap();
            assert_eq!(asked(&supervisor).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bad:?}");
        }
        // More descriptors than any question has.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [reader.as_fd(), writer.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(&worker, &[IoSlice::new(&whole)], &mut control, SendFlags::empty()).unwrap();
        assert_eq!(asked(&supervisor).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(worker);
        assert_eq!(asked(&supervisor).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
