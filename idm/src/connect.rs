//! How two processes come to share a GPU channel: the `local` transport, and the last step of the `xen` one.
//!
//! ```text
//! program                                    server: gpu-proxy, or guest-init in a pod
//! connect ── hello (64 bytes) ─────────────▶ accept, judge the hello, have a channel made
//!         ◀─ hello, sizes or a refusal ────  answer
//!            + memory, bell, ear, an arena if there is one (SCM_RIGHTS)
//! ```
//! The socket then stays open and silent: its end is the death of the other side. The program cannot tell which of the two served
//! it. A question ([`ask`], [`tell`]) goes the same way, but its answer is bytes: no channel is made, and the socket ends with it.
//! Blocking, without threads, each step within its limit however slowly the other side drips; a server calls [`greet`] and [`answer`]
//! where it likes. Not here: who may connect.
//!
//! The program maps the region wherever the kernel likes, and the arena at the address that both sides use (`arena.rs`).

mod message;

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::arena::Arena;
use crate::doorbell::{Doorbell, Waiter, eventfd_pair};
use crate::error::{ChannelError, Peer};
use crate::hello::{Agreed, HELLO_BYTES, Hello};
use crate::life::Liveness;
use crate::record::{ChannelParts, RegionSpec, Submitter, make_region};
use crate::region::{Region, check_memory};
use message::{read_length, read_offer, receive, receive_answer, send, split};

/// The answer after the hello: `u16 code, u16 0, u32 ring, u32 staging, u32 record limit, u64 arena bytes, u32 1 for one that is kept`
/// and 4 reserved bytes, little endian. To a question: `u16 code, u16 0, u32 length` and 24 reserved bytes, then so many bytes.
const OFFER_BYTES: usize = 32;
const ANSWER_BYTES: usize = HELLO_BYTES + OFFER_BYTES;
/// Descriptors that go with an answer at most: the memory, the bell that the program rings, the ear it listens on, the arena's memory.
const FDS: usize = 4;

/// What the program gets: everything of its side of a channel.
#[derive(Debug)]
pub struct ProgramEnd {
    /// The region.
    pub memory: OwnedFd,
    /// What the program rings.
    pub bell: OwnedFd,
    /// What the program waits on.
    pub ear: OwnedFd,
    /// Its arena, if it gets one: never a program whose hello is older than [`crate::arena::SINCE_MINOR`], nor one that
    /// is kept a program older than [`crate::arena::KEPT_SINCE_MINOR`].
    pub arena: Option<Arena>,
}

/// What a program has after [`connect`].
#[derive(Debug)]
pub struct Connected {
    /// Its side of the channel.
    pub submitter: Submitter,
    /// What both sides hold to.
    pub agreed: Agreed,
    /// Its arena, if the server gave one. Not mapped.
    pub arena: Option<Arena>,
}

/// What stays with the server, to be handed to a worker or pumped to another domain.
#[derive(Debug)]
pub struct ServerEnd {
    /// The region.
    pub memory: OwnedFd,
    /// What the server rings.
    pub bell: OwnedFd,
    /// What the server waits on.
    pub ear: OwnedFd,
}

/// The process at the other end of a socket.
///
/// # Errors
/// Those of `getsockopt`.
pub fn peer_of(socket: impl AsFd) -> Result<Peer, ChannelError> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)
        .map_err(ChannelError::system("read a peer's credentials"))?;
    Ok(Peer::Process(credentials.pid.as_raw_nonzero().get()))
}

/// Connects a program. Waits at most `limit` for each step.
///
/// # Errors
/// [`ChannelError::System`] when nobody listens, [`ChannelError::Refused`] with the reason of the server, [`ChannelError::TimedOut`] when it
/// says nothing, and the errors of [`Hello::meet`].
pub fn connect(path: &Path, hello: &Hello, limit: Duration) -> Result<Connected, ChannelError> {
    let socket = reach(path, limit)?;
    send(&socket, &hello.encode(), &[])?;

    let (bytes, fds) = receive_answer(&socket, limit)?;
    let (theirs, offer) = split(&bytes);
    let agreed = hello.meet(&Hello::parse(theirs, Peer::Server)?, Peer::Server)?;
    let (spec, arena_bytes, is_kept) = read_offer(offer)?;
    let mut fds = fds.into_iter();
    let (Some(memory), Some(bell), Some(ear), arena, None) =
        (fds.next(), fds.next(), fds.next(), fds.next(), fds.next())
    else {
        return Err(ChannelError::PeerOffer { peer: Peer::Server, what: "another number of descriptors" });
    };
    let arena = match (arena, arena_bytes) {
        (None, 0) => None,
        (Some(memory), bytes) if bytes > 0 => {
            Some(Arena::received(memory, bytes, Peer::Server)?.kept(is_kept))
        }
        _ => {
            return Err(ChannelError::PeerOffer {
                peer: Peer::Server,
                what: "an arena without memory, or the other way round",
            });
        }
    };
    let region_bytes = spec.region_bytes()?;
    check_memory(&memory, region_bytes, Peer::Server)?;
    let region = Region::map(&memory, region_bytes).map_err(ChannelError::system("map the region"))?;
    let parts = ChannelParts {
        region: Arc::new(region),
        spec,
        peer: Peer::Server,
        waiter: Waiter::EventFd(ear),
        doorbell: Doorbell::EventFd(bell),
        liveness: Some(Liveness::socket(socket.into())),
    };
    Ok(Connected { submitter: Submitter::from_parts(parts)?, agreed, arena })
}

