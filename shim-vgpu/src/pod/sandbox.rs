//! A pod without a container of its own: what containerd's Sandbox API asks of it. The domain is the sandbox, [`own`] has its stages.
//!
//! It is made and taken away as a pod is whose first container is its sandbox: `create` and `place` have both. Only who tells of its end,
//! and when it goes, is here ([`end`]): with StopSandbox or ShutdownSandbox, not with its last container.

mod end;
mod own;

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use containerd_shim_protos::{
    api::{
        CreateTaskRequest, CreateTaskResponse, Mount, StartRequest, StartResponse, StatsRequest, WaitRequest,
        WaitResponse,
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
    container::stage::Exit,
    error::{Error, Result, blocking},
    figures,
    guest::Guest,
    spec::{guest::SHARE_IN_GUEST, sandbox::Sandbox},
};
pub(super) use own::OwnSandbox;
use own::{Stage, Status};

/// Of the root of the guest's own first process of a pid namespace, which has nothing in it.
const ROOT_OPTIONS: [&str; 2] = ["size=65536", "nr_inodes=64"];

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
        let store = placed.notes.store;
        Ok(OwnSandbox { plan, holder: placed.holder, store, created_at, stage })
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

    /// The one that there is.
    pub(super) fn any_sandbox(&self) -> Option<Arc<OwnSandbox>> {
        self.lock().values().find_map(|slot| match slot {
            Slot::Sandbox(own) => Some(own.clone()),
            Slot::Creating(_) | Slot::Ready(_) => None,
        })
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
