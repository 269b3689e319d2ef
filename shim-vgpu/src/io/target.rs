//! What a stdio path of containerd means, and how it is opened. To open one may take long.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStringExt,
        fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use tokio::{io::AsyncWrite, net::unix::pipe};
use vgpu_codes::Code;

use crate::error::{Error, OrFail, Result};

/// Where a process's output goes.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Where bytes come from or go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// /dev/null.
    None,
    /// A named pipe.
    Fifo(PathBuf),
    /// A file to append to.
    File(PathBuf),
}

impl Target {
    /// # Errors
    /// [`Code::SpecInvalid`] for another scheme, or a URL that is none.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once("://") {
            None if text.is_empty() => Ok(Target::None),
            None => Ok(Target::Fifo(text.into())),
            Some(("fifo", path)) => Ok(Target::Fifo(path.into())),
            Some(("file", rest)) => path_of(rest).map(Target::File).ok_or_else(|| {
                Error::new(Code::SpecInvalid, format!("{text}: a % in it is not followed by two digits"))
            }),
            Some((scheme, _)) => Err(Error::new(
                Code::SpecInvalid,
                format!("stdio by {scheme}:// is not supported: use a fifo or file://"),
            )),
        }
    }

    /// The reader of stdin, and a writer that keeps it from ending. Inside the runtime.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] for a file, [`Code::HostFailure`].
    pub fn open_stdin(self) -> Result<Option<(pipe::Receiver, pipe::Sender)>> {
        let path = match self {
            Target::None => return Ok(None),
            Target::Fifo(path) => path,
            Target::File(_) => {
                let what = "stdin from file:// is not supported: use a fifo";
                return Err(Error::new(Code::SpecInvalid, what));
            }
        };
        let fifo = pipe::OpenOptions::new();
        let reader = fifo.open_receiver(&path).or_fail(Code::HostFailure, cannot_open(&path))?;
        let hold = fifo.open_sender(&path).or_fail(Code::HostFailure, cannot_open(&path))?;
        Ok(Some((reader, hold)))
    }

    /// Opens an output. Inside the runtime.
    ///
    /// # Errors
    /// [`Code::HostFailure`].
    pub fn open_output(self) -> Result<Option<Output>> {
        match self {
            Target::None => Ok(None),
            Target::Fifo(path) => open_fifo(&path).map(Some),
            // As for runc's shim, which opens it once more then.
            Target::File(path) if is_fifo(&path) => open_fifo(&path).map(Some),
            Target::File(path) => {
                let file = log_file(&path).or_fail(Code::HostFailure, cannot_open(&path))?;
                Ok(Some(Box::new(tokio::fs::File::from_std(file))))
            }
        }
    }
}

/// The path of a URL whose scheme is taken off: its bytes, without a host, a query or a fragment. None: an escape that is none.
/// Source: RFC 3986; containerd's shim for runc, `createIO`, takes the path that Go's `url.Parse` finds.
fn path_of(url: &str) -> Option<PathBuf> {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let path = url[..end].find('/').map_or("", |begin| &url[begin..end]);
    let mut pieces = path.as_bytes().split(|byte| *byte == b'%');
    let mut bytes = pieces.next().unwrap_or_default().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        bytes.extend_from_slice(&piece[2..]);
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.file_type().is_fifo())
}

/// Both ways: the read end of ours keeps the pipe whole while nobody else reads. It waits for nobody.
fn open_fifo(path: &Path) -> Result<Output> {
    let fifo = pipe::OpenOptions::new().read_write(true).open_sender(path);
    Ok(Box::new(fifo.or_fail(Code::HostFailure, cannot_open(path))?))
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
    use std::{
        fs,
        io::Write,
        os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    #[tokio::test]
    async fn a_fifo_that_is_named_as_a_file_is_one_and_waits_for_no_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let target = Target::parse(&format!("file://{}", path.display())).unwrap();
        let opened = tokio::task::spawn_blocking(|| target.open_output());
        let opened = tokio::time::timeout(std::time::Duration::from_secs(5), opened).await;
        if opened.is_err() {
            // Else the runtime waits for it.
            pipe::OpenOptions::new().open_receiver(&path).unwrap();
        }
        let mut output = opened.expect("it waits for a reader").unwrap().unwrap().unwrap();
        output.write_all(b"words").await.unwrap();
        let mut words = [0; 5];
        pipe::OpenOptions::new().open_receiver(&path).unwrap().read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"words");
    }

    #[test]
    fn the_schemes_are_told_apart() {
        assert_eq!(Target::parse("").unwrap(), Target::None);
        assert_eq!(Target::parse("/run/f").unwrap(), Target::Fifo("/run/f".into()));
        assert_eq!(Target::parse("fifo:///run/f").unwrap(), Target::Fifo("/run/f".into()));
        assert_eq!(Target::parse("file:///log").unwrap(), Target::File("/log".into()));
        assert!(Target::parse("binary:///x").unwrap_err().to_string().contains("binary://"));
    }

    #[test]
    fn the_path_of_a_file_is_that_of_its_url() {
        let path = |text: &str| match Target::parse(text) {
            Ok(Target::File(path)) => Some(path.as_os_str().as_bytes().to_vec()),
            Ok(other) => panic!("{text}: {other:?}"),
            Err(error) => {
                assert_eq!(error.code(), Some(Code::SpecInvalid), "{text}");
                None
            }
        };
        let is = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(path("file:///var/my%20log+%25"), is("/var/my log+%"));
        assert_eq!(path("file:///a%3f?b=%2fc#d"), is("/a?"));
        assert_eq!(path("file://host/a"), is("/a"));
        assert_eq!(path("file:///%c3%A4%ff"), Some(b"/\xc3\xa4\xff".to_vec()));
        assert_eq!([path("file:///%"), path("file:///%2"), path("file:///%+1")], [const { None }; 3]);
        assert_eq!(path("file://"), is(""));
        // A fifo's name is no URL.
        assert_eq!(Target::parse("/run/my%20fifo").unwrap(), Target::Fifo("/run/my%20fifo".into()));
    }
}
