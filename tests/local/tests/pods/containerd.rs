//! A containerd whose shim is the local one, and what must be left of its node at the end.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

pub use vgpu_contract::mock::until;
use vgpu_contract::{
    left,
    mock::{Containerd as Mock, Flavour, Runtime},
};

/// The shim, and what it has to lie beside.
pub const PROGRAMS: [&str; 2] =
    [env!("CARGO_BIN_EXE_containerd-shim-vgpulocal-v1"), env!("CARGO_BIN_EXE_guest-local")];

/// See the module.
pub struct Containerd(Mock);

impl Deref for Containerd {
    type Target = Mock;

    fn deref(&self) -> &Mock {
        &self.0
    }
}

impl Containerd {
    pub async fn new() -> Self {
        Containerd::of(PROGRAMS[0].into()).await
    }

    /// Whose shim lies there.
    pub async fn of(program: PathBuf) -> Self {
        Containerd::at(&crate::place(), program).await
    }

    /// And whose directory and node are in this one.
    pub async fn at(place: &Path, program: PathBuf) -> Self {
        Containerd(Mock::at(place, Runtime::Local { program }, Flavour::V1).await)
    }

    /// The UUIDs of the lives that the shim has on disk.
    pub fn lives(&self) -> Vec<String> {
        left::lives(&self.node())
    }

    /// No domain, process, cgroup, mount, socket or file is left of a node that had these lives.
    pub async fn assert_nothing_left(&self, lives: &[String]) {
        let left = || [left::of(self.dir.path(), &self.node(), lives), self.sockets()].concat();
        // `delete` may go on after its answer.
        until("nothing is left", || left().is_empty(), || format!("{:?}", left())).await;
    }
}
