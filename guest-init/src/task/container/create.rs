//! Create: a container up to the point where its program could be executed.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use libcontainer::oci_spec::runtime::{LinuxSeccomp, Spec};

use super::Container;
use crate::{
    cgroup::{self, Cgroup},
    error::{During, GuestError, Result},
    oci::{Request, adapt, places, process, tmpfs, workdir},
    stdio::StdioNames,
    sysctl,
    task::{
        gpu::open_door,
        host::Host,
        huge::{self, HugePages},
        launch::{Place, launch},
        oom::OomWatch,
        process::Process,
        shared::{Joining, Memories},
        volumes::Volumes,
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
        let bundle = host.layout.share.join(&plan.id);
        let rootfs = bundle.join("rootfs");
        let looking = (Arc::clone(&host), plan.id.clone(), directory.clone(), rootfs.clone());
        let pools = Arc::clone(&plan.huge_pages);
        // The share is another domain's file system: it may be slow, and this thread serves the whole pod.
        let (spec, door, huge_pages, (volumes, places)) = tokio::task::spawn_blocking(move || {
            let (host, id, directory, rootfs) = looking;
            let mut spec = read_spec(&bundle.join("config.json"))?;
            places::resolve(&mut spec, &rootfs);
            tmpfs::add_modes(&mut spec, &rootfs);
            let door = open_door(&host, &id, &directory, &rootfs, &spec)?;
            let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
            let limits = resources.and_then(|resources| resources.hugepage_limits().as_deref());
            let huge_pages = pools.reserve(limits.unwrap_or_default())?;
            let copied = Volumes::copy(&mut spec, &bundle, &directory, &host.room);
            Ok::<_, GuestError>((spec, door, huge_pages, copied))
        })
        .await
        .map_err(|_| GuestError::Oci { operation: "read the spec", text: "it panicked".into() })??;
        let guest = adapt::Guest {
            rootfs,
            cgroup: cgroup_path.to_owned(),
            huge_pages: huge::POOLS.into(),
            binds: door.as_ref().map(|door| door.binds.clone()).unwrap_or_default(),
        };
        let mut joining = Joining::new(&plan.inits, &plan.memories);
        let adapted = adapt::adapt(spec, &guest, &mut joining)?;
        for (sysctl, value) in &adapted.sysctls {
            sysctl::set(sysctl, value)?;
        }
        let seccomp = adapted.seccomp.map(|profile| save_seccomp(&directory, &profile)).transpose()?;
        let mut spec = adapted.spec;
        workdir::add_hook(&mut spec, &host.layout.program, &directory)?;
        if let Some(process) = spec.process_mut() {
            process.set_terminal(Some(plan.stdio.terminal));
        }
        let uid_mappings = adapt::uid_mappings(&spec);
        let owner = adapt::owner(spec.process().as_ref(), &uid_mappings);
        let config = directory.join("config.json");
        spec.save(&config)
            .map_err(|error| GuestError::Oci { operation: "write the spec", text: error.to_string() })?;

        let request = |console| Request::Create {
            id: plan.id.clone(),
            bundle: directory.clone(),
            state: host.layout.oci_state(),
            console,
            seccomp: seccomp.clone(),
        };
        fs::create_dir_all(host.layout.oci_state()).during(|| "make the OCI state directory".into())?;
        let place = Place { directory: &directory, name: "init", owner };
        let launched = launch(&host, &place, &plan.stdio, request).await;
        let launched = launched.map_err(|error| workdir::explained(error, &directory))?;
        drop((joining, places));

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
            volumes,
            _huge_pages: huge_pages,
            execs: Mutex::new(HashMap::new()),
            ending: AtomicBool::new(false),
            uid_mappings,
            seccomp,
            // Without the watch an OOM kill is still told with the exit.
            oom_task: tokio::spawn(async move { drop(following.follow().await) }),
            _door: door,
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

fn read_spec(file: &Path) -> Result<Spec> {
    let bytes = fs::read(file).during(|| format!("read {}", file.display()))?;
    let spec = serde_json::from_slice(&bytes).and_then(|mut spec: serde_json::Value| {
        spec.get_mut("process").into_iter().for_each(process::forget_unknown);
        serde_json::from_value(spec)
    });
    spec.map_err(|error| GuestError::Invalid { field: "config.json", why: error.to_string() })
}

fn save_seccomp(directory: &Path, profile: &LinuxSeccomp) -> Result<PathBuf> {
    let file = directory.join("seccomp.json");
    let json = serde_json::to_vec(profile).map_err(io::Error::from);
    json.and_then(|json| fs::write(&file, json)).during(|| format!("write {}", file.display()))?;
    Ok(file)
}
