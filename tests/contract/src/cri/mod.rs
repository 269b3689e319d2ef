//! The same by whom nodes run: a real containerd, called as kubelet calls it, with runc and ours as two of its runtimes.
//!
//! Start at [`step`] (what a case asks), [`Node`] (a containerd, and that nothing is left of it), [`play`].

mod accepted;
pub mod cases;
mod client;
mod configs;
mod events;
mod logs;
mod networks;
mod node;
mod place;
pub mod play;
pub mod report;
pub mod step;
mod streams;

pub use accepted::{ACCEPTED, ACCEPTED_BY_SANDBOX, ACCEPTED_OF_MORE, ACCEPTED_ON_XEN};
pub use client::Client;
pub use node::{Node, Parts, has_limits};
pub use place::Place;
