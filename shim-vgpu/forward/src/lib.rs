//! A TCP connection's way from the loopback of a network namespace on the node to one in a guest.
//!
//! Start at [`Loopback`]: what is dialled at 127.0.0.1 or ::1 of a namespace, whatever the port, and nobody there serves, comes to listeners
//! of ours. [`carry`] moves its bytes at both ends. Not here: what the two ends say to each other (vgpu-agent-api).
#![forbid(unsafe_code)]

mod carry;
mod loopback;
mod program;

pub use carry::{carry, reset};
pub use loopback::{Loopback, Past};
