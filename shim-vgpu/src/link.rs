//! The way to the guest over IDM: its two xenstore devices, its network devices, the agent stream, further streams for stdio.
//!
//! [`Link`] is the seam for tests; the real one is in `xen.rs`.

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use uuid::Uuid;
use vgpu_agent_api::agent::StreamOffer;
use vgpu_netlink::Namespace;

use crate::{error::Result, network::Vif};

/// Bytes both ways, in order, with back-pressure; a shutdown of our side is an end of file for the peer.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> ByteStream for T {}

/// A stream of whichever kind.
pub type AnyStream = Box<dyn ByteStream>;

/// Connects the shim with guests.
#[async_trait]
pub trait Link: Send + Sync {
    /// Writes the nodes of `device/vgpu-idm/0` (agent) and `/1` (GPU, backend `driver_domain`). Before the domain first runs. Blocks.
    ///
    /// # Errors
    /// `HostFailure`.
    fn make_devices(&self, domid: u16, driver_domain: u16) -> Result<()>;

    /// Removes the backends' nodes, unless `domid` is another domain than `uuid` by now. Nothing there is no error. Blocks.
    ///
    /// # Errors
    /// `HostFailure` if some are left.
    fn remove_devices(&self, domid: u16, uuid: Uuid, driver_domain: u16) -> Result<()>;

    /// Gives the guest these network devices. The node's side of each is in `namespace`, under [`Vif::name`], when this returns. After its
    /// intent is on disk, once in a guest's life: before it first runs, or later. Blocks.
    ///
    /// # Errors
    /// `NetworkFailed`, `HostFailure`.
    fn make_vifs(&self, domid: u16, vifs: &[Vif], namespace: &Namespace) -> Result<()>;

    /// Removes what [`Link::make_vifs`] made, in part or whole, unless `domid` is another domain than `uuid` by now. `namespace` is missing
    /// if it is gone. Nothing there is no error. Blocks.
    ///
    /// # Errors
    /// As [`Link::make_vifs`], if some are left.
    fn remove_vifs(&self, domid: u16, uuid: Uuid, namespace: Option<&Namespace>) -> Result<()>;

    /// Counts the changes that a guest makes to the states of its first `vifs` network devices, which need not be there yet, now and then a few
    /// too many. Of these devices alone, and from before this returns. Blocks.
    fn vif_changes(&self, domid: u16, vifs: usize) -> watch::Receiver<u64>;

    /// The agent stream, once the guest offers it. Waits without a limit of its own.
    ///
    /// # Errors
    /// `GuestGone`, or `ProtocolBroken` if the guest offers nonsense.
    async fn agent(&self, domid: u16) -> Result<AnyStream>;

    /// Maps a stream that the guest offered.
    ///
    /// # Errors
    /// As [`Link::agent`].
    async fn accept(&self, domid: u16, offer: &StreamOffer) -> Result<AnyStream>;

    /// Counts the domains of this node that ended, now and then one too many: ask the toolstack which. A change that came before the
    /// receiver looks is not lost.
    fn endings(&self) -> watch::Receiver<u64>;
}
