//! Inter-domain messaging: byte streams and GPU channels through memory that two domains, or two processes, share.
//!
//! Start at [`stream::Stream`] (bytes both ways), [`record`] (the GPU channel) and [`connect`] (how two processes come to
//! share one). `idm` knows nothing of CUDA and nothing of containers.
//!
//! [`arena`] is memory that both sides have at the same addresses.
//!
//! The rule everywhere: the peer may change any shared byte at any time. Own indexes are private; a word of the peer is read
//! once and checked; records are copied out before they are parsed; a channel that broke is never used again.
//! Not here: who may connect to whom, what a record means.
#![deny(unsafe_code)]

pub mod arena;
pub mod connect;
pub mod doorbell;
pub mod error;
pub mod flex;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod hello;
mod hub;
pub mod life;
mod park;
mod queue;
pub mod record;
pub mod region;
mod ring;
mod spin;
pub mod stream;
mod sync;
#[cfg(all(feature = "xen", not(loom)))]
pub mod xen;

pub use doorbell::{Doorbell, Signal, Waiter, Wake};
pub use error::{ChannelError, Fault, Peer};
pub use life::{Liveness, PeerMark};
pub use region::Region;
