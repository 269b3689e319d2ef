//! Workers that send what no worker sends, and what they leave when they die.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use uuid::Uuid;
use vgpu_config::Config;

use super::*;
use crate::device::DeviceKind;
use crate::supervisor::Mode;
use crate::supervisor::foreign::tests::{SOON, Slow, is_not_held_up, send_with};
use crate::supervisor::pace::EXCHANGES_AT_ONCE;

const WHO: (ZoneId, WorkerId) = (ZoneId(Uuid::from_u128(1)), WorkerId(1));
/// A worker's question has this length, and this is none.
const NO_QUESTION: [u8; 32] = [0xff; 32];
/// `Question::Board`.
const BOARD: [u8; 32] = {
    let mut question = [0; 32];
    question[0] = 7;
    question
};

fn supervisor() -> Arc<Supervisor> {
    Supervisor::new(&Config::default(), DeviceKind::Null, Mode::Local).unwrap()
}

/// A process that lives until it is killed, in a worker's place.
fn worker() -> (Child, Arc<OwnedFd>) {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    (child, Arc::new(pidfd))
}

/// That it was ended, and by a signal.
async fn is_killed(mut child: Child) {
    let waited = spawn_blocking(move || child.wait().unwrap().signal());
    let signal = tokio::time::timeout(SOON, waited).await.expect("it lives").unwrap();
    assert_eq!(signal, Some(Signal::KILL.as_raw()));
}

/// Lets what is to happen on the runtime's only thread happen.
async fn a_while() {
    is_not_held_up(tokio::time::sleep(Duration::from_millis(50))).await;
}

/// Lets the runtime's tasks go on until it is seen, by a clock of its own.
async fn see(is_so: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    loop {
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
        if is_so() {
            return;
        }
        assert!(start.elapsed() < SOON, "it does not come");
    }
}

async fn let_go(slow: Slow) {
    spawn_blocking(|| slow.let_go()).await.unwrap();
}

#[tokio::test]
async fn what_comes_beside_a_broken_message_holds_up_nobody_and_its_worker_is_ended() {
    let (supervisor, (child, pidfd)) = (supervisor(), worker());
    let (ours, theirs) = make().unwrap();
    let exchange = supervisor.exchange_with(WHO, ours, pidfd);
    let (slow, fd) = Slow::new();
    send_with(&theirs, &NO_QUESTION, fd);
    a_while().await;
    let_go(slow).await;
    is_killed(child).await;
    exchange.end().await;
}

#[tokio::test]
async fn what_comes_beside_a_question_that_has_none_holds_up_nobody_and_is_closed_before_the_answer() {
    let (supervisor, (mut child, pidfd)) = (supervisor(), worker());
    let (ours, theirs) = make().unwrap();
    let exchange = supervisor.exchange_with(WHO, ours, pidfd);
    let (slow, fd) = Slow::new();
    send_with(&theirs, &BOARD, fd);
    a_while().await;
    let_go(slow).await;
    let answered = spawn_blocking(move || rustix::io::read(&theirs, &mut [0; 64]).unwrap());
    assert_eq!(tokio::time::timeout(SOON, answered).await.unwrap().unwrap(), BOARD.len());
    exchange.end().await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn what_a_dead_worker_leaves_in_its_socket_holds_up_nobody_and_its_end_waits_for_it() {
    let (supervisor, (mut child, pidfd)) = (supervisor(), worker());
    let (ours, theirs) = make().unwrap();
    let (slow, fd) = Slow::new();
    let exchange = supervisor.exchange_with(WHO, ours, pidfd);
    send_with(&theirs, &NO_QUESTION, fd);
    drop(theirs);
    child.kill().unwrap();
    child.wait().unwrap();
    // Before the task has run for the first time: nothing is read any more.
    let end = tokio::spawn(exchange.end());
    a_while().await;
    assert!(!end.is_finished(), "memory that it left is not free yet");
    let_go(slow).await;
    tokio::time::timeout(SOON, end).await.expect("its end waits for ever").unwrap();
}

/// A question that waits for its turn has been read: what came with it is in no socket any more.
#[tokio::test(start_paused = true)]
async fn what_came_with_a_question_that_a_dead_worker_had_no_turn_for_is_waited_for_too() {
    // The clock stands, so that the turns are as many as are to be had at once: it goes on by itself only where nothing else is to be done.
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let busy = spawn_blocking(move || is_done.recv());
    let (supervisor, (mut child, pidfd)) = (supervisor(), worker());
    let (ours, theirs) = make().unwrap();
    let queue = ours.try_clone().unwrap();
    let exchange = supervisor.exchange_with(WHO, ours, pidfd);
    let theirs = spawn_blocking(move || {
        for _ in 0..EXCHANGES_AT_ONCE {
            rustix::io::write(&theirs, &BOARD).unwrap();
            assert_eq!(rustix::io::read(&theirs, &mut [0; 64]).unwrap(), BOARD.len());
        }
        theirs
    });
    let theirs = theirs.await.unwrap();
    let (slow, fd) = Slow::new();
    send_with(&theirs, &BOARD, fd);
    see(|| rustix::io::ioctl_fionread(&queue).unwrap() == 0).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let end = tokio::spawn(exchange.end());
    for _ in 0..50 {
        see(|| true).await;
    }
    assert!(!end.is_finished(), "memory that it left is not free yet");
    let_go(slow).await;
    see(|| end.is_finished()).await;
    drop(done);
    busy.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_ring_has_no_descriptors_and_whose_has_is_ended() {
    let (supervisor, (child, pidfd)) = (supervisor(), worker());
    let (ours, theirs) = make().unwrap();
    supervisor.hear(Arc::new(Foreign::new(ours)), pidfd);
    rustix::io::write(&theirs, &[0]).unwrap();
    let (slow, fd) = Slow::new();
    send_with(&theirs, &[0], fd);
    is_killed(child).await;
    a_while().await;
    drop(theirs);
    let_go(slow).await;
}
