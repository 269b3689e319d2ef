//! A pod without a container of its own: what containerd's Sandbox API asks of it. The domain is the sandbox.
//!
//! ```text
//! Created ─start→ Starting ─guest up→ Ready
//!    └─stop→ Stopping
//! each of them ─guest died, stopped, its holder killed→ Ended
//! ```
//! It is made and taken away as a pod is whose first container is its sandbox: `create` and `place` have both. Only who tells of its end,
//! and when it goes, is here: with StopSandbox or ShutdownSandbox, not with its last container.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use containerd_shim_protos::{
    api::{
        CreateTaskRequest, CreateTaskResponse, KillRequest, Mount, StartRequest, StartResponse, StatsRequest,
        WaitRequest, WaitResponse,
    },
    sandbox_api::CreateSandboxRequest,
};
use protobuf::well_known_types::any::Any;
use tokio::{sync::watch, task::JoinSet};
use vgpu_agent_api::version;
use vgpu_codes::Code;

use super::{
    Creation, Pod, Slot,
    create::{TASK_LIMIT, UnderWay},
    plan::Plan,
};
use crate::{
    container::{
        life::Who,
        stage::{self, Exit},
    },
    error::{Error, Result, blocking},
    figures,
    guest::Guest,
    holder::Holder,
    spec::{guest::SHARE_IN_GUEST, sandbox::Sandbox},
};

/// What a program is asked to end by. An image may name another, which containerd does not tell us. Source: `signal(7)`.
const SIGTERM: u32 = 15;
/// Of the root of the guest's own first process of a pid namespace, which has nothing in it.
const ROOT_OPTIONS: [&str; 2] = ["size=65536", "nr_inodes=64"];

/// See the module.
#[derive(Debug)]
pub(super) struct OwnSandbox {
    plan: Plan,
    holder: Holder,
    created_at: SystemTime,
    stage: watch::Sender<Stage>,
}

#[derive(Debug)]
enum Stage {
    Created,
    Starting(Arc<Creation>),
    Ready,
    /// Before it was started: it won't be.
    Stopping,
    Ended(Exit),
}

/// What containerd is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// A process of this host that stands for it.
    pub pid: u32,
    /// When it was made.
    pub created_at: SystemTime,
    /// Its guest is up.
    pub ready: bool,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
}

impl OwnSandbox {
    fn status(&self) -> Status {
        let stage = self.stage.borrow();
        let exit = if let Stage::Ended(exit) = *stage { Some(exit) } else { None };
        let pid = self.holder.process().pid.unsigned_abs();
        Status { pid, created_at: self.created_at, ready: matches!(*stage, Stage::Ready), exit }
    }

    fn begin_start(&self) -> Result<Arc<Creation>> {
        let creation = Creation::new("the sandbox was stopped while it was started");
        let mut begun = Ok(creation.clone());
        self.stage.send_if_modified(|stage| {
            match stage {
                Stage::Created => *stage = Stage::Starting(creation.clone()),
                Stage::Starting(_) | Stage::Ready => begun = Err("the sandbox was started before"),
                Stage::Stopping | Stage::Ended(_) => begun = Err("the sandbox was stopped before"),
            }
            begun.is_ok()
        });
        begun.map_err(|why| Error::new(Code::WrongState, why))
    }

    /// From here on it is not started any more. Gives the start that is under way.
    fn begin_stop(&self) -> Option<Arc<Creation>> {
        let mut starting = None;
        self.stage.send_if_modified(|stage| match stage {
            Stage::Created => {
                *stage = Stage::Stopping;
                true
            }
            Stage::Starting(creation) => {
                starting = Some(creation.clone());
                false
            }
            Stage::Ready | Stage::Stopping | Stage::Ended(_) => false,
        });
        starting
    }

    /// Its guest is up, unless it has ended meanwhile.
    fn ready(&self) -> Result<()> {
        let is_up = self.stage.send_if_modified(|stage| {
            let starts = matches!(stage, Stage::Starting(_));
            if starts {
                *stage = Stage::Ready;
            }
            starts
        });
        if is_up {
            Ok(())
        } else {
            Err(Error::new(Code::GuestGone, "the sandbox ended while it was started"))
        }
    }

