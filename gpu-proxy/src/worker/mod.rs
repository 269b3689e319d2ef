//! The process that serves one guest process, and nobody else, ever. Start at [`run`].
//!
//! Its life: assigned by the supervisor over descriptor 0 (`assignment.rs`) → stripped of what it does not need (`sandbox/`) →
//! pages mapped and device opened → door closed (seccomp, Landlock) → records served (`serve.rs`) until the channel or the
//! supervisor is gone. It holds no secret and no descriptor of another zone, and counts as taken over by its own guest.

pub mod assignment;
pub mod quota;
mod ranges;
pub mod sandbox;
mod session;
mod slab;
pub mod staging;

pub use session::Session;

/// x
pub fn run() -> std::process::ExitCode { std::process::ExitCode::SUCCESS }
