//! What is slow to close, and who waits for it.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

/// A close waits so long for a peer that takes nothing.
const LINGER: Duration = Duration::from_secs(60);
/// A thread that is not held up has gone on by then.
pub const SOON: Duration = Duration::from_secs(20);

/// A descriptor whose last close comes back only when somebody reads at the other end, or after a minute.
pub struct Slow {
    far: TcpStream,
}

impl Slow {
    pub fn new() -> (Self, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let data = [0; 1 << 16];
        // Until neither side has room: then the end of the stream has to wait behind it.
        while rustix::io::write(&near, &data).is_ok() {}
        near.set_nonblocking(false).unwrap();
        set_socket_linger(&near, Some(LINGER)).unwrap();
        (Self { far }, near.into())
    }

    /// Lets the close come back. Returns when there is one: all that was sent has come, and the end of it.
    pub fn let_go(mut self) {
        self.far.set_read_timeout(Some(SOON)).unwrap();
        let mut bytes = [0; 1 << 16];
        while self.far.read(&mut bytes).expect("it is not closed") > 0 {}
    }
}

/// Whether what it does comes back long before the slow close does.
pub async fn is_not_held_up(what: impl Future<Output = ()>) {
    let start = Instant::now();
    what.await;
    assert!(start.elapsed() < SOON, "the runtime's only thread waited for a close");
}

#[tokio::test]
async fn a_drop_holds_up_nobody_and_a_close_is_waited_for() {
    let (slow, fd) = Slow::new();
    is_not_held_up(async { drop(Foreign::new(fd)) }).await;
    slow.let_go();

    let (slow, fd) = Slow::new();
    let closing = tokio::spawn(close([Foreign::new(fd)]));
    is_not_held_up(tokio::time::sleep(Duration::from_millis(50))).await;
    assert!(!closing.is_finished(), "it says that it is closed");
    tokio::task::spawn_blocking(|| slow.let_go()).await.unwrap();
    tokio::time::timeout(SOON, closing).await.expect("it does not come back").unwrap();
}

#[tokio::test]
async fn the_last_of_several_closes_wherever_it_is_dropped() {
    let (slow, fd) = Slow::new();
    let one = Arc::new(Foreign::new(fd));
    let other = Arc::clone(&one);
    is_not_held_up(async { drop((one, other)) }).await;
    slow.let_go();
}

#[test]
fn descriptors_are_seen_and_stay_and_a_message_without_any_has_none() {
    let (theirs, ours) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
    assert_eq!(has_descriptors(&ours).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    rustix::io::write(&theirs, &[1]).unwrap();
    assert!(!has_descriptors(&ours).unwrap());
    assert_eq!(rustix::io::read(&ours, &mut [0; 8]).unwrap(), 1, "the message is still there");
    let (reader, writer) = io::pipe().unwrap();
    send_with(&theirs, &[2], writer.into());
    for _ in 0..2 {
        assert!(has_descriptors(&ours).unwrap());
    }
    assert!(!is_hung_up(&reader), "to look has closed it");
    drop((theirs, ours));
    assert!(is_hung_up(&reader));
}

/// Sends bytes with a descriptor, which then is nowhere else.
pub fn send_with(socket: impl AsFd, bytes: &[u8], fd: OwnedFd) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
    let bytes = &[io::IoSlice::new(bytes)];
    rustix::net::sendmsg(socket, bytes, &mut control, rustix::net::SendFlags::NOSIGNAL).unwrap();
}

fn is_hung_up(reader: &io::PipeReader) -> bool {
    let mut watched = [rustix::event::PollFd::new(reader, rustix::event::PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut watched, Some(&now)).unwrap() > 0
}
