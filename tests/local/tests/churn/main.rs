//! Many lives of pods, ended in order or at any moment: afterwards the machine is as it was.

use std::path::PathBuf;

mod budget;
#[path = "../pods/containerd.rs"]
mod containerd;
mod kills;
mod plan;
mod random;
mod round;
mod row;

/// Held by a test while it counts what this process has.
static COUNTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Of the containerds and their nodes: in memory, where a node has them, so that no disk's fsync is in the times.
fn place() -> PathBuf {
    "/dev/shm".into()
}
