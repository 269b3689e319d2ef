//! A program that signals interrupt again and again, as a profiler's do: no wait is longer for it.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use idm::ChannelError;
use idm::connect::connect;
use idm::hello::Hello;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, kill_process};

/// Set in the child process.
const CHILD: &str = "IDM_TEST_INTERRUPTED";
const LIMIT: Duration = Duration::from_millis(400);
/// Between two signals: much shorter than the limit.
const PERIOD: Duration = Duration::from_millis(20);

/// Connects where somebody listens and never accepts.
fn connect_in_vain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gpu.sock");
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let listener = listener.unwrap();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _takes_the_only_place = UnixStream::connect(&path).unwrap();
    let error = connect(&path, &Hello::new(64 << 10, 0), LIMIT).unwrap_err();
    assert!(matches!(error, ChannelError::TimedOut { what: "a connection", .. }), "{error}");
}

/// A stop and a continuation interrupt a system call that has a limit, without a handler. Source: `signal(7)`.
#[test]
fn a_connection_that_signals_interrupt_is_given_up_at_its_limit() {
    if std::env::var_os(CHILD).is_some() {
        return connect_in_vain();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_connection_that_signals_interrupt_is_given_up_at_its_limit"])
        .env(CHILD, "")
        .spawn()
        .unwrap();
    let (pid, started) = (Pid::from_child(&child), Instant::now());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > LIMIT * 20 {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still connecting after {:?}", started.elapsed());
        }
        kill_process(pid, Signal::STOP).unwrap();
        kill_process(pid, Signal::CONT).unwrap();
        std::thread::sleep(PERIOD);
    };
    assert!(status.success(), "see the child's message above");
}
