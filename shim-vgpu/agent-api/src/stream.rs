//! The name of a raw stdio stream in Task.Create and Task.Exec: `idm://<id>`, where id came from `Agent.OpenStream`.

use std::{fmt, num::NonZeroU32, str::FromStr};

/// A raw stream between guest and shim. Made by the shim, never used twice in a sandbox's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(pub NonZeroU32);

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "idm://{}", self.0)
    }
}

/// Not `idm://` and a decimal above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadStreamName;

impl fmt::Display for BadStreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stdio stream is named idm:// and a decimal above 0")
    }
}

impl std::error::Error for BadStreamName {}

impl FromStr for StreamName {
    type Err = BadStreamName;

    fn from_str(text: &str) -> Result<Self, BadStreamName> {
        let digits = text.strip_prefix("idm://").ok_or(BadStreamName)?;
        // `parse` alone would also take a sign.
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadStreamName);
        }
        digits.parse().map(Self).map_err(|_| BadStreamName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_text_form() {
        let name = StreamName(NonZeroU32::new(4_000_000_000).unwrap());
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "idm://", "idm://0", "idm://+1", "idm://-1", "idm://4294967296", "fifo://1", "idm://1 "]
        {
            assert_eq!(text.parse::<StreamName>(), Err(BadStreamName), "{text:?}");
        }
    }
}
