//! kill -9 of a process in the middle of a stream, at any byte, both directions busy: the other side gets every byte that was sent, in order,
//! and then hears of the death at once.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use idm::doorbell::eventfd_pair;
use idm::region::sealed_memory;
use idm::stream::{Side, Stream, StreamParts, StreamSpec};
use idm::{ChannelError, Doorbell, Liveness, Peer, Region, Waiter};
use proptest::prelude::*;
use proptest::test_runner::Config;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// A limit that only a lost wake-up reaches.
const LIMIT: Option<Duration> = Some(Duration::from_secs(30));
/// Set in the child process: the socket, and the sizes of the rings.
const PLACE: &str = "IDM_TEST_SOCKET";
const RINGS: &str = "IDM_TEST_RINGS";

fn spec(logs: (u32, u32)) -> StreamSpec {
    StreamSpec { to_taker_bytes: 1 << logs.0, to_maker_bytes: 1 << logs.1 }
}

/// What the child sends: its bytes count up.
fn counting(from: usize, count: usize) -> impl Iterator<Item = u8> {
    (from..from + count).map(|at| at.to_le_bytes()[0])
}

fn stream(spec: StreamSpec, side: Side, socket: UnixStream, [memory, bell, ear]: [OwnedFd; 3]) -> Stream {
    let region = Arc::new(Region::map(memory, spec.region_bytes()).unwrap());
    let (waiter, doorbell) = (Waiter::EventFd(ear), Doorbell::EventFd(bell));
    let liveness = Some(Liveness::socket(socket.into()));
    Stream::new(StreamParts { region, spec, side, peer: Peer::Server, waiter, doorbell, liveness }).unwrap()
}

fn give(socket: &UnixStream, fds: [BorrowedFd<'_>; 3]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
}

fn take(socket: &UnixStream) -> [OwnedFd; 3] {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .unwrap();
    let fds = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    fds.collect::<Vec<_>>().try_into().unwrap()
}

/// The child: takes the pages, sends and receives until it is killed.
fn send_and_receive_without_end(socket: &Path) {
    let rings = std::env::var(RINGS).unwrap();
    let (a, b) = rings.split_once(' ').unwrap();
    let socket = UnixStream::connect(socket).unwrap();
    let fds = take(&socket);
    let stream = stream(spec((a.parse().unwrap(), b.parse().unwrap())), Side::Taker, socket, fds);
    let reader = stream.clone();
    std::thread::spawn(move || while reader.read(&mut [0; 3000], LIMIT).is_ok() {});
    let mut sent = 0;
    loop {
        let bytes: Vec<u8> = counting(sent, 1000).collect();
        if stream.write_all(&bytes, LIMIT).is_err() {
            return;
        }
        sent += bytes.len();
    }
}

/// Starts this test once more as the child, and gives it a stream.
fn start(logs: (u32, u32)) -> (Child, Stream) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stream.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let rings = format!("{} {}", logs.0, logs.1);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_is_killed_anywhere_is_noticed_at_once_and_its_bytes_are_whole"])
        .env(PLACE, &path)
        .env(RINGS, rings)
        .spawn()
        .unwrap();
    let (socket, _) = listener.accept().unwrap();
    let memory = sealed_memory("killed", spec(logs).region_bytes()).unwrap();
    let ((to_child, child_hears), (to_us, we_hear)) = (eventfd_pair().unwrap(), eventfd_pair().unwrap());
    let twin = memory.try_clone().unwrap();
    // The maker attaches before the taker is told of the pages.
    let ours = stream(spec(logs), Side::Maker, socket.try_clone().unwrap(), [twin, to_child, we_hear]);
    give(&socket, [memory.as_fd(), to_us.as_fd(), child_hears.as_fd()]);
    (child, ours)
}

/// Reads until the child's end; kills it once `kill_after` bytes have come. Returns why it ended and how long after the kill.
fn read_and_kill(stream: &Stream, child: &mut Child, kill_after: usize) -> (ChannelError, Duration) {
    let (mut got, mut to, mut killed) = (0, [0; 1500], None);
    loop {
        if killed.is_none() && got >= kill_after {
            child.kill().unwrap();
            child.wait().unwrap();
            killed = Some(Instant::now());
        }
        match stream.read(&mut to, LIMIT) {
            Ok(0) => panic!("an end that the child never sent"),
            Ok(count) => {
                assert!(to[..count].iter().copied().eq(counting(got, count)), "other bytes after {got}");
                got += count;
            }
            Err(error) => return (error, killed.expect("it ended before it was killed").elapsed()),
        }
    }
}

#[test]
fn a_process_that_is_killed_anywhere_is_noticed_at_once_and_its_bytes_are_whole() {
    if let Some(socket) = std::env::var_os(PLACE) {
        return send_and_receive_without_end(Path::new(&socket));
    }
    let config = Config { cases: 12, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    proptest!(config, |(logs in (12..=18u32, 12..=18u32), kill_after in 0..2_000_000usize)| {
        let (mut child, stream) = start(logs);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| loop {
                if let Err(error) = stream.write_all(&[7; 900], LIMIT) {
                    return error;
                }
            });
            let (error, after) = read_and_kill(&stream, &mut child, kill_after);
            prop_assert_eq!(error, ChannelError::PeerGone(Peer::Server));
            prop_assert!(after < Duration::from_secs(1), "{after:?}");
            prop_assert_eq!(writer.join().unwrap(), ChannelError::PeerGone(Peer::Server));
            Ok(())
        })?;
    });
}
