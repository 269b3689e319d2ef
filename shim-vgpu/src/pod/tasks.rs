//! The calls on containers that exist. Each asks the container's life first, then the guest, then tells the life what came of it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use containerd_shim_protos::api::{
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, ExecProcessResponse, KillRequest, PidsRequest,
    PidsResponse, ProcessInfo, ResizePtyRequest, StartRequest, StartResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use protobuf::MessageField;
use vgpu_codes::Code;

use super::{Living, Pod, Slot, size::wanted};
use crate::{
    container::{
        Container,
        life::{Event, Who},
        stage::{Exit, Stage},
        timestamp,
    },
    error::{Error, Result, to_its_end},
    figures,
    guest::SIGKILL,
    io::{Stdio, Whose},
};

/// For what a healthy guest does at once.
const SHORT: Duration = Duration::from_secs(10);
/// To start a process: the guest may read its program over the share.
const START_LIMIT: Duration = Duration::from_secs(120);
/// For a change of limits, with those of its pod that came before it. containerd holds its lock on the container's status meanwhile, for which its lists of
/// all pods' containers wait, and what it keeps of an OOM kill. Source: its CRI's `UpdateContainerResources`, before `safeUpdate`.
const UPDATE_LIMIT: Duration = Duration::from_secs(45);
/// containerd asks for pids while it starts, for all pods within 5 s.
const PIDS_LIMIT: Duration = Duration::from_millis(500);
/// Of the time from a SIGKILL for init to its exit (`shim.kill_timeout_s`), in hundredths: what the guest may take to answer, and to have it
/// ended, for which its execs are given 2 s (guest-init, `EXECS_LIMIT`). The rest is for the domain's halt.
const ANSWER_PART: u32 = 40;
/// Hooks of a start have so much of it when their program ends meanwhile, since its end is told after theirs.
const HOOKS_PART: u32 = 40;
pub(super) const END_PART: u32 = 70;
/// From the guest's word that it does not know a process to the answer that says why.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// From a process's end to the word of it, for kills that come before it.
const OOM_LIMIT: Duration = Duration::from_millis(500);
/// As long as runc's shim waits for output that nobody reads.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

impl Pod {
    /// Starts a process. One that runs and whose hook fails is ended again.
    ///
    /// # Errors
    /// `WrongState`, `NoSuchTask`, `HookFailed`, what [`Pod::take_network`] says, or the guest's.
    pub async fn start(self: Arc<Self>, request: StartRequest) -> Result<StartResponse> {
        let container = self.container(&request.id)?;
        let who = Who::of(&request.exec_id);
        container.on(Event::StartAsked(who.clone()))?;
        let started = async {
            if who == Who::Init {
                self.take_network(&container).await?;
            }
            let _: StartResponse = self.guest()?.task("Start", &request, Some(START_LIMIT)).await?;
            if who == Who::Init {
                let after_end = self.kill_limit() * HOOKS_PART / 100;
                container.run_hooks(after_end).await
            } else {
                Ok(())
            }
        };
        match started.await {
            Ok(()) => {
                container.tell(Event::Started(who.clone()));
                let pid = container.task_pid();
                if who != Who::Init {
                    tokio::spawn(self.await_exit(container, who));
                }
                Ok(StartResponse { pid, ..StartResponse::default() })
            }
            Err(error) => {
                container.tell(Event::StartFailed(who.clone(), SystemTime::now()));
                self.forget_unanswered(&error, &request.id, &request.exec_id).await;
                if let Ok(pumps) = container.pumps(&who) {
                    pumps.finish(Duration::ZERO).await;
                }
                Err(error)
            }
        }
    }

    /// A call that got no answer, or none that can be read, may have been done: what it made or started would stay, and nobody would know.
    async fn forget_unanswered(&self, error: &Error, id: &str, exec_id: &str) {
        if let (Error::Own { .. }, Ok(guest)) = (error, self.guest()) {
            guest.forget(id, exec_id).await;
        }
    }

    /// Follows a process to its end.
    pub(super) async fn await_exit(self: Arc<Self>, container: Arc<Container>, who: Who) {
        let request = WaitRequest {
            id: container.id.clone(),
            exec_id: who.exec_id().to_owned(),
            ..WaitRequest::default()
        };
        let ended: Result<WaitResponse> = match self.guest() {
            Ok(guest) => guest.task("Wait", &request, None).await,
            Err(gone) => Err(gone),
        };
        match ended {
            Ok(ended) => {
                self.tell_oom_kills(&container).await;
                let exit = Exit { status: ended.exit_status, at: container.exit_time(&ended.exited_at) };
                container.tell(Event::Exited(who.clone(), exit));
                // Its execs die with it: until they have, its exit is not told.
                if who == Who::Init {
                    self.expect_end(container).await;
                }
            }
            // As it does for one that is being deleted.
            Err(error @ Error::Guest { .. }) if container.is_deleting(&who) => {
                log::debug!("container {}: waiting for {who:?}: {error}", container.id);
            }
            Err(error) => {
                log::warn!("container {}: waiting for {who:?}: {}", container.id, error.report());
                // A start that fails is told by the answer to it, which may be on its way.
                let refused = matches!(error, Error::Guest { .. });
                if !(refused && ends_within(&container, &who, SETTLE_LIMIT).await) {
                    self.guest_died().await;
                }
            }
        }
    }

