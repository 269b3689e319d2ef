//! Processes of workers: what one reports, its end, by its descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use vgpu_codes::Code;

use super::foreign::{Foreign, without_descriptors};
use super::refusal::Refusal;
use super::watched::watch;
use crate::worker::assignment::{self, Report};

/// Ends a process by its descriptor. One that has ended already is no failure.
pub(super) fn kill(pidfd: &OwnedFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}

/// Whether an error of its socket says that a worker has ended, perhaps with something that it has not read.
pub(super) fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

/// The worker's one message.
pub(super) async fn report(socket: Arc<Foreign>, assigned: io::Result<()>) -> io::Result<Report> {
    assigned?;
    rustix::io::ioctl_fionbio(&*socket, true)?;
    let readable = watch(socket)?;
    loop {
        let mut ready = readable.readable().await?;
        let received = ready.try_io(|socket| {
            without_descriptors(&**socket.get_ref())?;
            assignment::receive::<Report>(&**socket.get_ref())
        });
        match received {
            Ok(result) => return result.map(|(report, _)| report),
            Err(_not_yet) => {}
        }
    }
}

/// Waits for a child's end and reaps it. How it ended, in words.
pub(super) async fn reaped(pidfd: &Arc<OwnedFd>) -> String {
    let readable = match watch(Arc::clone(pidfd)) {
        Ok(readable) => readable,
        Err(error) => {
            // Nobody would notice its end: so it ends now.
            kill(pidfd);
            return format!("ended, since it cannot be watched: {error}");
        }
    };
    let _ = readable.readable().await;
    match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => "ended".into(),
            (Some(code), _) => format!("ended with status {code}"),
            (_, Some(libc::SIGSYS)) => "killed by its system call filter".into(),
            (_, Some(signal)) => format!("killed by signal {signal}"),
            _ => "ended".into(),
        },
        Ok(None) => "ended".into(),
        Err(error) => format!("ended, and could not be reaped: {error}"),
    }
}

pub(super) fn failed(what: &str, error: &io::Error) -> Refusal {
    Refusal::new(Code::WorkerFailed, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    /// A worker that is killed is no worker that breaks the protocol.
    #[test]
    fn a_worker_that_ended_with_something_unread_has_ended() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        let read = || rustix::io::read(&ours, &mut [0; 8]).map_err(io::Error::from);
        assert!(!is_end(&read().unwrap_err()), "it has said nothing yet");
        rustix::io::write(&ours, &[1]).unwrap();
        drop(theirs);
        assert!(is_end(&read().unwrap_err()), "with our message unread");
        assert_eq!(read().unwrap(), 0);
        assert!(is_end(
            &rustix::net::send(&ours, &[1], rustix::net::SendFlags::NOSIGNAL).unwrap_err().into()
        ));
    }
}
