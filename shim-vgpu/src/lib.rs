//! The parts of containerd-shim-vgpu-v1, a library for its program and for one that stands on another platform ([`seams`]).
//!
//! Read: `verbs` (the program) → `bootstrap` (how containerd starts us) → `server` → `service` (the Task API), `sandbox_service` (the Sandbox API) → `pod` (the domain and its containers) →
//! `container/life` (the rules, pure). The pod's network is `network`. What is left on the host, and how it goes: `persist`, `cleanup`, `delete`.
//! The seams to Xen are the traits of `toolstack`, `share` and `link`.
#![forbid(unsafe_code)]

mod args;
mod ask;
mod bootstrap;
mod cleanup;
mod container;
mod cri;
mod delete;
mod error;
mod events;
mod figures;
mod forward;
mod frames;
mod guest;
mod holder;
mod hooks;
mod info;
mod io;
mod link;
mod log;
mod mount;
mod names;
mod network;
mod options;
mod persist;
mod platform;
mod pod;
mod process;
mod sandbox_service;
mod server;
mod service;
mod share;
mod socket;
mod spec;
mod toolstack;
mod tree;
mod verbs;
mod xen;
mod zone;

use std::io::Write as _;

pub use platform::Node;
pub use verbs::main_with;

/// What another platform is made of, for a program that runs this very shim elsewhere. Not for other use.
#[doc(hidden)]
pub mod seams {
    pub use crate::{
        error::{Error, Result},
        link::{AnyStream, ByteStream, Link},
        network::Vif,
        platform::{Platform, PlatformSource},
        share::{Backend, Process},
        toolstack::{DomainConfig, Toolstack},
    };
}

/// The program's name, with which each report on stderr begins.
const PROGRAM: &str = "containerd-shim-vgpu-v1";

/// Tells the log of a failure, and stderr, which may be closed.
fn report(error: &error::Error) {
    let report = error.report();
    ::log::error!("{report}");
    let _ = writeln!(std::io::stderr(), "{PROGRAM}: {report}");
}
