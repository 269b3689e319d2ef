//! One direction of a stream: bytes from one writer to one reader through shared pages.
//!
//! Layout: the ruler in `idm/README.md`. Start at [`Writer::push`] and [`Reader::pull`].
//! Indexes count bytes and run freely, modulo 2^32. Own indexes are private and only ever stored; the peer's is loaded once a call and
//! checked: it may only move forward, and never past what is possible. Not here: sleeping and waking (`stream/`).

use std::sync::Arc;

use crate::error::{ChannelError, Peer};
use crate::region::Region;
use crate::sync::Ordering::{Acquire, Release};

/// Where a ring lies in its region, all in bytes. Our own sizes, never the peer's word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) write_index: usize,
    pub(crate) read_index: usize,
    pub(crate) data: usize,
    /// A power of two.
    pub(crate) bytes: u32,
}

impl Place {
    /// The offset in the region of the byte with this index, and how many bytes follow it without a break.
    fn locate(&self, index: u32) -> (usize, usize) {
        let at = index & (self.bytes - 1);
        (self.data + at as usize, (self.bytes - at) as usize)
    }
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Writer {
    region: Arc<Region>,
    place: Place,
    peer: Peer,
    written: u32,
    /// The peer's index when it was last looked at.
    read_seen: u32,
}

impl Writer {
    pub(crate) fn new(region: Arc<Region>, place: Place, peer: Peer) -> Self {
        Self { region, place, peer, written: 0, read_seen: 0 }
    }

    /// Bytes that can be pushed now.
    ///
    /// # Errors
    /// [`ChannelError::PeerIndex`] ends the channel.
    pub(crate) fn room_bytes(&mut self) -> Result<u32, ChannelError> {
        let claimed = self.region.word(self.place.read_index).load(Acquire);
        let in_flight = self.written.wrapping_sub(self.read_seen);
        if claimed.wrapping_sub(self.read_seen) > in_flight {
            return Err(ChannelError::PeerIndex {
                peer: self.peer,
                index: "read",
                claimed,
                limit: self.written,
            });
        }
        self.read_seen = claimed;
        Ok(self.place.bytes - self.written.wrapping_sub(claimed))
    }

    /// Writes as much of `bytes` as there is room for and returns how many bytes that were.
    ///
    /// # Errors
    /// [`ChannelError::PeerIndex`] ends the channel.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<usize, ChannelError> {
        let count = bytes.len().min(self.room_bytes()? as usize);
        let (at, unbroken) = self.place.locate(self.written);
        let (first, second) = bytes[..count].split_at(count.min(unbroken));
        self.region.write(at, first);
        self.region.write(self.place.data, second);
        self.written = self.written.wrapping_add(narrow(count));
        self.region.word(self.place.write_index).store(self.written, Release);
        Ok(count)
    }

    /// As [`Writer::push`], but nothing while there is less room than for all of `bytes`, or for a whole ring of more.
    ///
    /// # Errors
    /// [`ChannelError::PeerIndex`] ends the channel.
    pub(crate) fn push_whole(&mut self, bytes: &[u8]) -> Result<usize, ChannelError> {
        let whole = &bytes[..bytes.len().min(self.place.bytes as usize)];
        if (self.room_bytes()? as usize) < whole.len() { Ok(0) } else { self.push(whole) }
    }
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Reader {
    region: Arc<Region>,
    place: Place,
    peer: Peer,
    read: u32,
    /// The peer's index when it was last looked at.
    written_seen: u32,
}

impl Reader {
    pub(crate) fn new(region: Arc<Region>, place: Place, peer: Peer) -> Self {
        Self { region, place, peer, read: 0, written_seen: 0 }
    }

    /// Bytes that can be pulled now.
    ///
    /// # Errors
    /// [`ChannelError::PeerIndex`] ends the channel.
    pub(crate) fn ready_bytes(&mut self) -> Result<u32, ChannelError> {
        let claimed = self.region.word(self.place.write_index).load(Acquire);
        let unread = self.written_seen.wrapping_sub(self.read);
        let now = claimed.wrapping_sub(self.read);
        if now > self.place.bytes || now < unread {
            let limit = self.read.wrapping_add(self.place.bytes);
            return Err(ChannelError::PeerIndex { peer: self.peer, index: "write", claimed, limit });
        }
        self.written_seen = claimed;
        Ok(now)
    }

    /// Copies what is there, as far as `to` reaches, and gives its room back to the writer. Returns the number of bytes.
    ///
    /// # Errors
    /// [`ChannelError::PeerIndex`] ends the channel.
    pub(crate) fn pull(&mut self, to: &mut [u8]) -> Result<usize, ChannelError> {
        let count = to.len().min(self.ready_bytes()? as usize);
        if count == 0 {
            return Ok(0);
        }
        let (at, unbroken) = self.place.locate(self.read);
        let (first, second) = to[..count].split_at_mut(count.min(unbroken));
        self.region.read(at, first);
        self.region.read(self.place.data, second);
        self.read = self.read.wrapping_add(narrow(count));
        self.region.word(self.place.read_index).store(self.read, Release);
        Ok(count)
    }

