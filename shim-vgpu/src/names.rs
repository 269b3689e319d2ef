//! Ids that become paths, names and keys.

use uuid::Uuid;
use vgpu_codes::Code;

use crate::error::{Error, Result};

/// Longest id that containerd and kubelet make. Source: containerd `identifiers`, `maxLength`.
const ID_BYTES_MAX: usize = 76;

/// Refuses an id that is no path component of containerd's alphabet, so that no id can name a file elsewhere.
///
/// # Errors
/// [`Code::SpecInvalid`].
pub fn check_id(what: &str, id: &str) -> Result<()> {
    let letters = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if letters && first && id.len() <= ID_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(
        Code::SpecInvalid,
        format!("the {what} {id:?} is not 1 to {ID_BYTES_MAX} letters, digits, dots, dashes and underscores"),
    ))
}

/// The folder of one life of a sandbox below `/run/vgpu/{sandboxes,shared}`, for the domain `uuid`. An id comes back (`ctr`, restarts),
/// and what still cleans up after its last life must never meet the next one. `+` is in no alphabet, so two never share a folder.
pub fn folder(namespace: &str, sandbox: &str, uuid: Uuid) -> String {
    format!("{namespace}+{sandbox}+{uuid}")
}

/// Whether a folder is a life of this sandbox.
pub fn is_life_of(folder: &str, namespace: &str, sandbox: &str) -> bool {
    folder.starts_with(&format!("{namespace}+{sandbox}+"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_leaves_its_folder_is_refused() {
        for id in ["", ".", "..", "../x", "a/b", "-a", "a\0", "a b", &"x".repeat(77)] {
            assert!(check_id("id", id).is_err(), "{id:?}");
        }
        for id in ["a", "a.b_c-d", &"x".repeat(76)] {
            assert!(check_id("id", id).is_ok(), "{id:?}");
        }
    }

    #[test]
    fn a_life_is_its_sandboxs_alone() {
        let uuid = Uuid::from_u128(7);
        assert_ne!(folder("ns", "a", uuid), folder("ns", "a", Uuid::from_u128(8)));
        assert!(is_life_of(&folder("ns", "a", uuid), "ns", "a"));
        for other in [folder("ns", "ab", uuid), folder("n", "a", uuid), folder("ns", "b", uuid)] {
            assert!(!is_life_of(&other, "ns", "a"), "{other}");
        }
        let longest = "x".repeat(ID_BYTES_MAX);
        assert!(folder(&longest, &longest, uuid).len() <= 255);
    }
}
