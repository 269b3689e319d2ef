//! containerd-shim-vgpu-v1 whose domains are processes of this machine; `io.containerd.vgpulocal.v1` for containerd.
#![forbid(unsafe_code)]

use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    if let Err(error) = vgpu_local::limits::drop_in_bundle() {
        eprintln!("containerd-shim-vgpulocal-v1: {error}");
        return ExitCode::FAILURE;
    }
    shim_vgpu::main_with(Arc::new(vgpu_local::Local))
}
