//! Pages of this domain, granted to another: `/dev/xen/gntalloc`.
//!
//! The kernel keeps a page until the peer has let go of it too, so dropping [`GrantedPages`] is always safe for the peer and for us;
//! until then it counts against the module's limit (1024 pages unless `xen_gntalloc.limit` says otherwise).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::mm::{MapFlags, ProtFlags};

use super::error::XenError;
use super::ioctl::{Arg, named, open};
use super::map::{Access, Span};
use super::metrics::COUNTERS;
use super::table::{self, PAGE_BYTES, gntalloc as t};
use super::{DomId, GrantRef};

/// Zeroed pages, mapped here and granted to one domain. Unmapped and given back on drop.
#[derive(Debug)]
pub struct GrantedPages {
    span: Span,
    device: OwnedFd,
    refs: Vec<GrantRef>,
    index: u64,
    to: DomId,
}

impl GrantedPages {
    /// Grants pages (4 KiB each) to `to`: for each part its number of pages and what the peer may do with them. They are one
    /// contiguous range here, in this order.
    ///
    /// # Errors
    /// `ENOSPC`: gntalloc's `limit` or the grant table is reached. `ENOENT`: not a Xen domain, or the module xen-gntalloc is missing.
    /// Source: Linux `include/uapi/xen/gntalloc.h`.
    pub fn allocate(to: DomId, parts: &[(u32, Access)]) -> Result<Self, XenError> {
        let device = open(t::PATH, OFlags::empty())?;
        let mut refs = Vec::new();
        let mut first_index = None;
        for &(pages, access) in parts.iter().filter(|(pages, _)| *pages > 0) {
            let mut arg = Arg::new(&t::ALLOC_GREF, pages);
            arg.put_u16(t::ALLOC_DOMID, to.get());
            arg.put_u16(t::ALLOC_FLAGS, if access == Access::ReadWrite { t::FLAG_WRITABLE } else { 0 });
            named(&device, &t::ALLOC_GREF, &mut arg)?;
            first_index.get_or_insert(arg.u64(t::ALLOC_INDEX));
            refs.extend((0..pages as usize).map(|n| GrantRef(arg.u32(t::ALLOC_REFS + 4 * n))));
        }
        let index = first_index.ok_or(XenError::NoPages)?;
        // Parts of one descriptor follow each other in its address space, so one mapping holds them all.
        let span = Span::of_file(
            device.as_fd(),
            index,
            refs.len() * PAGE_BYTES,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
        )
        .map_err(|source| XenError::MapPages { pages: refs.len(), peer: to, source })?;
        COUNTERS.pages_granted.add(refs.len() as u64);
        Ok(Self { span, device, refs, index, to })
    }

    /// One reference a page.
    pub fn refs(&self) -> &[GrantRef] {
        &self.refs
    }

    /// The domain that may map them.
    pub fn to(&self) -> DomId {
        self.to
    }

    /// Where the pages are mapped here, and their bytes.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// When this process is gone (or drops the pages), however that happens: clears the byte at `byte_offset` and, if given,
    /// sends an event on `port`, which must be bound in this domain.
    ///
    /// # Errors
    /// `EINVAL`: `port` isn't bound here.
    pub fn notify_when_gone(&self, byte_offset: usize, port: Option<u32>) -> Result<(), XenError> {
        if byte_offset >= self.span.len() {
            return Err(XenError::Call {
                call: t::SET_UNMAP_NOTIFY.name,
                source: io::Error::from(io::ErrorKind::InvalidInput),
            });
        }
        let mut arg = Arg::fixed();
        arg.put_u64(table::notify::INDEX, self.index + byte_offset as u64);
        super::map::put_notify_action(&mut arg, port);
        named(&self.device, &t::SET_UNMAP_NOTIFY, &mut arg).map(drop)
    }
}

impl Drop for GrantedPages {
    fn drop(&mut self) {
        // The order matters: the kernel lets go of a page, and sends the notice, when both the mapping and the descriptor's
        // claim are gone. The span goes with the struct's fields; the claim ends here, so that the notice isn't left to
        // whoever else holds the descriptor.
        let mut arg = Arg::fixed();
        arg.put_u64(table::gntdev::UNMAP_INDEX, self.index);
        arg.put_u32(table::gntdev::UNMAP_COUNT, u32::try_from(self.refs.len()).unwrap_or(u32::MAX));
        if named(&self.device, &t::DEALLOC_GREF, &mut arg).is_err() {
            // Closing the descriptor, next, does the same.
            COUNTERS.teardown_failures.add(1);
        }
        COUNTERS.pages_granted.sub(self.refs.len() as u64);
    }
}
