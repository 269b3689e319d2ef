//! Create: a container up to the point where its program could be executed.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use libcontainer::oci_spec::runtime::Spec;

use super::{
    Container,
    spec::{self, Written},
};
use crate::{
    cgroup::{self, Cgroup},
    error::{During, GuestError, Result},
    oci::{Request, adapt, destinations, tmpfs, workdir},
    stdio::StdioNames,
    sysctl,
    task::{
        gpu::{OpenDoor, open_door},
        host::Host,
        huge::{self, HugePages, Reserved},
        launch::{Whose, launch},
        oom::OomWatch,
        process::{Launched, Process},
        shared::{Joining, Memories},
        volumes::{MountPoints, Volumes},
    },
};

/// A container to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// containerd's id, already checked to be one path component.
    pub id: String,
    /// As in the request.
    pub bundle: String,
    /// Init's streams.
    pub stdio: StdioNames,
    /// Init of each container of the pod.
    pub inits: BTreeMap<String, Arc<Process>>,
    /// The pod's.
    pub memories: Arc<Memories>,
    /// The guest's.
    pub huge_pages: Arc<HugePages>,
}

impl Container {
    /// Makes the container up to the point where its program could be executed. A failure leaves nothing.
    /// # Errors
    /// A spec that cannot be used, a command that cannot be executed, streams that are not there, the library's own.
    pub async fn create(host: Arc<Host>, plan: Plan) -> Result<Arc<Self>> {
        let directory = host.layout.container(&plan.id);
        let cgroup_path = cgroup::of_container(&plan.id);
        let made = Self::make(Arc::clone(&host), plan.clone(), directory.clone(), &cgroup_path).await;
        if made.is_err() {
            let _ = Cgroup::new(&cgroup_path).remove().await;
            let _ = fs::remove_dir_all(host.layout.oci_state().join(&plan.id));
            let _ = fs::remove_dir_all(&directory);
        }
        made
    }

    async fn make(host: Arc<Host>, plan: Plan, directory: PathBuf, cgroup_path: &Path) -> Result<Arc<Self>> {
        fs::create_dir_all(&directory).during(|| format!("make {}", directory.display()))?;
        let looking = (Arc::clone(&host), plan.clone(), directory.clone());
        // The share is another domain's file system: it may be slow, and this thread serves the whole pod.
        let found = tokio::task::spawn_blocking(move || Found::new(&looking.0, &looking.1, &looking.2));
        let found = found
            .await
            .map_err(|_| GuestError::Oci { operation: "read the spec", text: "it panicked".into() })??;
        let guest = adapt::Guest {
            rootfs: found.rootfs,
            cgroup: cgroup_path.to_owned(),
            huge_pages: huge::POOLS.into(),
            binds: found.door.as_ref().map(|door| door.binds.clone()).unwrap_or_default(),
        };
        let mut joining = Joining::new(&plan.inits, &plan.memories);
        let adapted = adapt::adapt(found.spec, &guest, &mut joining)?;
        for (sysctl, value) in &adapted.sysctls {
            sysctl::set(sysctl, value)?;
        }
        let written = spec::write(adapted, &host.layout.program, &directory, plan.stdio.terminal)?;
        let launched = launch_init(&host, &plan, &directory, &written).await?;
        drop((joining, found.mount_points));

        let cgroup = Cgroup::new(cgroup_path);
        let oom = Arc::new(OomWatch::new(plan.id.clone(), cgroup.clone(), Arc::clone(&host.oom)));
        let following = Arc::clone(&oom);
        let init = Process::new(format!("container {}", plan.id), plan.stdio);
        let exited = init.launched(launched);
        let container = Arc::new(Self {
            id: plan.id,
            bundle: plan.bundle,
            directory,
            cgroup,
            init,
            oom,
            volumes: found.volumes,
            execs: Mutex::new(HashMap::new()),
            ending: AtomicBool::new(false),
            updates: tokio::sync::Mutex::default(),
            uid_mappings: written.uid_mappings,
            seccomp: written.seccomp,
            // Without the watch an OOM kill is still told with the exit.
            oom_task: tokio::spawn(async move { drop(following.follow().await) }),
            _door: found.door,
            _huge_pages: found.huge_pages,
        });
        let watched = Arc::clone(&container);
        tokio::spawn(async move {
            if let Ok(exit) = exited.await {
                watched.init_ended(exit).await;
            }
        });
        Ok(container)
    }
}

/// What there is for a container before anything of it is made.
struct Found {
    spec: Spec,
    rootfs: PathBuf,
    door: Option<OpenDoor>,
    huge_pages: Reserved,
    volumes: Volumes,
    /// Until the container has them.
    mount_points: MountPoints,
}

impl Found {
    /// Reads the share, and takes of the guest what the spec says. Blocks.
    fn new(host: &Host, plan: &Plan, directory: &Path) -> Result<Found> {
        let bundle = host.layout.share.join(&plan.id);
        let rootfs = bundle.join("rootfs");
        let mut spec = spec::read(&bundle.join("config.json"))?;
        destinations::resolve(&mut spec, &rootfs);
        tmpfs::add_modes(&mut spec, &rootfs);
        let door = open_door(host, &plan.id, directory, &rootfs, &spec)?;
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let limits = resources.and_then(|resources| resources.hugepage_limits().as_deref());
        let huge_pages = plan.huge_pages.reserve(limits.unwrap_or_default())?;
        let (volumes, mount_points) = Volumes::copy(&mut spec, &bundle, directory, &host.room);
        Ok(Found { spec, rootfs, door, huge_pages, volumes, mount_points })
    }
}

async fn launch_init(host: &Host, plan: &Plan, directory: &Path, written: &Written) -> Result<Launched> {
    let request = |console| Request::Create {
        id: plan.id.clone(),
        bundle: directory.to_owned(),
        state: host.layout.oci_state(),
        console,
        seccomp: written.seccomp.clone(),
    };
    fs::create_dir_all(host.layout.oci_state()).during(|| "make the OCI state directory".into())?;
    let whose = Whose { directory, name: "init", owner: written.owner };
    let launched = launch(host, &whose, &plan.stdio, request).await;
    launched.map_err(|error| workdir::explained(error, directory))
}
