//! What the shim stands on: the configuration and the seams to Xen. Tests put fakes behind the seams.

use std::{fmt, os::unix::process::CommandExt, path::Path, process::Command, sync::Arc};

use vgpu_config::Config;

use crate::{
    error::{Error, Result},
    link::Link,
    share::Backend,
    toolstack::Toolstack,
};

/// Where the platform comes from: the configuration's path is only known when the first Create brings it, and `delete` has none.
pub trait PlatformSource: Send + Sync + fmt::Debug {
    /// The configuration at `path`, or the node's.
    ///
    /// # Errors
    /// `ConfigInvalid`.
    fn config(&self, path: Option<&Path>) -> Result<Config> {
        Config::load(path)
            .map_err(|error| Error::caused(error.code(), "the configuration cannot be used", error))
    }

    /// The platform with this configuration.
    fn platform(&self, config: Config) -> Platform;

    /// A program that waits for the end of its input: this one, though another may lie in its place by now, after an upgrade. Its arguments are
    /// for who lists processes.
    fn holder(&self, namespace: &str, container: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("vgpu-hold").args(["-namespace", namespace, "-id", container, "hold"]);
        command
    }
}

/// A node with Xen.
#[derive(Debug, Clone, Copy)]
pub struct Node;

impl PlatformSource for Node {
    fn platform(&self, config: Config) -> Platform {
        Platform::xen(config)
    }
}

/// Everything outside of the shim but containerd and gpu-proxy.
#[derive(Clone)]
pub struct Platform {
    /// `/etc/vgpu/config.toml`, or what containerd's `ConfigPath` names.
    pub config: Arc<Config>,
    /// Makes and ends domains.
    pub toolstack: Arc<dyn Toolstack>,
    /// Serves the share.
    pub share: Arc<dyn Backend>,
    /// Speaks with guests.
    pub link: Arc<dyn Link>,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Platform {
    /// The real one. Xen is only looked for when a domain is made.
    fn xen(config: Config) -> Platform {
        let config = Arc::new(config);
        let xen = Arc::new(crate::xen::XenLink::default());
        Platform {
            toolstack: Arc::new(crate::toolstack::xl::Xl),
            share: Arc::new(crate::share::server::ShareServer::new(
                config.shim.share_server.clone(),
                xen.clone(),
            )),
            link: xen,
            config,
        }
    }
}
