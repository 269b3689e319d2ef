//! containerd-shim-vgpu-v1 whose domains are processes of this machine; `io.containerd.vgpulocal.v1` for containerd.
#![forbid(unsafe_code)]

use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    shim_vgpu::main_with(Arc::new(vgpu_local::Local))
}
