//! Shared pages and a port, offered to another domain and accepted by it: streams and GPU channels without xenstore.
//!
//! An [`Offer`] travels over a stream that both have already. Guest: [`offer_stream`], [`OfferedChannel`]. Backend: [`accept_stream`],
//! [`AcceptedChannel`]. Whatever an offer says was written by the guest: the number of pages must be the one of our own
//! configuration, references are tried by mapping them, the port by binding to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::dmabuf::GrantedMemfd;
use super::error::XenError;
use super::evtchn::EventChannel;
use super::gntalloc::GrantedPages;
use super::gntdev::{Gntdev, Recorded};
use super::map::Access;
use super::{DomId, GrantRef};
use crate::doorbell::{Doorbell, Signal, Waiter, Wake};
use crate::error::{ChannelError, Peer};
use crate::life::Liveness;
use crate::region::Region;
use crate::stream::{MAKER_LIFE, Side, Stream, StreamParts, StreamSpec, TAKER_LIFE};

/// What one domain tells another so that they share memory and a doorbell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// One reference a page, in the order of the region.
    pub refs: Vec<GrantRef>,
    /// An unbound port of the offering domain, for the accepting one.
    pub port: u32,
}

/// Guest side of a stream: grants its pages to `to` and offers a port. The stream can be used at once; what is written waits
/// for the other side. `liveness` tells of the end of `to` ([`super::death::Deaths`]).
///
/// # Errors
/// No pages or ports to be had.
pub fn offer_stream(
    to: DomId,
    spec: StreamSpec,
    liveness: Option<Liveness>,
) -> Result<(Offer, Stream), XenError> {
    let reads = spec.taker_reads_pages();
    let pages = spec.pages();
    let parts = [
        (reads.start, Access::ReadWrite),
        (reads.len(), Access::ReadOnly),
        (pages.saturating_sub(reads.end), Access::ReadWrite),
    ];
    let parts = parts.map(|(pages, access)| (u32::try_from(pages).unwrap_or(u32::MAX), access));
    let granted = GrantedPages::allocate(to, &parts)?;
    let bell = EventChannel::offer(to)?;
    granted.notify_when_gone(MAKER_LIFE, Some(bell.port()))?;
    let offer = Offer { refs: granted.refs().to_vec(), port: bell.port() };
    let (base, len_bytes) = (granted.span().base(), granted.span().len());
    // SAFETY: `granted` keeps the pages mapped for reading and writing until the region drops it, and nobody else was given its address.
    let region = unsafe { Region::from_raw_parts(base, len_bytes, Box::new(granted)) };
    Ok((offer, stream(region, spec, Side::Maker, to, bell, liveness)?))
}

/// Backend side of a stream that `from` offered with the sizes `spec`.
///
/// # Errors
/// The guest's fault: another number of pages, a reference or a port that it doesn't have, pages that hold no stream.
pub fn accept_stream(
    from: DomId,
    offer: &Offer,
    spec: StreamSpec,
    liveness: Option<Liveness>,
) -> Result<Stream, XenError> {
    check_pages(from, offer, spec.pages())?;
    let reads = spec.taker_reads_pages();
    let gntdev = Gntdev::open()?;
    // The ring that only the guest writes is mapped read-only: a mistake of ours cannot write into it.
    let recorded = gntdev.record(
        from,
        &[
            (&offer.refs[..reads.start], Access::ReadWrite),
            (&offer.refs[reads.clone()], Access::ReadOnly),
            (&offer.refs[reads.end..], Access::ReadWrite),
        ],
    )?;
    let bell = bind(from, offer.port)?;
    let mapping = gntdev.map(&recorded, None)?;
    mapping.notify_when_gone(TAKER_LIFE, Some(bell.port()))?;
    let (base, len_bytes) = (mapping.span().base(), mapping.span().len());
    // SAFETY: `mapping` keeps the pages mapped until the region drops it, and nobody else was given its address. The pages that are
    // mapped read-only are those that a taker's stream never writes (`StreamSpec::taker_reads_pages`).
    let region = unsafe { Region::from_raw_parts(base, len_bytes, Box::new(mapping)) };
    stream(region, spec, Side::Taker, from, bell, liveness)
}

fn stream(
    region: Region,
    spec: StreamSpec,
    side: Side,
    peer: DomId,
    bell: EventChannel,
    liveness: Option<Liveness>,
) -> Result<Stream, XenError> {
    let (waiter, doorbell) = bells(bell);
    let peer = Peer::Domain(peer.get());
    Ok(Stream::new(StreamParts { region: Arc::new(region), spec, side, peer, waiter, doorbell, liveness })?)
}

/// Guest side of a GPU channel: plain memory for a container, granted to the proxy's domain. Keep it until the proxy has said
/// that it unmapped, or is gone: nothing else keeps the pages from being used again while the proxy can write them.
#[derive(Debug)]
pub struct OfferedChannel {
    /// The memory: its memfd is what the process gets.
    pub memory: GrantedMemfd,
    /// Rings the worker, and is rung by it.
    pub bell: EventChannel,
}

