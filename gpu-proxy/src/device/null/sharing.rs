//! Memory that is shared, with nothing in it.

use std::os::fd::OwnedFd;

use vgpu_api::CuResult;

use super::{MAPPING_BYTES, Null};
use crate::device::{Exported, Raw, Shareable, Sharing};

impl Sharing for Null {
    fn export(&mut self, _what: Shareable) -> CuResult<Exported> {
        Ok(Exported::Host)
    }

    fn whole_of(&self, address: u64, bytes: u64) -> (u64, u64) {
        if self.parts.is_none() {
            return (address, bytes);
        }
        let start = address / MAPPING_BYTES * MAPPING_BYTES;
        (start, (address + bytes - start).next_multiple_of(MAPPING_BYTES))
    }

    fn has_piece(&self, start: u64) -> bool {
        self.pieces().contains(&(start / MAPPING_BYTES))
    }

    fn move_to(&mut self, _what: Shareable, _memory: OwnedFd, _bytes: u64) -> CuResult<()> {
        Ok(())
    }

    fn import(&mut self, _device: u32, _memory: OwnedFd, _bytes: u64) -> CuResult<Raw> {
        Ok(self.name())
    }
}
