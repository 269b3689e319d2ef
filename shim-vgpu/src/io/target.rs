//! What a stdio path of containerd means, and how it is opened. To open one may take long.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tokio::{io::AsyncWrite, net::unix::pipe};
use vgpu_codes::Code;

use super::{
    logger::{Binary, Logger, Whose},
    url::Url,
};
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
    /// A program that reads it.
    Binary(Binary),
}

/// Where stdout and stderr of a process go; of none there is none.
#[derive(Default)]
pub struct Outputs {
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    /// Who reads them, if a program does.
    pub logger: Option<Logger>,
}

impl Outputs {
    /// Opens both. A program that reads stdout reads stderr, too: it is started once. Inside the runtime; may take long.
    ///
    /// # Errors
    /// [`Code::SpecInvalid`] for what is no place of output, [`Code::HostFailure`].
    pub fn open(stdout: &str, stderr: &str, whose: &Whose) -> Result<Self> {
        match (Target::parse(stdout)?, Target::parse(stderr)?) {
            (Target::Binary(binary), _) => {
                let (logger, [out, err]) = binary.start(whose)?;
                let stderr = (!stderr.is_empty()).then(|| Box::new(err) as Output);
                Ok(Outputs { stdout: Some(Box::new(out)), stderr, logger: Some(logger) })
            }
            (_, Target::Binary(_)) => {
                let what = format!("stderr by {stderr}, but stdout is not: give both the same");
                Err(Error::new(Code::SpecInvalid, what))
            }
            (out, err) => {
                Ok(Outputs { stdout: out.open_output()?, stderr: err.open_output()?, logger: None })
            }
        }
    }
}

impl Target {
    /// # Errors
    /// [`Code::SpecInvalid`] for another scheme, or a URL that is none.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once("://") {
            None if text.is_empty() => Ok(Target::None),
            None => Ok(Target::Fifo(text.into())),
            Some(("fifo", path)) => Ok(Target::Fifo(path.into())),
            Some(("file", rest)) => Url::parse(text, rest).map(|url| Target::File(url.path)),
            Some((scheme @ ("binary" | "binary-v2"), rest)) => {
                Binary::parse(text, rest, scheme == "binary-v2").map(Target::Binary)
            }
            Some((scheme, _)) => Err(Error::new(
                Code::SpecInvalid,
                format!("stdio by {scheme}:// is not supported: use a fifo, file:// or binary://"),
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
            Target::File(_) | Target::Binary(_) => {
                let what = "stdin by file:// or binary:// is not supported: use a fifo";
                return Err(Error::new(Code::SpecInvalid, what));
            }
        };
        let fifo = pipe::OpenOptions::new();
        let reader = fifo.open_receiver(&path).or_fail(Code::HostFailure, cannot_open(&path))?;
        let hold = fifo.open_sender(&path).or_fail(Code::HostFailure, cannot_open(&path))?;
        Ok(Some((reader, hold)))
    }

    fn open_output(self) -> Result<Option<Output>> {
        match self {
            // A program is the whole output's: see `Outputs`.
            Target::None | Target::Binary(_) => Ok(None),
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
    use std::{fs, io::Write, os::unix::fs::PermissionsExt};

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
        assert!(matches!(Target::parse("binary:///x"), Ok(Target::Binary(_))));
        assert!(Target::parse("other:///x").unwrap_err().to_string().contains("other://"));
    }

    #[test]
    fn a_file_is_the_path_of_its_url_and_a_fifo_is_none() {
        assert_eq!(Target::parse("file:///my%20log").unwrap(), Target::File("/my log".into()));
        assert_eq!(Target::parse("file:///%").unwrap_err().code(), Some(Code::SpecInvalid));
        assert_eq!(Target::parse("/run/my%20fifo").unwrap(), Target::Fifo("/run/my%20fifo".into()));
    }

    #[tokio::test]
    async fn a_program_reads_both_outputs_or_none() {
        let whose = Whose { id: "one".into(), namespace: "k8s.io".into() };
        let open = |stdout, stderr| Outputs::open(stdout, stderr, &whose);
        let both = open("binary:///bin/true", "binary:///bin/true").unwrap();
        assert!(both.stdout.is_some() && both.stderr.is_some() && both.logger.is_some());
        let one = open("binary:///bin/true", "").unwrap();
        assert!(one.stdout.is_some() && one.stderr.is_none());
        assert_eq!(open("", "binary:///bin/true").map(|_| ()).unwrap_err().code(), Some(Code::SpecInvalid));
    }
}
