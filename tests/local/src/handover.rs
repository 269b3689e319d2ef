//! How the far end of a stdio stream comes from the guest to the shim: who connects to the guest's socket and says a port gets its descriptor
//! (SCM_RIGHTS, unix(7)), once.

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guest_init::{
    agent::streams::MakeStream,
    error::{During, Result},
    stdio::ByteStream,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// For the other side, which may hang.
const LIMIT: Duration = Duration::from_secs(10);

/// The far ends that nobody has fetched.
#[derive(Debug, Default, Clone)]
pub struct FarEnds(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    made: u32,
    ends: HashMap<u32, UnixStream>,
}

impl MakeStream for FarEnds {
    fn make(&self) -> Result<(Box<dyn ByteStream>, Vec<u32>, u32)> {
        let pair = || -> io::Result<(tokio::net::UnixStream, UnixStream)> {
            let (near, far) = UnixStream::pair()?;
            near.set_nonblocking(true)?;
            Ok((tokio::net::UnixStream::from_std(near)?, far))
        };
        let (near, far) = pair().during(|| "make a stdio stream".into())?;
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.made = waiting.made.wrapping_add(1);
        let port = waiting.made;
        waiting.ends.insert(port, far);
        Ok((Box::new(near), Vec::new(), port))
    }
}

impl FarEnds {
    /// Gives out far ends for ever, one after the other.
    pub fn serve(&self, listener: &UnixListener) {
        for asker in listener.incoming().flatten() {
            // An asker that is gone, or wants what there is not, is told by the end of its connection.
            let _ = self.answer(&asker);
        }
    }

    fn answer(&self, mut asker: &UnixStream) -> io::Result<()> {
        asker.set_read_timeout(Some(LIMIT))?;
        let mut port = [0; 4];
        asker.read_exact(&mut port)?;
        let end =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).ends.remove(&u32::from_le_bytes(port));
        let end = end.ok_or(io::ErrorKind::NotFound)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [end.as_fd()];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        sendmsg(asker, &[IoSlice::new(&port)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// Fetches the far end `port` at the guest's socket. Blocks.
///
/// # Errors
/// The guest is gone or hangs, or has no such end.
pub fn receive(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut guest = UnixStream::connect(socket)?;
    guest.set_read_timeout(Some(LIMIT))?;
    guest.write_all(&port.to_le_bytes())?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut echo = [0; 4];
    recvmsg(&guest, &mut [IoSliceMut::new(&mut echo)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let end = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    end.map(UnixStream::from).ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_far_end_is_handed_over_once() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("streams");
        let (ends, listener) = (FarEnds::default(), UnixListener::bind(&socket).unwrap());
        let served = ends.clone();
        // Ends with the test's process.
        thread::spawn(move || served.serve(&listener));
        let (mut near, refs, port) = ends.make().unwrap();
        assert!(refs.is_empty());
        let mut far = receive(&socket, port).unwrap();
        far.write_all(b"across").unwrap();
        drop(far);
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "across");
        for wrong in [port, port + 1] {
            assert_eq!(receive(&socket, wrong).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
