//! Which device's kernels reach which memory, where there are several devices: their own allocations, those of devices whose access was
//! enabled, mappings as far as each was let, and what the host shares.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::mapped::Protection;
use super::{Memory, State};
use crate::block::Block;

/// Pairs of a device and another one whose allocations its kernels reach.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeSet<(u32, u32)>);

impl Memory {
    /// Lets kernels of `device` reach the allocations of `peer`, or keeps them from it. A launch that is running keeps what it started
    /// with.
    pub fn set_peer(&self, device: u32, peer: u32, reaches: bool) {
        let mut state = self.change_state();
        let Peers(pairs) = &mut state.peers;
        if reaches {
            pairs.insert((device, peer));
        } else {
            pairs.remove(&(device, peer));
        }
    }
}

impl State {
    /// A block as kernels of a device find it.
    pub(super) fn seen_by(&self, device: u32, block: &Arc<Block>) -> Option<Arc<Block>> {
        if let Some(access) = self.mapped.access.get(&block.base()) {
            let writable = match access.get(&device)? {
                Protection::None => return None,
                Protection::Read => false,
                Protection::ReadWrite => true,
            };
            let is_same = block.is_writable() == writable;
            return Some(if is_same { Arc::clone(block) } else { Arc::new(block.with_writable(writable)) });
        }
        let Peers(pairs) = &self.peers;
        let reaches = block.device().is_none_or(|owner| owner == device || pairs.contains(&(device, owner)));
        reaches.then(|| Arc::clone(block))
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAPPING_ALIGN;
    use super::*;

    fn sees(memory: &Memory, device: u32, address: u64) -> Option<bool> {
        let blocks = memory.snapshot(device);
        blocks.iter().find(|block| block.holds(address, 1)).map(|block| block.is_writable())
    }

    #[test]
    fn a_device_has_bytes_of_its_own_and_sees_anothers_only_while_it_may() {
        let memory = Memory::of_devices(2, 4096, 1);
        let [own, other] = [0, 1].map(|device| memory.alloc_on(device, 4096).unwrap());
        assert_eq!([0, 1].map(|device| memory.used_bytes_of(device)), [4096; 2]);
        assert!(memory.alloc_on(1, 1).is_err() && memory.alloc_on(2, 1).is_err());
        assert_eq!((sees(&memory, 0, own), sees(&memory, 0, other)), (Some(true), None));
        memory.set_peer(0, 1, true);
        assert_eq!((sees(&memory, 0, other), sees(&memory, 1, own)), (Some(true), None), "one way");
        memory.set_peer(0, 1, false);
        assert_eq!(sees(&memory, 0, other), None);
        // The host's copies reach both.
        memory.copy(own, other, 4096).unwrap();
        memory.free(other).unwrap();
        assert_eq!([0, 1].map(|device| memory.used_bytes_of(device)), [4096, 0]);
    }

    #[test]
    fn a_mapping_is_each_devices_as_far_as_it_was_let() {
        let memory = Memory::of_devices(2, MAPPING_ALIGN, 1);
        let at = memory.reserve(MAPPING_ALIGN, 0, 0).unwrap();
        let piece = memory.create_on(1, MAPPING_ALIGN).unwrap();
        assert_eq!([0, 1].map(|device| memory.used_bytes_of(device)), [0, MAPPING_ALIGN]);
        memory.map(at, MAPPING_ALIGN, piece).unwrap();
        assert!(!memory.contains(at, 1));
        memory.protect_for(0, at, MAPPING_ALIGN, Protection::Read).unwrap();
        assert_eq!([0, 1].map(|device| sees(&memory, device, at)), [Some(false), None]);
        assert!(memory.write(at, &[1]).is_err());
        memory.protect_for(1, at, MAPPING_ALIGN, Protection::ReadWrite).unwrap();
        assert_eq!([0, 1].map(|device| sees(&memory, device, at)), [Some(false), Some(true)]);
        memory.write(at, &[1]).unwrap();
        memory.protect_for(1, at, MAPPING_ALIGN, Protection::None).unwrap();
        assert_eq!([0, 1].map(|device| sees(&memory, device, at)), [Some(false), None]);
        memory.unmap(at, MAPPING_ALIGN).unwrap();
        memory.release(piece).unwrap();
        assert_eq!((sees(&memory, 0, at), memory.used_bytes_of(1)), (None, 0));
    }
}
