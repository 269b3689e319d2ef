//! A unix socket that only its owner reaches, bound where a dead supervisor may have left one.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream as AsyncStream};
use vgpu_codes::Code;

use super::refusal::Refusal;

/// A listening socket. Its file goes with it.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
}

impl Door {
    /// Binds `path` with `mode`. A socket there that answers is somebody else's; one that does not is removed.
    ///
    /// # Errors
    /// In use, or what the system says.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, Refusal> {
        if UnixStream::connect(path).is_ok() {
            let text =
                format!("another gpu-proxy serves {}: stop it, or choose another socket", path.display());
            return Err(Refusal::new(Code::SocketInUse, text));
        }
        let failed = |what: &'static str| {
            move |error: io::Error| {
                Refusal::new(Code::HostFailure, format!("{what} {}: {error}", path.display()))
            }
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                std::fs::remove_file(path).map_err(failed("cannot remove the old socket"))?;
            }
            Ok(_) => Err(failed("will not replace")(io::Error::other("it is no socket")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => Err(failed("cannot look at")(error))?,
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(failed("cannot make the folder of"))?;
        }
        // Under another name until it listens and has its mode: who finds the path can connect.
        let mut unready = path.as_os_str().to_owned();
        unready.push(".new");
        let _ = std::fs::remove_file(&unready);
        let listener = UnixListener::bind(&unready).map_err(failed("cannot listen on"))?;
        std::fs::set_permissions(&unready, Permissions::from_mode(mode))
            .map_err(failed("cannot set the mode of"))?;
        std::fs::rename(&unready, path).map_err(failed("cannot name"))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The next who comes. Running out of descriptors is waited out: those who are here may leave.
    pub async fn accept(&self) -> AsyncStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    log::warn!("cannot accept on {}: {error}", self.path.display());
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_answers_is_left_alone_and_a_dead_one_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/proxy.sock");
        let first = Door::bind(&path, 0o600).unwrap();
        assert_eq!(Door::bind(&path, 0o600).unwrap_err().code, Code::SocketInUse);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        Door::bind(&path, 0o600).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert_eq!(Door::bind(&path, 0o600).unwrap_err().code, Code::HostFailure);
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }
}