/// Asks a question whose answer is bytes; what is asked stands in the hello as the application. At most `bytes_max` are taken. Waits
/// at most `limit` for each step.
///
/// # Errors
/// Those of [`connect`], and [`ChannelError::PeerOffer`] for an answer that is too long.
pub fn ask(
    path: &Path,
    hello: &Hello,
    bytes_max: usize,
    limit: Duration,
) -> Result<(Vec<u8>, Agreed), ChannelError> {
    let socket = reach(path, limit)?;
    send(&socket, &hello.encode(), &[])?;

    let (bytes, _) = receive_answer(&socket, limit)?;
    let (theirs, offer) = split(&bytes);
    let agreed = hello.meet(&Hello::parse(theirs, Peer::Server)?, Peer::Server)?;
    let length = read_length(offer)?;
    if length > bytes_max {
        return Err(ChannelError::PeerOffer { peer: Peer::Server, what: "an answer that is too long" });
    }
    let mut told = vec![0; length];
    receive(&socket, &mut told, limit)?;
    Ok((told, agreed))
}

/// A connected socket whose sending is limited too. A server that listens and never accepts would else hold its programs for ever.
///
/// # Errors
/// [`ChannelError::System`] when nobody listens, [`ChannelError::TimedOut`].
pub fn reach(path: &Path, limit: Duration) -> Result<UnixStream, ChannelError> {
    let connecting = "connect to the GPU socket";
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.map_err(ChannelError::system(connecting))?;
    let address = SocketAddrUnix::new(path).map_err(ChannelError::system(connecting))?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ChannelError::TimedOut { peer: Peer::Server, what: "a connection", limit });
        }
        set_socket_timeout(&socket, Timeout::Send, Some(left))
            .map_err(ChannelError::system("limit the socket"))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket.into()),
            // A signal handler of the program, a profiler's, makes it neither fail nor wait longer.
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(ChannelError::system(connecting)(errno)),
        }
    }
}

/// The server's first step: reads the program's hello. The caller judges it, [`answer`]s or [`refuse`]s.
///
/// # Errors
/// [`ChannelError::PeerMagic`], [`ChannelError::PeerGone`], [`ChannelError::TimedOut`].
pub fn greet(mut socket: &UnixStream, peer: Peer, limit: Duration) -> Result<Hello, ChannelError> {
    let deadline = Instant::now() + limit;
    let mut bytes = [0; HELLO_BYTES];
    let mut done = 0;
    while done < HELLO_BYTES {
        if !limit_reading(socket, deadline)? {
            return Err(ChannelError::TimedOut { peer, what: "the hello", limit });
        }
        match socket.read(&mut bytes[done..]) {
            Ok(0) => return Err(ChannelError::PeerGone(peer)),
            Ok(count) => done += count,
            Err(e) => match e.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                io::ErrorKind::ConnectionReset => return Err(ChannelError::PeerGone(peer)),
                _ => return Err(ChannelError::system("read the hello")(e)),
            },
        }
    }
    Hello::parse(&bytes, peer)
}

/// Lets the next read wait until `deadline`; false when that has come.
fn limit_reading(socket: &UnixStream, deadline: Instant) -> Result<bool, ChannelError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(false);
    }
    socket.set_read_timeout(Some(left)).map_err(ChannelError::system("limit the socket"))?;
    Ok(true)
}

