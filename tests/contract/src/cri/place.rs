//! Where a node's programs are and run, in a root and a network of their own, and what its directory has of files.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use vgpu_inside::rooted;

use super::networks;

const CONFIG: &str = include_str!("config.toml");
const PLUGIN: &str = include_str!("cni.sh");
/// CNI's own that pods' networks are made of; containerd has the loopback by a network of its own.
const PLUGINS: [&str; 6] = ["bandwidth", "bridge", "host-local", "loopback", "portmap", "ptp"];
/// Of the local shim, which lie beside each other.
const PROGRAMS: [&str; 2] = ["containerd-shim-vgpulocal-v1", "guest-local"];
/// Makes the loopback of a new network usable, for the program behind it.
const IN_NETWORK: &str = "/busybox ip link set lo up && exec \"$@\"";

/// See the module.
#[derive(Debug, Clone)]
pub struct Place {
    /// Runc, util-linux, CNI's plugins and, where `containerd` has none, containerd.
    pub root: PathBuf,
    /// Another containerd's programs.
    pub containerd: Option<PathBuf>,
    /// The local shim.
    pub shim: PathBuf,
}

impl Place {
    /// A directory that is /test for its programs, with all that they find there.
    pub(super) fn dir(&self) -> TempDir {
        let dir = TempDir::new().expect("a directory");
        self.fill(dir.path());
        dir
    }

    fn fill(&self, dir: &Path) {
        for folder in ["bin", "logs", "run", "var", "volumes"] {
            fs::create_dir(dir.join(folder)).expect("a folder");
        }
        let programs = PROGRAMS.map(|program| self.shim.with_file_name(program));
        let others = self.containerd.iter().flat_map(|folder| super::node::entries(folder));
        for program in programs.into_iter().chain(others) {
            let name = program.file_name().expect("a program has a name");
            fs::copy(&program, dir.join("bin").join(name))
                .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        }
        for plugin in PLUGINS {
            symlink(format!("/usr/lib/cni/{plugin}"), dir.join("bin").join(plugin)).expect("a link");
        }
        let plugin = dir.join("bin/pod");
        fs::write(&plugin, PLUGIN).expect("written");
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("executable");
        let ours = "io.containerd.vgpulocal.v1";
        // The last is the same by the Sandbox API, which 2.x alone has: no pause container.
        let runtimes = [
            ("runc", "io.containerd.runc.v2", ""),
            ("vgpu", ours, ""),
            ("vgpu-sandbox", ours, "sandboxer = \"shim\"\n"),
        ];
        let config = CONFIG.to_owned() + &networks::write(dir, &runtimes);
        fs::write(dir.join("config.toml"), config).expect("written");
    }

    /// What is added as arguments: a program and its own.
    pub(super) fn command(&self, dir: &Path) -> Command {
        let mut command = rooted::command(&self.root, dir, Path::new("/"));
        command.env("PATH", "/test/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// The same in a new network.
    pub(super) fn command_in_network(&self, dir: &Path) -> Command {
        let mut command = self.command(dir);
        command.args(["/busybox", "unshare", "--net", "/busybox", "sh", "-c", IN_NETWORK, "sh"]);
        command
    }

    /// The same in the network of a process, by busybox, whose applet and its arguments they are.
    pub(super) fn busybox_in_network_of(&self, dir: &Path, pid: u32) -> Command {
        let mut command = self.command(dir);
        command.args(["/busybox", "nsenter", &format!("--net=/proc/{pid}/ns/net"), "/busybox"]);
        command
    }
}
