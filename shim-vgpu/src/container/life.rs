//! A container's life, pure: what was asked or happened goes in, what to do comes out. No clock, no I/O, no locks.
//!
//! It keeps the rules that clients rely on: TaskStart before TaskExit, one TaskExit a process, init's last, an exec
//! that is being started counts as running, a guest's death ends everything with 137.
//! An *Asked* event may be refused; every other one is news, which can't be.

use std::{collections::BTreeMap, time::SystemTime};

use vgpu_codes::Code;

use super::stage::{Created, Exit, Stage};
use crate::error::{Error, Result};

/// A process of the container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// The container's own.
    Init,
    /// By its exec id.
    Exec(String),
}

impl Who {
    /// containerd writes init as an empty exec id.
    pub fn of(exec_id: &str) -> Who {
        if exec_id.is_empty() { Who::Init } else { Who::Exec(exec_id.to_owned()) }
    }

    /// As containerd writes it.
    pub fn exec_id(&self) -> &str {
        match self {
            Who::Init => "",
            Who::Exec(id) => id,
        }
    }
}

/// What comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// containerd asks for a start.
    StartAsked(Who),
    /// The guest started it.
    Started(Who),
    /// The guest did not.
    StartFailed(Who, SystemTime),
    /// containerd adds an exec: its id is taken from here on.
    ExecAsked(String),
    /// The guest knows the exec.
    ExecAdded(String),
    /// The guest refused the exec: its id is free again.
    ExecRefused(String),
    /// A process ended.
    Exited(Who, Exit),
    /// The domain is gone.
    GuestDied(SystemTime),
    /// containerd asks for a pause.
    PauseAsked,
    /// The guest froze the container.
    Paused,
    /// It did not.
    PauseFailed,
    /// containerd asks it to go on.
    ResumeAsked,
    /// The guest thawed it.
    Resumed,
    /// containerd sends a signal.
    KillAsked(Who),
    /// containerd deletes a process.
    DeleteAsked(Who),
    /// It is deleted.
    Deleted(Who, SystemTime),
    /// It could not be deleted now.
    DeleteFailed(Who),
}

/// What containerd's clients are told, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Start,
    ExecAdded(String),
    ExecStarted(String),
    Exit(Who, Exit),
    /// None: it was never started nor killed.
    Delete(Option<Exit>),
    Paused,
    Resumed,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Publish it.
    Publish(Notice),
    /// Answer everybody who waits for this process.
    Wake(Who, Exit),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    stage: Stage,
    /// A delete is under way.
    deleting: bool,
    /// The guest knows it: an exec is reserved before that.
    known: bool,
}

impl Process {
    fn new(known: bool) -> Self {
        Process { stage: Stage::Created(Created), deleting: false, known }
    }
}

/// The life of one container, from the guest's answer to Create on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    init: Process,
    /// Init ended, but execs still run, or it is being deleted unstarted: told when they have ended, or it is deleted.
    held: Option<Exit>,
    execs: BTreeMap<String, Process>,
    guest_died: Option<SystemTime>,
}

impl Default for Life {
    fn default() -> Self {
        Life { init: Process::new(true), held: None, execs: BTreeMap::new(), guest_died: None }
    }
}

impl Life {
    /// The stage of a process, or none if it is not known.
    pub fn stage(&self, who: &Who) -> Option<Stage> {
        match who {
            Who::Init => Some(self.init.stage),
            Who::Exec(id) => self.execs.get(id).map(|exec| exec.stage),
        }
    }

