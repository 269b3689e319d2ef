//! Where a node's programs are and run, and what its directory has of files.

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
const PLUGINS: [&str; 7] = ["bandwidth", "bridge", "host-local", "loopback", "portmap", "ptp", "tuning"];
/// Of the local shim, which lie beside each other.
const PROGRAMS: [&str; 2] = ["containerd-shim-vgpulocal-v1", "guest-local"];
/// Makes the loopback of a new network usable, for the program behind it.
const IN_NETWORK: &str = "/busybox ip link set lo up && exec \"$@\"";
/// Of a root of its own, as `cni.sh` has it.
const OWN_BUSYBOX: &str = "/busybox";
/// Where the installed shim keeps its lives.
const INSTALLED: &str = "/run/vgpu";

/// See the module.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a root and a network of their own, with the local shim.
    Own {
        /// Runc, util-linux, CNI's plugins and, where `containerd` has none, containerd.
        root: PathBuf,
        /// Another containerd's programs.
        containerd: Option<PathBuf>,
        /// The local shim.
        shim: PathBuf,
    },
    /// On this machine, which is Xen's Dom0 and has all of it, with the installed shim.
    Dom0,
}

impl Place {
    /// A directory that is /test for its programs, with all that they find there.
    pub(super) fn dir(&self) -> TempDir {
        let dir = match self {
            Place::Own { .. } => TempDir::new(),
            Place::Dom0 => tempfile::Builder::new().prefix("test").rand_bytes(0).tempdir_in("/"),
        };
        let dir = dir.expect("a directory");
        self.fill(dir.path());
        dir
    }

    fn fill(&self, dir: &Path) {
        for folder in ["bin", "logs", "run", "var", "volumes"] {
            fs::create_dir(dir.join(folder)).expect("a folder");
        }
        for program in self.programs() {
            let name = program.file_name().expect("a program has a name");
            fs::copy(&program, dir.join("bin").join(name))
                .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        }
        for plugin in PLUGINS {
            symlink(format!("/usr/lib/cni/{plugin}"), dir.join("bin").join(plugin)).expect("a link");
        }
        let plugin = dir.join("bin/pod");
        fs::write(&plugin, PLUGIN.replace(OWN_BUSYBOX, self.busybox())).expect("written");
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("executable");
        let ours = if self.is_own() { "io.containerd.vgpulocal.v1" } else { "io.containerd.vgpu.v1" };
        // The last is the same by the Sandbox API, which 2.x alone has: no pause container.
        let runtimes = [
            ("runc", "io.containerd.runc.v2", ""),
            ("vgpu", ours, ""),
            ("vgpu-sandbox", ours, "sandboxer = \"shim\"\n"),
        ];
        let config = CONFIG.to_owned() + &networks::write(dir, &runtimes);
        fs::write(dir.join("config.toml"), config).expect("written");
    }

    /// Those that its directory has copies of.
    fn programs(&self) -> Vec<PathBuf> {
        let Place::Own { containerd, shim, .. } = self else { return Vec::new() };
        let others = containerd.iter().flat_map(|folder| super::node::entries(folder));
        PROGRAMS.map(|program| shim.with_file_name(program)).into_iter().chain(others).collect()
    }

    /// Nothing of it is this machine's.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Place::Own { .. })
    }

    /// Where the shim of a node in `dir` keeps its lives.
    pub(super) fn node(&self, dir: &Path) -> PathBuf {
        if self.is_own() { dir.join("node") } else { INSTALLED.into() }
    }

    pub(super) fn busybox(&self) -> &'static str {
        if self.is_own() { OWN_BUSYBOX } else { "/bin/busybox" }
    }

    /// What is added as arguments: a program and its own.
    pub(super) fn command(&self, dir: &Path) -> Command {
        match self {
            Place::Own { root, .. } => {
                let mut command = rooted::command(root, dir, Path::new("/"));
                command.env("PATH", "/test/bin:/usr/sbin:/usr/bin:/sbin:/bin");
                command
            }
            Place::Dom0 => Command::new("env"),
        }
    }

    /// The same in a new network, where it has its own.
    pub(super) fn command_in_network(&self, dir: &Path) -> Command {
        let mut command = self.command(dir);
        if self.is_own() {
            command.args(["/busybox", "unshare", "--net", "/busybox", "sh", "-c", IN_NETWORK, "sh"]);
        }
        command
    }

    /// The same in the network of a process, by busybox, whose applet and its arguments they are.
    pub(super) fn busybox_in_network_of(&self, dir: &Path, pid: u32) -> Command {
        let mut command = self.command(dir);
        let network = format!("--net=/proc/{pid}/ns/net");
        command.args([self.busybox(), "nsenter", &network, self.busybox()]);
        command
    }
}