    /// Its pid goes before anybody hears of its end.
    fn end(&self) {
        self.stage.send_if_modified(|stage| {
            let goes_on = !matches!(stage, Stage::Ended(_));
            if goes_on {
                self.holder.end();
                *stage = Stage::Ended(Exit::killed(SystemTime::now()));
            }
            goes_on
        });
    }
}

impl Pod {
    /// Makes what the sandbox has on the host, short of its domain.
    ///
    /// # Errors
    /// Whatever kept it from being made; nothing is left behind then.
    pub async fn create_sandbox(
        self: Arc<Self>,
        request: CreateSandboxRequest,
        config: Option<PathBuf>,
    ) -> Result<()> {
        let id = request.sandbox_id.clone();
        let creation = self.reserve(&id)?;
        let _under_way = UnderWay { pod: &self, id: id.clone(), creation: &creation };
        match self.build_sandbox(request, config, &creation).await {
            Ok(own) => {
                let own = Arc::new(own);
                // Before its end can be seen.
                self.lock().insert(id, Slot::Sandbox(own.clone()));
                tokio::spawn(self.clone().watch_sandbox(own));
                Ok(())
            }
            Err(error) => {
                log::warn!("create sandbox {id}: {}", error.report());
                self.take_back(&id).await;
                Err(error.for_create())
            }
        }
    }

    async fn build_sandbox(
        &self,
        request: CreateSandboxRequest,
        config: Option<PathBuf>,
        creation: &Creation,
    ) -> Result<OwnSandbox> {
        let plan = blocking(move || {
            let options = request.options.unwrap_or_default();
            let id = &request.sandbox_id;
            let own = Sandbox::new(id, &options.type_url, &options.value, &request.netns_path)?;
            let root = Mount {
                type_: "tmpfs".into(),
                source: "tmpfs".into(),
                options: ROOT_OPTIONS.map(String::from).to_vec(),
                ..Mount::default()
            };
            let rootfs = if own.shares_pids { vec![root] } else { Vec::new() };
            let asked = CreateTaskRequest {
                id: id.clone(),
                bundle: request.bundle_path,
                rootfs,
                ..CreateTaskRequest::default()
            };
            Plan::of_sandbox(asked, own, config)
        })
        .await?;
        let mut slot = self.sandbox.lock().await;
        if slot.is_some() {
            return Err(Error::new(Code::WrongState, "this shim serves another sandbox"));
        }
        let sandbox = slot.insert(self.begin_sandbox(&plan).await?);
        let placed = self.place_container(sandbox, &plan, creation).await?;
        let (created_at, stage) = (SystemTime::now(), watch::Sender::new(Stage::Created));
        Ok(OwnSandbox { plan, holder: placed.holder, created_at, stage })
    }

    /// Makes its domain, and waits until its guest is up.
    ///
    /// # Errors
    /// `NoSuchTask`, `WrongState`, or whatever kept it from starting; nothing but its end is left of it then.
    pub async fn start_sandbox(self: Arc<Self>, id: String) -> Result<Status> {
        let own = self.own_sandbox(&id)?;
        let creation = own.begin_start()?;
        let _under_way = UnderWay { pod: &self, id: id.clone(), creation: &creation };
        let started = match self.build_guest(&own, &creation).await {
            Ok(()) => own.ready(),
            Err(error) => Err(error),
        };
        match started {
            Ok(()) => Ok(own.status()),
            Err(error) => {
                log::warn!("start sandbox {id}: {}", error.report());
                if let Err(error) = self.end_sandbox().await {
                    log::warn!("taking back {id}: {}", error.report());
                }
                Err(error.for_create())
            }
        }
    }

    async fn build_guest(self: &Arc<Self>, own: &OwnSandbox, creation: &Creation) -> Result<()> {
        let (guest, sysctls, shares_pids) = {
            let mut slot = self.sandbox_for(creation).await?;
            let gone = || Error::new(Code::GuestGone, "the sandbox is gone");
            let sandbox = slot.as_mut().ok_or_else(gone)?;
            self.make_domain(sandbox, &own.plan, creation).await?;
            let asked = sandbox.own.as_ref().ok_or_else(gone)?;
            (self.guest()?, asked.sysctls.clone(), asked.shares_pids)
        };
        guest.require(version::SANDBOX_SINCE, "a pod without a sandbox container")?;
        let prepared = async {
            if !sysctls.is_empty() {
                guest.set_sysctls(&sysctls).await?;
            }
            if shares_pids { begin_pause(&guest, own.plan.id()).await } else { Ok(()) }
        };
        tokio::select! {
            prepared = prepared => prepared?,
            () = creation.cancelled() => return Err(creation.refusal()),
        }
        if shares_pids {
            tokio::spawn(self.clone().watch_pause(guest, own.plan.id().to_owned()));
        }
        Ok(())
    }

