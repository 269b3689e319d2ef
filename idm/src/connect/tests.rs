use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use super::*;
use crate::arena;
use crate::record::{Consumer, Ready};

const LIMIT: Duration = Duration::from_secs(10);

fn hello() -> Hello {
    Hello::new(64 << 10, 0xc0da)
}

/// A listener in a directory of its own, and where it listens.
fn listen() -> (tempfile::TempDir, std::path::PathBuf, UnixListener) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let listener = UnixListener::bind(&path).unwrap();
    (dir, path, listener)
}

/// The next program, and who it is.
fn accept(listener: &UnixListener) -> (UnixStream, Peer) {
    let (socket, _) = listener.accept().unwrap();
    let peer = peer_of(&socket).unwrap();
    (socket, peer)
}

#[test]
fn a_program_connects_calls_and_hears_of_the_servers_death() {
    let (_dir, path, listener) = listen();
    let server = std::thread::spawn(move || {
        let (socket, peer) = accept(&listener);
        let theirs = greet(&socket, peer, LIMIT).unwrap();
        assert_eq!(theirs.application, 0xc0da);
        let spec = RegionSpec { staging_bytes: 0, ..RegionSpec::default() };
        let (program, server) = make_ends(&spec).unwrap();
        answer(&socket, peer, &hello(), &spec, &program).unwrap();
        let liveness = Liveness::socket(socket.into());
        let mut consumer =
            Consumer::from_parts(server.into_parts(spec, peer, Some(liveness)).unwrap()).unwrap();
        assert_eq!(consumer.wait(Some(LIMIT)).unwrap(), Ready::Record);
        let record = consumer.next().unwrap().unwrap();
        let (lane, seq, sum) =
            (record.lane.unwrap(), record.seq, record.payload.iter().map(|b| u32::from(*b)).sum());
        consumer.replies().reply(lane, seq, sum, b"sum").unwrap();
        peer
    });
    let Connected { submitter, agreed, arena } = connect(&path, &hello(), LIMIT).unwrap();
    assert!(arena.is_none(), "the server gave none");
    assert_eq!((agreed.peer_application, agreed.peer_build.other()), (0xc0da, None));
    let mut to = [0; 16];
    let reply = submitter.call(1, 0, &[1, 2, 3], &mut to, Some(LIMIT)).unwrap();
    assert_eq!((reply.status, &to[..reply.len]), (6, &b"sum"[..]));
    let peer = server.join().unwrap();
    assert_eq!(peer, Peer::Process(rustix::process::getpid().as_raw_nonzero().get()));
    let error = submitter.call(1, 0, &[], &mut to, Some(LIMIT)).unwrap_err();
    assert_eq!(error, ChannelError::PeerGone(Peer::Server));
}

#[test]
fn a_question_is_answered_with_bytes_and_the_socket_ends() {
    let (_dir, path, listener) = listen();
    let long = vec![7; 30_000];
    let answers = [long.clone(), Vec::new(), vec![1; 11]];
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (socket, peer) = accept(&listener);
            assert_eq!(greet(&socket, peer, LIMIT).unwrap().application, 0xc0da);
            tell(&socket, peer, &Hello { application_minor: 3, ..hello() }, &answer).unwrap();
        }
        let (socket, peer) = accept(&listener);
        greet(&socket, peer, LIMIT).unwrap();
        refuse(&socket, peer, &hello(), 320).unwrap();
    });
    let (told, agreed) = ask(&path, &Hello { application_minor: 9, ..hello() }, 30_000, LIMIT).unwrap();
    assert_eq!((told, agreed.application_minor), (long, 3));
    assert_eq!(ask(&path, &hello(), 10, LIMIT).unwrap().0, []);
    let error = ask(&path, &hello(), 10, LIMIT).unwrap_err();
    assert!(matches!(error, ChannelError::PeerOffer { .. }), "{error}");
    assert_eq!(
        ask(&path, &hello(), 10, LIMIT).unwrap_err(),
        ChannelError::Refused { peer: Peer::Server, code: 320 }
    );
    server.join().unwrap();
}

#[test]
fn a_refusal_carries_its_code() {
    let (_dir, path, listener) = listen();
    let server = std::thread::spawn(move || {
        let (socket, peer) = accept(&listener);
        greet(&socket, peer, LIMIT).unwrap();
        refuse(&socket, peer, &hello(), 401).unwrap();
    });
    assert_eq!(connect(&path, &hello(), LIMIT).unwrap_err().to_string(), "the server refused: VGPU-401");
    server.join().unwrap();
}

#[test]
fn nobody_there_and_a_server_that_hangs_up_are_clear_errors() {
    let (_dir, path, listener) = listen();
    let missing = path.with_extension("none");
    let error = connect(&missing, &hello(), LIMIT).unwrap_err();
    assert_eq!(error, ChannelError::System { doing: "connect to the GPU socket", source: Errno::NOENT });
    let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
    assert_eq!(connect(&path, &hello(), LIMIT).unwrap_err(), ChannelError::PeerGone(Peer::Server));
    server.join().unwrap();
}

#[test]
fn a_program_that_is_silent_or_drips_its_hello_is_given_up_at_the_limit() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let limit = Duration::from_millis(40);
    let error = greet(&ours, Peer::Domain(1), limit).unwrap_err();
    assert!(matches!(error, ChannelError::TimedOut { .. }));
    let dripping = std::thread::spawn(move || {
        for byte in hello().encode() {
            std::thread::sleep(limit / 4);
            if io::Write::write_all(&mut theirs, &[byte]).is_err() {
                return;
            }
        }
    });
    let error = greet(&ours, Peer::Domain(1), limit).unwrap_err();
    assert!(matches!(error, ChannelError::TimedOut { .. }));
    drop(ours);
    dripping.join().unwrap();
}

