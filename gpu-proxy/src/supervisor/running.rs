//! A worker and what belongs to it: what it is wanted for, how it is reached, the place that it has, the descriptor that ends it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use idm::arena::Arena;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vgpu_zone_api::shim::ZoneId;

use super::Supervisor;
use super::ending::Ending;
use super::foreign::Foreign;
use super::process::kill;
use super::refusal::Refusal;
use super::worker_id::WorkerId;
use crate::worker::assignment::{ChannelKind, Report};

/// What a worker is wanted for.
#[derive(Debug)]
pub struct Wanted {
    /// The zone.
    pub zone: ZoneId,
    /// The container whose grant it uses.
    pub container: String,
    /// The guest process, for people.
    pub guest_pid: u32,
    /// The peer as the log calls it.
    pub peer: String,
    /// Pages (4 KiB) of the guest that it will map.
    pub pages: u64,
    /// What it gets beside its channel.
    pub arena: ArenaKind,
    /// Another worker program than this one: see [`Supervisor::program_for`].
    pub program: Option<OwnedFd>,
}

/// The arena of a worker, and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArenaKind {
    /// It gets none.
    Nothing,
    /// A memfd of ours, mapped whole.
    Memory(u64),
    /// The guest's, granted by chunks.
    Granted(u64),
}

/// How a worker reaches its guest process.
#[derive(Debug)]
pub struct Channel {
    /// How its pages come.
    pub kind: ChannelKind,
    /// The descriptors of `kind`, without the page of the grant, and of a local one without the arena.
    pub fds: Vec<OwnedFd>,
}

impl Channel {
    /// With the arena, as a new worker gets it.
    pub(super) fn with_arena(mut self, arena: Option<&Arena>) -> io::Result<Self> {
        let Some(arena) = arena else { return Ok(self) };
        if let ChannelKind::Local { arena_bytes, .. } | ChannelKind::Ahead { arena_bytes, .. } =
            &mut self.kind
        {
            *arena_bytes = arena.bytes();
            self.fds.push(arena.memory().try_clone()?);
        }
        Ok(self)
    }
}

/// A worker that has just begun to serve, and the arena that its process shares with it.
pub type Serving = (Running, Option<Arena>);

/// A worker that was told what it is, and its first report.
pub(super) struct Begun {
    pub(super) running: Running,
    pub(super) socket: Arc<Foreign>,
    pub(super) arena: Option<Arena>,
    pub(super) report: JoinHandle<io::Result<Report>>,
}

/// A worker that serves. Whoever has this answers for it: dropped, the worker ends.
#[derive(Debug)]
pub struct Running {
    pub(super) worker: WorkerId,
    pub(super) pidfd: Arc<OwnedFd>,
    /// Whether it was born with a place for what is compiled.
    pub(super) code: bool,
    pub(super) ending: Ending,
    pub(super) ended: watch::Receiver<bool>,
}

impl Running {
    /// Its number.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Ends it, now. Again is nothing.
    pub fn kill(&self) {
        self.ending.begin();
        kill(&self.pidfd);
    }

    /// Whether it has ended, reaped or not.
    pub(super) fn has_ended(&self) -> bool {
        let mut watched = [PollFd::new(&*self.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut watched, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Returns when it is reaped: its pages are unmapped and its device memory is free.
    pub async fn ended(&mut self) {
        // The sender sends before it is dropped; if it were not, it is ended all the same.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The place of one worker in its zone. Dropped, whatever became of the worker, the place is free: a zone that is released waits
/// for that.
#[derive(Debug)]
pub(super) struct Occupied {
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) zone: ZoneId,
    pub(super) worker: WorkerId,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.supervisor.running().remove(&self.worker);
        self.supervisor.zones().worker_ended(self.zone, self.worker);
        self.supervisor.forget_ahead(self.worker);
        self.supervisor.changed.notify_waiters();
    }
}

/// Ends a worker that did not come to serve, and returns when it is reaped.
pub(super) async fn give_up(mut running: Running, refusal: Refusal) -> Refusal {
    running.kill();
    running.ended().await;
    refusal
}