    /// Ends the guest, tells its tasks' ends and then its own, and takes away all that the pod has on the host. Programs that run are asked to
    /// end before, and have `grace` for it. Once more is no error.
    ///
    /// # Errors
    /// `NoSuchTask`, or what could not be taken away.
    pub async fn stop_sandbox(self: Arc<Self>, id: String, grace: Duration) -> Result<()> {
        let own = self.own_sandbox(&id)?;
        self.stop_own(&own, grace).await
    }

    async fn stop_own(self: &Arc<Self>, own: &OwnSandbox, grace: Duration) -> Result<()> {
        // In one step: a start that comes a moment later would be waited for until its guest is up.
        if let Some(creation) = own.begin_stop() {
            creation.cancel_and_wait().await;
        }
        if !grace.is_zero() && tokio::time::timeout(grace, self.clone().end_programs()).await.is_err() {
            log::info!("programs of the sandbox run on after {} s: they are killed", grace.as_secs());
        }
        self.end_sandbox().await
    }

    /// Asks the first process of each container that runs to end, and waits until all have.
    async fn end_programs(self: Arc<Self>) {
        let mut ending = JoinSet::new();
        for container in self.ready() {
            let is_there = matches!(
                container.stage(&Who::Init),
                Ok(stage::Stage::Starting(_)
                    | stage::Stage::Running(_)
                    | stage::Stage::Pausing(_)
                    | stage::Stage::Paused(_))
            );
            if !is_there {
                continue;
            }
            let pod = self.clone();
            ending.spawn(async move {
                let request =
                    KillRequest { id: container.id.clone(), signal: SIGTERM, ..KillRequest::default() };
                if let Err(error) = pod.kill(request).await {
                    // It has ended meanwhile, or does not answer.
                    log::debug!("container {}: {error}", container.id);
                }
                // One that is deleted has ended.
                let _ = container.wait(&Who::Init).await;
            });
        }
        ending.join_all().await;
    }

    async fn end_sandbox(self: &Arc<Self>) -> Result<()> {
        self.clone().guest_died().await;
        // They hold what is taken away for as long as their hooks and their guest take.
        for creation in self.creations() {
            creation.cancel_and_wait().await;
        }
        {
            let mut slot = self.sandbox.lock().await;
            self.take_away(&mut slot).await?;
        }
        for container in self.ready() {
            self.run_last_hooks(container.notes.clone()).await?;
        }
        Ok(())
    }

