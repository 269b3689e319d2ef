//! What a stdio path of containerd means, and how it is opened.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

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
                let file = log_file(path).or_fail(Code::HostFailure, cannot_open(path))?;
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

/// Opened to append, and made where it is not there, with the folders above it. The modes are those of containerd's shim for runc.
fn log_file(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o644).open(path)
}

fn cannot_open(path: &Path) -> impl FnOnce() -> String {
    move || format!("cannot open {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_file_is_appended_to_and_made_with_its_folders() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folders/log");
        let uri = format!("file://{}", path.display());
        Target::parse(&uri).unwrap().open_output().unwrap().expect("an output");
        for line in ["one\n", "two\n"] {
            log_file(&path).unwrap().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let mode = |place: &str| fs::metadata(dir.path().join(place)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode("new"), mode("new/folders"), mode("new/folders/log")], [0o755, 0o755, 0o644]);
        // A file where a folder must be.
        assert!(log_file(&path.join("below")).is_err());
    }

    #[test]
    fn the_schemes_are_told_apart() {
        assert_eq!(Target::parse("").unwrap(), Target::None);
        assert_eq!(Target::parse("/run/f").unwrap(), Target::Fifo(Path::new("/run/f")));
        assert_eq!(Target::parse("fifo:///run/f").unwrap(), Target::Fifo(Path::new("/run/f")));
        assert_eq!(Target::parse("file:///log").unwrap(), Target::File(Path::new("/log")));
        assert!(Target::parse("binary:///x").unwrap_err().to_string().contains("binary://"));
    }
}
