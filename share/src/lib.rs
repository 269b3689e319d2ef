//! A 9P2000.L server for one guest: a pod's roots and volumes, below one directory of the host.
//!
//! ```text
//! bytes ─ serve ─► message ─► session (fids) ─► node (one object, by its descriptor) ─► the kernel
//! ```
//! Start at [`Session::answer`]. The guest is hostile: any bytes may come, in any order. What must hold: a length is checked before it
//! is used · nothing above the root is reached, whoever renames what meanwhile · no symbolic link is followed here, the guest's kernel
//! does that · only plain files and directories are ever opened · what a session keeps is bounded ([`Limits`]).
//! Not here: who may do what within the share, which the guest's own kernel decides; how bytes come and go.
#![forbid(unsafe_code)]

mod budget;
mod make;
pub mod message;
mod name;
mod node;
mod qid;
mod readdir;
mod serve;
mod session;
pub mod walls;
mod wire;
mod xattr;

pub use serve::{Ended, serve};
pub use session::{Desk, Limits, Session};
pub use wire::{Data, Malformed, Names, Qid, Text};
