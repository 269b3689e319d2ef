//! The payload of a record while it is written, in place.

use crate::region::Region;

/// Writes a payload straight into shared memory, front to back. What is not written stays zero.
#[derive(Debug)]
pub struct Payload<'a> {
    region: &'a Region,
    at: usize,
    left: usize,
}

impl<'a> Payload<'a> {
    pub(crate) fn new(region: &'a Region, at: usize, left: usize) -> Self {
        Self { region, at, left }
    }

    /// Appends bytes.
    ///
    /// # Panics
    /// When they are more than [`Payload::left_bytes`]: the caller named the length itself.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        assert!(
            bytes.len() <= self.left,
            "{} bytes for a payload that has room for {}",
            bytes.len(),
            self.left
        );
        self.region.write(self.at, bytes);
        self.at += bytes.len();
        self.left -= bytes.len();
    }

    /// Leaves `bytes` zeros.
    ///
    /// # Panics
    /// As [`Payload::put`].
    pub fn skip(&mut self, bytes: usize) {
        assert!(bytes <= self.left, "{bytes} bytes for a payload that has room for {}", self.left);
        self.at += bytes;
        self.left -= bytes;
    }

    /// How many bytes can still be put.
    pub fn left_bytes(&self) -> usize {
        self.left
    }
}
