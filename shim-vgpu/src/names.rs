//! Ids that become paths, names and keys.

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

/// The folder of a sandbox below `/run/vgpu/{sandboxes,shared}`. `+` is in neither alphabet, so two sandboxes never share one.
pub fn folder(namespace: &str, sandbox: &str) -> String {
    format!("{namespace}+{sandbox}")
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
}