    /// Stops it, if it is there, and forgets it: the shim may go.
    ///
    /// # Errors
    /// As [`Pod::stop_sandbox`], but for one that was never made or is forgotten; `NoSuchTask` while there is another.
    pub async fn shutdown_sandbox(self: Arc<Self>, id: String) -> Result<()> {
        // containerd lets a shim go whose CreateSandbox it does not wait for any more.
        let creating = match self.lock().get(&id) {
            Some(Slot::Creating(creation)) => Some(creation.clone()),
            _ => None,
        };
        if let Some(creation) = creating {
            creation.cancel_and_wait().await;
        }
        match self.clone().stop_sandbox(id, Duration::ZERO).await {
            Err(error) if error.code() == Some(Code::NoSuchTask) && self.is_empty() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                // With it all that was in it: who has not deleted a container does not ask for it any more.
                self.lock().clear();
                Ok(())
            }
        }
    }

    /// How it ended, once it has.
    ///
    /// # Errors
    /// `NoSuchTask`.
    pub async fn wait_sandbox(&self, id: &str) -> Result<Exit> {
        let own = self.own_sandbox(id)?;
        let mut stage = own.stage.subscribe();
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Ended(_))).await;
        match ended.as_deref() {
            Ok(Stage::Ended(exit)) => Ok(*exit),
            // The sender lives in `own`.
            _ => Err(Error::new(Code::GuestGone, "the sandbox is gone")),
        }
    }

    /// What it is now.
    ///
    /// # Errors
    /// `NoSuchTask`.
    pub fn sandbox_status(&self, id: &str) -> Result<Status> {
        self.own_sandbox(id).map(|own| own.status())
    }

    /// What its containers use, in sum.
    ///
    /// # Errors
    /// `NoSuchTask`, `GuestGone`.
    pub async fn sandbox_stats(self: Arc<Self>, id: String) -> Result<Any> {
        self.own_sandbox(&id)?;
        self.guest()?;
        // Of all at once: a guest that is silent is not waited for by one after the other. One that has ended uses nothing.
        let mut asked = JoinSet::new();
        for container in self.ready() {
            let request = StatsRequest { id: container.id.clone(), ..StatsRequest::default() };
            asked.spawn(self.clone().stats(request));
        }
        let of_all: Vec<_> = asked.join_all().await.into_iter().flatten().collect();
        figures::sum(&of_all)
    }

    fn own_sandbox(&self, id: &str) -> Result<Arc<OwnSandbox>> {
        match self.lock().get(id) {
            Some(Slot::Sandbox(own)) => Ok(own.clone()),
            _ => Err(Error::new(Code::NoSuchTask, format!("there is no sandbox {id} in this shim"))),
        }
    }

    fn creations(&self) -> Vec<Arc<Creation>> {
        let slots = self.lock();
        let under_way = slots.values().filter_map(|slot| match slot {
            Slot::Creating(creation) => Some(creation.clone()),
            Slot::Sandbox(_) | Slot::Ready(_) => None,
        });
        under_way.collect()
    }

    /// The one that there is.
    fn any_sandbox(&self) -> Option<Arc<OwnSandbox>> {
        self.lock().values().find_map(|slot| match slot {
            Slot::Sandbox(own) => Some(own.clone()),
            Slot::Creating(_) | Slot::Ready(_) => None,
        })
    }

    /// Its guest runs no more.
    pub(super) fn sandbox_ended(&self) {
        if let Some(own) = self.any_sandbox() {
            own.end();
        }
    }

    /// Refuses a container of a sandbox that has no guest yet, or none any more. A pod that is made by its first container has one.
    pub(super) fn expect_started(&self) -> Result<()> {
        let Some(own) = self.any_sandbox() else { return Ok(()) };
        match *own.stage.borrow() {
            Stage::Created | Stage::Starting(_) | Stage::Stopping => {
                Err(Error::new(Code::WrongState, "the sandbox is not started"))
            }
            Stage::Ready => Ok(()),
            Stage::Ended(_) => Err(Error::new(Code::GuestGone, "the sandbox has ended")),
        }
    }

    /// Who kills the pid that we have told ends it. What it has on the host goes when its guest has died: nobody may ask for that.
    async fn watch_sandbox(self: Arc<Self>, own: Arc<OwnSandbox>) {
        match own.holder.ended() {
            // Nothing is ever sent.
            Ok(ended) => drop(ended.await),
            Err(error) => return log::warn!("nobody watches the sandbox's holder: {error}"),
        }
        if own.status().exit.is_none() {
            log::warn!("somebody has killed {}: the sandbox ends", own.status().pid);
        }
        if let Err(error) = self.stop_own(&own, Duration::ZERO).await {
            log::warn!("what the sandbox has left: {}", error.report());
        }
    }

    /// The first process of the pid namespace that containers share: all of them end with it.
    async fn watch_pause(self: Arc<Self>, guest: Arc<Guest>, id: String) {
        let request = WaitRequest { id, ..WaitRequest::default() };
        let ended: Result<WaitResponse> = guest.task("Wait", &request, None).await;
        log::debug!("the pause program has ended: {}", ended.is_ok());
        self.guest_died().await;
    }
}

async fn begin_pause(guest: &Guest, id: &str) -> Result<()> {
    let create = CreateTaskRequest {
        id: id.to_owned(),
        bundle: format!("{SHARE_IN_GUEST}/{id}"),
        ..CreateTaskRequest::default()
    };
    let _: CreateTaskResponse = guest.task("Create", &create, Some(TASK_LIMIT)).await?;
    let start = StartRequest { id: id.to_owned(), ..StartRequest::default() };
    let _: StartResponse = guest.task("Start", &start, Some(TASK_LIMIT)).await?;
    Ok(())
}
