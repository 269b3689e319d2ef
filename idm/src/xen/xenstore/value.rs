//! What is written into requests and read from answers: paths, permissions, decimals. Pure.

use super::super::DomId;
use super::XsError;

/// Longest path that both xenstored implementations take.
const PATH_BYTES_MAX: usize = 1024;

/// Checks `path` as xenstored would, so that a mistake is found here and named.
///
/// # Errors
/// [`XsError::BadPath`]. Source: Xen, `docs/misc/xenstore.txt`, "Paths".
pub(super) fn check_path(path: &str) -> Result<(), XsError> {
    let characters = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte));
    let slashes = path != "/" && path.ends_with('/') || path.contains("//");
    if path.is_empty() || path.len() > PATH_BYTES_MAX || !characters || slashes {
        return Err(XsError::BadPath(path.chars().take(64).collect()));
    }
    Ok(())
}

/// Who may do what with a node: the owner everything, domains named here reading, the rest nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Has all rights, and pays for the node.
    pub owner: DomId,
    /// May read it.
    pub readers: Vec<DomId>,
}

impl Permissions {
    /// A node of `owner` that `reader` may read.
    pub fn owned(owner: DomId, reader: DomId) -> Self {
        Self { owner, readers: vec![reader] }
    }

    /// As xenstored writes it: the first entry is the owner and, as its letter, what those not named may do.
    pub(super) fn payload(&self) -> Vec<u8> {
        let readers = self.readers.iter().map(|reader| format!("r{}\0", reader.get()));
        std::iter::once(format!("n{}\0", self.owner.get()))
            .chain(readers)
            .flat_map(String::into_bytes)
            .collect()
    }
}

/// Reads a decimal number of at most `max`: digits alone, ten at most. Everything that a guest writes goes through here.
pub fn decimal(text: &[u8], max: u32) -> Option<u32> {
    if text.is_empty() || text.len() > 10 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number <= max).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_bounded_decimals_are_numbers() {
        assert_eq!(decimal(b"0", 0), Some(0));
        assert_eq!(decimal(b"4294967295", u32::MAX), Some(u32::MAX));
        assert_eq!(decimal(b"007", 9), Some(7));
        for text in [
            &b""[..],
            b"-1",
            b"+1",
            b" 1",
            b"1 ",
            b"1\0",
            b"0x1",
            b"1e3",
            b"4294967296",
            b"00000000001",
            b"\xd9\xa1",
            b"10",
        ] {
            assert_eq!(decimal(text, if text == b"10" { 9 } else { u32::MAX }), None, "{text:?}");
        }
    }

    #[test]
    fn paths_that_xenstored_refuses_are_refused_here() {
        for path in ["/", "domid", "@releaseDomain", "/local/domain/5/device/vgpu-idm/0", "a_b/c-d@e"] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        let long = "a".repeat(1025);
        for path in ["", "/a/", "a//b", "a b", "a\0b", "a.b", "é", &long] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn permissions_name_the_owner_first() {
        let permissions = Permissions::owned(DomId::new(5).unwrap(), DomId::DOM0);
        assert_eq!(permissions.payload(), b"n5\0r0\0");
    }
}