    /// Whether the writer should hear of the room that was made: at half a ring, and whenever all is read. Earlier would wake it for
    /// a few bytes each time.
    pub(crate) fn room_is_worth_a_ring(&self) -> bool {
        let unread = self.written_seen.wrapping_sub(self.read);
        unread <= self.place.bytes / 2
    }
}

/// Counts are at most a ring's size, which is a u32.
#[expect(clippy::cast_possible_truncation, reason = "bounded by the ring's size, a u32")]
fn narrow(count: usize) -> u32 {
    count as u32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::region::sealed_memory;
    use crate::sync::Ordering::Relaxed;

    const PLACE: Place = Place { write_index: 0, read_index: 64, data: 128, bytes: 64 };

    fn pair() -> (Arc<Region>, Writer, Reader) {
        let region = Arc::new(Region::map(sealed_memory("test", 4096).unwrap(), 4096).unwrap());
        let writer = Writer::new(region.clone(), PLACE, Peer::Domain(5));
        let reader = Reader::new(region.clone(), PLACE, Peer::Domain(7));
        (region, writer, reader)
    }

    #[test]
    fn bytes_arrive_in_order_over_many_laps() {
        let (_region, mut writer, mut reader) = pair();
        let (mut sent, mut got) = (0u8, 0u8);
        for round in (0..=255).cycle().take(1000) {
            let bytes: Vec<u8> = (0..round % 67).map(|i| sent.wrapping_add(i)).collect();
            sent = sent.wrapping_add(u8::try_from(writer.push(&bytes).unwrap()).unwrap());
            let mut to = [0; 41];
            let count = reader.pull(&mut to).unwrap();
            for byte in &to[..count] {
                assert_eq!(*byte, got);
                got = got.wrapping_add(1);
            }
        }
    }

    #[test]
    fn indexes_may_wrap_around_the_whole_counter() {
        let (region, mut writer, mut reader) = pair();
        let near = u32::MAX - 10;
        (writer.written, writer.read_seen, reader.read, reader.written_seen) = (near, near, near, near);
        region.word(0).store(near, Relaxed);
        region.word(64).store(near, Relaxed);
        assert_eq!(writer.push(&[7; 64]).unwrap(), 64);
        assert_eq!(writer.push(&[7; 64]).unwrap(), 0);
        let mut to = [0; 64];
        assert_eq!(reader.pull(&mut to).unwrap(), 64);
        assert_eq!(writer.room_bytes().unwrap(), 64);
    }

    #[test]
    fn a_write_index_past_the_ring_ends_the_channel() {
        let (region, _writer, mut reader) = pair();
        region.word(PLACE.write_index).store(65, Relaxed);
        let error = reader.pull(&mut [0; 8]).unwrap_err();
        assert_eq!(error.to_string(), "domain 7 moved its write index to 65, past 64");
    }

    #[test]
    fn a_write_index_that_goes_back_ends_the_channel() {
        let (region, mut writer, mut reader) = pair();
        writer.push(&[1; 10]).unwrap();
        assert_eq!(reader.ready_bytes().unwrap(), 10);
        region.word(PLACE.write_index).store(4, Relaxed);
        assert!(reader.ready_bytes().is_err());
    }

    #[test]
    fn a_read_index_past_what_was_written_ends_the_channel() {
        let (region, mut writer, _reader) = pair();
        writer.push(&[1; 10]).unwrap();
        region.word(PLACE.read_index).store(11, Relaxed);
        assert!(matches!(writer.push(&[1]), Err(ChannelError::PeerIndex { claimed: 11, limit: 10, .. })));
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::thread;

    use super::*;

    #[test]
    fn bytes_are_written_before_they_are_read_and_read_before_they_are_overwritten() {
        const PLACE: Place = Place { write_index: 0, read_index: 4, data: 8, bytes: 2 };
        loom::model(|| {
            let region = Arc::new(Region::model(12));
            let mut writer = Writer::new(region.clone(), PLACE, Peer::Server);
            let mut reader = Reader::new(region, PLACE, Peer::Server);
            let sender = thread::spawn(move || {
                let mut left: &[u8] = &[1, 2, 3];
                while !left.is_empty() {
                    left = &left[writer.push(left).unwrap()..];
                    thread::yield_now();
                }
            });
            let mut got: Vec<u8> = Vec::new();
            while got.len() < 3 {
                let mut to = [0; 2];
                let count = reader.pull(&mut to).unwrap();
                got.extend(&to[..count]);
                thread::yield_now();
            }
            sender.join().unwrap();
            assert_eq!(got, [1, 2, 3]);
        });
    }
}
