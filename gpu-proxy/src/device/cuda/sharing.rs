//! Memory of the driver that goes to other workers, as descriptors.

use std::os::fd::OwnedFd;

use vgpu_api::CuResult;

use super::Cuda;
use crate::device::{Exported, Raw, Shareable, Sharing};

impl Sharing for Cuda {
    fn export(&mut self, what: Shareable) -> CuResult<Exported> {
        self.memories.export(&self.table, what)
    }

    fn whole_of(&self, address: u64, bytes: u64) -> (u64, u64) {
        self.memories.whole_of(address).unwrap_or((address, bytes))
    }

    fn has_piece(&self, start: u64) -> bool {
        self.memories.is_allocation(start)
    }

    fn import(&mut self, _device: u32, memory: OwnedFd, _bytes: u64) -> CuResult<Raw> {
        self.memories.import(&self.table, &memory)
    }
}
