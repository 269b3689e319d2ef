//! Where a device's nodes are, and how an offer is written into them.

use std::fmt::Write as _;

use super::super::error::XenError;
use super::super::offer::Offer;
use super::super::xenstore::{Store, decimal};
use super::super::{DomId, GrantRef};

/// Pages of the largest stream: two rings of 256 KiB and an index page. A node of xenstore, 2048 bytes, holds their references.
const REFS_MAX: usize = 129;

/// One device: of which guest, which one, served by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Device {
    /// The guest's domain.
    pub guest: DomId,
    /// 0: the agent's, 1: the GPU's.
    pub number: u32,
    /// The backend's domain.
    pub backend: DomId,
}

impl Device {
    /// The guest's half: it owns these nodes, the backend reads them.
    pub fn frontend_path(&self) -> String {
        format!("/local/domain/{}/device/vgpu-idm/{}", self.guest.get(), self.number)
    }

    /// The backend's half: it owns these nodes, the guest reads them.
    pub fn backend_path(&self) -> String {
        format!("{}/{}", self.backend_parent(), self.number)
    }

    pub(super) fn backend_parent(&self) -> String {
        format!("/local/domain/{}/backend/vgpu-idm/{}", self.backend.get(), self.guest.get())
    }
}

/// Writes the references and the port of `offer` below `path`.
pub(super) fn write_offer(
    store: &impl Store,
    path: &str,
    offer: &Offer,
) -> Result<(), super::super::xenstore::XsError> {
    let mut list = String::new();
    for reference in &offer.refs {
        // Writing into a String cannot fail.
        let _ = write!(list, "{}{}", if list.is_empty() { "" } else { " " }, reference.0);
    }
    store.write(&format!("{path}/refs"), list)?;
    store.write(&format!("{path}/event-channel"), offer.port.to_string())
}

/// Reads what the guest `from` wrote. It may write anything: each field is read once and must be what it should be.
///
/// # Errors
/// [`XenError::PeerWrote`].
pub(super) fn read_offer(store: &impl Store, path: &str, from: DomId) -> Result<Offer, XenError> {
    let list = store.read(&format!("{path}/refs"))?;
    let port = store.read(&format!("{path}/event-channel"))?;
    let wrote = |what, value: &[u8]| {
        let value = String::from_utf8_lossy(&value[..value.len().min(64)]).into_owned();
        XenError::PeerWrote { peer: from, what, value }
    };
    let refs = parse_refs(&list).ok_or_else(|| wrote("grant references", &list))?;
    let port = decimal(&port, u32::MAX).ok_or_else(|| wrote("an event channel's port", &port))?;
    Ok(Offer { refs, port })
}

fn parse_refs(list: &[u8]) -> Option<Vec<GrantRef>> {
    let refs: Option<Vec<_>> = list
        .split(|&byte| byte == b' ')
        .take(REFS_MAX + 1)
        .map(|text| decimal(text, u32::MAX).map(GrantRef))
        .collect();
    refs.filter(|refs| refs.len() <= REFS_MAX)
}

/// What is taken for references is what [`write_offer`] would have written, but for leading zeros.
#[cfg(fuzzing)]
pub(crate) fn fuzz_refs(bytes: &[u8]) {
    let Some(refs) = parse_refs(bytes) else { return };
    assert!(refs.len() <= REFS_MAX && refs.len() <= bytes.len());
    for (reference, text) in refs.iter().zip(bytes.split(|&byte| byte == b' ')) {
        assert!(text.ends_with(reference.0.to_string().as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_they_are_written() {
        assert_eq!(parse_refs(b"8 9 4294967295").unwrap(), [GrantRef(8), GrantRef(9), GrantRef(u32::MAX)]);
        assert_eq!(parse_refs("7 ".repeat(128).trim_end().as_bytes()).unwrap().len(), 128);
    }

    #[test]
    fn what_is_no_list_of_references_is_refused() {
        let long = vec!["7"; 130].join(" ");
        for list in
            [&b""[..], b" ", b"8 ", b" 8", b"8  9", b"8,9", b"-1", b"4294967296", b"8\09", long.as_bytes()]
        {
            assert_eq!(parse_refs(list), None, "{}", String::from_utf8_lossy(list));
        }
    }
}
