//! The stages of one process, init or exec, as types: a step consumes one and returns the next.
//!
//! ```text
//! Created ─start→ Starting ─started→ Running ─pause→ Pausing ─paused→ Paused
//!                                       ↑               │failed          │resume
//!                                       └───────────────┴────────────────┘
//! each of them ─exited→ Stopped
//! ```

use std::time::SystemTime;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its code, or 128 + the signal that killed it.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

impl Exit {
    /// The status of a process that went down with its guest: as if killed by SIGKILL.
    pub const KILLED: u32 = 137;
    /// The status of a process that could not be started. Source: containerd's runc shim, `internalErrorCode`.
    pub const NOT_STARTED: u32 = 255;

    /// Killed at `at`.
    pub fn killed(at: SystemTime) -> Exit {
        Exit { status: Exit::KILLED, at }
    }
}

/// Known to the guest, not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created;

/// The guest was asked to start it. A short process may have ended before the guest's answer to that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starting {
    ended: Option<Exit>,
}

/// It runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running;

/// The guest was asked to freeze its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pausing;

/// Its cgroup is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paused;

/// It ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// How.
    pub exit: Exit,
    /// It had been started.
    pub ran: bool,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Created(Created),
    Starting(Starting),
    Running(Running),
    Pausing(Pausing),
    Paused(Paused),
    Stopped(Stopped),
}

impl Created {
    /// The guest is asked to start it.
    pub fn start(self) -> Starting {
        Starting { ended: None }
    }

    /// Killed before its start.
    pub fn exited(self, exit: Exit) -> Stopped {
        Stopped { exit, ran: false }
    }
}

impl Starting {
    /// It ended before we know that it started.
    pub fn exited(self, exit: Exit) -> Starting {
        Starting { ended: self.ended.or(Some(exit)) }
    }

    /// Whether it has.
    pub fn has_ended(self) -> bool {
        self.ended.is_some()
    }

    /// The guest said that it started: it runs, and ended already if there was an exit.
    pub fn started(self) -> (Running, Option<Exit>) {
        (Running, self.ended)
    }

    /// The guest said that it did not start. An exit that is known (the guest's death) is kept.
    pub fn failed(self, at: SystemTime) -> Stopped {
        Stopped { exit: self.ended.unwrap_or(Exit { status: Exit::NOT_STARTED, at }), ran: false }
    }
}

impl Running {
    /// It ended.
    pub fn exited(self, exit: Exit) -> Stopped {
        Stopped { exit, ran: true }
    }

    /// The guest is asked to freeze it.
    pub fn pause(self) -> Pausing {
        Pausing
    }
}

impl Pausing {
    /// It ended.
    pub fn exited(self, exit: Exit) -> Stopped {
        Stopped { exit, ran: true }
    }

    /// Its cgroup was frozen.
    pub fn paused(self) -> Paused {
        Paused
    }

    /// It was not.
    pub fn failed(self) -> Running {
        Running
    }
}

impl Paused {
    /// It ended.
    pub fn exited(self, exit: Exit) -> Stopped {
        Stopped { exit, ran: true }
    }

    /// Its cgroup was thawed.
    pub fn resume(self) -> Running {
        Running
    }
}

impl Stage {
    /// Whether init's exit has to wait for it: a start under way counts as running (containerd #10589).
    pub fn is_active(self) -> bool {
        matches!(self, Stage::Starting(_) | Stage::Running(_) | Stage::Pausing(_) | Stage::Paused(_))
    }

    /// Whether it has been started.
    pub fn has_run(self) -> bool {
        match self {
            Stage::Created(_) | Stage::Starting(_) => false,
            Stage::Running(_) | Stage::Pausing(_) | Stage::Paused(_) => true,
            Stage::Stopped(stopped) => stopped.ran,
        }
    }

    /// As clients know it.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Created(_) => "created",
            Stage::Starting(_) => "starting",
            Stage::Running(_) => "running",
            Stage::Pausing(_) => "pausing",
            Stage::Paused(_) => "paused",
            Stage::Stopped(_) => "stopped",
        }
    }
}
