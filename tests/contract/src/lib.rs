//! One table of cases, played on a shim that everybody takes for right and on ours: what each answers, step by step, and where they differ.
//!
//! Start at [`mock`] (a containerd that drives any shim), [`step`] (what it may ask), [`play`] (a case becomes outcomes),
//! [`compare`] and `accepted.rs` (which differences have a reason). The cases: `cases/`.

mod accepted;
mod call;
pub mod cases;
pub mod compare;
pub mod cost;
#[cfg(feature = "cri")]
pub mod cri;
pub mod cri_api;
mod events;
mod fixture;
pub mod left;
pub mod mock;
pub mod outcome;
pub mod play;
pub mod report;
pub mod step;
pub mod streams;
pub mod table;

pub use accepted::{ACCEPTED, ACCEPTED_OF_SPECS};
