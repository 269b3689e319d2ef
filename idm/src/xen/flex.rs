//! Devices of Linux's own front ends whose pages are a pair of flex rings, 9pfs's to begin with: the backend's end.
//!
//! ```text
//!   toolstack: both nodes, state 1     backend: [`FlexBackend::prepare`]       guest, when its kernel finds the device
//!                                      versions, max-rings, max-ring-page-order, state 2 ───▶ grants pages, offers a port
//!                                      [`FlexBackend::accept`]: maps, binds ◀── num-rings, ring-ref0, event-channel-0, state 3
//!                                      state 4 ────────────────────────────────────────────▶ state 4
//! ```
//! Source: Xen `docs/misc/9pfs.pandoc`, `public/io/9pfs.h`. One pair a device: our guest kernel asks for no second one.

use std::time::{Duration, Instant};

use super::device::{CONNECTED, await_frontend, change};
use super::error::XenError;
use super::gntdev::{Gntdev, GrantMapping};
use super::map::Access;
use super::offer::{bells, bind};
use super::xenstore::{Client, Store as _, XsError};
use super::{DomId, GrantRef};
use crate::Peer;
use crate::flex::{FlexParts, FlexRings, FlexSide, ORDER_AT, ORDER_MAX, REFS_AT};
use crate::life::Liveness;
use crate::region::Region;

/// xenbus: the backend waits for its front end. Source: `xen/include/public/io/xenbus.h`.
const INIT_WAIT: u32 = 2;

/// One device: of which kind, of which guest, which one, served by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlexDevice {
    /// xenbus's name of the kind: `9pfs`.
    pub kind: &'static str,
    /// The guest's domain.
    pub guest: DomId,
    /// The device's number among those of its kind.
    pub number: u32,
    /// The backend's domain.
    pub backend: DomId,
}

impl FlexDevice {
    /// The guest's half: it owns these nodes, the backend reads them.
    pub fn frontend_path(&self) -> String {
        format!("/local/domain/{}/device/{}/{}", self.guest.get(), self.kind, self.number)
    }

    /// The backend's half: it owns these nodes, the guest reads them.
    pub fn backend_path(&self) -> String {
        let Self { kind, guest, number, backend } = self;
        format!("/local/domain/{}/backend/{kind}/{}/{number}", backend.get(), guest.get())
    }
}

/// A device that the toolstack has made, served by this domain.
#[derive(Debug)]
pub struct FlexBackend {
    xenstore: Client,
    device: FlexDevice,
    order_max: u32,
}

impl FlexBackend {
    /// Says that `device` is served, by rings of at most `1 << order_max` data pages (1 to [`ORDER_MAX`]): from then on its guest's kernel
    /// may offer. Call it before the guest runs.
    ///
    /// # Errors
    /// Xenstore's. [`XenError::PeerGone`]: there is no such device (any more).
    pub fn prepare(xenstore: &Client, device: FlexDevice, order_max: u32) -> Result<Self, XenError> {
        let order_max = order_max.clamp(1, ORDER_MAX);
        let words =
            [("versions", 1), ("max-rings", 1), ("max-ring-page-order", order_max), ("state", INIT_WAIT)];
        let words = words.map(|(node, value)| (node, value.to_string()));
        let nodes = words.each_ref().map(|(node, value)| (*node, value.as_str()));
        change(xenstore, &device.backend_path(), device.guest, &nodes)?;
        Ok(Self { xenstore: xenstore.clone(), device, order_max })
    }

    /// Waits at most `limit` for the guest's offer, and takes it. `liveness` tells of the guest's end, if anybody is to.
    ///
    /// # Errors
    /// [`XenError::PeerGone`], [`XenError::Late`]. What the guest wrote and must not: [`XenError::PeerWrote`], [`XenError::MapPages`].
    pub fn accept(self, limit: Duration, liveness: Option<Liveness>) -> Result<FlexRings, XenError> {
        let guest = self.device.guest;
        let front = self.device.frontend_path();
        let end = Instant::now() + limit;
        let watch = self.xenstore.watch(&front)?;
        await_frontend(&self.xenstore, &front, guest, &watch, (end, limit), || {
            liveness.as_ref().is_some_and(Liveness::is_gone)
        })?;
        let number = |node: &str, what| match self.xenstore.read_decimal(&format!("{front}/{node}"), u32::MAX)
        {
            Ok(value) => Ok(value),
            Err(XsError::Value { value, .. }) => Err(XenError::PeerWrote { peer: guest, what, value }),
            Err(error) if error.is_missing() => {
                Err(XenError::PeerWrote { peer: guest, what, value: "nothing".to_owned() })
            }
            Err(error) => Err(error.into()),
        };
        let rings = number("num-rings", "a number of rings")?;
        if rings != 1 {
            let value = rings.to_string();
            return Err(XenError::PeerWrote { peer: guest, what: "a number of rings that is not 1", value });
        }
        let index = GrantRef(number("ring-ref0", "a grant reference")?);
        let port = number("event-channel-0", "an event channel's port")?;
        let (region, order) = map(guest, index, self.order_max)?;
        let (waiter, doorbell) = bells(bind(guest, port)?);
        let peer = Peer::Domain(guest.get());
        let side = FlexSide::Back;
        let rings = FlexRings::new(FlexParts { region, order, side, peer, waiter, doorbell, liveness })?;
        let connected = CONNECTED.to_string();
        change(&self.xenstore, &self.device.backend_path(), guest, &[("state", &connected)])?;
        Ok(rings)
    }
}

