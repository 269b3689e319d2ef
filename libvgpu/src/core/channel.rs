//! The way to the worker. (link pending)

use std::sync::{Condvar, Mutex, PoisonError};

use vgpu_api::{ContextId, CuError, CuResult, Op, Reader, Snapshot, Staged, Transport, WireError, Writer};

use crate::core::slab::lock;
use crate::log::say;

#[derive(Debug)]
pub struct Channel {}

#[derive(Debug)]
pub struct Room<'a> {
    channel: &'a Channel,
}

impl Room<'_> {
    pub fn len(&self) -> usize {
        1
    }
    pub fn all(&self) -> Staged {
        self.part(self.len())
    }
    pub fn part(&self, bytes: usize) -> Staged {
        Staged { offset: 0, len: bytes as u64 }
    }
    pub fn put(&self, bytes: &[u8]) -> CuResult<Staged> {
        Err(CuError::UNKNOWN)
    }
    pub fn get(&self, bytes: &mut [u8]) -> CuResult<()> {
        Err(CuError::UNKNOWN)
    }
    pub fn take(&self, bytes: u64) -> CuResult<Vec<u8>> {
        Err(CuError::UNKNOWN)
    }
}

impl Channel {
    pub fn connect() -> CuResult<Self> {
        Err(CuError::NO_DEVICE)
    }
    pub fn snapshot(&self) -> CuResult<Snapshot> {
        Err(CuError::NO_DEVICE)
    }
    pub fn take_error(&self) -> CuResult<()> {
        Ok(())
    }
    pub fn staging(&self) -> Room<'_> {
        Room { channel: self }
    }
    pub fn broken(&self, error: &WireError) -> CuError {
        CuError::UNKNOWN
    }
    pub fn abandon(&self) {}
}

impl Transport for Channel {
    fn send(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> CuResult<()> {
        Err(CuError::UNKNOWN)
    }
    fn call<T>(
        &self,
        op: Op,
        context: ContextId,
        size: usize,
        fill: impl FnOnce(&mut Writer<'_>),
        take: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
    ) -> CuResult<T> {
        Err(CuError::UNKNOWN)
    }
}
