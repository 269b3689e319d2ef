//! kill -9 of either side of a GPU channel: the other hears of it within a second, whatever it was doing.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use idm::connect::{Connected, answer, connect, greet, make_ends, peer_of};
use idm::hello::Hello;
use idm::record::{Consumer, LANES, Ready, RegionSpec};
use idm::{ChannelError, Liveness};

const LIMIT: Duration = Duration::from_secs(20);
/// Set in a child process: it plays the other side of its test, at this socket.
const PLACE: &str = "IDM_TEST_SOCKET";

fn hello() -> Hello {
    Hello::new(64 << 10, 0)
}

/// Starts this test once more, as the process that plays its other side.
fn child(test: &str, socket: &Path) -> Child {
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(["--exact", test]).env(PLACE, socket).spawn().unwrap()
}

/// Serves the next program.
fn serve(listener: &UnixListener) -> (Consumer, idm::Peer) {
    let (socket, _) = listener.accept().unwrap();
    let peer = peer_of(&socket).unwrap();
    greet(&socket, peer, LIMIT).unwrap();
    let spec = RegionSpec::default();
    let (program, server) = make_ends(&spec).unwrap();
    answer(&socket, peer, &hello(), &spec, &program).unwrap();
    let parts = server.into_parts(spec, peer, Some(Liveness::socket(socket.into()))).unwrap();
    (Consumer::from_parts(parts).unwrap(), peer)
}

/// Kills the child and reaps it.
fn kill(child: &mut Child) -> Instant {
    child.kill().unwrap();
    child.wait().unwrap();
    Instant::now()
}

fn submit_without_end(socket: &Path) {
    let submitter = connect(socket, &hello(), LIMIT).unwrap().submitter;
    while submitter.submit_bytes(1, 0, &[1; 100]).is_ok() {}
}

fn take_and_never_answer(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let (mut consumer, _) = serve(&listener);
    loop {
        while consumer.next().unwrap().is_some() {}
        consumer.wait(None).unwrap();
    }
}

#[test]
fn a_worker_hears_of_its_killed_program() {
    if let Some(socket) = std::env::var_os(PLACE) {
        return submit_without_end(Path::new(&socket));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut program = child("a_worker_hears_of_its_killed_program", &path);
    let (mut consumer, peer) = serve(&listener);
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
fn a_program_whose_worker_is_killed_gets_an_error_in_each_thread_whatever_it_waits_for() {
    if let Some(socket) = std::env::var_os(PLACE) {
        return take_and_never_answer(Path::new(&socket));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let mut server =
        child("a_program_whose_worker_is_killed_gets_an_error_in_each_thread_whatever_it_waits_for", &path);
    let started = Instant::now();
    let Connected { submitter, .. } = loop {
        match connect(&path, &hello(), LIMIT) {
            Ok(connected) => break connected,
            Err(_) if started.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    };
    let staging = submitter.stage(RegionSpec::default().staging_bytes as usize, Some(LIMIT)).unwrap();
    std::thread::scope(|scope| {
        // More threads than lanes: some wait for a reply, the others for a lane; one more waits for staging.
        let calls = (0..usize::from(LANES) + 8).map(|_| {
            scope.spawn(|| (submitter.call(1, 0, &[], &mut [0; 8], Some(LIMIT)).err(), Instant::now()))
        });
        let mut waits: Vec<_> = calls.collect();
        waits.push(scope.spawn(|| (submitter.stage(1, Some(LIMIT)).err(), Instant::now())));
        std::thread::sleep(Duration::from_millis(200));
        let killed = kill(&mut server);
        for wait in waits {
            let (error, when) = wait.join().unwrap();
            assert_eq!(error, Some(ChannelError::PeerGone(idm::Peer::Server)));
            assert!(when.saturating_duration_since(killed) < Duration::from_secs(1));
        }
    });
    drop(staging);
    assert!(submitter.is_gone());
    assert!(submitter.submit_bytes(1, 0, &[]).is_err());
}
