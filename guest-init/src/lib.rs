//! guest-init: PID 1 of a pod's domain and the shim's agent in it.
//!
//! Start at `main.rs`; [`boot`] brings the guest up, [`agent`] serves the shim, [`task`] is containerd's Task service,
//! [`network`] makes the pod's network, [`cpus`] has CPUs used, [`oci`] makes containers, [`mirror`] copies volumes that are watched, [`stdio`] moves their bytes, [`gpu`] gives their processes channels to gpu-proxy.
//! The rule: PID 1 never panics on what a peer or a container did, and never waits for one without a limit or another task.
//! Not here: decisions that the shim already took (what a spec may ask for, how large the guest is).
#![deny(unsafe_code)]

pub mod agent;
pub mod boot;
pub mod cgroup;
pub mod cpus;
pub mod error;
pub mod gpu;
pub mod limits;
pub mod mirror;
pub mod network;
pub mod oci;
pub mod reaper;
pub mod stdio;
pub mod sys;
pub mod sysctl;
pub mod task;
