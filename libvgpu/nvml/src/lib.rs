//! The guest's `libnvidia-ml.so.1`: what monitoring tools and PyTorch ask of the driver beside CUDA, answered for the container's own
//! devices.
//!
//! A call: export (`calls/`, wrapped by `abi.rs`) → `session.rs` (was NVML started, which device is meant) → the facts that the door gave
//! at the start, or for what changes those of now: one question over `/run/vgpu/gpu.sock`, which costs no worker and no context.
//!
//! The rule: this code lives in strangers' processes. No thread ever, no I/O before `nvmlInit`, nothing open between two calls; no panic
//! crosses the border; no name is exported but `nvml*`; nothing is printed unless `VGPU_LOG` is set.
//! What is not known is `NVML_ERROR_NOT_SUPPORTED`: no value is made up but the other end of links (`calls/link.rs`).
//!
//! Not here: what a container may know (`gpu-proxy`), the layout of the answer (`vgpu_zone_api::guest::facts`), CUDA (`libvgpu`).
#![deny(unsafe_code)]
#![allow(non_snake_case, reason = "exports have NVML's names")]
#![allow(
    missing_docs,
    reason = "nothing is public: the crate's interface is NVML's, and a program links to symbols"
)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[expect(unsafe_code, reason = "the C border")]
mod abi;
#[cfg(test)]
mod answered;
#[expect(unsafe_code, reason = "exports")]
mod calls;
mod hardware;
mod log;
#[cfg(test)]
mod names;
mod process_name;
mod result;
mod session;
mod structs;
mod text;
