//! Where a pod's shim listens: containerd's clients compute the same path. Source: containerd, `pkg/shim/util_unix.go`.

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use vgpu_codes::Code;

use crate::{
    error::{OrFail, Result},
    persist::private_folder,
};

/// containerd's own folder for shims' sockets.
const FOLDER: &str = "/run/containerd/s";

/// Prints as `unix:///run/containerd/s/<hash>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(PathBuf);

impl Address {
    /// The address of the pod `sandbox`, in `folder` or in containerd's own.
    pub fn new(folder: Option<&str>, containerd: &str, namespace: &str, sandbox: &str) -> Self {
        let name = format!("{}/{namespace}/{sandbox}", containerd.trim_end_matches('/'));
        let hash = Sha256::digest(name.as_bytes());
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Address(Path::new(folder.unwrap_or(FOLDER)).join(hex))
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder, for root alone, where it is missing.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn make_folder(&self) -> Result<()> {
        // `new` joins a name to a folder, so there is a parent.
        let folder = self.0.parent().unwrap_or(Path::new(FOLDER));
        private_folder(folder)
    }

    /// Root alone may connect.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn close_to_others(&self) -> Result<()> {
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o600))
            .or_fail(Code::HostFailure, || format!("cannot close {self} to other users"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_hash_that_clients_compute() {
        // printf %s /run/containerd/containerd.sock/default/demo | sha256sum
        let address = Address::new(None, "/run/containerd/containerd.sock", "default", "demo");
        assert_eq!(
            address.to_string(),
            "unix:///run/containerd/s/12117510a54ae87cb9f59e68c4b6897783ff70cec968b5b5967a0a0cd503057e"
        );
    }

    #[test]
    fn the_longest_names_fit_a_socket_path() {
        let address = Address::new(None, "/run/containerd/containerd.sock", &"n".repeat(76), &"i".repeat(64));
        assert!(address.path().as_os_str().len() <= 106);
    }
}
