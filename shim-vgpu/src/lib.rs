//! The parts of containerd-shim-vgpu-v1, a library for its tests and its program.
//!
//! Read: `bootstrap` (how containerd starts us) → `server` → `service` (the Task API) → `pod` (the domain and its containers) →
//! `container/life` (the rules, pure). What is left on the host, and how it goes: `persist`, `cleanup`, `delete`.
//! The seams to Xen are the traits of `toolstack`, `share` and `link`.
#![forbid(unsafe_code)]

pub mod args;
mod ask;
pub mod bootstrap;
mod cleanup;
mod container;
pub mod delete;
mod error;
mod events;
mod figures;
mod frames;
mod guest;
pub mod info;
mod io;
mod link;
mod log;
mod mount;
mod names;
mod options;
mod persist;
mod platform;
mod pod;
mod process;
pub mod server;
mod service;
mod share;
mod spec;
mod toolstack;
mod tree;
mod xen;
mod zone;

use std::io::Write as _;

pub use error::{Error, Result};

/// The program's name, with which each report on stderr begins.
pub const PROGRAM: &str = "containerd-shim-vgpu-v1";

/// Tells the log of a failure, and stderr, which may be closed.
pub fn report(error: &Error) {
    let report = error.report();
    ::log::error!("{report}");
    let _ = writeln!(std::io::stderr(), "{PROGRAM}: {report}");
}
