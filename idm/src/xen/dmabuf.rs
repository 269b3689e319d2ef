//! A plain memfd whose pages another domain may map: memfd → dma-buf (`/dev/udmabuf`) → references (gntdev's IMP_TO_REFS).
//!
//! This is what a container can hold: only the memfd ever leaves the process. Facts that the callers must keep:
//! * The peer is always granted reading and writing; it may choose to map read-only.
//! * Nobody is told of an unmap, and the kernel does not keep the pages: **hold [`GrantedMemfd`] until the peer has said that it
//!   unmapped, or its domain is gone**. Dropped earlier, the peer writes into pages that belong to somebody else by then.
//! * A PV domain needs `iommu=soft` on its command line, or the references are wrong: [`GrantedMemfd::new`] refuses there.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use super::error::XenError;
use super::ioctl::{Arg, named, open};
use super::metrics::COUNTERS;
use super::table::{PAGE_BYTES, gntdev as g, udmabuf as u};
use super::{DomId, GrantRef, domain};

/// Bytes of the largest region: udmabuf's own default limit (`udmabuf.size_limit_mb`), and ours for each shared region.
pub const REGION_BYTES_MAX: usize = 64 << 20;

/// A memfd, granted to one domain page by page.
#[derive(Debug)]
pub struct GrantedMemfd {
    // Dropped in this order: closing the importing device ends the grants, then the dma-buf and the pages may go.
    device: OwnedFd,
    dmabuf: OwnedFd,
    memfd: OwnedFd,
    refs: Vec<GrantRef>,
    to: DomId,
}

impl GrantedMemfd {
    /// A new memfd of `len_bytes` (a multiple of 4096, at most [`REGION_BYTES_MAX`]), zeroed, sealed against shrinking and growing,
    /// and granted to `to`.
    ///
    /// # Errors
    /// `ENOSPC`: the grant table is full (xl.cfg `max_grant_frames`). `EINVAL`: udmabuf's size limit.
    /// [`XenError::NeedsIommuSoft`]: a PV domain that would get wrong references.
    pub fn new(to: DomId, len_bytes: usize) -> Result<Self, XenError> {
        let memfd =
            sealed_memfd(len_bytes).map_err(|source| XenError::Memory { bytes: len_bytes, source })?;
        Self::of_memfd(to, memfd, len_bytes)
    }

    /// Grants a memfd that is sealed against shrinking and not against writing.
    ///
    /// # Errors
    /// As [`GrantedMemfd::new`].
    pub fn of_memfd(to: DomId, memfd: OwnedFd, len_bytes: usize) -> Result<Self, XenError> {
        if domain::is_pv_without_bounce_buffers() {
            return Err(XenError::NeedsIommuSoft);
        }
        let pages = region_pages(len_bytes)?;
        let dmabuf = dmabuf_of(&memfd, 0, len_bytes)?;
        let device = open(g::PATH, OFlags::empty())?;
        let refs = import(&device, &dmabuf, to, pages)?;
        Ok(Self { device, dmabuf, memfd, refs, to })
    }

    /// One reference a page, in the order of the memfd.
    pub fn refs(&self) -> &[GrantRef] {
        &self.refs
    }

    /// The domain that may map it.
    pub fn to(&self) -> DomId {
        self.to
    }

    /// The memory itself: map it, or send it to the process that uses it.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Ends the grants, after the peer has unmapped. Same as dropping, but says what went wrong.
    ///
    /// # Errors
    /// The kernel's; the grants end all the same, when the descriptors are closed.
    pub fn release(self) -> Result<(), XenError> {
        let mut arg = Arg::fixed();
        arg.put_u32(g::IMP_FD, number(&self.dmabuf)?);
        named(&self.device, &g::DMABUF_IMP_RELEASE, &mut arg).map(drop)
    }
}

impl Drop for GrantedMemfd {
    fn drop(&mut self) {
        COUNTERS.pages_granted.sub(self.refs.len() as u64);
    }
}

fn region_pages(len_bytes: usize) -> Result<u32, XenError> {
    if len_bytes == 0 || !len_bytes.is_multiple_of(PAGE_BYTES) || len_bytes > REGION_BYTES_MAX {
        return Err(XenError::Memory {
            bytes: len_bytes,
            source: io::Error::new(io::ErrorKind::InvalidInput, "a region is 1 to 16384 whole pages"),
        });
    }
    u32::try_from(len_bytes / PAGE_BYTES).map_err(|_| XenError::NoPages)
}

fn sealed_memfd(len_bytes: usize) -> io::Result<OwnedFd> {
    let memfd = rustix::fs::memfd_create("vgpu", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memfd, len_bytes as u64)?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memfd)
}

/// Grants the pages of a dma-buf to `to`, as long as `device` is open: it holds the dma-buf from here on.
pub(super) fn import(
    device: &OwnedFd,
    dmabuf: &OwnedFd,
    to: DomId,
    pages: u32,
) -> Result<Vec<GrantRef>, XenError> {
    let mut arg = Arg::new(&g::DMABUF_IMP_TO_REFS, pages);
    arg.put_u32(g::IMP_FD, number(dmabuf)?);
    arg.put_u32(g::IMP_DOMID, u32::from(to.get()));
    named(device, &g::DMABUF_IMP_TO_REFS, &mut arg)?;
    COUNTERS.pages_granted.add(u64::from(pages));
    Ok((0..pages as usize).map(|n| GrantRef(arg.u32(g::IMP_REFS + 4 * n))).collect())
}

/// A dma-buf of `len_bytes` of a memfd from `offset` on, both multiples of 4096. It holds the pages that are there now, and those that it
/// makes where there is a hole.
pub(super) fn dmabuf_of(memfd: &OwnedFd, offset: u64, len_bytes: usize) -> Result<OwnedFd, XenError> {
    let device = open(u::PATH, OFlags::empty())?;
    let mut arg = Arg::fixed();
    arg.put_u32(u::CREATE_FD, number(memfd)?);
    arg.put_u32(u::CREATE_FLAGS, u::FLAG_CLOEXEC);
    arg.put_u64(u::CREATE_OFFSET, offset);
    arg.put_u64(u::CREATE_SIZE, len_bytes as u64);
    let fd = named(&device, &u::CREATE, &mut arg)?;
    let fd = i32::try_from(fd)
        .map_err(|_| XenError::Call { call: u::CREATE.name, source: io::Error::other("no descriptor") })?;
    // SAFETY: the call just returned this descriptor as a new one, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor as the unsigned number that the kernel's structs hold.
fn number(fd: &OwnedFd) -> Result<u32, XenError> {
    // An open descriptor is never negative.
    u32::try_from(fd.as_raw_fd()).map_err(|_| XenError::NoPages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_whole_pages_and_at_most_64_mib() {
        assert_eq!(region_pages(REGION_BYTES_MAX).unwrap(), 16_384);
        for bytes in [0, 1, 4095, 4097, REGION_BYTES_MAX + PAGE_BYTES] {
            assert!(region_pages(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn the_memfd_cannot_change_its_size_any_more() {
        let memfd = sealed_memfd(8192).unwrap();
        assert!(rustix::fs::ftruncate(&memfd, 4096).is_err());
        assert!(rustix::fs::ftruncate(&memfd, 16384).is_err());
        // udmabuf refuses a memfd sealed against writing.
        let seals = rustix::fs::fcntl_get_seals(&memfd).unwrap();
        assert!(!seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE));
    }
}
