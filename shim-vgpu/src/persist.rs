//! What is on disk before it exists: `<state_dir>/<namespace>+<sandbox>+<domain UUID>/state.json`.
//!
//! The intent of each step is written here (fsync, rename) before its side effect, so that a new process can clean up after a death at
//! any step; what a container's hooks need is beside it (`persist/hooks.rs`). The fields keep their names in all versions of the format: cleaning up reads them from a version that it doesn't know, so a
//! field that comes later needs a default.

pub mod hooks;
mod lock;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vgpu_codes::Code;
use vgpu_zone_api::shim::ZoneId;

use crate::{
    error::{OrFail, Result},
    names::is_life_of,
    network::NetworkRecord,
    share::Process,
    spec::gpu::GpuRequest,
};

/// The version of this format.
const VERSION: u32 = 1;
/// In the bundle: the path of the state folder, for `delete`, which isn't told the configuration.
const POINTER: &str = "vgpu-state";

/// Everything that must be taken away again, whether it was made or only about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// 1.
    pub version: u32,
    /// containerd's namespace.
    pub namespace: String,
    /// The sandbox.
    pub sandbox: String,
    /// The server that made this; `delete` ends it if it still lives.
    pub shim: Option<Process>,
    /// Where that server listens.
    pub socket: Option<PathBuf>,
    /// The domain's UUID: chosen before the domain is made.
    pub domain_uuid: Uuid,
    /// Its id, once known.
    pub domid: Option<u16>,
    /// Where the share is put together.
    pub share: PathBuf,
    /// Who serves the share, once known.
    pub backend: Option<Process>,
    /// The domain of gpu-proxy: the GPU device's nodes are there.
    pub driver_domain: u16,
    /// The pod's network, if the guest is to have one.
    #[serde(default)]
    pub network: Option<NetworkRecord>,
    /// gpu-proxy's socket, from the moment at which the zone may be registered there.
    pub proxy: Option<PathBuf>,
    /// The zone.
    pub zone: ZoneId,
    /// The pod's uid, which names its workers' cgroup.
    pub pod_uid: String,
    /// The pod's containers.
    pub containers: BTreeMap<String, ContainerRecord>,
}

/// What a container has on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its bundle: `rootfs` is mounted there.
    pub bundle: PathBuf,
    /// The GPU that it may have been granted.
    pub gpu: Option<GpuRequest>,
    /// Its stand-in on this host, whose pid is reported for it.
    #[serde(default)]
    pub holder: Option<Process>,
}

impl Record {
    /// The record of a sandbox of which nothing exists yet. `pod_uid` is Kubernetes', where it made one.
    pub fn new(
        namespace: &str,
        sandbox: &str,
        pod_uid: Option<&str>,
        domain_uuid: Uuid,
        share: PathBuf,
    ) -> Self {
        let zone = ZoneId::of_sandbox(pod_uid, namespace, sandbox);
        Record {
            version: VERSION,
            namespace: namespace.into(),
            sandbox: sandbox.into(),
            shim: Process::of(std::process::id()),
            socket: None,
            domain_uuid,
            domid: None,
            share,
            backend: None,
            driver_domain: 0,
            network: None,
            proxy: None,
            zone,
            pod_uid: pod_uid.map_or_else(|| zone.to_string(), str::to_owned),
            containers: BTreeMap::new(),
        }
    }
}

impl Record {
    /// The stand-ins of the pod's containers.
    pub fn holders(&self) -> BTreeMap<String, Process> {
        let held = self.containers.iter().filter_map(|(id, container)| Some((id.clone(), container.holder?)));
        held.collect()
    }
}

/// The folder of a sandbox's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store(PathBuf);

