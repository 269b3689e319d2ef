//! containerd-shim-vgpu-v1.

fn main() {}
