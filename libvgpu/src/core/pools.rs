//! Pools of device memory, as the guest knows them: which there are, and which a device allocates from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::{Access, CuError, CuResult, PoolHandle, ask};

use super::contexts::current;
use super::process::Process;
use super::slab::{Slab, lock};

/// What the guest keeps of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// The ordinal of its device.
    pub device: u32,
    is_default: bool,
}

/// The pools of one device.
#[derive(Debug, Clone, Copy)]
pub struct OfDevice {
    pub default: PoolHandle,
    /// What `cuMemAllocAsync` takes from.
    pub current: PoolHandle,
}

/// All of the process.
#[derive(Debug)]
pub struct Pools {
    pools: Slab<Pool>,
    /// By ordinal, as far as they were asked for.
    devices: Mutex<Option<HashMap<u32, OfDevice>>>,
    /// What other devices, by their ordinals, may do with a pool's memory.
    access: Mutex<BTreeMap<(u64, u32), Access>>,
}

impl Pools {
    pub const fn new() -> Self {
        Self { pools: Slab::new(), devices: Mutex::new(None), access: Mutex::new(BTreeMap::new()) }
    }

    /// What a handle names.
    /// # Errors
    /// 1.
    pub fn get(&self, handle: PoolHandle) -> CuResult<Pool> {
        self.pools.get(handle)
    }

    /// The pools of a device. The default one is made when it is asked for first.
    pub fn of_device(&self, process: &Process, device: u32) -> CuResult<OfDevice> {
        let mut devices = lock(&self.devices);
        let devices = devices.get_or_insert_default();
        if let Some(pools) = devices.get(&device) {
            return Ok(*pools);
        }
        let default = self.make(process, device, 0, true)?;
        let pools = OfDevice { default, current: default };
        devices.insert(device, pools);
        Ok(pools)
    }

    /// A new pool of a device.
    pub fn create(&self, process: &Process, device: u32, bytes_max: u64) -> CuResult<PoolHandle> {
        self.make(process, device, bytes_max, false)
    }

    fn make(&self, process: &Process, device: u32, bytes_max: u64, is_default: bool) -> CuResult<PoolHandle> {
        let number = process.contexts.number(device)?;
        let handle = self.pools.insert(Pool { device, is_default });
        match ask::cuMemPoolCreate(&process.channel, current(), NewHandle(handle), number, bytes_max) {
            Ok(()) => Ok(handle),
            Err(error) => self.pools.end(handle, |_| Err(error))?,
        }
    }

    /// Ends a pool. Its device allocates from the default one, if it did from this.
    /// # Errors
    /// 1 for a default pool.
    pub fn destroy(&self, process: &Process, handle: PoolHandle) -> CuResult<()> {
        let mut devices = lock(&self.devices);
        let pool = self.pools.get(handle)?;
        if pool.is_default {
            return Err(CuError::INVALID_VALUE);
        }
        let of_device = devices.as_mut().and_then(|devices| devices.get_mut(&pool.device));
        if let Some(pools) = of_device.filter(|pools| pools.current == handle) {
            pools.current = pools.default;
        }
        lock(&self.access).retain(|(pool, _), _| *pool != handle.raw());
        self.pools.end(handle, |_| ask::cuMemPoolDestroy(&process.channel, current(), GoneHandle(handle)))?
    }

    /// Says what another device may do with all of a pool's memory.
    pub fn set_access(
        &self,
        process: &Process,
        handle: PoolHandle,
        ordinal: u32,
        access: Access,
    ) -> CuResult<()> {
        let number = process.contexts.number(ordinal)?;
        // Held until it is noted, so that the table is what the worker did last.
        let mut known = lock(&self.access);
        ask::cuMemPoolSetAccess(&process.channel, current(), handle, number, access)?;
        known.insert((handle.raw(), ordinal), access);
        Ok(())
    }

    /// What a device may do with a pool's memory.
    pub fn access_of(&self, handle: PoolHandle, ordinal: u32) -> CuResult<Access> {
        if self.pools.get(handle)?.device == ordinal {
            return Ok(Access::ReadWrite);
        }
        Ok(lock(&self.access).get(&(handle.raw(), ordinal)).copied().unwrap_or_default())
    }

    /// Lets a device allocate from a pool of its own.
    pub fn set_current(&self, process: &Process, device: u32, handle: PoolHandle) -> CuResult<()> {
        self.of_device(process, device)?;
        let mut devices = lock(&self.devices);
        if self.pools.get(handle)?.device != device {
            return Err(CuError::INVALID_VALUE);
        }
        if let Some(pools) = devices.as_mut().and_then(|devices| devices.get_mut(&device)) {
            pools.current = handle;
        }
        Ok(())
    }
}
