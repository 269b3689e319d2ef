//! containerd-shim-vgpu-v1: runs each pod in a Xen domain of its own.
#![forbid(unsafe_code)]

use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    shim_vgpu::main_with(Arc::new(shim_vgpu::Node))
}
