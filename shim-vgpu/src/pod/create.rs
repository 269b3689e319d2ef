//! Create: the pod's domain if it is the first container, then the container in it.
//!
//! Each intent is on disk before its side effect, and [`Step`] names what was done. A failure takes back what this Create made, and the
//! whole sandbox if it was the first container's.

use std::{sync::Arc, time::Duration};

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse};
use tokio::sync::MutexGuard;
use vgpu_agent_api::version;
use vgpu_codes::Code;

use super::{
    Creation, Pod, Sandbox, Slot, place::Placed, plan::Plan, proxy::PROXY_LIMIT, steps::Step,
    volumes::Changes,
};
use crate::{
    bootstrap, cleanup,
    container::Container,
    error::{Error, OrFail, Result, blocking},
    guest::Guest,
    io::Whose,
    names,
    persist::{Record, Store, random_uuid},
    share::ShareDir,
    spec::{Role, guest::SHARE_IN_GUEST, memory::Memories},
    zone,
};

/// For the guest to make a container: it may have to read the image's program over the share.
pub(super) const TASK_LIMIT: Duration = Duration::from_secs(120);

/// A Create, whose end, also by a panic, leaves nobody waiting for it.
pub(super) struct UnderWay<'a> {
    pub(super) pod: &'a Pod,
    pub(super) id: String,
    pub(super) creation: &'a Creation,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut containers = self.pod.lock();
        if matches!(containers.get(&self.id), Some(Slot::Creating(_))) {
            containers.remove(&self.id);
        }
        self.creation.done.send_replace(true);
    }
}

impl Pod {
    /// Makes a container and, for the first, the pod's domain. Returns the pid to report.
    ///
    /// # Errors
    /// Whatever kept it from being made; nothing is left behind then.
    pub async fn create(self: Arc<Self>, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        let id = request.id.clone();
        let creation = self.reserve(&id)?;
        let _under_way = UnderWay { pod: &self, id: id.clone(), creation: &creation };
        let (plan, slot) = match self.begin(request, &creation).await {
            Ok(begun) => begun,
            // Nothing is made yet, and who has the pod's lock is not waited for.
            Err(error) => {
                log::warn!("create {id}: {}", error.report());
                return Err(error.for_create());
            }
        };
        let built = self.build(plan, slot, &creation).await;
        match built {
            Ok((container, changes)) => {
                let pid = container.task_pid();
                self.lock().insert(id, Slot::Ready(container.clone()));
                tokio::spawn(self.clone().watch_holder(container.clone()));
                if let Some(changes) = changes {
                    tokio::spawn(self.clone().watch_volumes(container.clone(), changes));
                }
                tokio::spawn(self.clone().await_exit(container, crate::container::life::Who::Init));
                Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
            }
            Err(error) => {
                log::warn!("create {id}: {}", error.report());
                self.take_back(&id).await;
                Err(error.for_create())
            }
        }
    }

    pub(super) fn reserve(&self, id: &str) -> Result<Arc<Creation>> {
        let mut containers = self.lock();
        if containers.contains_key(id) {
            return Err(Error::new(Code::IdTaken, format!("the container {id} exists")));
        }
        let creation = Creation::new("it was deleted while it was created");
        containers.insert(id.to_owned(), Slot::Creating(creation.clone()));
        Ok(creation)
    }

    /// Reads what is asked for, finishes what an earlier Create of the id has left, and waits for the pod's other Creates.
    async fn begin(
        self: &Arc<Self>,
        request: CreateTaskRequest,
        creation: &Creation,
    ) -> Result<(Plan, MutexGuard<'_, Option<Sandbox>>)> {
        // Not by the reactor: a volume's file system may be slow.
        let plan = blocking(move || Plan::new(request)).await?;
        if matches!(plan.role, Role::Container { .. }) {
            self.expect_started()?;
        }
        self.finish_earlier(plan.id(), creation).await?;
        Ok((plan, self.sandbox_for(creation).await?))
    }

    async fn build(
        self: &Arc<Self>,
        plan: Plan,
        mut slot: MutexGuard<'_, Option<Sandbox>>,
        creation: &Creation,
    ) -> Result<(Arc<Container>, Option<Changes>)> {
        let (guest, mut placed) = {
            match (slot.is_some(), &plan.role) {
                (false, Role::Container { sandbox }) => {
                    return Err(Error::new(
                        Code::WrongState,
                        format!("the sandbox {sandbox} is not served by this shim"),
                    ));
                }
                (true, Role::Sandbox | Role::Alone) => {
                    return Err(Error::new(Code::WrongState, "this shim serves another sandbox"));
                }
                (false, _) => *slot = Some(self.begin_sandbox(&plan).await?),
                (true, Role::Container { .. }) => {}
            }
            // Filled just above, or it was there.
            let Some(sandbox) = slot.as_mut() else {
                return Err(Error::new(Code::GuestGone, "the sandbox is gone"));
            };
            let placed = self.place_container(sandbox, &plan, creation).await?;
            if sandbox.record.domid.is_none() {
                self.make_domain(sandbox, &plan, creation).await?;
            }
            if plan.gpu.is_some() {
                self.grant(sandbox, plan.id()).await?;
            }
            self.passed(Step::Granted, creation).await?;
            (self.guest()?, placed)
        };
        // From here on the guest is waited for, which must keep no other container's Delete waiting.
        drop(slot);
        self.make_room(plan.id(), &plan.spec, creation).await?;
        let changes = placed.changes.take();
        // Nor this one's.
        let container = tokio::select! {
            made = self.make_task(&guest, plan, placed, creation) => made,
            () = creation.cancelled() => Err(creation.refusal()),
        }?;
        Ok((container, changes))
    }