impl OfferedChannel {
    /// Makes `len_bytes` of memory and a port for `to`.
    ///
    /// # Errors
    /// As [`GrantedMemfd::new`]; no port to be had.
    pub fn new(to: DomId, len_bytes: usize) -> Result<Self, XenError> {
        Ok(Self { memory: GrantedMemfd::new(to, len_bytes)?, bell: EventChannel::offer(to)? })
    }

    /// What to tell the proxy.
    pub fn offer(&self) -> Offer {
        Offer { refs: self.memory.refs().to_vec(), port: self.bell.port() }
    }
}

/// Backend side of a GPU channel, opened by the supervisor and not mapped yet: its two descriptors and these numbers are what a
/// sandboxed worker needs, who opens no device.
#[derive(Debug)]
pub struct AcceptedChannel {
    /// gntdev, with what it recorded and nothing else.
    pub gntdev: OwnedFd,
    /// What to map.
    pub recorded: Recorded,
    /// evtchn, bound to the guest's port and restricted to its domain.
    pub evtchn: OwnedFd,
    /// The local port behind `evtchn`.
    pub port: u32,
}

impl AcceptedChannel {
    /// Records and binds what `from` offered, which must have exactly `len_bytes`.
    ///
    /// # Errors
    /// The guest's fault: another number of pages, or no such port. Wrong references are found when it is mapped.
    pub fn accept(from: DomId, offer: &Offer, len_bytes: usize) -> Result<Self, XenError> {
        check_pages(from, offer, len_bytes.div_ceil(super::PAGE_BYTES))?;
        let gntdev = Gntdev::open()?;
        let recorded = gntdev.record(from, &[(&offer.refs, Access::ReadWrite)])?;
        let (evtchn, port) = bind(from, offer.port)?.into_parts();
        Ok(Self { gntdev: gntdev.into_fd(), recorded, evtchn, port })
    }

    /// Maps it in this process, at `at` if given. When the mapping goes, however that happens, the byte at `life_at` is cleared and the
    /// guest's doorbell rung.
    ///
    /// # Errors
    /// As [`Gntdev::map`] and [`super::gntdev::GrantMapping::notify_when_gone`].
    pub fn attach(self, at: Option<usize>, life_at: usize) -> Result<(Region, Waiter, Doorbell), XenError> {
        let mapping = Gntdev::from_fd(self.gntdev).map(&self.recorded, at)?;
        mapping.notify_when_gone(life_at, Some(self.port))?;
        let (base, len_bytes) = (mapping.span().base(), mapping.span().len());
        // SAFETY: `mapping` keeps all pages mapped for reading and writing until the region drops it; nobody else has its address.
        let region = unsafe { Region::from_raw_parts(base, len_bytes, Box::new(mapping)) };
        let (waiter, doorbell) = bells(EventChannel::from_parts(self.evtchn, self.port));
        Ok((region, waiter, doorbell))
    }
}

/// The two directions of an event channel as `idm`'s channels take them.
pub fn bells(channel: EventChannel) -> (Waiter, Doorbell) {
    let port = Arc::new(channel);
    (Waiter::Other(Box::new(Bell(Arc::clone(&port)))), Doorbell::Other(Box::new(Bell(port))))
}

#[derive(Debug)]
struct Bell(Arc<EventChannel>);

impl Signal for Bell {
    fn ring(&self) -> io::Result<()> {
        self.0.notify()
    }
}

impl Wake for Bell {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn drain(&self) -> io::Result<()> {
        self.0.take().map(drop)
    }

    fn rearm(&self) -> io::Result<()> {
        self.0.rearm()
    }
}

fn check_pages(from: DomId, offer: &Offer, pages: usize) -> Result<(), XenError> {
    if offer.refs.len() != pages {
        let value = format!("{} of them, not {pages}", offer.refs.len());
        return Err(XenError::PeerWrote { peer: from, what: "grant references", value });
    }
    Ok(())
}

/// Binds to a port that the guest named. That it has no such port is its fault, not ours.
pub(super) fn bind(from: DomId, port: u32) -> Result<EventChannel, XenError> {
    EventChannel::bind(from, port).map_err(|error| match error {
        XenError::Call { source, .. }
            if source.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) =>
        {
            XenError::PeerWrote { peer: from, what: "an event channel's port", value: port.to_string() }
        }
        other => other,
    })
}

impl From<ChannelError> for XenError {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_of_another_size_opens_no_device() {
        let guest = DomId::new(5).unwrap();
        for refs in [0, 1, 32, 34, 20_000] {
            let offer = Offer { refs: vec![GrantRef(8); refs], port: 1 };
            let error = accept_stream(guest, &offer, StreamSpec::default(), None).unwrap_err();
            assert!(matches!(error, XenError::PeerWrote { .. }), "{refs}: {error}");
            let error = AcceptedChannel::accept(guest, &offer, 33 * super::super::PAGE_BYTES).unwrap_err();
            assert_eq!(error.fault(), crate::Fault::Peer, "{refs}: {error}");
        }
    }
}
