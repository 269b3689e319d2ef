//! Several software GPUs beside each other: which context is whose, and what one reaches of another.

use vgpu_api::snapshot::PEER_ACCESS;
use vgpu_api::{CuError, CuResult, ImageKind};

use super::image::Home;
use super::{Context, Soft, error};
use crate::device::Raw;

/// A `CUdevice_P2PAttribute` of any two: access, and atomics of any kind there. Arrays are each device's own.
pub(crate) fn attribute(number: u32) -> i32 {
    /// `CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED`.
    const ATOMICS: u32 = 3;
    i32::from(matches!(number, PEER_ACCESS | ATOMICS))
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

    /// Where images that are used in a context have their variables, and on which device that is.
    pub(super) fn home(&self, context: Raw) -> CuResult<(Home, u32)> {
        let Context { device, is_primary, .. } = *self.context(context)?;
        Ok((if is_primary { Home::Primary(device) } else { Home::Created(context.0) }, device))
    }

    pub(super) fn instantiate_in(&mut self, context: Raw, image: Raw) -> CuResult<Vec<u64>> {
        let (home, device) = self.home(context)?;
        let loaded = self.images.get_mut(&image).ok_or(CuError::INVALID_HANDLE)?;
        if let Some(instance) = loaded.instances.get(&home) {
            return Ok(instance.addresses().to_vec());
        }
        if loaded.kind != ImageKind::Library {
            return Err(CuError::INVALID_HANDLE);
        }
        let made = self.gpu.instantiate_on(device, &loaded.module);
        let instance = made.map_err(|refused| error(refused.cu_result()))?;
        let addresses = instance.addresses().to_vec();
        loaded.instances.insert(home, instance);
        Ok(addresses)
    }

    /// A context that was created has ended, and with it what images had there.
    pub(super) fn end_instances_in(&mut self, context: Raw) {
        let in_it = self.images.values_mut();
        for instance in in_it.filter_map(|image| image.instances.remove(&Home::Created(context.0))) {
            self.gpu.unload(&instance);
        }
    }
}
