//! What can go wrong with Xen: our failure, the peer's fault, or the peer gone.

use std::io;

use super::DomId;
use super::xenstore::XsError;
use crate::error::{ChannelError, Fault};

/// Why a grant, an event channel or a device could not be had.
#[derive(Debug, thiserror::Error)]
pub enum XenError {
    /// Ours: not a Xen domain, a module missing, no permission.
    #[error("cannot open {path}")]
    Open {
        /// The device node.
        path: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Ours: the kernel refused a call.
    #[error("{call} failed")]
    Call {
        /// The kernel's name of the call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Ours: no memory for a region.
    #[error("cannot make a region of {bytes} bytes")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Ours: a PV domain whose dma-bufs would be granted with wrong references.
    #[error("this PV domain was started without \"iommu=soft\": its memory cannot be granted")]
    NeedsIommuSoft,
    /// Ours: nothing to grant or map.
    #[error("no pages to grant or map")]
    NoPages,
    /// The peer's, mostly: it granted no such page.
    #[error("cannot map {pages} pages of {peer}")]
    MapPages {
        /// Pages of 4 KiB.
        pages: usize,
        /// The other end.
        peer: DomId,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The peer's: it asks for more than it may have.
    #[error("{peer} offers {pages} pages, {limit} is the limit")]
    TooManyPages {
        /// The other end.
        peer: DomId,
        /// What it asked for.
        pages: usize,
        /// Our limit.
        limit: usize,
    },
    /// The peer's: what it wrote is not what it may write.
    #[error("{peer} wrote {what}: {value:?}")]
    PeerWrote {
        /// The other end.
        peer: DomId,
        /// Which field.
        what: &'static str,
        /// Shortened to what fits a log line.
        value: String,
    },
    /// The other end or its domain is gone.
    #[error("{0} is gone")]
    PeerGone(DomId),
    /// The other end did not answer in time; it may still live.
    #[error("{peer} did not {what} within {limit_ms} ms")]
    Late {
        /// The other end.
        peer: DomId,
        /// What was waited for.
        what: &'static str,
        /// The limit, milliseconds.
        limit_ms: u64,
    },
    /// Xenstore.
    #[error(transparent)]
    Xenstore(#[from] XsError),
    /// The stream in the shared pages.
    #[error(transparent)]
    Channel(ChannelError),
}

impl XenError {
    /// Whose doing it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::PeerGone(_) => Fault::Gone,
            Self::MapPages { source, .. } if source.raw_os_error() == Some(INVALID) => Fault::Peer,
            Self::TooManyPages { .. } | Self::PeerWrote { .. } | Self::Late { .. } => Fault::Peer,
            Self::Channel(error) => error.fault(),
            Self::Open { .. }
            | Self::Call { .. }
            | Self::Memory { .. }
            | Self::NeedsIommuSoft
            | Self::NoPages
            | Self::MapPages { .. }
            | Self::Xenstore(_) => Fault::Ours,
        }
    }
}

/// What gntdev's mmap answers for a reference that is not granted.
const INVALID: i32 = rustix::io::Errno::INVAL.raw_os_error();