/// Makes the memory and the bells of a channel between two processes, without an arena.
///
/// # Errors
/// [`ChannelError::Layout`], and those of the system calls.
pub fn make_ends(spec: &RegionSpec) -> Result<(ProgramEnd, ServerEnd), ChannelError> {
    let memory = make_region(spec)?;
    let twin =
        rustix::io::fcntl_dupfd_cloexec(&memory, 0).map_err(ChannelError::system("copy a descriptor"))?;
    let (to_server, server_hears) = eventfd_pair().map_err(ChannelError::system("make an eventfd"))?;
    let (to_program, program_hears) = eventfd_pair().map_err(ChannelError::system("make an eventfd"))?;
    Ok((
        ProgramEnd { memory, bell: to_server, ear: program_hears, arena: None },
        ServerEnd { memory: twin, bell: to_program, ear: server_hears },
    ))
}

/// Hands the program its end. The socket stays open from here on: [`Liveness::socket`].
///
/// # Errors
/// [`ChannelError::PeerGone`], and those of the socket.
pub fn answer(
    socket: impl AsFd,
    peer: Peer,
    hello: &Hello,
    spec: &RegionSpec,
    end: &ProgramEnd,
) -> Result<(), ChannelError> {
    let mut fds = vec![end.memory.as_fd(), end.bell.as_fd(), end.ear.as_fd()];
    fds.extend(end.arena.iter().map(|arena| arena.memory().as_fd()));
    send_answer(socket, peer, hello, (0, spec, end.arena.as_ref()), &fds)
}

/// Answers a question. The whole answer has to fit into the socket's buffer: nobody waits for a program that does not read.
///
/// # Errors
/// [`ChannelError::PeerGone`], and those of the socket.
pub fn tell(socket: impl AsFd, peer: Peer, hello: &Hello, told: &[u8]) -> Result<(), ChannelError> {
    let length =
        u32::try_from(told.len()).map_err(|_| ChannelError::system("answer a question")(Errno::MSGSIZE))?;
    let mut bytes = [hello.encode().as_slice(), &[0; OFFER_BYTES], told].concat();
    bytes[HELLO_BYTES + 4..][..4].copy_from_slice(&length.to_le_bytes());
    send(socket, &bytes, &[]).map_err(|error| of_peer(error, peer))
}

/// Tells the program why not: `code` is the number of a `VGPU-nnn`.
///
/// # Errors
/// [`ChannelError::PeerGone`], and those of the socket.
pub fn refuse(socket: impl AsFd, peer: Peer, hello: &Hello, code: u16) -> Result<(), ChannelError> {
    send_answer(socket, peer, hello, (code, &RegionSpec::default(), None), &[])
}

impl ServerEnd {
    /// The consumer's side of it, in the process that serves the program. `liveness` is the program's socket.
    ///
    /// # Errors
    /// [`ChannelError::Layout`], and those of `mmap`.
    pub fn into_parts(
        self,
        spec: RegionSpec,
        peer: Peer,
        liveness: Option<Liveness>,
    ) -> Result<ChannelParts, ChannelError> {
        let bytes = spec.region_bytes()?;
        let region = Region::map(&self.memory, bytes).map_err(ChannelError::system("map the region"))?;
        Ok(ChannelParts {
            region: Arc::new(region),
            spec,
            peer,
            waiter: Waiter::EventFd(self.ear),
            doorbell: Doorbell::EventFd(self.bell),
            liveness,
        })
    }
}

fn send_answer(
    socket: impl AsFd,
    peer: Peer,
    hello: &Hello,
    (code, spec, arena): (u16, &RegionSpec, Option<&Arena>),
    fds: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let mut bytes = [0; ANSWER_BYTES];
    bytes[..HELLO_BYTES].copy_from_slice(&hello.encode());
    let offer = &mut bytes[HELLO_BYTES..];
    offer[0..2].copy_from_slice(&code.to_le_bytes());
    offer[4..8].copy_from_slice(&spec.ring_bytes.to_le_bytes());
    offer[8..12].copy_from_slice(&spec.staging_bytes.to_le_bytes());
    offer[12..16].copy_from_slice(&spec.record_limit.to_le_bytes());
    if let Some(arena) = arena {
        offer[16..24].copy_from_slice(&arena.bytes().to_le_bytes());
        offer[24..28].copy_from_slice(&u32::from(arena.is_kept()).to_le_bytes());
    }
    send(socket, &bytes, fds).map_err(|error| of_peer(error, peer))
}

fn of_peer(error: ChannelError, peer: Peer) -> ChannelError {
    match error {
        ChannelError::PeerGone(_) => ChannelError::PeerGone(peer),
        other => other,
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
