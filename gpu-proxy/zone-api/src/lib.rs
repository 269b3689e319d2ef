//! The two doors of gpu-proxy's supervisor, as both sides of each see them.
//!
//! * [`shim`]: the unix socket at which the shim registers zones and grants GPU memory. The peer is trusted (root of the
//!   supervisor's domain); the messages are JSON, so that a person can read a trace of them.
//! * [`guest`]: the messages of the GPU stream, at which a guest offers channels. The peer is hostile: fixed layouts, bounded
//!   sizes, no allocation by a length that has not been checked.
//!
//! Here are only words and their encoding. Not here: what the supervisor does with them (`gpu-proxy`), how a stream crosses
//! domains (`idm`).
#![forbid(unsafe_code)]

pub mod guest;
#[cfg(feature = "shim")]
pub mod shim;
