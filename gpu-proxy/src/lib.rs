//! gpu-proxy: the one program that talks to the GPU. A supervisor that knows zones and no CUDA, and one sandboxed worker for each
//! guest process. Start at `main.rs`; the map is in `README.md`.
#![deny(unsafe_code)]

pub mod args;
pub mod device;
pub mod event_board;
pub mod exchange;
#[cfg(any(test, feature = "hostile"))]
pub mod hostile;
pub mod logfmt;
mod pool_space;
pub mod serve;
#[expect(unsafe_code, reason = "maps a page that two processes share")]
pub mod shared_page;
pub mod supervisor;
pub mod worker;
