//! Pools of device memory, as the guest knows them: which there are, and which a device allocates from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::{Access, CuError, CuResult, PoolHandle, ask, kind};

use super::contexts::current;
use super::process::Process;
use super::slab::{Slab, lock};

/// What the guest keeps of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// The ordinal of its device.
    pub device: u32,
    /// `CUmemAllocationHandleType` bits that the program asked for.
    pub handle_types: u32,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A device's own.
    Default,
    Made,
    /// Another process has made it: nothing is allocated of it here.
    Imported,
}

impl Pool {
    /// # Errors
    /// 1 for another process's.
    pub fn allocates(self) -> CuResult<Self> {
        if self.kind == Kind::Imported { Err(CuError::INVALID_VALUE) } else { Ok(self) }
    }
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
        let default = Pool { device, handle_types: 0, kind: Kind::Default };
        let default = self.make(process, default, 0)?;
        let pools = OfDevice { default, current: default };
        devices.insert(device, pools);
        Ok(pools)
    }

    /// A new pool of a device.
    pub fn create(
        &self,
        process: &Process,
        device: u32,
        handle_types: u32,
        bytes_max: u64,
    ) -> CuResult<PoolHandle> {
        self.make(process, Pool { device, handle_types, kind: Kind::Made }, bytes_max)
    }

    /// Another process's pool of a device. `ask` tells the worker of it, which says what number the device has there.
    pub fn import(
        &self,
        process: &Process,
        device: u32,
        handle_types: u32,
        ask: impl FnOnce(NewHandle<kind::Pool>) -> CuResult<u32>,
    ) -> CuResult<PoolHandle> {
        let number = process.contexts.number(device)?;
        let handle = self.pools.insert(Pool { device, handle_types, kind: Kind::Imported });
        match ask(NewHandle(handle)) {
            Ok(on) if on == number => Ok(handle),
            Ok(_) => self.destroy(process, handle).and(Err(CuError::INVALID_VALUE)),
            Err(error) => self.pools.end(handle, |_| Err(error))?,
        }
    }

    fn make(&self, process: &Process, pool: Pool, bytes_max: u64) -> CuResult<PoolHandle> {
        let number = process.contexts.number(pool.device)?;
        let handle = self.pools.insert(pool);
        let (new, shareable) = (NewHandle(handle), pool.handle_types != 0);
        match ask::cuMemPoolCreate(&process.channel, current(), new, number, bytes_max, shareable) {
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
        if pool.kind == Kind::Default {
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
    /// # Errors
    /// 1 for one that nothing is allocated of, or another device's.
    pub fn set_current(&self, process: &Process, device: u32, handle: PoolHandle) -> CuResult<()> {
        self.of_device(process, device)?;
        let mut devices = lock(&self.devices);
        if self.pools.get(handle)?.allocates()?.device != device {
            return Err(CuError::INVALID_VALUE);
        }
        if let Some(pools) = devices.as_mut().and_then(|devices| devices.get_mut(&device)) {
            pools.current = handle;
        }
        Ok(())
    }
}
