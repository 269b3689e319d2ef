//! Which device is meant, where a process has several; what contexts of one reach of another.

use vgpu_api::{Call, ContextId, CuError, CuResult, DevicePtr};

use super::Session;
use crate::worker::ranges::Origin;

impl Session {
    /// That the process has a device of this number.
    ///
    /// # Errors
    /// 101.
    pub(super) fn check_device(&self, device: u32) -> CuResult<()> {
        self.quotas.of(device).map(drop)
    }

    /// The device of a context. Of none, as of a library that is loaded without: the first one.
    pub(super) fn device_of(&self, id: ContextId) -> u32 {
        self.contexts.get(&id).map_or(0, |context| context.device)
    }

    /// The devices of two ranges, if they are not the same one's. The arena is nobody's.
    pub(super) fn between(&self, to: DevicePtr, from: DevicePtr) -> Option<(u32, u32)> {
        if self.quotas.devices() < 2 {
            return None;
        }
        self.device_at(to).zip(self.device_at(from)).filter(|(to, from)| to != from)
    }

    /// The device of the memory at an address.
    fn device_at(&self, at: DevicePtr) -> Option<u32> {
        match self.ranges.origin(at)? {
            Origin::Alloc(context) => Some(self.device_of(context)),
            Origin::Global(device) => Some(device),
            Origin::Pooled(pool) => self.pools.device_of(pool),
            Origin::Mapped { .. } => self.virtual_memory.device_at(at.0),
            Origin::Opened => self.device_of_opened(at),
            Origin::Arena => None,
        }
    }

    pub(super) fn peer_enable(&mut self, call: Call, peer: ContextId) -> CuResult<()> {
        let (context, other) = (self.context(call.context)?, self.context(peer)?);
        if self.device_of(call.context) == self.device_of(peer) {
            return Err(CuError::PEER_ACCESS_UNSUPPORTED);
        }
        if self.peers.contains(&(call.context, peer)) {
            return Err(CuError::PEER_ACCESS_ALREADY_ENABLED);
        }
        let result = self.device.peer_enable(context, other);
        self.settle(call.context, result)?;
        self.peers.insert((call.context, peer));
        Ok(())
    }

    pub(super) fn peer_disable(&mut self, call: Call, peer: ContextId) -> CuResult<()> {
        let (context, other) = (self.context(call.context)?, self.context(peer)?);
        if !self.peers.contains(&(call.context, peer)) {
            return Err(CuError::PEER_ACCESS_NOT_ENABLED);
        }
        let result = self.device.peer_disable(context, other);
        self.settle(call.context, result)?;
        self.peers.remove(&(call.context, peer));
        Ok(())
    }

    /// Before a context ends: a primary one may stay on the device, and begins anew without.
    pub(super) fn end_peers_of(&mut self, id: ContextId) {
        let of_it = |(one, other): &&(ContextId, ContextId)| [*one, *other].contains(&id);
        for pair in self.peers.iter().filter(of_it).copied().collect::<Vec<_>>() {
            self.peers.remove(&pair);
            let (one, other) = pair;
            let [one, other] = [one, other].map(|id| self.contexts.get(&id).map(|context| context.raw));
            let Some((one, other)) = one.zip(other) else { continue };
            // Of contexts that an error has ended nothing is expected.
            let _ = self.device.peer_disable(one, other);
        }
    }
}
