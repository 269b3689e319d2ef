//! kill -9 of either side of a GPU channel: the other hears of it within a second, whatever it was doing.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use idm::connect::{Listener, answer, connect, greet, make_ends};
use idm::hello::Hello;
use idm::record::{Consumer, Ready, RegionSpec};
use idm::{ChannelError, Liveness};

const LIMIT: Duration = Duration::from_secs(20);
const PLACE: &str = "IDM_TEST_SOCKET";

fn hello() -> Hello {
    Hello::new(64 << 10, 0, 0)
}

/// Starts one of the ignored tests below as a process of its own.
fn child(role: &str, socket: &Path) -> Child {
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(["--ignored", "--exact", role]).env(PLACE, socket).spawn().unwrap()
}

fn serve(socket: UnixStream, peer: idm::Peer) -> Consumer {
    greet(&socket, peer, LIMIT).unwrap();
    let spec = RegionSpec::default();
    let (program, server) = make_ends(&spec).unwrap();
    answer(&socket, peer, &hello(), &spec, &program).unwrap();
    Consumer::from_parts(server.into_parts(spec, peer, Some(Liveness::socket(socket.into()))).unwrap())
        .unwrap()
}

/// Kills the child and reaps it.
fn kill(child: &mut Child) -> Instant {
    child.kill().unwrap();
    child.wait().unwrap();
    Instant::now()
}

#[test]
#[ignore = "a process of the tests below, not a test"]
fn program_that_submits_without_end() {
    let socket = std::env::var_os(PLACE).expect("started by a test");
    let (submitter, _) = connect(Path::new(&socket), &hello(), LIMIT).unwrap();
    while submitter.submit_bytes(1, 0, &[1; 100]).is_ok() {}
}

#[test]
#[ignore = "a process of the tests below, not a test"]
fn server_that_takes_and_never_answers() {
    let socket = std::env::var_os(PLACE).expect("started by a test");
    let listener = Listener::bind(Path::new(&socket)).unwrap();
    let (stream, peer) = listener.accept().unwrap();
    let mut consumer = serve(stream, peer);
    loop {
        while consumer.next().unwrap().is_some() {}
        consumer.wait(None).unwrap();
    }
}

#[test]
fn a_worker_hears_of_its_killed_program() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let listener = Listener::bind(&path).unwrap();
    let mut program = child("program_that_submits_without_end", &path);
    let (socket, peer) = listener.accept().unwrap();
    let mut consumer = serve(socket, peer);
    for _ in 0..10_000 {
        while consumer.next().unwrap().is_none() {
            assert_eq!(consumer.wait(Some(LIMIT)).unwrap(), Ready::Record);
        }
    }
    let killed = kill(&mut program);
    // What it had published is still there; then it is gone.
    let error = loop {
        match consumer.next() {
            Ok(Some(_)) => {}
            Ok(None) => match consumer.wait(Some(LIMIT)) {
                Ok(ready) => assert_eq!(ready, Ready::Record, "the worker never heard of it"),
                Err(error) => break error,
            },
            Err(error) => break error,
        }
    };
    assert_eq!(error, ChannelError::PeerGone(peer));
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
}

#[test]
fn a_program_whose_worker_is_killed_gets_an_error_in_each_thread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let mut server = child("server_that_takes_and_never_answers", &path);
    let started = Instant::now();
    let (submitter, _) = loop {
        match connect(&path, &hello(), LIMIT) {
            Ok(connected) => break connected,
            Err(_) if started.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    };
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (submitter.call(1, 0, &[], &mut [0; 8], Some(LIMIT)), Instant::now())))
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        let killed = kill(&mut server);
        for call in calls {
            let (result, when) = call.join().unwrap();
            assert_eq!(result.unwrap_err(), ChannelError::PeerGone(idm::Peer::Server));
            assert!(when.saturating_duration_since(killed) < Duration::from_secs(1));
        }
    });
    assert!(submitter.is_gone());
    assert!(submitter.submit_bytes(1, 0, &[]).is_err());
}
