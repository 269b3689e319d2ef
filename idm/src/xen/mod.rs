//! The `xen` transport: pages by grant tables, doorbells by event channels, introductions by xenstore.
//!
//! Start at [`device`] (a stream between two domains, found through xenstore) and [`offer`] (further ones, without it).
//! Below them a thin layer over the kernel's devices: [`gntalloc`] and [`dmabuf`] grant, [`gntdev`] maps, [`chunks`] does both
//! for an arena, [`evtchn`] rings, [`xenstore`] names. Numbers and offsets are in `table.rs` alone, the ioctl in `ioctl.rs` alone.
//! Rule: the guest grants, the backend maps; whatever a guest wrote (references, ports, states) is a bounded decimal or an error.
//! Not here: what the shared pages hold (`ring.rs`, `stream.rs`, `record.rs`).

#[expect(unsafe_code, reason = "makes a region of the window")]
pub mod chunks;
pub mod death;
pub mod device;
#[expect(unsafe_code, reason = "takes a descriptor that an ioctl made")]
pub mod dmabuf;
pub mod domain;
mod error;
pub mod evtchn;
#[expect(unsafe_code, reason = "makes a region of the guest's pages")]
pub mod flex;
pub mod gntalloc;
pub mod gntdev;
#[expect(unsafe_code, reason = "Xen's ioctls")]
mod ioctl;
#[expect(unsafe_code, reason = "maps pages of the peer")]
mod map;
pub mod metrics;
#[expect(unsafe_code, reason = "makes regions of those pages")]
pub mod offer;
mod table;
pub mod xenstore;

use std::fmt;

pub use error::XenError;
pub use map::{Access, Span};
pub use offer::Offer;
pub use table::PAGE_BYTES;

/// A domain's id. It is used again after a domain's end: a guest is known by this *and* its [`domain::Uuid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomId(u16);

impl DomId {
    /// The first domain.
    pub const DOM0: Self = Self(0);

    /// `None` from 0x7FF0 on: those mean something else to Xen (`DOMID_FIRST_RESERVED`, `xen/include/public/xen.h`).
    pub const fn new(id: u16) -> Option<Self> {
        if id < 0x7ff0 { Some(Self(id)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "domain {}", self.0)
    }
}

/// A grant reference: the number by which a peer maps one page. Without meaning outside the two domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantRef(pub u32);
