//! GPU channels for the processes of this guest: from a container's socket to gpu-proxy in another domain.
//!
//! ```text
//!   process ──connect──► [`door`] ──► [`session`] ──Connect──► [`proxy`] ──GPU stream──► gpu-proxy
//!       ◄── memfd, two eventfds ──┘       └── [`life`]: what each event means for the channel (pure)
//! ```
//! A process holds a plain memfd and eventfds, never a Xen device. The guest grants, the proxy maps ([`ground`]): the pages stay until
//! the proxy has let go of them, whatever the process did. A process that is gone ends its channel, a proxy that is gone ends the
//! process's socket, which it takes for its peer's death. A process may also only ask what its devices are ([`question`]).
//! What a channel has cost is said at its end ([`cost`]). Not here: what the shared pages hold (idm), who may have a GPU (the shim).

pub mod cost;
pub mod door;
pub mod greeting;
pub mod ground;
pub mod library;
pub mod life;
pub mod pids;
pub mod proxy;
pub mod question;
pub mod session;
pub mod stream;
