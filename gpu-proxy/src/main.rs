//! The daemon that owns the GPU.

fn main() {}