impl Store {
    /// The record in `dir`, written or not.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Store(dir.into())
    }

    /// All lives of a sandbox that left something in `state_dir`.
    ///
    /// # Errors
    /// [`Code::HostFailure`] if the folder can't be read.
    pub fn lives(state_dir: &Path, namespace: &str, sandbox: &str) -> Result<Vec<Store>> {
        let what = || format!("cannot list {}", state_dir.display());
        let entries = match fs::read_dir(state_dir) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.or_fail(Code::HostFailure, what)?,
        };
        let mut lives = Vec::new();
        for entry in entries {
            let entry = entry.or_fail(Code::HostFailure, what)?;
            if entry.file_name().to_str().is_some_and(|name| is_life_of(name, namespace, sandbox)) {
                lives.push(Store(entry.path()));
            }
        }
        Ok(lives)
    }

    /// The configuration of the sandbox's domain for its toolstack; its path names this sandbox alone.
    pub fn domain_file(&self) -> PathBuf {
        self.0.join("domain.cfg")
    }

    /// Notes in the bundle where the record is, the first write of all, and makes the record's folder: without the note nobody would find it.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn point_from(&self, bundle: &Path) -> Result<()> {
        let what = || format!("cannot write into {}", bundle.display());
        replace(&bundle.join(POINTER), self.0.as_os_str().as_encoded_bytes())
            .or_fail(Code::HostFailure, what)?;
        private_folder(&self.0)
    }

    /// The record that a bundle points to.
    pub fn pointed_from(bundle: &Path) -> Option<Self> {
        fs::read_to_string(bundle.join(POINTER)).ok().map(Store::at)
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn save(&self, record: &Record) -> Result<()> {
        let what = || format!("cannot write the state of sandbox {}", record.sandbox);
        let text = serde_json::to_vec_pretty(record).or_fail(Code::HostFailure, what)?;
        replace(&self.0.join("state.json"), &text).or_fail(Code::HostFailure, what)
    }

    /// Reads the record; none if nothing was begun.
    ///
    /// # Errors
    /// [`Code::StateUnreadable`].
    pub fn load(&self) -> Result<Option<Record>> {
        let file = self.0.join("state.json");
        let what = || format!("cannot use {}", file.display());
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).or_fail(Code::StateUnreadable, what),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).or_fail(Code::StateUnreadable, what),
        }
    }

    /// Removes the folder: the sandbox is no more.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).or_fail(Code::HostFailure, || format!("cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Makes a folder, and those above it that are missing, for root alone: specs hold environments, and environments hold secrets.
///
/// # Errors
/// [`Code::HostFailure`].
pub fn private_folder(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.or_fail(Code::HostFailure, || format!("cannot make {}", dir.display()))
}

/// Replaces a file so that a reader finds the old text or the new one, also after a crash of the node.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = file.with_extension("next");
    let mut writer = File::create(&next)?;
    writer.write_all(bytes)?;
    writer.sync_all()?;
    fs::rename(&next, file)?;
    file.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// A UUID of the kernel's own making. Source: `random(4)`, `/proc/sys/kernel/random/uuid`.
///
/// # Errors
/// [`Code::HostFailure`] where /proc isn't mounted.
pub fn random_uuid() -> Result<Uuid> {
    let what = || "cannot make a UUID".to_owned();
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").or_fail(Code::HostFailure, what)?;
    Uuid::parse_str(text.trim()).or_fail(Code::HostFailure, what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record() -> Record {
        Record::new("default", "a", None, random_uuid().unwrap(), "/share".into())
    }

    #[test]
    fn a_record_is_found_again_from_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("state"));
        store.point_from(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path().join("state")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(store.load().unwrap(), None);
        let record = record();
        store.save(&record).unwrap();
        assert_eq!(Store::pointed_from(dir.path()).unwrap().load().unwrap(), Some(record));
        store.remove().unwrap();
        store.remove().unwrap();
        assert_eq!(store.load().unwrap(), None);
    }

    #[test]
    fn a_folder_that_is_there_is_named_by_its_bundle() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let store = Store::at(dir.path().join("file/state"));
        store.point_from(dir.path()).unwrap_err();
        assert_eq!(Store::pointed_from(dir.path()), Some(store), "the folder comes before its name");
    }

    #[test]
    fn a_later_version_can_still_be_cleaned_up_and_damage_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let mut value = serde_json::to_value(record()).unwrap();
        value["version"] = 2.into();
        value["more"] = "x".into();
        fs::write(dir.path().join("state.json"), value.to_string()).unwrap();
        assert_eq!(store.load().unwrap().unwrap().version, 2);
        fs::write(dir.path().join("state.json"), "{").unwrap();
        assert_eq!(store.load().unwrap_err().code(), Some(Code::StateUnreadable));
    }

    #[test]
    fn two_uuids_differ() {
        assert_ne!(random_uuid().unwrap(), random_uuid().unwrap());
    }
}
