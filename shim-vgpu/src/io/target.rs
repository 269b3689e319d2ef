//! What a stdio path of containerd means, and how it is opened.

use std::path::Path;

use tokio::{io::AsyncWrite, net::unix::pipe};
use vgpu_codes::Code;

use crate::error::{Error, OrFail, Result};

/// Where bytes come from or go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// /dev/null.
    None,
    /// A named pipe.
    Fifo(&'a Path),
    /// A file to append to.
    File(&'a Path),
}

impl<'a> Target<'a> {
    /// # Errors
    /// [`Code::SpecInvalid`] for another scheme.
    pub fn parse(text: &'a str) -> Result<Self> {
        match text.split_once("://") {
            None if text.is_empty() => Ok(Target::None),
            None => Ok(Target::Fifo(Path::new(text))),
            Some(("fifo", path)) => Ok(Target::Fifo(Path::new(path))),
            Some(("file", path)) => Ok(Target::File(Path::new(path))),
            Some((scheme, _)) => Err(Error::new(
                Code::SpecInvalid,
                format!("stdio by {scheme}:// is not supported: use a fifo or file://"),
            )),
        }
    }

    /// The path of a fifo, for stdin.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] for a file.
    pub fn fifo_path(self) -> Result<Option<&'a Path>> {
        match self {
            Target::None => Ok(None),
            Target::Fifo(path) => Ok(Some(path)),
            Target::File(_) => {
                Err(Error::new(Code::SpecInvalid, "stdin from file:// is not supported: use a fifo"))
            }
        }
    }

    /// Opens an output.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn open_output(self) -> Result<Option<Box<dyn AsyncWrite + Send + Unpin>>> {
        match self {
            Target::None => Ok(None),
            Target::Fifo(path) => {
                // Both ways: the read end of ours keeps the pipe whole while nobody else reads.
                let fifo = pipe::OpenOptions::new()
                    .read_write(true)
                    .open_sender(path)
                    .or_fail(Code::HostFailure, cannot_open(path))?;
                Ok(Some(Box::new(fifo)))
            }
            Target::File(path) => {
                let file = std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .or_fail(Code::HostFailure, cannot_open(path))?;
                Ok(Some(Box::new(tokio::fs::File::from_std(file))))
            }
        }
    }
}

/// The reader of stdin, and a writer that keeps it from ending.
///
/// # Errors
/// [`Code::HostFailure`].
pub fn open_stdin(path: &Path) -> Result<(pipe::Receiver, pipe::Sender)> {
    let reader =
        pipe::OpenOptions::new().open_receiver(path).or_fail(Code::HostFailure, cannot_open(path))?;
    let hold = pipe::OpenOptions::new().open_sender(path).or_fail(Code::HostFailure, cannot_open(path))?;
    Ok((reader, hold))
}

fn cannot_open(path: &Path) -> impl FnOnce() -> String {
    move || format!("cannot open {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemes_are_told_apart() {
        assert_eq!(Target::parse("").unwrap(), Target::None);
        assert_eq!(Target::parse("/run/f").unwrap(), Target::Fifo(Path::new("/run/f")));
        assert_eq!(Target::parse("fifo:///run/f").unwrap(), Target::Fifo(Path::new("/run/f")));
        assert_eq!(Target::parse("file:///log").unwrap(), Target::File(Path::new("/log")));
        assert!(Target::parse("binary:///x").unwrap_err().to_string().contains("binary://"));
    }
}
