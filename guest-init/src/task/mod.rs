//! containerd's Task service for the containers of this pod.
//!
//! [`service`] maps calls to [`pod::Pod`]'s operations and does nothing else; a [`container::Container`] has one init and any number of
//! execs, each a [`process::Process`] whose life is [`phase::Phase`]:
//!
//! ```text
//!   Created ──start──► Running ◄──pause, resume──► Paused        a process may end in each of them:
//!      └──────────────────┴───────────────────────────┴──► Stopped
//! ```
//!
//! What must hold: every change runs in a task of its own, since ttrpc drops a handler at its deadline; init's exit is
//! told last; an exit does not wait for output.

pub mod container;
pub mod exec;
pub mod gpu;
pub mod host;
pub mod huge;
pub mod launch;
pub mod oom;
pub mod phase;
pub mod pod;
pub mod process;
pub mod service;
pub mod shared;
pub mod volumes;
