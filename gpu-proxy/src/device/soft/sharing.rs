//! Memory of the software GPU that other workers have, too: it is moved into pages that they share.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use idm::Region;
use vgpu_api::{CuError, CuResult};
use vgpu_soft as gpu;

use super::{Soft, error};
use crate::device::{Exported, Raw, Shareable, Sharing};

impl Sharing for Soft {
    fn export(&mut self, _what: Shareable) -> CuResult<Exported> {
        Ok(Exported::Host)
    }

    fn move_to(&mut self, what: Shareable, memory: OwnedFd, bytes: u64) -> CuResult<()> {
        let words = shared_words(memory, bytes)?;
        let moved = match what {
            Shareable::Memory(name) => self.gpu.memory().move_memory(name.0, words),
            Shareable::Allocation(address) => self.gpu.memory().move_allocation(address, words),
        };
        moved.map_err(|refused| error(refused.cu_result()))
    }

    fn import(&mut self, device: u32, memory: OwnedFd, bytes: u64) -> CuResult<Raw> {
        let imported = self.gpu.memory().import(device, shared_words(memory, bytes)?);
        imported.map(Raw).map_err(|refused| error(refused.cu_result()))
    }
}

/// Memory that workers share.
#[derive(Debug)]
struct SharedRegion(Region);

impl gpu::SharedWords for SharedRegion {
    fn words(&self) -> &[AtomicU64] {
        self.0.words(0, self.0.len() / 8)
    }
}

/// The supervisor made and sealed it: it has so many bytes, always.
fn shared_words(memory: OwnedFd, bytes: u64) -> CuResult<Arc<dyn gpu::SharedWords>> {
    let bytes = usize::try_from(bytes).map_err(|_| CuError::INVALID_VALUE)?;
    let region = Region::map(memory, bytes).map_err(|_| CuError::OUT_OF_MEMORY)?;
    Ok(Arc::new(SharedRegion(region)))
}
