//! Create: the pod's domain if it is the first container, then the container in it.
//!
//! Each intent is on disk before its side effect, and [`Step`] names what was done. A failure takes back what this Create made, and the
//! whole sandbox if it was the first container's.

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse};
use tokio::sync::{MutexGuard, oneshot};
use vgpu_agent_api::version;
use vgpu_codes::Code;

use super::{Creation, Living, Pod, Sandbox, Slot, place::Placed, size::Size, steps::Step, volumes::Changes};
use crate::{
    bootstrap, cleanup,
    container::Container,
    error::{Error, OrFail, Result, blocking},
    guest::Guest,
    io::{Stdio, Whose},
    names, options,
    persist::{Record, Store, random_uuid},
    share::ShareDir,
    spec::{self, Role, Spec, gpu::GpuRequest, guest::SHARE_IN_GUEST, hooks::Hooks, memory::Memories},
    toolstack::DomainConfig,
    zone,
};

/// For gpu-proxy to register a zone or give a grant.
const PROXY_LIMIT: Duration = Duration::from_secs(10);
/// For the guest to make a container: it may have to read the image's program over the share.
pub(super) const TASK_LIMIT: Duration = Duration::from_secs(120);
/// The longest id part of a domain's name.
const NAME_ID_BYTES: usize = 40;

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

/// What a Create works on: read and checked before anything exists.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) request: CreateTaskRequest,
    pub(super) bundle: PathBuf,
    pub(super) spec: Spec,
    role: Role,
    pub(super) gpu: Option<GpuRequest>,
    pub(super) hooks: Hooks,
    stdio: Stdio,
    /// The node's configuration for it, where its runtime handler names one.
    config: Option<PathBuf>,
    /// The pod's sandbox, where that is no container.
    pub(super) own: Option<spec::sandbox::Sandbox>,
}

impl Plan {
    fn new(request: CreateTaskRequest) -> Result<Plan> {
        names::check_id("container id", &request.id)?;
        let bundle = PathBuf::from(&request.bundle);
        if !request.checkpoint.is_empty() {
            return Err(Error::new(Code::SpecRefused, "checkpoint asks for a restore from a checkpoint"));
        }
        let spec = Spec::load(&bundle)?;
        spec.refuse_host_things()?;
        spec.refuse_sources(&bundle)?;
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let hooks = spec.hooks(&request.id, &request.bundle)?;
        let config = options::config_path(request.options.get_or_default())?;
        Ok(Plan {
            role: spec.role()?,
            gpu: spec.gpu()?,
            hooks,
            bundle,
            spec,
            stdio,
            request,
            config,
            own: None,
        })
    }

