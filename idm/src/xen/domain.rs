//! Which domain is this, which is that, and does it still live?

use std::fmt;

use super::DomId;
use super::error::XenError;
use super::xenstore::{Client, Store as _, XsError};

/// A domain's UUID: unlike the id, never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// Reads the usual form, 36 characters in five groups.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return None;
        }
        let mut bytes = [0; 16];
        let mut digits = 0;
        for (at, &character) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if character != b'-' {
                    return None;
                }
                continue;
            }
            let digit = char::from(character).to_digit(16)?;
            // A hexadecimal digit fits.
            bytes[digits / 2] = bytes[digits / 2] << 4 | u8::try_from(digit).ok()?;
            digits += 1;
        }
        Some(Self(bytes))
    }

    /// The 16 bytes, first group first.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl From<[u8; 16]> for Uuid {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One domain, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its id now.
    pub domid: DomId,
    /// Its own name for ever.
    pub uuid: Uuid,
}

impl Identity {
    /// Looks up the domain that has `domid` now. Dom0's UUID is all zeros.
    ///
    /// # Errors
    /// [`XenError::PeerGone`]: there is none.
    pub fn of(xenstore: &Client, domid: DomId) -> Result<Self, XenError> {
        let path = format!("/local/domain/{}/vm", domid.get());
        let value = match xenstore.read(&path) {
            Ok(value) => value,
            // Dom0 is made without one, and lives as long as the hypervisor: its id alone names it.
            Err(error) if error.is_missing() && domid == DomId::DOM0 => {
                return Ok(Self { domid, uuid: Uuid([0; 16]) });
            }
            Err(error) if error.is_missing() => return Err(XenError::PeerGone(domid)),
            Err(error) => return Err(error.into()),
        };
        let uuid =
            std::str::from_utf8(&value).ok().and_then(|text| text.strip_prefix("/vm/")).and_then(Uuid::parse);
        let uuid = uuid.ok_or_else(|| XsError::value(&path, &value, "/vm/<uuid>"))?;
        Ok(Self { domid, uuid })
    }

    /// Whether this very domain still lives: its id is known to xenstored and still means the same UUID.
    ///
    /// # Errors
    /// Xenstore's own.
    pub fn is_alive(&self, xenstore: &Client) -> Result<bool, XenError> {
        if !xenstore.is_introduced(self.domid)? {
            return Ok(false);
        }
        match Self::of(xenstore, self.domid) {
            Ok(now) => Ok(now.uuid == self.uuid),
            Err(XenError::PeerGone(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// This domain's own id.
///
/// # Errors
/// Xenstore's own.
pub fn own_domid(xenstore: &Client) -> Result<DomId, XenError> {
    // Over the socket there are no relative paths; but only the toolstack's domain, the first one, has the socket.
    if !xenstore.has_relative_paths() {
        return Ok(DomId::DOM0);
    }
    let id = xenstore.read_decimal("domid", 0x7fef)?;
    let domid = u16::try_from(id).ok().and_then(DomId::new);
    domid.ok_or_else(|| XsError::value("domid", b"", "a domain's id").into())
}

/// Whether this is a PV domain. In one nothing that another domain granted may be pinned: a process that dies with such pages pinned spoils
/// them until the domain is started anew (measured on Linux 6.12).
pub fn is_pv() -> bool {
    std::fs::read_to_string("/sys/hypervisor/guest_type").is_ok_and(|kind| kind.trim() == "PV")
}

/// Whether a dma-buf of this domain would be granted with wrong references: PV without `iommu=soft` (measured: the kernel call
/// succeeds, the peer's mapping fails). Not a Xen domain at all counts as fine: the devices will say so.
pub(super) fn is_pv_without_bounce_buffers() -> bool {
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    is_pv() && !command_line.split_whitespace().any(|word| word == "iommu=soft")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_reads_as_it_prints() {
        let text = "01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(Uuid::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for text in [
            "",
            "01234567-89ab-cdef-0123-456789abcde",
            "01234567089ab-cdef-0123-456789abcdef",
            "g1234567-89ab-cdef-0123-456789abcdef",
            "01234567-89ab-cdef-0123-456789abcdef0",
            "é1234567-89ab-cdef-0123-456789abcde",
        ] {
            assert_eq!(Uuid::parse(text), None, "{text}");
        }
    }
}
