//! A shim's program, and what it has to find around it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use vgpu_inside::rooted;

/// See the module.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// runc's shim, in the root that `cargo xtask` makes of Dom0's tree.
    Runc {
        /// That root.
        root: PathBuf,
    },
    /// The local shim of `tests/local`, with a node below the containerd's directory.
    Local {
        /// Its program.
        program: PathBuf,
    },
    /// A shim of the node that this process is on, which has all of its own.
    Node {
        /// Its program.
        program: PathBuf,
    },
}

impl Runtime {
    /// The program, begun in a bundle below the directory of a containerd.
    pub(super) fn command(&self, work: &Path, bundle: &Path) -> Command {
        match self {
            Runtime::Runc { root } => {
                let mut command = rooted::command(root, work, &self.inner(work, bundle));
                command.arg("/usr/bin/containerd-shim-runc-v2").env("PATH", "/usr/sbin:/usr/bin");
                command
            }
            Runtime::Local { program } => {
                let mut command = Command::new(program);
                command.current_dir(bundle).env("VGPU_LOCAL_DIR", node(work));
                command
            }
            Runtime::Node { program } => {
                let mut command = Command::new(program);
                command.current_dir(bundle);
                command
            }
        }
    }

    /// The containerd namespace. A node has one for each containerd here: runc keeps what it has made of a container whose Create failed
    /// late, and refuses the next one of its id.
    pub(super) fn namespace(&self, work: &Path) -> String {
        match self {
            Runtime::Runc { .. } | Runtime::Local { .. } => "default".into(),
            Runtime::Node { .. } => {
                let name = work.file_name().unwrap_or_default().to_string_lossy();
                name.trim_start_matches('.').to_owned()
            }
        }
    }

    /// A path below that directory as the shim has it.
    pub(super) fn inner(&self, work: &Path, path: &Path) -> PathBuf {
        match (self, path.strip_prefix(work)) {
            // An empty one would be joined by a slash.
            (Runtime::Runc { .. }, Ok(below)) if below == Path::new("") => rooted::WORK.into(),
            (Runtime::Runc { .. }, Ok(below)) => Path::new(rooted::WORK).join(below),
            _ => path.to_path_buf(),
        }
    }

    /// The shim's address as we have it: runc's has a /run of its own.
    pub(super) fn outer(&self, work: &Path, address: &str) -> String {
        match (self, address.strip_prefix("unix://")) {
            (Runtime::Runc { .. }, Some(path)) => format!("unix://{}{path}", work.display()),
            _ => address.to_owned(),
        }
    }
}

/// Where the local shim's node is.
pub(super) fn node(work: &Path) -> PathBuf {
    work.join("node")
}
