//! The xenstore device `vgpu-idm`: how a guest and a backend that share nothing yet come to share one stream.
//!
//! ```text
//!   toolstack: [`create`]            guest: [`Frontend::connect`]              backend: [`Backend::accept`]
//!   both nodes, state 1                                               ◀────── state 1, after each stream and each start of its own
//!                                    sees 1: grants pages, offers a port
//!                                    refs, event-channel, state 3 ───────────▶ maps, binds
//!                                    state 4 ◀─────────────────────────────── connected-port, state 4
//! ```
//! The nodes and who may write them: `../README.md`. Rules: all nodes of a step and their permissions in one transaction; the backend
//! makes its paths from the domain ids that it was told, never from a node of the guest; the guest offers only to a backend in state 1,
//! so that the 4 that a dead one left behind is not taken for an answer, and `connected-port` names the offer that was accepted.

mod backend;
mod frontend;
mod nodes;
mod toolstack;

pub use backend::Backend;
pub(super) use backend::{await_frontend, change};
pub use frontend::Frontend;
pub use nodes::Device;
#[cfg(fuzzing)]
pub(crate) use nodes::fuzz_refs;
pub use toolstack::{create, remove};

/// xenbus: the nodes are there. Source: `xen/include/public/io/xenbus.h`.
const INITIALISING: u32 = 1;
/// The frontend's offer is complete.
const INITIALISED: u32 = 3;
/// The stream runs.
pub(super) const CONNECTED: u32 = 4;
const CLOSING: u32 = 5;
const CLOSED: u32 = 6;
/// Largest state there is (Reconfigured).
const STATE_MAX: u32 = 8;

/// Whether a device in `state` will carry nothing any more.
pub(super) fn is_ending(state: u32) -> bool {
    matches!(state, CLOSING | CLOSED)
}
