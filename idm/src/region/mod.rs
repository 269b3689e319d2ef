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

use std::os::fd::AsFd;

use rustix::fs::SealFlags;

use crate::error::{ChannelError, Peer};

/// The size of a page, in bytes: what Xen grants one by one.
pub const PAGE_BYTES: usize = 4096;

/// That memory which `peer` handed over has `bytes` and keeps them: what somebody could shrink would kill us by SIGBUS.
pub(crate) fn check_memory(memory: impl AsFd, bytes: usize, peer: Peer) -> Result<(), ChannelError> {
    let sealed = rustix::fs::fcntl_get_seals(&memory).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    let long = rustix::fs::fstat(&memory)
        .is_ok_and(|stat| u64::try_from(stat.st_size).is_ok_and(|n| n >= bytes as u64));
    let what = match (sealed, long) {
        (true, true) => return Ok(()),
        (false, _) => "memory that can shrink",
        (true, false) => "memory that is too short",
    };
    Err(ChannelError::PeerOffer { peer, what })
}
