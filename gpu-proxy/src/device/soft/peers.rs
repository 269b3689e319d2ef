//! Several software GPUs beside each other: which context is whose, and what one reaches of another.

use vgpu_api::snapshot::PEER_ACCESS;
use vgpu_api::{CuError, CuResult, ImageKind};
use vgpu_soft as gpu;

use super::{Context, Loaded, Soft, error};
use crate::device::Raw;

/// A `CUdevice_P2PAttribute` of any two: access, and atomics of any kind there. Arrays are each device's own.
pub(crate) fn attribute(number: u32) -> i32 {
    /// `CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED`.
    const ATOMICS: u32 = 3;
    i32::from(matches!(number, PEER_ACCESS | ATOMICS))
}

impl Loaded {
    /// What runs on a device.
    pub(super) fn on(&self, device: u32) -> Option<&gpu::Instance> {
        if self.instance.device() == device { Some(&self.instance) } else { self.others.get(&device) }
    }
}

impl Soft {
    pub(super) fn context(&self, context: Raw) -> CuResult<&Context> {
        self.contexts.get(&context).ok_or(CuError::INVALID_CONTEXT)
    }

    pub(super) fn enable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        let devices = (self.context(context)?.device, self.context(peer)?.device);
        self.peers.insert((context, peer));
        self.gpu.memory().set_peer(devices.0, devices.1, true);
        Ok(())
    }

    /// What another pair of contexts of these devices may, all of them may here.
    pub(super) fn disable(&mut self, context: Raw, peer: Raw) -> CuResult<()> {
        let devices = (self.context(context)?.device, self.context(peer)?.device);
        if !self.peers.remove(&(context, peer)) {
            return Err(CuError::PEER_ACCESS_NOT_ENABLED);
        }
        let of = |context: &Raw| self.contexts.get(context).map(|context| context.device);
        let still = self.peers.iter().any(|(context, peer)| of(context).zip(of(peer)) == Some(devices));
        self.gpu.memory().set_peer(devices.0, devices.1, still);
        Ok(())
    }

    pub(super) fn instantiate_on(&mut self, context: Raw, image: Raw) -> CuResult<Vec<u64>> {
        let device = self.context(context)?.device;
        let loaded = self.images.get_mut(&image).ok_or(CuError::INVALID_HANDLE)?;
        if loaded.on(device).is_none() {
            if loaded.kind != ImageKind::Library {
                return Err(CuError::INVALID_HANDLE);
            }
            let made = self.gpu.instantiate_on(device, loaded.instance.module());
            loaded.others.insert(device, made.map_err(|refused| error(refused.cu_result()))?);
        }
        loaded.on(device).map(|instance| instance.addresses().to_vec()).ok_or(CuError::INVALID_HANDLE)
    }
}
