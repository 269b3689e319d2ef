//! Pages that another domain granted, mapped here: `/dev/xen/gntdev`.
//!
//! Mapping is two steps, so that two processes can share them: [`Gntdev::record`] tells the kernel which references (a supervisor,
//! who checked them), [`Gntdev::map`] maps what was recorded (a worker, who was sent the descriptor and [`Recorded`]). A worker
//! therefore opens no device and, behind seccomp, needs no ioctl.
//!
//! Rules of the kernel: one mmap for one request, whole; MAP_SHARED; one notice for one request, and none before it is mapped; munmap
//! before UNMAP_GRANT_REF.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::mm::ProtFlags;

use super::error::XenError;
use super::ioctl::{Arg, named, open};
use super::map::{Access, Span, put_notify_action};
use super::metrics::COUNTERS;
use super::table::{PAGE_BYTES, gntdev as t, notify};
use super::{DomId, GrantRef};

/// Pages in one request that we ever ask for: 64 MiB, the limit of a shared region.
pub const PAGES_MAX: usize = 16_384;

/// An open gntdev. Use one for each channel: it can be handed on with what it recorded and nothing else.
#[derive(Debug)]
pub struct Gntdev(OwnedFd);

/// One request as the kernel recorded it: enough to map it in another process that holds the same open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedPart {
    /// Offset to map at, the kernel's choice.
    pub index: u64,
    /// Pages of 4 KiB.
    pub pages: u32,
    /// How it is to be mapped.
    pub access: Access,
}

/// Requests that will be mapped one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The granting domain, for errors.
    pub from: DomId,
    /// In the order of the addresses.
    pub parts: Vec<RecordedPart>,
}

impl Recorded {
    /// Bytes of all parts.
    pub fn len_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.pages as usize * PAGE_BYTES).sum()
    }
}

impl Gntdev {
    /// Opens the device.
    ///
    /// # Errors
    /// `ENOENT`: not a Xen domain, or the module xen-gntdev is missing.
    pub fn open() -> Result<Self, XenError> {
        open(t::PATH, OFlags::empty()).map(Self)
    }

    /// A gntdev that another process opened and sent.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives up the struct and keeps the descriptor, to send it.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Has the kernel record what to map of `from`: each part a list of references and how they are to be mapped.
    ///
    /// The references come from the peer; a wrong one is found by [`Gntdev::map`]. Their number is checked here.
    ///
    /// # Errors
    /// [`XenError::TooManyPages`] past [`PAGES_MAX`] in all; [`XenError::NoPages`]; the kernel's.
    pub fn record(&self, from: DomId, parts: &[(&[GrantRef], Access)]) -> Result<Recorded, XenError> {
        let pages: usize = parts.iter().map(|(refs, _)| refs.len()).sum();
        if pages > PAGES_MAX {
            return Err(XenError::TooManyPages { peer: from, pages, limit: PAGES_MAX });
        }
        if pages == 0 {
            return Err(XenError::NoPages);
        }
        let mut recorded = Recorded { from, parts: Vec::with_capacity(parts.len()) };
        for &(refs, access) in parts.iter().filter(|(refs, _)| !refs.is_empty()) {
            match self.record_part(from, refs, access) {
                Ok(part) => recorded.parts.push(part),
                Err(error) => {
                    self.forget(&recorded);
                    return Err(error);
                }
            }
        }
        Ok(recorded)
    }

    fn record_part(&self, from: DomId, refs: &[GrantRef], access: Access) -> Result<RecordedPart, XenError> {
        #[allow(clippy::cast_possible_truncation, reason = "at most PAGES_MAX, checked by the caller")]
        let pages = refs.len() as u32;
        let mut arg = Arg::new(&t::MAP_GRANT_REF, pages);
        for (n, reference) in refs.iter().enumerate() {
            arg.put_u32(t::MAP_REFS + 8 * n, u32::from(from.get()));
            arg.put_u32(t::MAP_REFS + 8 * n + 4, reference.0);
        }
        named(&self.0, &t::MAP_GRANT_REF, &mut arg)?;
        Ok(RecordedPart { index: arg.u64(t::MAP_INDEX), pages, access })
    }