    /// Whether a delete of it, or of the whole container, is under way or done.
    pub fn is_deleting(&self, who: &Who) -> bool {
        let deleting = match who {
            Who::Init => false,
            Who::Exec(id) => self.execs.get(id).is_none_or(|exec| exec.deleting),
        };
        deleting || self.init.deleting
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// `WrongState`, `NoSuchTask` or `IdTaken`, for an *Asked* event only.
    pub fn on(&mut self, event: Event) -> Result<Vec<Action>> {
        let mut out = Vec::new();
        match event {
            Event::StartAsked(who) => self.start(&who)?,
            Event::Started(who) => self.started(&who, &mut out),
            Event::StartFailed(who, at) => self.start_failed(&who, at, &mut out),
            Event::ExecAsked(id) => self.exec_asked(id)?,
            Event::ExecAdded(id) => self.exec_added(id, &mut out),
            Event::ExecRefused(id) => {
                if self.execs.get(&id).is_some_and(|exec| !exec.known) {
                    self.execs.remove(&id);
                }
            }
            Event::Exited(who, exit) => self.exited(&who, exit, &mut out),
            Event::GuestDied(at) => self.guest_died(at, &mut out),
            Event::PauseAsked => {
                self.expect_init("pause", |stage| matches!(stage, Stage::Running(_)))?;
                if let Stage::Running(running) = self.init.stage {
                    self.init.stage = Stage::Pausing(running.pause());
                }
            }
            Event::ResumeAsked => self.expect_init("resume", |stage| matches!(stage, Stage::Paused(_)))?,
            Event::Paused => {
                if let Stage::Pausing(pausing) = self.init.stage {
                    self.init.stage = Stage::Paused(pausing.paused());
                    out.push(Action::Publish(Notice::Paused));
                }
            }
            Event::PauseFailed => {
                if let Stage::Pausing(pausing) = self.init.stage {
                    self.init.stage = Stage::Running(pausing.failed());
                }
            }
            Event::Resumed => {
                if let Stage::Paused(paused) = self.init.stage {
                    self.init.stage = Stage::Running(paused.resume());
                    out.push(Action::Publish(Notice::Resumed));
                }
            }
            Event::KillAsked(who) => self.kill(&who)?,
            Event::DeleteAsked(who) => self.delete(&who)?,
            Event::Deleted(who, at) => self.deleted(&who, at, &mut out),
            Event::DeleteFailed(who) => {
                if let Some(process) = self.process(&who) {
                    process.deleting = false;
                }
            }
        }
        self.tell_held_exit(&mut out);
        Ok(out)
    }

    fn process(&mut self, who: &Who) -> Option<&mut Process> {
        match who {
            Who::Init => Some(&mut self.init),
            Who::Exec(id) => self.execs.get_mut(id),
        }
    }

    fn known(&mut self, who: &Who) -> Result<&mut Process> {
        self.process(who).filter(|process| process.known).ok_or_else(|| {
            Error::new(Code::NoSuchTask, format!("there is no exec {:?} in this container", who.exec_id()))
        })
    }

    /// Init has to be there for a new exec, and must not have ended.
    fn expect_living_init(&self, doing: &str) -> Result<()> {
        match self.init.stage {
            Stage::Running(_) if self.held.is_none() && self.guest_died.is_none() => Ok(()),
            Stage::Running(_) => Err(wrong_state(&format!("cannot {doing}: the container has ended"))),
            stage => Err(wrong_state(&format!("cannot {doing} in a {} container", stage.word()))),
        }
    }

    fn expect_init(&self, doing: &str, fits: impl Fn(Stage) -> bool) -> Result<()> {
        if fits(self.init.stage) && self.held.is_none() {
            return Ok(());
        }
        Err(wrong_state(&format!("cannot {doing} a {} container", self.init.stage.word())))
    }

    fn start(&mut self, who: &Who) -> Result<()> {
        if let Who::Exec(_) = who {
            self.known(who)?;
            self.expect_living_init("start an exec")?;
        }
        let process = self.known(who)?;
        let (Stage::Created(created), false) = (process.stage, process.deleting) else {
            return Err(wrong_state(&format!("cannot start a {} process", process.stage.word())));
        };
        process.stage = Stage::Starting(created.start());
        Ok(())
    }

    fn started(&mut self, who: &Who, out: &mut Vec<Action>) {
        let Some(Process { stage, .. }) = self.process(who) else { return };
        let Stage::Starting(starting) = *stage else { return };
        let (running, ended) = starting.started();
        *stage = Stage::Running(running);
        out.push(Action::Publish(match who {
            Who::Init => Notice::Start,
            Who::Exec(id) => Notice::ExecStarted(id.clone()),
        }));
        if let Some(exit) = ended {
            self.exited(who, exit, out);
        }
    }

    fn start_failed(&mut self, who: &Who, at: SystemTime, out: &mut Vec<Action>) {
        let Some(Process { stage, .. }) = self.process(who) else { return };
        let Stage::Starting(starting) = *stage else { return };
        let stopped = starting.failed(at);
        *stage = Stage::Stopped(stopped);
        // A container was there and ends with it; of an exec, a start that failed is an answer.
        if *who == Who::Init {
            out.push(Action::Publish(Notice::Exit(Who::Init, stopped.exit)));
        }
        out.push(Action::Wake(who.clone(), stopped.exit));
    }

    fn exec_asked(&mut self, id: String) -> Result<()> {
        if self.execs.contains_key(&id) {
            return Err(Error::new(Code::IdTaken, format!("the exec id {id:?} is taken")));
        }
        match self.init.stage {
            Stage::Created(_) | Stage::Starting(_) => {}
            _ => self.expect_living_init("add an exec")?,
        }
        self.execs.insert(id, Process::new(false));
        Ok(())
    }

    fn exec_added(&mut self, id: String, out: &mut Vec<Action>) {
        if let Some(exec) = self.execs.get_mut(&id).filter(|exec| !exec.known) {
            exec.known = true;
            out.push(Action::Publish(Notice::ExecAdded(id.clone())));
            if let Some(at) = self.guest_died {
                self.exited(&Who::Exec(id), Exit::killed(at), out);
            }
        }
    }

    fn exited(&mut self, who: &Who, exit: Exit, out: &mut Vec<Action>) {
        let execs_run = self.execs.values().any(|exec| exec.stage.is_active());
        // An exec that the guest does not know yet has nobody who waits for it.
        let Some(process) = self.process(who).filter(|process| process.known) else { return };
        match process.stage {
            Stage::Starting(starting) => process.stage = Stage::Starting(starting.exited(exit)),
            Stage::Stopped(_) => {}
            // As from runc's shim, the end that a Delete makes comes after the Delete.
            Stage::Created(_) if *who == Who::Init && process.deleting => {
                self.held = self.held.or(Some(exit));
            }
            _ if *who == Who::Init && execs_run => self.held = self.held.or(Some(exit)),
            _ => self.stop(who, exit, out),
        }
    }

    /// The process has ended and nothing has to be awaited.
    fn stop(&mut self, who: &Who, exit: Exit, out: &mut Vec<Action>) {
        let Some(process) = self.process(who) else { return };
        let (stopped, told) = match process.stage {
            Stage::Created(created) => (created.exited(exit), *who == Who::Init),
            Stage::Running(running) => (running.exited(exit), true),
            Stage::Pausing(pausing) => (pausing.exited(exit), true),
            Stage::Paused(paused) => (paused.exited(exit), true),
            Stage::Starting(_) | Stage::Stopped(_) => return,
        };
        process.stage = Stage::Stopped(stopped);
        if told {
            out.push(Action::Publish(Notice::Exit(who.clone(), exit)));
        }
        out.push(Action::Wake(who.clone(), exit));
    }

    fn tell_held_exit(&mut self, out: &mut Vec<Action>) {
        let is_deleted_unstarted = self.init.deleting && matches!(self.init.stage, Stage::Created(_));
        if let Some(exit) = self.held
            && !is_deleted_unstarted
            && !self.execs.values().any(|exec| exec.stage.is_active())
        {
            self.held = None;
            self.stop(&Who::Init, exit, out);
        }
    }

    fn guest_died(&mut self, at: SystemTime, out: &mut Vec<Action>) {
        if self.guest_died.replace(at).is_some() {
            return;
        }
        let execs: Vec<Who> = self.execs.keys().cloned().map(Who::Exec).collect();
        // An end of init's that is held stays the one that it had.
        let init = self.held.is_none().then_some(Who::Init);
        for who in execs.iter().chain(&init) {
            self.exited(who, Exit::killed(at), out);
        }
    }

    fn kill(&mut self, who: &Who) -> Result<()> {
        match self.known(who)?.stage {
            // Only then: while init's exit is held, a SIGKILL is what ends the execs.
            Stage::Stopped(_) => Err(Error::new(Code::NoSuchTask, "process already finished")),
            Stage::Created(_) if *who != Who::Init => {
                Err(wrong_state("cannot kill an exec that was not started"))
            }
            _ => Ok(()),
        }
    }

    fn delete(&mut self, who: &Who) -> Result<()> {
        let process = self.known(who)?;
        match process.stage {
            Stage::Created(_) | Stage::Stopped(_) if !process.deleting => {
                process.deleting = true;
                Ok(())
            }
            Stage::Created(_) | Stage::Stopped(_) => Err(wrong_state("the process is being deleted")),
            stage => Err(wrong_state(&format!("cannot delete a {} process", stage.word()))),
        }
    }

    fn deleted(&mut self, who: &Who, at: SystemTime, out: &mut Vec<Action>) {
        let Some(process) = self.process(who) else { return };
        let known = match process.stage {
            Stage::Stopped(stopped) => Some(stopped.exit),
            _ => None,
        };
        if *who == Who::Init {
            out.push(Action::Publish(Notice::Delete(known)));
        }
        if known.is_none() {
            // Deleted without a start: who waits gets an end too.
            let held = self.held.take_if(|_| *who == Who::Init);
            self.stop(who, held.unwrap_or(Exit::killed(at)), out);
        }
        if let Who::Exec(id) = who {
            self.execs.remove(id);
        }
    }
}

fn wrong_state(what: &str) -> Error {
    Error::new(Code::WrongState, what)
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
