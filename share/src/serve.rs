//! A session over a byte stream: one request after the other.

use std::io::{self, Read, Write};

use crate::message::HEADER_BYTES;
use crate::session::{Desk, Session};
use crate::wire::Malformed;

/// Why a session ended before its stream did.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The guest's fault.
    #[error("the guest broke the protocol")]
    Protocol(#[source] Malformed),
    /// The stream's.
    #[error("the guest's stream failed")]
    Stream(#[source] io::Error),
}

/// Answers what comes until the stream ends between two messages.
/// # Errors
/// [`Ended`]. The session must not be used again after that.
pub fn serve(session: &Session, from: &mut impl Read, to: &mut impl Write) -> Result<(), Ended> {
    let (mut frame, mut desk) = (Vec::new(), Desk::default());
    while receive(session, from, &mut frame)? {
        let reply = session.answer(&frame, &mut desk).map_err(Ended::Protocol)?;
        to.write_all(reply).and_then(|()| to.flush()).map_err(Ended::Stream)?;
    }
    Ok(())
}

/// The next frame; false at the end.
fn receive(session: &Session, from: &mut impl Read, frame: &mut Vec<u8>) -> Result<bool, Ended> {
    let mut size = [0; 4];
    loop {
        match from.read(&mut size[..1]) {
            Ok(0) => return Ok(false),
            Ok(_) => break,
            // As `read_exact` does: a signal ends no session.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Ended::Stream(error)),
        }
    }
    from.read_exact(&mut size[1..]).map_err(Ended::Stream)?;
    let (said, limit) = (u32::from_le_bytes(size), session.msize());
    let length = usize::try_from(said).ok().filter(|length| *length >= HEADER_BYTES && said <= limit);
    let length = length.ok_or(Ended::Protocol(Malformed::Size { size: said, limit }))?;
    frame.clear();
    frame.extend_from_slice(&size);
    frame.resize(length, 0);
    from.read_exact(&mut frame[4..]).map_err(Ended::Stream)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::message::{NO_TAG, Reply, Request};
    use crate::session::Limits;
    use crate::wire::Text;

    /// One byte at a time, and a signal before each.
    struct Slow<'a> {
        bytes: &'a [u8],
        is_interrupted: bool,
    }

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.is_interrupted = !self.is_interrupted;
            if self.is_interrupted {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                self.bytes.read(&mut buffer[..1])
            }
        }
    }

    #[test]
    fn signals_and_pieces_of_messages_end_no_session() {
        let folder = tempfile::tempdir().unwrap();
        let session = Session::new(File::open(folder.path()).unwrap().into(), Limits::default()).unwrap();
        let (mut asked, mut answered, mut told) = (Vec::new(), Vec::new(), Vec::new());
        let version = Text(b"9P2000.L");
        Request::Version { msize: 8192, version }.frame(NO_TAG, &mut asked);
        Reply::Version { msize: 8192, version }.frame(NO_TAG, &mut answered);
        let mut twice = Slow { bytes: &asked.repeat(2), is_interrupted: false };
        serve(&session, &mut twice, &mut told).unwrap();
        assert_eq!(told, answered.repeat(2));
    }
}
