//! Memory that is shared, with nothing in it.

use std::os::fd::OwnedFd;

use vgpu_api::CuResult;

use super::Null;
use crate::device::{Exported, Raw, Shareable, Sharing};

impl Sharing for Null {
    fn export(&mut self, _what: Shareable) -> CuResult<Exported> {
        Ok(Exported::Host)
    }

    fn move_to(&mut self, _what: Shareable, _memory: OwnedFd, _bytes: u64) -> CuResult<()> {
        Ok(())
    }

    fn import(&mut self, _device: u32, _memory: OwnedFd, _bytes: u64) -> CuResult<Raw> {
        Ok(self.name())
    }
}