    /// After each step: tests may cut here, and a Delete may have come meanwhile.
    pub(super) async fn passed(&self, step: Step, creation: &Creation) -> Result<()> {
        log::debug!("create: {step:?}");
        self.cut.passed(step).await;
        creation.check()
    }

    /// Checks the node, and writes what will be there before any of it is.
    pub(super) async fn begin_sandbox(&self, plan: &Plan) -> Result<Sandbox> {
        let platform = self.platform.platform(self.platform.config(plan.config.as_deref())?);
        let uuid = random_uuid()?;
        let folder = names::folder(&self.namespace, plan.id(), uuid);
        let share_dir = platform.config.shim.shared_dir.join(&folder);
        let store = Store::at(platform.config.shim.state_dir.join(&folder));
        let pod_uid = plan.spec.pod_uid().map(str::to_owned);
        plan.spec.domain_size(&platform.config.guest)?;
        let (checked, bundle) = (platform.clone(), plan.bundle.clone());
        let (own, sysctls) = (plan.own.clone(), plan.spec.network_sysctls());
        let (namespace, id, gpu) = (self.namespace.clone(), plan.id().to_owned(), plan.gpu.is_some());
        blocking(move || {
            checked.toolstack.check()?;
            if gpu {
                // Asked before anything is built: a missing gpu-proxy is said in milliseconds, not after a boot.
                zone::ask(&checked.config.proxy.socket, PROXY_LIMIT)?;
            }
            for image in [&checked.config.guest.kernel, &checked.config.guest.initramfs] {
                std::fs::File::open(image)
                    .or_fail(Code::KernelMissing, || format!("cannot read {}", image.display()))?;
            }
            let lives = Store::lives(&checked.config.shim.state_dir, &namespace, &id)?;
            let mut record = Record::new(&namespace, &id, pod_uid.as_deref(), uuid, share_dir.clone());
            record.driver_domain = checked.config.proxy.domain;
            record.socket = bootstrap::socket_of(&bundle);
            // Ours is on disk before we wait for others, so that a `delete` that comes meanwhile ends us.
            let begun = store.point_from(&bundle).and_then(|()| store.save(&record));
            let begun =
                begun.and_then(|()| lives.iter().try_for_each(|life| cleanup::earlier(&checked, life)));
            if let Err(error) = begun {
                store.remove()?;
                return Err(error);
            }
            let share = ShareDir::at(share_dir);
            Ok(Sandbox {
                platform: checked,
                store,
                record,
                share,
                namespace: None,
                network: None,
                sysctls,
                memories: Memories::default(),
                own,
                watchers: Vec::new(),
                zone_turn: Arc::default(),
                zone_kept: false,
            })
        })
        .await
    }

    /// The container in the guest, with its stdio.
    async fn make_task(
        self: &Arc<Self>,
        guest: &Arc<Guest>,
        plan: Plan,
        placed: Placed,
        creation: &Creation,
    ) -> Result<Arc<Container>> {
        if placed.shares {
            // An older one would leave the container in namespaces and memory of its own.
            guest.require(version::POD_SINCE, "a container that shares namespaces or memory")?;
        }
        let whose = Whose { id: plan.id().to_owned(), namespace: self.namespace.clone() };
        let (pumps, names) = plan.stdio.connect(guest, whose).await?;
        let request = CreateTaskRequest {
            id: plan.id().to_owned(),
            bundle: format!("{SHARE_IN_GUEST}/{}", plan.id()),
            stdin: names.stdin,
            stdout: names.stdout,
            stderr: names.stderr,
            terminal: names.terminal,
            ..CreateTaskRequest::default()
        };
        let _: CreateTaskResponse = guest.task("Create", &request, Some(TASK_LIMIT)).await?;
        self.passed(Step::TaskMade, creation).await?;
        let outbox = self.outbox.clone();
        let hooks = (plan.hooks, placed.notes);
        Ok(Arc::new(Container::created(plan.request, placed.holder, hooks, outbox, plan.stdio, pumps)))
    }
}
