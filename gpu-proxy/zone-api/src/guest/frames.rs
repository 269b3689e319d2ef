//! Bytes to messages, whatever pieces they arrive in.

use std::marker::PhantomData;

use super::message::{HEADER_BYTES, Malformed, Message};

/// Collects bytes and gives whole messages. It never holds more than one frame and the last piece that was pushed.
#[derive(Debug)]
pub struct Frames<M> {
    bytes: Vec<u8>,
    start: usize,
    message: PhantomData<fn() -> M>,
}

impl<M> Default for Frames<M> {
    fn default() -> Self {
        Self { bytes: Vec::new(), start: 0, message: PhantomData }
    }
}

impl<M: Message> Frames<M> {
    /// Takes what was read. Call [`Frames::next`] until it gives `None` before the next push: that bounds the memory.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(piece);
    }

    /// The next message that is complete, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`Malformed`]: end the stream. A length is refused as soon as its header is there.
    #[expect(clippy::should_implement_trait, reason = "fallible, and it may give more after `None`")]
    pub fn next(&mut self) -> Result<Option<M>, Malformed> {
        let pending = &self.bytes[self.start..];
        let Some((header, rest)) = pending.split_at_checked(HEADER_BYTES) else {
            return Ok(None);
        };
        let kind = u16::from_le_bytes([header[0], header[1]]);
        let body_bytes = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if header[2..4] != [0, 0] {
            return Err(Malformed::Field { kind, field: "reserved word" });
        }
        M::check_len(kind, body_bytes)?;
        let Some(body) = rest.get(..body_bytes as usize) else {
            return Ok(None);
        };
        let message = M::decode(kind, body)?;
        self.start += HEADER_BYTES + body_bytes as usize;
        Ok(Some(message))
    }
}
