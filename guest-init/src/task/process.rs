//! One process of a container, init or exec: its phase, its streams, its terminal.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::timeout};

use super::phase::Phase;
use crate::{
    error::{During, GuestError, Result},
    reaper::{Claimed, Exit, Exited},
    stdio::{Pumps, StdioNames, pty::Master},
    sys,
};

/// How long Delete waits for output that is still on its way (runc's limit).
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A process that the library made, with everything of it that lives in guest-init.
#[derive(Debug)]
pub struct Launched {
    /// In the guest's root pid namespace.
    pub pid: i32,
    /// Its end, and its name for signals.
    pub claimed: Claimed,
    /// Its streams.
    pub pumps: Pumps,
    /// Its terminal, if it has one.
    pub master: Option<Master>,
}

/// See the module.
#[derive(Debug)]
pub struct Process {
    /// How messages name it.
    name: String,
    stdio: StdioNames,
    phase: watch::Sender<Phase>,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    pid: Option<i32>,
    /// None as soon as it has ended.
    pidfd: Option<OwnedFd>,
    pumps: Option<Pumps>,
    master: Option<Master>,
    /// Asked for before there was a terminal.
    size: Option<(u16, u16)>,
}

impl Process {
    /// A process that is only registered.
    pub fn new(name: String, stdio: StdioNames) -> Arc<Self> {
        Arc::new(Self {
            name,
            stdio,
            phase: watch::Sender::new(Phase::Created),
            live: Mutex::new(Live::default()),
        })
    }

    /// Takes over what was launched. Gives its end, to be passed to [`Process::stopped`] when the time has come.
    pub fn launched(&self, launched: Launched) -> Exited {
        let mut live = self.live();
        if let (Some((columns, rows)), Some(master)) = (live.size, &launched.master) {
            // A terminal that cannot be sized can still be used.
            let _ = master.resize(columns, rows);
        }
        live.pid = Some(launched.pid);
        live.pidfd = launched.claimed.pidfd;
        live.pumps = Some(launched.pumps);
        live.master = launched.master;
        launched.claimed.exited
    }

    /// Its program is executed now. Nothing happens if it ended meanwhile.
    pub fn running(&self) {
        let stood = |phase| matches!(phase, Phase::Created | Phase::Pausing | Phase::Paused);
        self.change(|phase| stood(phase).then_some(Phase::Running));
    }

    /// It is being frozen now.
    pub fn pausing(&self) {
        self.change(|phase| (phase == Phase::Running).then_some(Phase::Pausing));
    }

    /// It is frozen now.
    pub fn paused(&self) {
        self.change(|phase| matches!(phase, Phase::Running | Phase::Pausing).then_some(Phase::Paused));
    }

    /// It has ended: whoever waits is told.
    pub fn stopped(&self, exit: Exit) {
        let mut live = self.live();
        live.pidfd = None;
        if let Some(pumps) = &mut live.pumps {
            pumps.stop_input();
        }
        drop(live);
        self.change(|phase| phase.exit().is_none().then_some(Phase::Stopped(exit)));
    }

    /// It could not be started: it counts as ended, as a shell would report it.
    pub fn start_failed(&self, status: u32) {
        self.stopped(Exit { status, at: SystemTime::now() });
    }

    fn change(&self, next: impl FnOnce(Phase) -> Option<Phase>) {
        self.phase.send_if_modified(|phase| match next(*phase) {
            Some(new) => {
                *phase = new;
                true
            }
            None => false,
        });
    }

    /// Its phase at this moment.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Its names of streams.
    pub fn stdio(&self) -> &StdioNames {
        &self.stdio
    }

    /// Its pid; 0 before it has one.
    pub fn pid(&self) -> u32 {
        self.live().pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
    }

    /// Resolves when it has ended.
    pub async fn wait(&self) -> Exit {
        let mut phases = self.phase.subscribe();
        loop {
            if let Some(exit) = phases.borrow_and_update().exit() {
                return exit;
            }
            // Cannot fail while `self` holds the sender.
            let _ = phases.changed().await;
        }
    }

    /// Sends a signal.
    /// # Errors
    /// `NotFound` after its end, `WrongState` before it has a pid.
    pub fn kill(&self, signal: u32) -> Result<()> {
        let gone = || GuestError::NotFound(format!("{}: process already finished", self.name));
        let phase = self.phase();
        if phase.exit().is_some() {
            return Err(gone());
        }
        let live = self.live();
        if live.pid.is_none() {
            return Err(phase.refuse("signal"));
        }
        let Some(pidfd) = &live.pidfd else { return Err(gone()) };
        match sys::signal(pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(gone()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Err(GuestError::Invalid { field: "signal", why: format!("there is no signal {signal}") })
            }
            result => result.during(|| format!("signal {}", self.name)),
        }
    }

    /// Sets its terminal's size, now or when it gets one. Nothing to do without a terminal.
    /// # Errors
    /// It has ended.
    pub fn resize(&self, columns: u32, rows: u32) -> Result<()> {
        let phase = self.phase();
        if phase.exit().is_some() {
            return Err(phase.refuse("resize"));
        }
        let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
        let mut live = self.live();
        live.size = Some((clamp(columns), clamp(rows)));
        let result =
            live.master.as_ref().map_or(io::Result::Ok(()), |m| m.resize(clamp(columns), clamp(rows)));
        result.during(|| format!("resize the terminal of {}", self.name))
    }

    /// Waits until its output is delivered, but not longer than Delete may, then lets go of its streams.
    pub async fn release(&self) {
        let pumps = {
            let mut live = self.live();
            live.master = None;
            live.pumps.take()
        };
        if let Some(mut pumps) = pumps {
            // Past the limit somebody outside of the process holds the output: it is cut.
            let _ = timeout(DRAIN_LIMIT, pumps.drained()).await;
        }
    }

    /// A namespace that it is in, by the name of its file in `/proc/<pid>/ns`.
    /// # Errors
    /// `NotFound` if it has ended or never ran.
    pub fn namespace(&self, file: &str) -> Result<OwnedFd> {
        let gone = || GuestError::NotFound(format!("{}: process already finished", self.name));
        let live = self.live();
        let (Some(pid), Some(pidfd)) = (live.pid, &live.pidfd) else { return Err(gone()) };
        let path = format!("/proc/{pid}/ns/{file}");
        let opened = File::open(&path).during(|| format!("open {path}"))?;
        // Asked while it is open: by then the id may be another process's.
        sys::signal(pidfd.as_fd(), 0).map_err(|_| gone())?;
        Ok(opened.into())
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // Plain fields: they are consistent between any two statements.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
