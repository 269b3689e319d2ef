//! A part of the staging area, for one call.

use idm::record::Chunk;
use vgpu_api::{CuError, CuResult, Staged, WireError};

use super::Channel;

/// It is given back when this is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    pub(super) channel: &'a Channel,
    pub(super) chunk: Chunk<'a>,
}

impl Room<'_> {
    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.chunk.len()
    }

    /// All of it, as a call names it.
    pub fn all(&self) -> Staged {
        self.part(self.len())
    }

    /// Its first `bytes`, at most all, as a call names them.
    pub fn part(&self, bytes: usize) -> Staged {
        Staged { offset: self.chunk.offset().into(), len: bytes.min(self.len()) as u64 }
    }

    /// The word at byte `at`, which must lie inside.
    pub fn word(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        self.chunk.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Writes the word at byte `at`, which must lie inside.
    pub fn set_word(&self, at: usize, value: u64) {
        self.chunk.write(at, &value.to_le_bytes());
    }

    /// Copies bytes in, at most as many as there is room.
    pub fn put(&self, bytes: &[u8]) -> CuResult<Staged> {
        let kept = bytes.get(..bytes.len().min(self.len())).unwrap_or(bytes);
        self.chunk.write(0, kept);
        Ok(self.part(kept.len()))
    }

    /// Copies bytes out.
    pub fn get(&self, bytes: &mut [u8]) -> CuResult<()> {
        if bytes.len() > self.len() {
            return Err(CuError::UNKNOWN);
        }
        self.chunk.read(0, bytes);
        Ok(())
    }

    /// The first `bytes`, whose number the worker said: more than there is room for breaks the channel.
    pub fn take(&self, bytes: u64) -> CuResult<Vec<u8>> {
        let room = self.len();
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= room);
        let bytes = bytes.ok_or_else(|| self.channel.broken(&WireError::BadValue("length")))?;
        let mut copy = vec![0; bytes];
        self.chunk.read(0, &mut copy);
        Ok(copy)
    }
}
