//! A container: its life, who waits for it, its stdio.
//!
//! [`Container::on`] is the one way in: it asks the pure [`life::Life`] and does what comes out, under one short lock, so that events
//! leave in the order in which they happened. The lock is never held while the guest is asked.

pub mod life;
pub mod stage;

use std::{
    cell::Cell,
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use containerd_shim_protos::{
    api::{CreateTaskRequest, StateResponse, Status},
    events::task,
    protobuf::{EnumOrUnknown, MessageField, well_known_types::timestamp::Timestamp},
};
use tokio::sync::{oneshot, watch};
use vgpu_codes::Code;

use crate::{
    error::{Error, Result, blocking},
    events::Outbox,
    holder::Holder,
    hooks,
    io::{Pumps, Stdio},
    persist::hooks::HookNotes,
    spec::hooks::{Hooks, Kind},
};
use life::{Action, Event, Life, Notice, Who};
use stage::{Exit, Stage};

/// TaskOOMs that one answer of a guest can cause.
const OOM_EVENTS_MAX: u32 = 16;

/// A container that the guest knows.
#[derive(Debug)]
pub struct Container {
    /// containerd's id.
    pub id: String,
    /// Its bundle on the host.
    pub bundle: PathBuf,
    /// What every process of it that runs is reported as: clients make paths of it, so it has to be a process of this host.
    holder: Holder,
    hooks: Hooks,
    /// Where its hooks are noted.
    pub notes: HookNotes,
    created_at: SystemTime,
    outbox: Outbox,
    state: Mutex<State>,
    /// Its init ended while it was started.
    ended_early: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    life: Life,
    processes: HashMap<Who, Process>,
    /// How many kills for want of memory were told.
    oom_kills: u64,
}

#[derive(Debug)]
struct Process {
    stdio: Stdio,
    pumps: Arc<Pumps>,
    exit: watch::Sender<Option<Exit>>,
}

impl Process {
    fn new(stdio: Stdio, pumps: Pumps) -> Self {
        Process { stdio, pumps: Arc::new(pumps), exit: watch::Sender::new(None) }
    }
}

impl Container {
    /// The container as the guest made it, told to containerd's clients.
    pub fn created(
        request: CreateTaskRequest,
        holder: Holder,
        (hooks, notes): (Hooks, HookNotes),
        outbox: Outbox,
        stdio: Stdio,
        pumps: Pumps,
    ) -> Container {
        let CreateTaskRequest { id, bundle, rootfs, checkpoint, .. } = request;
        let io = task::TaskIO {
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            ..task::TaskIO::default()
        };
        let created = task::TaskCreate {
            container_id: id.clone(),
            bundle: bundle.clone(),
            rootfs,
            io: MessageField::some(io),
            checkpoint,
            pid: holder.process().pid.unsigned_abs(),
            ..task::TaskCreate::default()
        };
        outbox.publish("/tasks/create", &created);
        let processes = HashMap::from([(Who::Init, Process::new(stdio, pumps))]);
        let state = Mutex::new(State { processes, ..State::default() });
        Container {
            id,
            bundle: bundle.into(),
            holder,
            hooks,
            notes,
            created_at: SystemTime::now(),
            outbox,
            state,
            ended_early: watch::Sender::new(false),
        }
    }

    /// Runs the hooks that come when its init has been started. Its end is told after them, so they have no more than `after_end` then.
    ///
    /// # Errors
    /// [`Code::HookFailed`] of the first one that fails, or runs on when init has ended.
    pub async fn run_hooks(self: &Arc<Self>, after_end: Duration) -> Result<()> {
        let container = self.clone();
        let run = move || {
            let ended = Cell::new(None::<Instant>);
            let given_up = || {
                if *container.ended_early.borrow() && ended.get().is_none() {
                    ended.set(Some(Instant::now()));
                }
                ended.get().is_some_and(|ended| ended.elapsed() >= after_end)
            };
            hooks::run_all(
                &container.notes,
                &container.hooks,
                Kind::Poststart,
                container.task_pid(),
                given_up,
            )
        };
        blocking(run).await
    }

    /// What was asked or happened: checked, remembered, told, in this order.
    ///
    /// # Errors
    /// A refusal, of an *Asked* event only.
    pub fn on(&self, event: Event) -> Result<()> {
        let mut state = self.lock();
        let actions = state.life.on(event)?;
        // Whoever hears of init's end finds its pid gone, as with a process of this host.
        if actions.iter().any(|action| matches!(action, Action::Wake(Who::Init, _))) {
            self.holder.end();
        }
        if matches!(state.life.stage(&Who::Init), Some(Stage::Starting(starting)) if starting.has_ended()) {
            self.ended_early.send_replace(true);
        }
        for action in actions {
            match action {
                Action::Publish(notice) => self.publish(notice),
                Action::Wake(who, exit) => {
                    if let Some(process) = state.processes.get(&who) {
                        process.exit.send_replace(Some(exit));
                    }
                }
            }
        }
        Ok(())
    }

    /// News that can't be refused.
    pub fn tell(&self, event: Event) {
        if let Err(error) = self.on(event) {
            log::error!("container {}: {error}", self.id);
        }
    }

    /// When a process of it ended, of what the guest says.
    pub fn exit_time(&self, said: &MessageField<Timestamp>) -> SystemTime {
        exit_time(said, self.created_at, SystemTime::now())
    }

    /// Resolves when its init has ended while it is being started, and says so: who starts it gives up what the guest was not asked for yet.
    pub async fn ended_early(&self) -> Error {
        // The sender lives in `self`.
        let _ = self.ended_early.subscribe().wait_for(|ended| *ended).await;
        Error::new(Code::WrongState, "the container ended before its program was started")
    }

    /// Gives a reserved exec its stdio.
    pub fn add_exec(&self, id: &str, stdio: Stdio, pumps: Pumps) {
        self.lock().processes.insert(Who::of(id), Process::new(stdio, pumps));
    }

    /// A process is no more; its stdio is dropped with it.
    pub fn forget(&self, who: &Who) {
        self.lock().processes.remove(who);
    }

    /// How a process ended, once it has.
    ///
    /// # Errors
    /// [`Code::NoSuchTask`].
    pub async fn wait(&self, who: &Who) -> Result<Exit> {
        let mut exit = self.process(who, |process| process.exit.subscribe())?;
        let ended = exit.wait_for(Option::is_some).await;
        // The sender is gone: deleted before it ended, which wakes its waiters first; so this is a late one.
        ended.ok().and_then(|exit| *exit).ok_or_else(|| no_such(who))
    }

    /// The copies of a process's stdio.
    ///
    /// # Errors
    /// [`Code::NoSuchTask`].
    pub fn pumps(&self, who: &Who) -> Result<Arc<Pumps>> {
        self.process(who, |process| process.pumps.clone())
    }

    /// The stage of a process.
    ///
    /// # Errors
    /// [`Code::NoSuchTask`].
    pub fn stage(&self, who: &Who) -> Result<Stage> {
        self.lock().life.stage(who).ok_or_else(|| no_such(who))
    }

    /// Whether a process is being deleted, or is no more.
    pub fn is_deleting(&self, who: &Who) -> bool {
        self.lock().life.is_deleting(who)
    }

    /// What a process is reported as. None, which is 0, for an exec that does not run yet or never did.
    ///
    /// # Errors
    /// [`Code::NoSuchTask`].
    pub fn pid(&self, who: &Who) -> Result<u32> {
        let has_one = self.stage(who)?.has_run() || *who == Who::Init;
        Ok(if has_one { self.task_pid() } else { 0 })
    }

    /// The pid of its holder, also after its end.
    pub fn task_pid(&self) -> u32 {
        self.holder.process().pid.unsigned_abs()
    }

    /// The network namespace that was made for it, if one was.
    pub fn own_network(&self) -> Option<PathBuf> {
        self.holder.own_network()
    }

    /// Resolves at the end of its holder, which is before its own only if somebody has killed that.
    ///
    /// # Errors
    /// If it can't be watched.
    pub fn holder_ended(&self) -> io::Result<oneshot::Receiver<()>> {
        self.holder.ended()
    }

    /// The answer to State. As from runc's shim, `id` is the process's own, and `exec_id` is empty.
    ///
    /// # Errors
    /// [`Code::NoSuchTask`].
    pub fn state(&self, who: &Who) -> Result<StateResponse> {
        let stage = self.stage(who)?;
        let init = self.stage(&Who::Init)?;
        let status = match stage {
            Stage::Created(_) | Stage::Starting(_) => Status::CREATED,
            Stage::Running(_) => match init {
                // An exec is frozen with its container.
                Stage::Pausing(_) => Status::PAUSING,
                Stage::Paused(_) => Status::PAUSED,
                _ => Status::RUNNING,
            },
            Stage::Pausing(_) => Status::PAUSING,
            Stage::Paused(_) => Status::PAUSED,
            Stage::Stopped(_) => Status::STOPPED,
        };
        let stdio = self.process(who, |process| process.stdio.clone())?;
        let mut response = StateResponse {
            id: self.id_of(who),
            bundle: self.bundle.to_string_lossy().into_owned(),
            pid: self.pid(who)?,
            status: EnumOrUnknown::new(status),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            ..StateResponse::default()
        };
        if let Stage::Stopped(stopped) = stage {
            response.exit_status = stopped.exit.status;
            response.exited_at = timestamp(stopped.exit.at);
        }
        Ok(response)
    }

    /// As events and answers name a process of it.
    fn id_of(&self, who: &Who) -> String {
        match who {
            Who::Init => self.id.clone(),
            Who::Exec(id) => id.clone(),
        }
    }

    fn process<T>(&self, who: &Who, get: impl FnOnce(&Process) -> T) -> Result<T> {
        self.lock().processes.get(who).map(get).ok_or_else(|| no_such(who))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, notice: Notice) {
        let (container_id, pid) = (self.id.clone(), self.task_pid());
        let outbox = &self.outbox;
        match notice {
            Notice::Start => {
                outbox.publish(
                    "/tasks/start",
                    &task::TaskStart { container_id, pid, ..task::TaskStart::default() },
                );
            }
            Notice::ExecAdded(exec_id) => outbox.publish(
                "/tasks/exec-added",
                &task::TaskExecAdded { container_id, exec_id, ..task::TaskExecAdded::default() },
            ),
            Notice::ExecStarted(exec_id) => outbox.publish(
                "/tasks/exec-started",
                &task::TaskExecStarted { container_id, exec_id, pid, ..task::TaskExecStarted::default() },
            ),
            Notice::Exit(who, exit) => {
                let event = task::TaskExit {
                    container_id,
                    id: self.id_of(&who),
                    pid,
                    exit_status: exit.status,
                    exited_at: timestamp(exit.at),
                    ..task::TaskExit::default()
                };
                outbox.publish("/tasks/exit", &event);
            }
            Notice::Delete(exit) => {
                let event = task::TaskDelete {
                    container_id,
                    pid,
                    exit_status: exit.map_or(0, |exit| exit.status),
                    exited_at: exit.map_or_else(MessageField::none, |exit| timestamp(exit.at)),
                    ..task::TaskDelete::default()
                };
                outbox.publish("/tasks/delete", &event);
            }
            Notice::Paused => {
                outbox.publish(
                    "/tasks/paused",
                    &task::TaskPaused { container_id, ..task::TaskPaused::default() },
                );
            }
            Notice::Resumed => {
                outbox.publish(
                    "/tasks/resumed",
                    &task::TaskResumed { container_id, ..task::TaskResumed::default() },
                );
            }
        }
    }

    /// The kernel of the guest has killed `count` processes of this container for want of memory: the new ones are told, each once. A guest
    /// may count as it likes: not many at a time are passed on. Gives how many were.
    pub fn oom_kills(&self, count: u64) -> u32 {
        let mut state = self.lock();
        let new = count.saturating_sub(state.oom_kills);
        state.oom_kills += new;
        let told = u32::try_from(new).unwrap_or(u32::MAX).min(OOM_EVENTS_MAX);
        for _ in 0..told {
            self.out_of_memory();
        }
        told
    }

    /// It killed one, and the guest has no count.
    pub fn out_of_memory(&self) {
        let event = task::TaskOOM { container_id: self.id.clone(), ..task::TaskOOM::default() };
        self.outbox.publish("/tasks/oom", &event);
    }
}

fn no_such(who: &Who) -> Error {
    match who {
        Who::Init => Error::new(Code::NoSuchTask, "there is no such container in this pod"),
        Who::Exec(id) => Error::new(Code::NoSuchTask, format!("there is no exec {id:?} in this container")),
    }
}

/// A time as the Task API writes it.
pub fn timestamp(at: SystemTime) -> MessageField<Timestamp> {
    MessageField::some(at.into())
}

/// What the guest says, within the container's life; now if it says nothing. kubelet takes a container that ran for long for a healthy one,
/// and starts it again at once: a guest must not have run before it was made.
fn exit_time(said: &MessageField<Timestamp>, created_at: SystemTime, now: SystemTime) -> SystemTime {
    let since_1970 = said.as_ref().and_then(|said| {
        let nanos = u32::try_from(said.nanos).unwrap_or(0).min(999_999_999);
        Some(Duration::new(u64::try_from(said.seconds).ok()?, nanos))
    });
    let at = since_1970.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)).unwrap_or(now);
    // In this order: the host's clock may have been set back.
    at.max(created_at).min(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_tells_no_exit_before_its_container_was_made_or_in_the_future() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let said = |seconds: i64, nanos: i32| {
            exit_time(
                &MessageField::some(Timestamp { seconds, nanos, ..Timestamp::default() }),
                at(1000),
                at(2000),
            )
        };
        assert_eq!(said(1500, 0), at(1500));
        assert_eq!(said(1500, -1), at(1500));
        assert_eq!(said(1500, i32::MAX), at(1500) + Duration::from_nanos(999_999_999));
        assert_eq!((said(0, 0), said(999, 0)), (at(1000), at(1000)), "before it was made");
        assert_eq!((said(2001, 0), said(i64::MAX, 0)), (at(2000), at(2000)), "in the future");
        assert_eq!(said(-1, 0), at(2000), "no time at all");
        assert_eq!(exit_time(&MessageField::none(), at(1000), at(2000)), at(2000));
        assert_eq!(exit_time(&MessageField::none(), at(3000), at(2000)), at(2000), "the clock was set back");
    }
}