#[test]
fn a_server_that_never_accepts_or_never_answers_holds_nobody_longer_than_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    // Room for one program that waits to be accepted.
    rustix::net::listen(&listener, 0).unwrap();
    let silent = |expected| {
        let error = connect(&path, &hello(), Duration::from_millis(40)).unwrap_err();
        assert!(matches!(error, ChannelError::TimedOut { what, .. } if what == expected), "{error}");
    };
    silent("the hello");
    // The first still stands in the queue, though its program has gone.
    silent("a connection");
}

/// Connects to a server that hands over what `change` makes of an end.
fn served(change: impl FnOnce(ProgramEnd) -> ProgramEnd + Send + 'static) -> Result<Connected, ChannelError> {
    let (_dir, path, listener) = listen();
    let server = std::thread::spawn(move || {
        let (socket, peer) = accept(&listener);
        greet(&socket, peer, LIMIT).unwrap();
        let (program, _server) = make_ends(&RegionSpec::default()).unwrap();
        answer(&socket, peer, &hello(), &RegionSpec::default(), &change(program)).unwrap();
    });
    let connected = connect(&path, &hello(), LIMIT);
    server.join().unwrap();
    connected
}

/// Connects to a server that hands over `memory`.
fn handed(memory: OwnedFd) -> ChannelError {
    served(|end| ProgramEnd { memory, ..end }).unwrap_err()
}

#[test]
fn an_arena_comes_with_the_channel() {
    let arena = Arena::make(1 << 20).unwrap();
    let theirs = arena.map_elsewhere().unwrap();
    let connected = served(|end| ProgramEnd { arena: Some(arena), ..end }).unwrap();
    let arena = connected.arena.expect("the server gave one");
    assert!(!arena.is_kept());
    let ours = arena.map_elsewhere().unwrap();
    theirs.write(4096, b"theirs");
    let mut seen = [0; 6];
    ours.read(4096, &mut seen);
    assert_eq!((&seen, ours.len()), (b"theirs", 1 << 20));
}

/// Answers a program with these bytes behind the hello, and so many descriptors of a MiB of sealed memory.
fn answered(offer: [u8; OFFER_BYTES], descriptors: usize) -> ChannelError {
    let (_dir, path, listener) = listen();
    let server = std::thread::spawn(move || {
        let (socket, peer) = accept(&listener);
        greet(&socket, peer, LIMIT).unwrap();
        let bytes = [&hello().encode()[..], &offer].concat();
        let memory: Vec<_> =
            (0..descriptors).map(|_| crate::region::sealed_memory("fd", 16 << 20).unwrap()).collect();
        let fds: Vec<_> = memory.iter().map(AsFd::as_fd).collect();
        send(&socket, &bytes, &fds).unwrap();
    });
    let error = connect(&path, &hello(), LIMIT).unwrap_err();
    server.join().unwrap();
    error
}

#[test]
fn a_program_is_told_that_its_arena_is_kept() {
    let arena = Arena::make_kept(arena::CHUNK_BYTES as u64).unwrap();
    let arena = served(|end| ProgramEnd { arena: Some(arena), ..end }).unwrap().arena.unwrap();
    assert_eq!((arena.is_kept(), arena.bytes()), (true, arena::CHUNK_BYTES as u64));
}

#[test]
fn a_server_that_says_another_arena_than_it_hands_over_is_no_server() {
    let spec = RegionSpec::default();
    let offer = |arena_bytes: u64| {
        let mut offer = [0; OFFER_BYTES];
        offer[4..8].copy_from_slice(&spec.ring_bytes.to_le_bytes());
        offer[8..12].copy_from_slice(&spec.staging_bytes.to_le_bytes());
        offer[12..16].copy_from_slice(&spec.record_limit.to_le_bytes());
        offer[16..24].copy_from_slice(&arena_bytes.to_le_bytes());
        offer
    };
    let none = "the server handed over an arena without memory, or the other way round";
    for (arena_bytes, descriptors, why) in [
        (0, 2, "the server handed over another number of descriptors"),
        (0, 4, none),
        (1 << 20, 3, none),
        (1 << 40, 4, "the server handed over an arena of a length that cannot be"),
        (17 << 20, 4, "the server handed over memory that is too short"),
    ] {
        assert_eq!(answered(offer(arena_bytes), descriptors).to_string(), why, "{arena_bytes} bytes");
    }
}

#[test]
fn memory_that_could_kill_the_program_is_not_mapped() {
    let loose = rustix::fs::memfd_create("loose", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&loose, 64 << 20).unwrap();
    assert_eq!(handed(loose).to_string(), "the server handed over memory that can shrink");
    let short = crate::region::sealed_memory("short", 4096).unwrap();
    assert_eq!(handed(short).to_string(), "the server handed over memory that is too short");
    let other = crate::region::sealed_memory("other", 64 << 20).unwrap();
    assert_eq!(handed(other).to_string(), "the server handed over memory that is no channel");
}

#[test]
fn descriptors_do_not_leak_into_programs_that_are_started() {
    let (program, server) = make_ends(&RegionSpec::default()).unwrap();
    for fd in [&program.memory, &program.bell, &program.ear, &server.memory, &server.bell, &server.ear] {
        let flags = rustix::io::fcntl_getfd(fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "fd {}", fd.as_raw_fd());
    }
}