    /// Maps what was recorded, one part behind the other, at `at` if given (a multiple of the page size where nothing is mapped).
    ///
    /// # Errors
    /// [`XenError::MapPages`], `EINVAL`: one reference at least is not granted to this domain (the peer's fault, or it is a PV
    /// domain without `iommu=soft`); `EEXIST`: `at` is taken.
    pub fn map(self, recorded: &Recorded, at: Option<usize>) -> Result<GrantMapping, XenError> {
        let failed = |source| XenError::MapPages {
            pages: recorded.len_bytes() / PAGE_BYTES,
            peer: recorded.from,
            source,
        };
        let span = Span::reserve(at, recorded.len_bytes()).map_err(failed)?;
        let mut at_bytes = 0;
        for part in &recorded.parts {
            let len_bytes = part.pages as usize * PAGE_BYTES;
            let protection = match part.access {
                Access::ReadOnly => ProtFlags::READ,
                Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
            };
            span.place(at_bytes, self.0.as_fd(), part.index, len_bytes, protection).map_err(failed)?;
            at_bytes += len_bytes;
        }
        let pages = (recorded.len_bytes() / PAGE_BYTES) as u64;
        COUNTERS.pages_mapped.add(pages);
        COUNTERS.maps.add(1);
        Ok(GrantMapping { span: Some(span), device: self, recorded: recorded.clone(), pages })
    }

    /// Takes back what [`Gntdev::record`] did, after the mapping is gone. The kernel would do it when the device is closed; but
    /// another process may hold it too.
    fn forget(&self, recorded: &Recorded) {
        for part in &recorded.parts {
            let mut arg = Arg::fixed();
            arg.put_u64(t::UNMAP_INDEX, part.index);
            arg.put_u32(t::UNMAP_COUNT, part.pages);
            // A worker's seccomp may refuse the call; the last close does the same.
            if named(&self.0, &t::UNMAP_GRANT_REF, &mut arg).is_err() {
                COUNTERS.teardown_failures.add(1);
            }
        }
    }
}

impl AsFd for Gntdev {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Pages of another domain in this process's addresses. Unmapped on drop: in that order, mapping first, then the record.
#[derive(Debug)]
pub struct GrantMapping {
    /// Always there until drop.
    span: Option<Span>,
    device: Gntdev,
    recorded: Recorded,
    pages: u64,
}

impl GrantMapping {
    /// Where the pages are. The peer may change them at any time.
    pub fn span(&self) -> &Span {
        // Invariant: only `drop` takes the span.
        self.span.as_ref().expect("a live mapping has its span")
    }

    /// The granting domain.
    pub fn from(&self) -> DomId {
        self.recorded.from
    }

    /// When the mapping goes away (unmapped, or its process died): clears the byte at `byte_offset` of the first part, which must be
    /// mapped writable, and sends an event on `port`, if given, which must be bound in this domain.
    ///
    /// Of pages that are mapped only, and so a method of the mapping: when the mmap of a request fails for one of its references, a PV
    /// kernel takes the others back and clears the byte without a look whether its page was among them: it oopses if it was not.
    ///
    /// # Errors
    /// `EINVAL`: the port isn't bound, or the part is read-only.
    pub fn notify_when_gone(&self, byte_offset: usize, port: Option<u32>) -> Result<(), XenError> {
        let inside = |part: &&RecordedPart| {
            byte_offset < part.pages as usize * PAGE_BYTES && part.access == Access::ReadWrite
        };
        let part = self.recorded.parts.first().filter(inside).ok_or_else(|| XenError::Call {
            call: t::SET_UNMAP_NOTIFY.name,
            source: io::Error::from(io::ErrorKind::InvalidInput),
        })?;
        let mut arg = Arg::fixed();
        arg.put_u64(notify::INDEX, part.index + byte_offset as u64);
        put_notify_action(&mut arg, port);
        named(&self.device.0, &t::SET_UNMAP_NOTIFY, &mut arg).map(drop)
    }
}

impl Drop for GrantMapping {
    fn drop(&mut self) {
        drop(self.span.take());
        self.device.forget(&self.recorded);
        COUNTERS.pages_mapped.sub(self.pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_pages_than_a_region_may_have_never_reach_the_kernel() {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, rustix::fs::Mode::empty()).unwrap();
        let refs = vec![GrantRef(8); PAGES_MAX + 1];
        let error = Gntdev::from_fd(null).record(DomId::DOM0, &[(&refs, Access::ReadWrite)]).unwrap_err();
        assert!(matches!(error, XenError::TooManyPages { pages: 16_385, .. }), "{error}");
    }

    #[test]
    fn a_refused_request_says_which_call_it_was() {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, rustix::fs::Mode::empty()).unwrap();
        let error =
            Gntdev::from_fd(null).record(DomId::DOM0, &[(&[GrantRef(8)], Access::ReadOnly)]).unwrap_err();
        assert_eq!(error.to_string(), "IOCTL_GNTDEV_MAP_GRANT_REF failed");
    }
}
