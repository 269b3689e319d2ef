//! `cargo xtask dist`: what a node installs, under `target/dist` as it lies on the node.

use std::path::PathBuf;

use crate::error::Result;
use crate::progress::Steps;

/// Builds all; returns the container images of the testbed's programs.
pub fn build(_steps: &mut Steps) -> Result<Vec<PathBuf>> {
    Err(crate::error::Failure::new("vgpu itself cannot be built yet: use --bare"))
}