    /// TaskOOM goes out before the exit that follows from it, however slow the guest's events are. A guest that does not say is not waited
    /// for.
    async fn tell_oom_kills(&self, container: &Container) {
        let Ok(guest) = self.guest() else { return };
        match guest.oom_kills(&container.id, OOM_LIMIT).await {
            Ok(count) => {
                container.oom_kills(count);
            }
            Err(error) => log::debug!("container {}: {error}", container.id),
        }
    }

    /// Sends a signal. A guest that does not answer a SIGKILL for init, or whose container does not end of it, is destroyed.
    ///
    /// # Errors
    /// `NoSuchTask` if the process has ended, `WrongState`, or the guest's.
    pub async fn kill(self: Arc<Self>, request: KillRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let who = Who::of(&request.exec_id);
        container.on(Event::KillAsked(who.clone()))?;
        let limit = self.kill_limit();
        let ends_it = who == Who::Init && request.signal == SIGKILL;
        let answer_limit = if ends_it { limit * ANSWER_PART / 100 } else { limit };
        if ends_it {
            // Whatever the guest says: nothing outlives a SIGKILL.
            tokio::spawn(self.clone().expect_end(container.clone()));
        }
        let killed: Result<Empty> = match self.guest() {
            Ok(guest) => guest.task("Kill", &request, Some(answer_limit)).await,
            Err(gone) => Err(gone),
        };
        match killed {
            Err(error @ Error::Own { .. }) if ends_it => {
                log::warn!("container {}: its guest is destroyed: {}", container.id, error.report());
                tokio::spawn(self.guest_died());
                Ok(Empty::default())
            }
            answered => answered,
        }
    }

    /// Destroys the guest if the container does not end in time: it was killed, or its init has ended.
    async fn expect_end(self: Arc<Self>, container: Arc<Container>) {
        let limit = self.kill_limit() * END_PART / 100;
        let ended = ends_within(&container, &Who::Init, limit).await;
        // The end that a Delete makes is told after it, and its part on the host may take long.
        if !ended && !container.is_deleting(&Who::Init) {
            log::warn!("container {}: its guest is destroyed: it has not ended in time", container.id);
            self.guest_died().await;
        }
    }

    /// From a SIGKILL to the exit.
    fn kill_limit(&self) -> Duration {
        self.living().as_ref().map_or(SHORT, Living::kill_limit)
    }

    /// Deletes a process that has ended or was never started; with the last container goes the domain.
    ///
    /// # Errors
    /// `WrongState` if it runs, `NoSuchTask`, or what could not be taken away.
    pub async fn delete(self: Arc<Self>, request: DeleteRequest) -> Result<DeleteResponse> {
        let creating = match self.lock().get(&request.id) {
            Some(Slot::Creating(creation)) => Some(creation.clone()),
            _ => None,
        };
        if let Some(creation) = creating {
            creation.cancel_and_wait().await;
        }
        let container = self.container(&request.id)?;
        let who = Who::of(&request.exec_id);
        container.on(Event::DeleteAsked(who.clone()))?;
        if let Ok(guest) = self.guest() {
            // Whatever it answers, the host's side is taken away.
            guest.forget(&request.id, &request.exec_id).await;
        }
        if let Ok(pumps) = container.pumps(&who) {
            pumps.finish(DRAIN_LIMIT).await;
        }
        if who == Who::Init
            && let Err(error) = self.remove_from_host(&container).await
        {
            container.tell(Event::DeleteFailed(who));
            return Err(error);
        }
        let now = SystemTime::now();
        // One that was never started nor killed has no end, as with runc's shim.
        let exit = match container.stage(&who)? {
            Stage::Stopped(stopped) => Some(stopped.exit),
            _ => None,
        };
        let pid = container.pid(&who)?;
        container.tell(Event::Deleted(who.clone(), now));
        container.forget(&who);
        // Last: a Create of the same id is told of after this end.
        if who == Who::Init {
            self.lock().remove(&request.id);
        }
        Ok(DeleteResponse {
            pid,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map_or_else(MessageField::none, |exit| timestamp(exit.at)),
            ..DeleteResponse::default()
        })
    }

    async fn remove_from_host(&self, container: &Container) -> Result<()> {
        let given = self.give_back(&container.id).await?;
        // Also those of one that went with its sandbox.
        self.run_last_hooks(container.notes.clone(), given.ends_pod).await
    }