    /// That of a sandbox which is no container: nobody has its streams, and no GPU is its.
    pub(super) fn of_sandbox(
        request: CreateTaskRequest,
        own: spec::sandbox::Sandbox,
        config: Option<PathBuf>,
    ) -> Result<Plan> {
        names::check_id("sandbox id", &request.id)?;
        own.spec.refuse_host_things()?;
        let (bundle, spec, stdio) = (PathBuf::from(&request.bundle), own.spec.clone(), Stdio::default());
        let hooks = Hooks::default();
        Ok(Plan {
            role: Role::Sandbox,
            gpu: None,
            hooks,
            bundle,
            spec,
            stdio,
            request,
            config,
            own: Some(own),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.request.id
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

    /// Reads what is asked for, and waits for the pod's other Creates.
    async fn begin(
        &self,
        request: CreateTaskRequest,
        creation: &Creation,
    ) -> Result<(Plan, MutexGuard<'_, Option<Sandbox>>)> {
        // Not by the reactor: a volume's file system may be slow.
        let plan = blocking(move || Plan::new(request)).await?;
        if matches!(plan.role, Role::Container { .. }) {
            self.expect_started()?;
        }
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
            self.make_room(plan.id(), &plan.spec, creation).await?;
            if plan.gpu.is_some() {
                self.grant(sandbox, plan.id()).await?;
            }
            self.passed(Step::Granted, creation).await?;
            (self.guest()?, placed)
        };
        drop(slot);
        let changes = placed.changes.take();
        // A guest that does not answer must not keep a Delete waiting.
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
        let own = plan.own.clone();
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
                memories: Memories::default(),
                own,
                watchers: Vec::new(),
                zone_turn: Arc::default(),
                zone_kept: false,
            })
        })
        .await
    }

    /// The domain, from nothing to guest-init's hello.
    pub(super) async fn make_domain(
        self: &Arc<Self>,
        sandbox: &mut Sandbox,
        plan: &Plan,
        creation: &Creation,
    ) -> Result<()> {
        let platform = sandbox.platform.clone();
        // After the earlier lives' end, whose ways are none that a pod cannot have, and after the hooks, which may make some of it.
        let namespace = match plan.spec.network() {
            Some(path) => sandbox.find_network(path).await?,
            None => None,
        };
        // Nobody ends a toolstack that has begun.
        creation.check()?;
        let domain = domain_config(sandbox, plan)?;
        let memory_mib = domain.memory_mib;
        let toolstack = platform.toolstack.clone();
        let domid = blocking(move || toolstack.create_paused(&domain)).await?;
        self.passed(Step::DomainMade, creation).await?;
        sandbox.record.domid = Some(domid);
        sandbox.save().await?;
        let (share, uuid, export) =
            (platform.share.clone(), sandbox.record.domain_uuid, sandbox.share.export());
        let backend = blocking(move || share.attach(domid, uuid, &export)).await?;
        sandbox.record.backend = Some(backend);
        sandbox.save().await?;
        self.passed(Step::ShareServed, creation).await?;
        let mut backend_end =
            backend.end().or_fail(Code::HostFailure, || "cannot watch the share's backend".into())?;
        let (link, driver_domain) = (platform.link.clone(), sandbox.record.driver_domain);
        blocking(move || link.make_devices(domid, driver_domain)).await?;
        self.passed(Step::DevicesMade, creation).await?;
        let changes = sandbox.make_vifs().await?;
        self.passed(Step::VifsMade, creation).await?;
        let toolstack = platform.toolstack.clone();
        blocking(move || toolstack.unpause(domid)).await?;
        self.passed(Step::Unpaused, creation).await?;
        let guest = self.meet_guest(sandbox, plan, (domid, &mut backend_end), creation).await?;
        let guest = Arc::new(guest);
        let size =
            Size::new(platform.toolstack.clone(), domid, memory_mib, &platform.config.guest, &plan.spec);
        let living =
            Living { guest: guest.clone(), platform: platform.clone(), domain_uuid: uuid, backend, size };
        *self.living() = Some(living);
        self.follow_network(sandbox, &guest, namespace.as_ref(), changes).await;
        sandbox.watch(self.clone().watch_domain(platform, uuid));
        sandbox.watch(self.clone().watch_guest());
        sandbox.watch(self.clone().watch_backend(backend_end));
        sandbox.watch(self.clone().keep_clock());
        self.passed(Step::GuestUp, creation).await
    }

    /// Waits for guest-init, and then for it to make the pod's network, but not for one that is dead, too slow or not wanted any more.
    async fn meet_guest(
        &self,
        sandbox: &Sandbox,
        plan: &Plan,
        (domid, backend_end): (u16, &mut oneshot::Receiver<()>),
        creation: &Creation,
    ) -> Result<Guest> {
        let platform = &sandbox.platform;
        let seconds = platform.config.shim.boot_timeout_s;
        let uuid = sandbox.record.domain_uuid;
        let mut endings = platform.link.endings();
        let death = async {
            loop {
                if endings.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let toolstack = platform.toolstack.clone();
                if let Ok(false) = blocking(move || toolstack.runs(uuid)).await {
                    return;
                }
            }
        };
        let given_up = async {
            tokio::select! {
                () = death => Error::new(Code::GuestGone, "the domain ended before its guest was up"),
                _ = backend_end => Error::new(Code::ShareFailed, "the share's backend ended before the guest was up"),
                () = creation.cancelled() => creation.refusal(),
            }
        };
        let mut given_up = pin!(given_up);
        let guest = tokio::select! {
            met = Guest::meet(platform.link.clone(), domid, &sandbox.record.sandbox, plan.spec.hostname()) => met?,
            why = &mut given_up => return Err(why),
            () = tokio::time::sleep(Duration::from_secs(seconds)) => {
                return Err(Error::new(Code::GuestSilent, format!("guest-init did not say hello within {seconds} s (shim.boot_timeout_s)")));
            }
        };
        // Its limit is the call's.
        if let Some(network) = &sandbox.network {
            tokio::select! {
                made = guest.set_network(network.network()) => made?,
                why = &mut given_up => return Err(why),
            }
        }
        Ok(guest)
    }

    /// Registers the zone, grants the container its GPU, and has both kept from here on.
    async fn grant(self: &Arc<Self>, sandbox: &mut Sandbox, id: &str) -> Result<()> {
        sandbox.record.proxy = Some(sandbox.platform.config.proxy.socket.clone());
        sandbox.save().await?;
        let turn = sandbox.zone_turn.clone().lock_owned().await;
        let (record, id) = (sandbox.record.clone(), id.to_owned());
        let registered = blocking(move || {
            let registered = zone::grant(&record, &id, PROXY_LIMIT);
            drop(turn);
            registered
        });
        let registered = registered.await?;
        if let (Some(stream), false) = (registered, sandbox.zone_kept) {
            sandbox.zone_kept = true;
            sandbox.watch(self.clone().keep_zone(stream));
        }
        Ok(())
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

impl Sandbox {
    /// Writes the record: before each side effect.
    pub(super) async fn save(&self) -> Result<()> {
        let (store, record) = (self.store.clone(), self.record.clone());
        blocking(move || store.save(&record)).await
    }
}

fn domain_config(sandbox: &Sandbox, plan: &Plan) -> Result<DomainConfig> {
    let guest = &sandbox.platform.config.guest;
    let size = plan.spec.domain_size(guest)?;
    let uuid = sandbox.record.domain_uuid;
    let short: String = plan.id().chars().take(NAME_ID_BYTES).collect();
    // A kernel that panics says so to Xen at once: else a PVH guest first tries the ways of a PC to restart, a million port reads that nothing answers.
    // Memory that a domain is given later is there to be used.
    let kernel_words = match guest.kind {
        vgpu_config::GuestKind::Pvh => "console=hvc0 quiet xen_legacy_crash memhp_default_state=online",
        // Grants of a PV guest's dma-bufs need bounce buffers: without them gntdev's IMP_TO_REFS gives references that nobody can map.
        vgpu_config::GuestKind::Pv => {
            "console=hvc0 quiet xen_legacy_crash memhp_default_state=online iommu=soft swiotlb=2048"
        }
    };
    Ok(DomainConfig {
        name: format!("vgpu-{short}-{:.8}", uuid.simple().to_string()),
        uuid,
        kernel: guest.kernel.clone(),
        ramdisk: guest.initramfs.clone(),
        kind: guest.kind,
        command_line: format!("{kernel_words} {}", guest.command_line).trim_end().to_owned(),
        memory_mib: size.memory_mib,
        vcpus: size.vcpus,
        cpus: guest.cpus.clone(),
        grant_frames_max: guest.grant_frames_max,
        file: sandbox.store.domain_file(),
    })
}
