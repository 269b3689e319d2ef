//! The URLs of stdio, as Go's `url.Parse` reads them. Source: RFC 3986; containerd's shim for runc.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use vgpu_codes::Code;

use crate::error::{Error, Result};

/// What of a URL somebody here asks for: not its scheme, host and fragment.
#[derive(Debug)]
pub struct Url {
    pub path: PathBuf,
    /// Keys and values in their order.
    pub query: Vec<(OsString, OsString)>,
}

impl Url {
    /// Of the whole text and what follows its `scheme://`.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`]: an escape that is none.
    pub fn parse(text: &str, rest: &str) -> Result<Self> {
        let wrong =
            || Error::new(Code::SpecInvalid, format!("{text}: a % in it is not followed by two digits"));
        let rest = rest.split('#').next().unwrap_or_default();
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = place.find('/').map_or("", |begin| &place[begin..]);
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(&key.replace('+', " "))?, decoded(&value.replace('+', " "))?))
        };
        let query: Option<_> = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        Ok(Url { path: decoded(path).ok_or_else(wrong)?.into(), query: query.ok_or_else(wrong)? })
    }
}

/// The bytes that are meant. None: an escape that is none.
fn decoded(text: &str) -> Option<OsString> {
    let mut pieces = text.as_bytes().split(|byte| *byte == b'%');
    let mut bytes = pieces.next().unwrap_or_default().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        bytes.extend_from_slice(&piece[2..]);
    }
    Some(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_path_is_its_bytes_without_host_query_and_fragment() {
        let path =
            |rest: &str| Url::parse(rest, rest).map(|url| url.path.as_os_str().as_bytes().to_vec()).ok();
        let is = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(path("/var/my%20log+%25"), is("/var/my log+%"));
        assert_eq!(path("/a%3f?b=%2fc#d"), is("/a?"));
        assert_eq!(path("/a#b?c"), is("/a"));
        assert_eq!(path("host/a"), is("/a"));
        assert_eq!(path("/%c3%A4%ff"), Some(b"/\xc3\xa4\xff".to_vec()));
        assert_eq!([path("/%"), path("/%2"), path("/%+1"), path("/a?b=%")], [const { None }; 4]);
        assert_eq!(path(""), is(""));
    }
}
