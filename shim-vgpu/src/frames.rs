//! The agent stream as ttrpc reads it: answers and nothing else, none of them longer than [`ANSWER_BYTES_MAX`].
//!
//! ttrpc takes frames of 4 MiB and decodes each before anybody can look at it. Four bytes of a field that it does not know, in an answer's
//! status, make some seven hundred of the shim's memory: a guest would have 670 MiB of Dom0's by one answer. Frames of data, which no call
//! of ours asks for, are kept without end for a request that still waits to be sent, and one that is taken for an answer is never forgotten.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE};
use vgpu_agent_api::wire::ANSWER_BYTES_MAX;

/// A stream whose reader gets an error in the place of a frame that is too long, or no answer.
pub struct Bounded<S> {
    stream: S,
    frames: Frames,
    end: End,
}

impl<S> Bounded<S> {
    /// From the first byte of a frame on.
    pub fn new(stream: S) -> Self {
        Self { stream, frames: Frames::default(), end: End::default() }
    }

    pub fn end(&self) -> End {
        self.end.clone()
    }

    fn ends(&self, why: Ended) {
        // The first reason is the reason.
        let _ = self.end.0.set(why);
    }
}

/// Why a [`Bounded`] stream came to its end, once it has: of a call that comes after it, ttrpc only says that it was not sent.
#[derive(Clone, Debug, Default)]
pub struct End(Arc<OnceLock<Ended>>);

impl End {
    pub fn why(&self) -> Option<Ended> {
        self.0.get().copied()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The other end is gone.
    Closed,
    /// It began a frame of so many bytes.
    FrameTooLong(usize),
    /// It began a frame of this type.
    NoAnswer(u8),
}

/// Where in a frame the bytes read so far have ended. Source: ttrpc, `PROTOCOL.md`: the length, big endian, then stream, type, flags.
#[derive(Default)]
struct Frames {
    header: [u8; MESSAGE_HEADER_LENGTH],
    header_bytes: usize,
    body_bytes_left: usize,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let of_body = self.body_bytes_left.min(bytes.len());
            self.body_bytes_left -= of_body;
            bytes = &bytes[of_body..];
            let of_header = (MESSAGE_HEADER_LENGTH - self.header_bytes).min(bytes.len());
            let (header, rest) = bytes.split_at(of_header);
            self.header[self.header_bytes..][..of_header].copy_from_slice(header);
            self.header_bytes += of_header;
            bytes = rest;
            if self.header_bytes == MESSAGE_HEADER_LENGTH {
                self.begin_body()?;
            }
        }
        Ok(())
    }

    fn begin_body(&mut self) -> Result<(), Ended> {
        let [a, b, c, d, _, _, _, _, kind, _] = self.header;
        self.header_bytes = 0;
        self.body_bytes_left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if kind != MESSAGE_TYPE_RESPONSE {
            return Err(Ended::NoAnswer(kind));
        }
        if self.body_bytes_left > ANSWER_BYTES_MAX {
            return Err(Ended::FrameTooLong(self.body_bytes_left));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let bytes = &buf.filled()[before..];
        if read.is_err() || bytes.is_empty() && buf.remaining() > 0 {
            self.ends(Ended::Closed);
        }
        read?;
        Poll::Ready(self.frames.pass(bytes).map_err(|why| {
            self.ends(why);
            io::Error::from(io::ErrorKind::InvalidData)
        }))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        if written.is_err() {
            self.ends(Ended::Closed);
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Vec<u8> {
        let mut frame = u32::try_from(bytes).unwrap().to_be_bytes().to_vec();
        frame.extend([0, 0, 0, 1, 2, 0]);
        frame.resize(MESSAGE_HEADER_LENGTH + bytes, 0xff);
        frame
    }

    #[test]
    fn a_frame_is_as_long_as_the_limit_and_no_longer_however_it_is_cut() {
        let mut good = [frame(0), frame(3), frame(ANSWER_BYTES_MAX), frame(1)].concat();
        for piece in [1, 7, MESSAGE_HEADER_LENGTH, 4096, usize::MAX] {
            let mut frames = Frames::default();
            good.chunks(piece.min(good.len())).for_each(|bytes| frames.pass(bytes).unwrap());
            assert_eq!((frames.header_bytes, frames.body_bytes_left), (0, 0), "pieces of {piece}");
        }
        good.extend(&frame(ANSWER_BYTES_MAX + 1)[..MESSAGE_HEADER_LENGTH]);
        for piece in [1, 7, 4096, usize::MAX] {
            let mut frames = Frames::default();
            let refused = good.chunks(piece.min(good.len())).any(|bytes| frames.pass(bytes).is_err());
            assert!(refused, "pieces of {piece}");
        }
    }

    #[test]
    fn a_frame_that_is_no_answer_is_refused() {
        for kind in (0..=u8::MAX).filter(|kind| *kind != MESSAGE_TYPE_RESPONSE) {
            let mut bytes = [frame(3), frame(3)].concat();
            bytes[MESSAGE_HEADER_LENGTH + 3 + 8] = kind;
            assert_eq!(Frames::default().pass(&bytes), Err(Ended::NoAnswer(kind)));
        }
    }

    #[tokio::test]
    async fn the_reader_of_a_long_frame_gets_an_error_and_writing_goes_on() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut guest, ours) = tokio::io::duplex(4096);
        let mut ours = Bounded::new(ours);
        let end = ours.end();
        guest.write_all(&frame(5)).await.unwrap();
        ours.read_exact(&mut [0; MESSAGE_HEADER_LENGTH + 5]).await.unwrap();
        assert_eq!(end.why(), None);
        guest.write_all(&frame(ANSWER_BYTES_MAX + 1)[..100]).await.unwrap();
        let error = ours.read(&mut [0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        ours.write_all(b"still").await.unwrap();
        guest.read_exact(&mut [0; 5]).await.unwrap();
        drop(guest);
        ours.write_all(b"gone").await.unwrap_err();
        assert_eq!(end.why(), Some(Ended::FrameTooLong(ANSWER_BYTES_MAX + 1)), "the first reason");
    }

    #[tokio::test]
    async fn a_stream_whose_other_end_is_gone_says_so_to_its_reader_and_its_writer() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (guest, ours) = tokio::io::duplex(4096);
        let mut ours = Bounded::new(ours);
        drop(guest);
        assert_eq!(ours.read(&mut []).await.unwrap(), 0);
        assert_eq!(ours.end().why(), None, "nothing was asked for");
        assert_eq!(ours.read(&mut [0; 100]).await.unwrap(), 0);
        assert_eq!(ours.end().why(), Some(Ended::Closed));

        let (guest, ours) = tokio::io::duplex(4096);
        let mut ours = Bounded::new(ours);
        drop(guest);
        ours.write_all(b"gone").await.unwrap_err();
        assert_eq!(ours.end().why(), Some(Ended::Closed));
    }
}