/// The index page that `from` granted as `index`, and behind it the data pages that it names, at most `1 << order_max`; and their order.
///
/// The index page is looked at once, for the references, and mapped anew with them. Whatever it says later, nobody asks.
fn map(from: DomId, index: GrantRef, order_max: u32) -> Result<(Region, u32), XenError> {
    let refs = {
        let page = mapped(from, &[(&[index], Access::ReadOnly)])?;
        data_refs(&page, from, order_max)?
    };
    let (read_by_front, written_by_front) = refs.split_at(refs.len() / 2);
    // The ring that only the guest writes is mapped read-only: a mistake of ours cannot write into it.
    let parts = [
        (&[index][..], Access::ReadWrite),
        (read_by_front, Access::ReadWrite),
        (written_by_front, Access::ReadOnly),
    ];
    Ok((mapped(from, &parts)?, refs.len().trailing_zeros()))
}

fn mapped(from: DomId, parts: &[(&[GrantRef], Access)]) -> Result<Region, XenError> {
    let gntdev = Gntdev::open()?;
    let recorded = gntdev.record(from, parts)?;
    let mapping: GrantMapping = gntdev.map(&recorded, None)?;
    let (base, len_bytes) = (mapping.span().base(), mapping.span().len());
    // SAFETY: `mapping` keeps the pages mapped until the region drops it, and nobody else was given its address. Of pages that are mapped
    // read-only nothing is ever written: the first look only reads, and the back end's side of flex rings writes its own half (`flex.rs`).
    Ok(unsafe { Region::from_raw_parts(base, len_bytes, Box::new(mapping)) })
}

/// The references of the data pages, by an index page that the guest may change meanwhile: each word is read once.
fn data_refs(page: &Region, from: DomId, order_max: u32) -> Result<Vec<GrantRef>, XenError> {
    let word = |at: usize| {
        let mut bytes = [0; 4];
        page.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    };
    let order = word(ORDER_AT);
    if !(1..=order_max.min(ORDER_MAX)).contains(&order) {
        let value = order.to_string();
        return Err(XenError::PeerWrote { peer: from, what: "a ring order", value });
    }
    Ok((0..1usize << order).map(|page| GrantRef(word(REFS_AT + 4 * page))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::sealed_memory;
    use crate::xen::PAGE_BYTES;

    fn page(order: u32) -> Region {
        let page = Region::map(sealed_memory("test", PAGE_BYTES).unwrap(), PAGE_BYTES).unwrap();
        page.write(ORDER_AT, &order.to_le_bytes());
        for number in 0..(PAGE_BYTES - REFS_AT) / 4 {
            page.write(REFS_AT + 4 * number, &u32::try_from(number + 8).unwrap().to_le_bytes());
        }
        page
    }

    #[test]
    fn as_many_references_are_read_as_the_order_says() {
        let guest = DomId::new(5).unwrap();
        for order in 1..=ORDER_MAX {
            let refs = data_refs(&page(order), guest, ORDER_MAX).unwrap();
            assert_eq!(refs.len(), 1 << order);
            assert_eq!((refs[0], refs[1]), (GrantRef(8), GrantRef(9)));
        }
    }

    #[test]
    fn an_order_past_the_limit_is_the_guests_fault() {
        let guest = DomId::new(5).unwrap();
        for (order, limit) in [(0, 9), (10, 9), (10, 40), (32, 9), (u32::MAX, 9), (7, 6)] {
            let error = data_refs(&page(order), guest, limit).unwrap_err();
            assert_eq!(error.fault(), crate::Fault::Peer, "{order}: {error}");
        }
    }

    #[test]
    fn nodes_are_where_linux_looks_for_them() {
        let device =
            FlexDevice { kind: "9pfs", guest: DomId::new(5).unwrap(), number: 1, backend: DomId::DOM0 };
        assert_eq!(device.frontend_path(), "/local/domain/5/device/9pfs/1");
        assert_eq!(device.backend_path(), "/local/domain/0/backend/9pfs/5/1");
    }
}
