//! The GPU channel: records from the threads of one process to one consumer, replies by lane, an error word, a staging area.
//!
//! One region: control page, 64 reply slots, submission ring, staging (drawn in `idm/README.md`). Start at [`Submitter`] (the
//! program's side, any thread) and [`Consumer`] (the worker's). Records are consumed in one order, which is the order in which their
//! room was reserved: CUDA promises host order across threads. Not here: what a record means, how a process comes to its
//! region (`connect.rs`, the `xen` transport).

mod consumer;
mod error_word;
mod lanes;
mod layout;
mod long_wait;
mod payload;
mod producer;
mod puller;
mod replies;
mod staging;
mod submitter;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub use consumer::{Consumer, Ready, Record};
pub use error_word::ErrorWord;
pub use layout::{
    CONSUMER_LIFE, LANES, RECORD_HEADER_BYTES, RECORD_LIMIT_MAX, REGION_BYTES_MAX, REPLY_BYTES_MAX,
    RegionSpec, SUBMITTER_LIFE,
};
pub use long_wait::{Awaited, LongWait};
pub use payload::Payload;
pub use replies::Replies;
pub use staging::{Chunk, StagingView};
pub use submitter::{Reply, Submitter};

use crate::doorbell::{Doorbell, Waiter};
use crate::error::{ChannelError, Peer};
use crate::life::Liveness;
use crate::region::{Region, sealed_memory};
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// How long either side polls at most before it sleeps: a call for its reply, the consumer for the next record. A processor that has halted
/// under a hypervisor takes 40 to 70 µs to be woken, so a call that finds the consumer asleep has to look for longer than that, or its own
/// wake-up, as dear, comes behind the consumer's.
pub(crate) const SPIN: Duration = Duration::from_micros(200);

/// What a transport brings to make one end of a GPU channel.
#[derive(Debug)]
pub struct ChannelParts {
    /// The shared pages, [`RegionSpec::region_bytes`] long, from [`make_region`].
    pub region: Arc<Region>,
    /// The sizes: our own, never the peer's word.
    pub spec: RegionSpec,
    /// Who is on the other side.
    pub peer: Peer,
    /// Where the peer rings.
    pub waiter: Waiter,
    /// What rings the peer.
    pub doorbell: Doorbell,
    /// Tells of the peer's death.
    pub liveness: Option<Liveness>,
}

/// Makes the memory of a channel: zeroed, sealed against shrinking and growing, its first page saying what it is. Whoever maps it may
/// be on either side.
///
/// # Errors
/// [`ChannelError::Layout`], and those of the system calls.
pub fn make_region(spec: &RegionSpec) -> Result<OwnedFd, ChannelError> {
    let memory =
        sealed_memory("vgpu-channel", spec.region_bytes()?).map_err(ChannelError::system("make memory"))?;
    let page = Region::map(&memory, crate::region::PAGE_BYTES).map_err(ChannelError::system("map memory"))?;
    page.word(layout::VERSION_AT).store(layout::VERSION, Relaxed);
    page.word(layout::MAGIC_AT).store(layout::MAGIC, Release);
    Ok(memory)
}

/// Both ends of a channel in this process, over a memfd and eventfds: for tests, benchmarks, and devices that live in the program.
///
/// # Errors
/// As [`make_region`].
pub fn pair(spec: RegionSpec) -> Result<(Submitter, Consumer), ChannelError> {
    let memory = make_region(&spec)?;
    let bell = || crate::doorbell::eventfd_pair().map_err(ChannelError::system("make an eventfd"));
    let ((to_consumer, consumer_hears), (to_submitter, submitter_hears)) = (bell()?, bell()?);
    let parts = |waiter, doorbell| -> Result<ChannelParts, ChannelError> {
        let region =
            Region::map(&memory, spec.region_bytes()?).map_err(ChannelError::system("map memory"))?;
        Ok(ChannelParts {
            region: Arc::new(region),
            spec,
            peer: Peer::Process(rustix::process::getpid().as_raw_nonzero().get()),
            waiter: Waiter::EventFd(waiter),
            doorbell: Doorbell::EventFd(doorbell),
            liveness: None,
        })
    };
    let submitter = Submitter::from_parts(parts(submitter_hears, to_consumer)?)?;
    Ok((submitter, Consumer::from_parts(parts(consumer_hears, to_submitter)?)?))
}

/// Checks that the region is one of ours, of this layout and long enough.
fn check_region(region: &Region, spec: &RegionSpec, peer: Peer) -> Result<(), ChannelError> {
    if region.len() < spec.region_bytes()? {
        return Err(ChannelError::Layout { what: "a region of this many bytes", value: region.len() as u64 });
    }
    let found = (region.word(layout::MAGIC_AT).load(Acquire), region.word(layout::VERSION_AT).load(Relaxed));
    if found != (layout::MAGIC, layout::VERSION) {
        return Err(ChannelError::PeerOffer { peer, what: "memory that is no channel" });
    }
    Ok(())
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
