//! From the kernel's first process to a guest that serves its shim.
//!
//! [`run`] is the whole of it, in order: a root that can be pivoted, mounts, the console, the network's loopback, then the devices that
//! the shim made. The rule: each step that fails ends the guest with a line on the console that names the step.

pub mod power;
