//! gpu-proxy: the one program that talks to the GPU. A supervisor that knows zones and no CUDA, and one sandboxed worker for each
//! guest process. Start at `main.rs`; the map is in `README.md`.

pub mod args;
pub mod device;
pub mod logfmt;
pub mod serve;
pub mod shared_page;
pub mod supervisor;
pub mod worker;
