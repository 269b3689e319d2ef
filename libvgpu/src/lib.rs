//! The guest's `libcuda.so.1`: every symbol of NVIDIA's driver API, answered here or carried to the worker.
//!
//! A call: export (`calls/`, wrapped by `abi.rs`) → `core::contexts::enter` (is there a context, did an earlier call fail) → an answer from
//! `core/`, or `vgpu_api::ask` over `core::channel`. Private tables: `dark/`.
//!
//! The rule: this code lives in strangers' processes. No thread, no I/O before `cuInit`; no panic crosses the border; no
//! name is exported but `cu*` and the marker below; nothing is printed unless `VGPU_LOG` is set.
//!
//! Not here: what a record means (`vgpu_api`), rings and doorbells (`idm`).
#![deny(unsafe_code)]
#![allow(non_snake_case, non_upper_case_globals, reason = "exports have CUDA's names")]
#![allow(
    missing_docs,
    reason = "nothing is public: the crate's interface is CUDA's, and a program links to symbols"
)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[expect(unsafe_code, reason = "the C border")]
mod abi;
#[expect(unsafe_code, reason = "exports, and pointers of the program")]
mod calls;
mod core;
mod dark;
mod log;

use std::sync::atomic::AtomicU64;

/// What the one name beside CUDA's shows.
#[repr(C)]
#[derive(Debug)]
pub struct Marker {
    pub wire_hash: u64,
    /// How many replies of the worker this process has waited for: what a program's speed hangs on. `tests/gpu` looks at it.
    pub replies: AtomicU64,
}

/// Tells that this libcuda is no driver: the worker refuses to run on it.
#[expect(unsafe_code, reason = "an exported name")]
#[unsafe(no_mangle)]
pub static vgpu_is_shim: Marker = Marker { wire_hash: vgpu_api::WIRE_HASH, replies: AtomicU64::new(0) };
