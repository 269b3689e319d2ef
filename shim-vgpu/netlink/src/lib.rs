//! What a network namespace has, read and made by rtnetlink(7): no program is run, nothing is cached.
//!
//! Start at [`Namespace`] (whose network) and [`Rtnetlink`] (the socket, whose methods are in `link`, `set` and `redirect`); [`scan::scan`]
//! reads a pod's network as a whole.
#![deny(unsafe_code)]

pub mod bpf;
pub mod link;
mod namespace;
mod netfilter;
pub mod redirect;
pub mod scan;
#[cfg(any(test, feature = "scratch"))]
pub mod scratch;
mod set;
mod socket;
mod sysctls;

pub use namespace::{Id, Namespace};
pub use socket::Rtnetlink;
