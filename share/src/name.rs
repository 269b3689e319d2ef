//! Names that may go to the kernel: one component, which leads to no other directory.

use rustix::io::Errno;

/// Source: `limits.h`, `NAME_MAX`.
const NAME_BYTES_MAX: usize = 255;

/// One name in one directory. Neither `.` nor `..`, without `/` and NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Errno> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let leads_elsewhere = matches!(bytes, b"" | b"." | b"..");
        if leads_elsewhere || bytes.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(Errno::INVAL);
        }
        Ok(Name(bytes))
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// A step of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Up,
    Down(Name<'a>),
}

impl<'a> Step<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Errno> {
        if bytes == b".." { Ok(Step::Up) } else { Name::new(bytes).map(Step::Down) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component() {
        for good in [&b"a"[..], b"...", b" ", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(Name::new(good).map(Name::bytes), Ok(good));
        }
        for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"../x", b"a\0", b"/etc/passwd"] {
            assert_eq!(Name::new(bad), Err(Errno::INVAL), "{bad:?}");
        }
        assert_eq!(Name::new(&[b'x'; 256]), Err(Errno::NAMETOOLONG));
        assert_eq!(Step::new(b".."), Ok(Step::Up));
        assert_eq!(Step::new(b"../.."), Err(Errno::INVAL));
    }
}
