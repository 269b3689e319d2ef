//! The real shim and the real guest-init on one machine, without Xen: a guest is a tree of processes in namespaces of its own.
//!
//! Read: [`node`] (where everything is) → [`toolstack`] (a domain: a folder, a cgroup, a process) → [`guest`] (what that process does) →
//! [`share`], [`link`] and [`handover`] (files and streams between the two). The programs are in `bin`.
//! The rule: what a domain is lies on disk and in its cgroup alone, since `delete` is another process than the one that made it.
#![forbid(unsafe_code)]

mod cgroup;
pub mod guest;
mod handover;
pub mod limits;
mod link;
mod node;
mod share;
mod toolstack;

pub use node::{Local, Node};
