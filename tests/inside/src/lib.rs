//! What a process sees of the container that it is in, as one JSON document, and what of it an OCI spec asked for.
//!
//! Start at [`look::document`] (what is seen) and [`judge::differences`] (what it should have been). `specs.rs` has the containers that
//! the tests ask of each runtime. Not here: how a container is made. That is its runtime's, and the tests' that call one.

pub mod errors;
pub mod judge;
pub mod kernel;
pub mod look;
mod netlink;
pub mod part;
mod raw;
pub mod rooted;
pub mod specs;
pub mod verbs;
pub mod volume;
pub mod watch;