    /// Registers an exec: its id is taken before anything else is done.
    ///
    /// # Errors
    /// `IdTaken`, `WrongState`, or the guest's.
    pub async fn exec(self: Arc<Self>, request: ExecProcessRequest) -> Result<ExecProcessResponse> {
        crate::names::check_id("exec id", &request.exec_id)?;
        let container = self.container(&request.id)?;
        let id = request.exec_id.clone();
        container.on(Event::ExecAsked(id.clone()))?;
        let result = self.add_exec(&container, request).await;
        match result {
            Ok(()) => {
                container.tell(Event::ExecAdded(id));
                Ok(ExecProcessResponse::default())
            }
            Err(error) => {
                self.forget_unanswered(&error, &container.id, &id).await;
                container.tell(Event::ExecRefused(id.clone()));
                container.forget(&Who::Exec(id));
                Err(error)
            }
        }
    }

    async fn add_exec(&self, container: &Container, mut request: ExecProcessRequest) -> Result<()> {
        let guest = self.guest()?;
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let whose = Whose { id: request.exec_id.clone(), namespace: self.namespace.clone() };
        let (pumps, names) = stdio.connect(&guest, whose).await?;
        (request.stdin, request.stdout, request.stderr) = (names.stdin, names.stdout, names.stderr);
        let _: Empty = guest.task("Exec", &request, Some(SHORT)).await?;
        container.add_exec(&request.exec_id, stdio, pumps);
        Ok(())
    }

    /// Resizes a terminal; before the start, and without one, there is nothing to do.
    ///
    /// # Errors
    /// `NoSuchTask`, `WrongState` for a process that has ended, or the guest's.
    pub async fn resize(self: Arc<Self>, request: ResizePtyRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let who = Who::of(&request.exec_id);
        if let Stage::Stopped(_) = container.stage(&who)? {
            return Err(Error::new(Code::WrongState, "cannot resize the terminal of a stopped process"));
        }
        if !container.state(&who)?.terminal {
            return Ok(Empty::default());
        }
        let _: Empty = self.guest()?.task("ResizePty", &request, Some(SHORT)).await?;
        Ok(Empty::default())
    }

    /// The processes of a container; never empty, and never late: containerd 2.x takes any error, and an answer without pids, for a leaked
    /// shim, and deletes it. So whatever the guest does, there is the pid that all answers of the shim have.
    ///
    /// # Errors
    /// `NoSuchTask`.
    pub async fn pids(self: Arc<Self>, request: PidsRequest) -> Result<PidsResponse> {
        let container = self.container(&request.id)?;
        let asked = async { self.guest()?.task::<_, PidsResponse>("Pids", &request, None).await };
        if let Ok(Ok(pids)) = tokio::time::timeout(PIDS_LIMIT, asked).await
            && !pids.processes.is_empty()
        {
            return Ok(figures::pids(pids));
        }
        let own = ProcessInfo { pid: container.task_pid(), ..ProcessInfo::default() };
        Ok(PidsResponse { processes: vec![own], ..PidsResponse::default() })
    }

    /// Changes a container's limits.
    ///
    /// # Errors
    /// `NoSuchTask`, `HostResource` for more memory than Xen has or the guest takes, the guest's, or `HostFailure` where all of that takes too long: no
    /// limit rises then, unless the guest has been asked already.
    pub async fn update(self: Arc<Self>, request: UpdateTaskRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let changing = async {
            let turn = self.turn_for(&request).await;
            // Not only before: it may have gone meanwhile, and its id be another one's.
            if !Arc::ptr_eq(&container, &self.container(&request.id)?) {
                return Err(Error::new(Code::NoSuchTask, format!("the container {} is gone", request.id)));
            }
            let guest = self.guest()?;
            let (wanted, _waits) = wanted();
            // From here on to its end: nothing is left half done.
            to_its_end(async move {
                let change = guest.task("Update", &request, Some(SHORT));
                match turn {
                    Some(turn) => turn.with_room(&request.id, &wanted, change).await,
                    None => change.await,
                }
            })
            .await
        };
        let late = |_| {
            let what = format!(
                "the limits are not changed within {} s; what the guest has been asked for it may still do",
                UPDATE_LIMIT.as_secs()
            );
            Error::new(Code::HostFailure, what)
        };
        tokio::time::timeout(UPDATE_LIMIT, changing).await.map_err(late)?
    }

    /// The figures of a container's cgroup.
    ///
    /// # Errors
    /// `NoSuchTask`, the guest's, or `ProtocolBroken` for what are no figures.
    pub async fn stats(self: Arc<Self>, request: StatsRequest) -> Result<StatsResponse> {
        self.container(&request.id)?;
        figures::stats(&self.guest()?.task("Stats", &request, Some(SHORT)).await?)
    }
}

/// Waits for a process's end. One that is deleted has ended.
async fn ends_within(container: &Container, who: &Who, limit: Duration) -> bool {
    tokio::time::timeout(limit, container.wait(who)).await.is_ok()
}
