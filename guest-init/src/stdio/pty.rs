//! The master of a container's terminal, as a byte stream. The library opens the pty inside the container and sends the master over a
//! unix socket (runc's console socket).

use std::{
    fs::{self, File},
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use rustix::{
    fs::Uid,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
    pty::OpenptFlags,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::{UnixListener, UnixStream},
};

use crate::sys;

/// A shared handle of one pty's master.
#[derive(Clone, Debug)]
pub struct Master(Arc<AsyncFd<File>>);

impl Master {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self(Arc::new(sys::watch(file)?)))
    }

    /// Makes `owner` the user of the terminal, who alone may open its device.
    /// # Errors
    /// The terminal is gone.
    pub fn give_to(&self, owner: u32) -> io::Result<()> {
        // By its master: the device's name means nothing outside the container.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let device = rustix::pty::ioctl_tiocgptpeer(self.0.get_ref(), flags)?;
        Ok(rustix::fs::fchown(device, Some(Uid::from_raw(owner)), None)?)
    }

    /// Sets the size in characters; the kernel sends SIGWINCH.
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.0.get_ref(), size)?)
    }
}

impl AsyncRead for Master {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match ready.try_io(|fd| fd.get_ref().read(buf.initialize_unfilled())) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // EIO: the last holder of the terminal is gone and everything is read. That is its end of file.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Master {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|fd| fd.get_ref().write(buf)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The socket at which the library delivers the master.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens in `directory`, by a short name: a socket's path may have 107 bytes, and the ids of a container and an exec that CRI chooses
    /// have 64 each.
    /// # Errors
    /// As bind(2).
    pub fn bind(directory: &Path) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = directory.join(format!("console-{}.sock", COUNT.fetch_add(1, Ordering::Relaxed)));
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the master. Resolves only if the library sends one: call it beside the library, or after it.
    /// # Errors
    /// The message holds no descriptor.
    pub async fn receive(&self) -> io::Result<Master> {
        let (connection, _) = self.listener.accept().await?;
        let fd = connection.async_io(Interest::READABLE, || receive_fd(&connection)).await?;
        Master::new(fd)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn receive_fd(connection: &UnixStream) -> io::Result<OwnedFd> {
    let mut bytes = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(
        connection.as_fd(),
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a console message without a descriptor"))
}
