//! Where everything of a local node is: below one folder, which `VGPU_LOCAL_DIR` names.
//!
//! `domains/<domid>/`: `domain.json`, `console`, `share` (a link to what the guest sees), `run` (where its /run is put together) ·
//! `devices/<domid>/`: the sockets `agent` and `streams` · `shared/` and `sandboxes/`: the shim's own.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};
use shim_vgpu::seams::{Error, Platform, PlatformSource, Result};
use tokio::sync::watch;
use uuid::Uuid;
use vgpu_codes::Code;
use vgpu_config::Config;

use crate::{link::LocalLink, share::LocalShare, toolstack::LocalToolstack};

/// Names the node's folder, to all verbs of the shim: `delete` is told nothing else.
const DIR: &str = "VGPU_LOCAL_DIR";
/// The domains' program, beside the shim's.
const GUEST: &str = "guest-local";

/// A local node.
#[derive(Debug, Clone)]
pub struct Node(PathBuf);

/// What is on disk of a domain, from before it has a process to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Domain {
    pub name: String,
    pub uuid: Uuid,
}

impl Node {
    /// The node in this folder.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Node(dir.into())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    pub(crate) fn domains(&self) -> PathBuf {
        self.0.join("domains")
    }

    pub(crate) fn domain(&self, domid: u16) -> PathBuf {
        self.domains().join(domid.to_string())
    }

    pub(crate) fn devices(&self, domid: u16) -> PathBuf {
        self.0.join("devices").join(domid.to_string())
    }

    pub(crate) fn agent(&self, domid: u16) -> PathBuf {
        self.devices(domid).join("agent")
    }

    pub(crate) fn streams(&self, domid: u16) -> PathBuf {
        self.devices(domid).join("streams")
    }

    pub(crate) fn share(&self, domid: u16) -> PathBuf {
        self.domain(domid).join("share")
    }

    /// What the domain `domid` is, if there is one.
    pub(crate) fn known(&self, domid: u16) -> io::Result<Option<Domain>> {
        match fs::read(self.domain(domid).join("domain.json")) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The ids of all domains.
    pub(crate) fn domids(&self) -> io::Result<Vec<u16>> {
        let entries = match fs::read_dir(self.domains()) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed?,
        };
        let names: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
        Ok(names?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
    }
}

/// The platform of the node that the environment names.
#[derive(Debug, Clone, Copy)]
pub struct Local;

impl PlatformSource for Local {
    fn config(&self, path: Option<&Path>) -> Result<Config> {
        let mut config = match path {
            Some(_) => Config::load(path)
                .map_err(|error| Error::caused(error.code(), "the configuration cannot be used", error))?,
            // A node's own file is another's: of the shim with Xen that may be installed here.
            None => Config::default(),
        };
        let Node(dir) = node();
        config.shim.shared_dir = dir.join("shared");
        config.shim.state_dir = dir.join("sandboxes");
        config.proxy.socket = dir.join("gpu-proxy.sock");
        let program = env::current_exe()
            .map_err(|error| Error::caused(Code::HostFailure, "cannot find our own program", error))?;
        config.guest.kernel = program.with_file_name(GUEST);
        config.guest.initramfs = config.guest.kernel.clone();
        Ok(config)
    }

    fn platform(&self, config: Config) -> Platform {
        let endings = Arc::new(watch::Sender::new(0));
        Platform {
            config: Arc::new(config),
            toolstack: Arc::new(LocalToolstack { node: node(), endings: endings.clone() }),
            share: Arc::new(LocalShare { node: node() }),
            link: Arc::new(LocalLink { node: node(), endings, vifs: Mutex::default() }),
        }
    }
}

fn node() -> Node {
    Node(env::var_os(DIR).map_or_else(|| "/run/vgpu-local".into(), PathBuf::from))
}

/// An error of this machine.
pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    |error| Error::caused(Code::HostFailure, what, error)
}

/// Removes a folder that may be gone.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("cannot remove {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}
