//! The shim's end of its door: blocking, with one limit on every wait. A tokio program calls it in `spawn_blocking`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use idm::ChannelError;
use idm::hello::Build;

use super::frame::{self, FrameError, REPLY_BYTES_MAX, REQUEST_BYTES_MAX};
use super::hello::{HELLO_BYTES, Hello, HelloError};
use super::message::{Listing, Reply, Request};

/// A connection to gpu-proxy. After any error but [`ClientError::Refused`] it is of no further use: connect again.
#[derive(Debug)]
pub struct Client<S = UnixStream> {
    stream: S,
    theirs: Hello,
}

/// Why a request was not answered with what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No gpu-proxy there, or none for us.
    #[error("gpu-proxy does not answer at {path}: {}", advice(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was there and is gone, or it did not answer in time.
    #[error("gpu-proxy is gone or did not answer in time")]
    Gone(#[source] io::Error),
    /// The two releases do not fit.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// It answered something that is no answer.
    #[error("gpu-proxy broke the zone protocol")]
    Protocol(#[from] FrameError),
    /// An answer of the wrong kind.
    #[error("gpu-proxy answered with something else than was asked for")]
    WrongReply,
    /// It said no.
    #[error("{text} (VGPU-{code:03})")]
    Refused {
        /// The number of the `VGPU-nnn` code.
        code: u16,
        /// Why.
        text: String,
    },
}

/// What to do about a connection that cannot be made.
fn advice(refused: &io::Error) -> &'static str {
    match refused.kind() {
        io::ErrorKind::PermissionDenied => "run as root",
        _ => "is gpu-proxy.service running?",
    }
}

impl Client<UnixStream> {
    /// Connects to the socket at `path`. `timeout` bounds the connecting, which waits while too many others do, and each later
    /// read and write: a release waits for workers to end, so five seconds is a fair figure.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(path: impl AsRef<Path>, timeout: Duration) -> Result<Self, ClientError> {
        let path = path.as_ref();
        let failed = |source| ClientError::Connect { path: path.to_owned(), source };
        let stream = idm::connect::reach(path, timeout).map_err(|error| match error {
            // It is there, but takes nobody in.
            ChannelError::TimedOut { .. } => ClientError::Gone(io::ErrorKind::TimedOut.into()),
            ChannelError::System { source, .. } => failed(source.into()),
            other => failed(other.into()),
        })?;
        stream.set_read_timeout(Some(timeout)).map_err(failed)?;
        stream.set_write_timeout(Some(timeout)).map_err(failed)?;
        Self::over(stream)
    }
}

impl<S: Read + Write> Client<S> {
    /// Says hello over a stream that stands, as an IDM stream to a driver domain.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn over(mut stream: S) -> Result<Self, ClientError> {
        stream.write_all(&Hello::ours().to_bytes()).map_err(ClientError::Gone)?;
        let mut theirs = [0; HELLO_BYTES];
        stream.read_exact(&mut theirs).map_err(ClientError::Gone)?;
        Ok(Self { stream, theirs: Hello::meet(&theirs)? })
    }

    /// gpu-proxy's release.
    pub fn peer_build(&self) -> Build {
        self.theirs.build
    }

    /// Sends a request and waits for its answer; a refusal is an error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.stream.write_all(&frame::encode(request, REQUEST_BYTES_MAX)?).map_err(ClientError::Gone)?;
        let mut word = [0; 4];
        self.stream.read_exact(&mut word).map_err(ClientError::Gone)?;
        let mut body = vec![0; frame::frame_len(word, REPLY_BYTES_MAX)?];
        self.stream.read_exact(&mut body).map_err(ClientError::Gone)?;
        match frame::decode(&body)? {
            Reply::Refused { code, text } => Err(ClientError::Refused { code, text }),
            reply => Ok(reply),
        }
    }

    /// The stream, once nothing more is asked: silent while that gpu-proxy lives, and ended with it.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// [`Client::call`] for what is answered by [`Reply::Done`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn done(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.call(request)? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::WrongReply),
        }
    }

    /// The node and its zones.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn list(&mut self) -> Result<Listing, ClientError> {
        match self.call(&Request::List)? {
            Reply::Listing(listing) => Ok(listing),
            _ => Err(ClientError::WrongReply),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;
    use std::thread;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

    use super::*;
    use crate::shim::{DomainRef, ZoneId};

    /// A supervisor that gives each request, by number, the answer of `answer`.
    fn serve(listener: UnixListener, answer: impl Fn(usize, Request) -> Reply + Send + 'static) {
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; HELLO_BYTES];
            stream.read_exact(&mut hello).unwrap();
            stream.write_all(&Hello::ours().to_bytes()).unwrap();
            for number in 0.. {
                let mut word = [0; 4];
                if stream.read_exact(&mut word).is_err() {
                    return;
                }
                let mut body = vec![0; frame::frame_len(word, REQUEST_BYTES_MAX).unwrap()];
                stream.read_exact(&mut body).unwrap();
                let reply = answer(number, frame::decode(&body).unwrap());
                stream.write_all(&frame::encode(&reply, REPLY_BYTES_MAX).unwrap()).unwrap();
            }
        });
    }

    #[test]
    fn requests_are_answered_in_order_and_a_refusal_keeps_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        serve(UnixListener::bind(&path).unwrap(), |number, request| {
            assert_eq!(matches!(request, Request::List), number == 3);
            match number {
                0 => Reply::Refused { code: 310, text: "no".into() },
                _ => Reply::Done,
            }
        });
        let mut client = Client::connect(&path, Duration::from_secs(5)).unwrap();
        let domain = DomainRef { domid: 5, uuid: uuid::Uuid::from_u128(1) };
        let release = Request::Release { zone: ZoneId::of_sandbox(None, "default", "a"), domain };
        assert!(matches!(client.done(&release), Err(ClientError::Refused { code: 310, .. })));
        client.done(&release).unwrap();
        client.done(&release).unwrap();
        assert!(matches!(client.list(), Err(ClientError::WrongReply)));
    }

    #[test]
    fn without_a_proxy_the_error_says_what_to_look_at() {
        let error = Client::connect("/nonexistent/proxy.sock", Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("gpu-proxy.service"), "{error}");
        let source = io::ErrorKind::PermissionDenied.into();
        let error = ClientError::Connect { path: "/run/vgpu/gpu-proxy.sock".into(), source };
        assert!(error.to_string().contains("run as root"), "{error}");
    }

    #[test]
    fn a_proxy_that_does_not_answer_is_given_up_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        let _silent = UnixListener::bind(&path).unwrap();
        assert!(matches!(Client::connect(&path, Duration::from_millis(50)), Err(ClientError::Gone(_))));
    }

    #[test]
    fn a_proxy_that_takes_nobody_in_is_given_up_within_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("proxy.sock");
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let listener = listener.unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let (given_up, errors) = mpsc::channel();
        thread::spawn(move || {
            // The first ones fill the queue of those who wait to be taken in.
            for _ in 0..4 {
                given_up.send(Client::connect(&path, Duration::from_millis(50)).unwrap_err()).unwrap();
            }
        });
        for number in 0..4 {
            let error = errors.recv_timeout(Duration::from_secs(10)).expect("it waits without a limit");
            assert!(matches!(error, ClientError::Gone(_)), "{number}: {error:?}");
        }
    }
}
