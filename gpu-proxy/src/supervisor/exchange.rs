//! The supervisor's end of a worker's exchange (`crate::exchange`): one task a worker, which answers from what its zone shares.
//!
//! The worker may be anybody's by now. So its questions are of fixed form, come one after the other at a bounded pace, and one that asks
//! what nobody asks, or leaves answers lying, is ended.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::task::JoinHandle;
use vgpu_zone_api::shim::ZoneId;

use super::Supervisor;
use super::pace::Pace;
use super::process::kill;
use super::watched::watch;
use super::worker_id::WorkerId;
use crate::exchange::{answer, asked};

/// Our end and the worker's.
pub(super) fn make() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

impl Supervisor {
    /// Answers the worker until it is gone.
    pub(super) fn exchange_with(
        self: &Arc<Self>,
        (zone, worker): (ZoneId, WorkerId),
        ours: OwnedFd,
        pidfd: Arc<OwnedFd>,
    ) -> JoinHandle<()> {
        let supervisor = Arc::clone(self);
        tokio::spawn(async move {
            let Err(error) = supervisor.answer_all((zone, worker), Arc::new(ours)).await;
            // A worker that has ended has closed its end.
            if error.kind() != io::ErrorKind::UnexpectedEof {
                log::warn!("zone {zone}: a worker breaks the exchange, and is ended: {error}");
                kill(&pidfd);
            }
        })
    }

    async fn answer_all(
        &self,
        (zone, worker): (ZoneId, WorkerId),
        ours: Arc<OwnedFd>,
    ) -> io::Result<std::convert::Infallible> {
        let (readable, pace) = (watch(ours)?, Pace::of_exchanges());
        loop {
            let mut ready = readable.readable().await?;
            let Ok(question) = ready.try_io(|socket| asked(socket.get_ref())) else { continue };
            let question = question?;
            pace.wait().await;
            let (answered, gone) = {
                let mut zones = self.zones();
                (zones.exchange(zone, worker, self.device, question), zones.take_gone(zone))
            };
            // Before the answer: who let go of memory takes it for free then.
            close(gone).await;
            answer(&**readable.get_ref(), answered)?;
        }
    }

    /// A worker's process is reaped: returns when what it shared is closed here, and the device's memory with it.
    pub(super) async fn end_sharing(&self, zone: ZoneId, worker: WorkerId) {
        let gone = {
            let mut zones = self.zones();
            zones.ended_sharing(zone, worker);
            zones.take_gone(zone)
        };
        close(gone).await;
    }
}

/// Closes what a zone shares no more, where nobody else waits for it.
async fn close(gone: Vec<OwnedFd>) {
    if !gone.is_empty() {
        let _ = tokio::task::spawn_blocking(move || drop(gone)).await;
    }
}
