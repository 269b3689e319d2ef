//! Shared memory: the only way to its bytes.
//!
//! A [`Region`] never lends a reference to shared bytes, for the peer may change them at any moment: words are atomics, all else is
//! copied in and out. Offsets are ours (checked before they come here), so one outside the region is our own mistake and panics.
//! Not here: how the pages come to be shared (`xen/`, `connect.rs`).

#[cfg(not(loom))]
#[expect(unsafe_code, reason = "copies memory that the peer may write")]
mod copy;
#[cfg(not(loom))]
#[expect(unsafe_code, reason = "maps that memory")]
mod mapped;
#[cfg(loom)]
#[expect(unsafe_code, reason = "loom's cells")]
mod model;

#[cfg(not(loom))]
pub use mapped::{Region, sealed_memory};
#[cfg(loom)]
pub use model::{Region, sealed_memory};

/// The size of a page, in bytes: what Xen grants one by one.
pub const PAGE_BYTES: usize = 4096;
