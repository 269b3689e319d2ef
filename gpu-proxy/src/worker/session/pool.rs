//! Pools: `cuMemPool*`, `cuMemAllocAsync`, `cuMemFreeAsync`. The same for every device, made of its virtual memory, so that what
//! a pool keeps is counted to the byte and no context takes it along.
//!
//! A pool's memory is mapped in chunks, which count against the grant as long as they are. Freed memory waits for the stream it
//! was freed in; when that is done (a wait for it has returned, or it is seen to be idle) all may have it, and chunks that
//! nobody uses are given back as far as the release threshold says. An allocation that does not fit waits for all work,
//! takes back what all pools keep, and is refused only then: `memory.rs`.

mod memory;
mod shared;

use std::collections::{BTreeMap, HashMap};

use vgpu_api::{Access, Call, ContextId, CuError, CuResult, DevicePtr, PoolHandle, Stream, Token};

use super::Session;
use crate::device::{Place, Raw};
use crate::exchange::Question;
use crate::pool_space::{Order, PoolSpace};
use crate::worker::ranges::Origin;
use crate::worker::slab::Slab;

/// Pools of one process at once, ended ones that still have allocations included.
const POOLS_MAX: usize = 256;
/// Allocations of all pools of one process at once.
const POOLED_MAX: usize = 1 << 20;
/// A pool has as many times the addresses of what it may keep, so that holes between its chunks do no harm.
const ADDRESSES: u64 = 2;
/// No pool takes more of them, in bytes.
const ADDRESS_BYTES_MAX: u64 = 512 << 30;

/// Numbers: `CUmemPool_attribute`.
mod attribute {
    pub const FOLLOW_EVENT_DEPENDENCIES: u32 = 1;
    pub const OPPORTUNISTIC: u32 = 2;
    pub const INTERNAL_DEPENDENCIES: u32 = 3;
    pub const RELEASE_THRESHOLD: u32 = 4;
    pub const RESERVED_CURRENT: u32 = 5;
    pub const RESERVED_HIGH: u32 = 6;
    pub const USED_CURRENT: u32 = 7;
    pub const USED_HIGH: u32 = 8;
}

#[derive(Debug, Default)]
pub(super) struct Pools {
    /// Numbers of pools that are not ended.
    named: Slab<u64>,
    by_number: BTreeMap<u64, Pool>,
    last_number: u64,
    /// Allocations of all of them.
    allocations: usize,
}

#[derive(Debug)]
struct Pool {
    device: u32,
    /// What other devices may do with all of it; one that is missing: nothing.
    access: BTreeMap<u32, Access>,
    bytes_max: u64,
    /// From its first allocation on: the reservation's first address and length, and what is in it.
    space: Option<(u64, u64, PoolSpace)>,
    /// The memory of each chunk.
    chunks: HashMap<u64, Chunk>,
    release_threshold: u64,
    /// Attributes 1 to 3. Only the second changes what is done here: no dependency is ever added for reuse.
    may_reuse: [bool; 3],
    /// It goes when its last allocation does.
    ended: bool,
    owner: PoolOwner,
}

/// Whose a pool is, and who else may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PoolOwner {
    /// Nobody.
    Ours,
    /// Who gets its token, once there is one.
    Shareable(Option<Token>),
    /// Another process has made it: only what that one gives is here.
    Others(Token),
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    memory: Raw,
    bytes: u64,
    /// Of what others may have, or have made.
    token: Option<Token>,
}

impl Pool {
    fn new(device: u32, bytes_max: u64, owner: PoolOwner) -> Self {
        Self {
            device,
            access: BTreeMap::new(),
            bytes_max: if bytes_max == 0 { u64::MAX } else { bytes_max },
            space: None,
            chunks: HashMap::new(),
            release_threshold: 0,
            may_reuse: [true; 3],
            ended: false,
            owner,
        }
    }

    /// What each device may do with all of it.
    fn all_access(&self) -> Vec<(u32, Access)> {
        self.access.clone().into_iter().chain([(self.device, Access::ReadWrite)]).collect()
    }

    fn space(&mut self) -> CuResult<&mut PoolSpace> {
        self.space.as_mut().map(|(_, _, space)| space).ok_or(CuError::INVALID_VALUE)
    }
}

fn order_of(context: ContextId, place: Place) -> Order {
    Order::Stream(context, place.stream.map(|stream| stream.0))
}

impl Session {
    pub(super) fn pool_create(
        &mut self,
        call: Call,
        handle: PoolHandle,
        device: u32,
        (bytes_max, shareable): (u64, bool),
    ) -> CuResult<()> {
        self.whole(call)?;
        self.check_device(device)?;
        self.pools.check_free(handle)?;
        let owner = if shareable { PoolOwner::Shareable(None) } else { PoolOwner::Ours };
        self.pools.insert(handle, Pool::new(device, bytes_max, owner))
    }

    pub(super) fn pool_destroy(&mut self, handle: PoolHandle) -> CuResult<()> {
        let number = self.pools.named.remove(handle)?;
        if let Some(pool) = self.pools.by_number.get_mut(&number) {
            pool.ended = true;
            if let PoolOwner::Shareable(Some(token)) = pool.owner {
                self.tell(Question::LetGoPool(token));
            }
        }
        self.trim(number, 0);
        Ok(())
    }

    pub(super) fn pool_trim(&mut self, call: Call, handle: PoolHandle, keep: u64) -> CuResult<()> {
        self.whole(call)?;
        let number = *self.pools.named.get(handle)?;
        self.look_for_idle_streams(number);
        self.trim(number, keep);
        Ok(())
    }

    pub(super) fn pool_attribute(&mut self, call: Call, handle: PoolHandle, number: u32) -> CuResult<u64> {
        self.whole(call)?;
        let pool = self.pool(handle)?;
        let figures = pool.space.as_ref().map(|(_, _, space)| space.figures()).unwrap_or_default();
        Ok(match number {
            attribute::FOLLOW_EVENT_DEPENDENCIES
            | attribute::OPPORTUNISTIC
            | attribute::INTERNAL_DEPENDENCIES => pool.may_reuse[number as usize - 1].into(),
            attribute::RELEASE_THRESHOLD => pool.release_threshold,
            attribute::RESERVED_CURRENT => figures.reserved,
            attribute::RESERVED_HIGH => figures.reserved_high,
            attribute::USED_CURRENT => figures.used,
            attribute::USED_HIGH => figures.used_high,
            _ => return Err(CuError::INVALID_VALUE),
        })
    }

    pub(super) fn set_pool_attribute(
        &mut self,
        call: Call,
        handle: PoolHandle,
        number: u32,
        value: u64,
    ) -> CuResult<()> {
        self.whole(call)?;
        let pool = self.pool(handle)?;
        match number {
            attribute::FOLLOW_EVENT_DEPENDENCIES
            | attribute::OPPORTUNISTIC
            | attribute::INTERNAL_DEPENDENCIES => pool.may_reuse[number as usize - 1] = value != 0,
            attribute::RELEASE_THRESHOLD => pool.release_threshold = value,
            attribute::RESERVED_HIGH | attribute::USED_HIGH if value == 0 => {
                if let Ok(space) = pool.space() {
                    space.reset_high(number == attribute::RESERVED_HIGH);
                }
            }
            _ => return Err(CuError::INVALID_VALUE),
        }
        Ok(())
    }

    /// Its own device reads and writes it, always.
    pub(super) fn pool_access(
        &mut self,
        call: Call,
        handle: PoolHandle,
        device: u32,
        access: Access,
    ) -> CuResult<()> {
        self.whole(call)?;
        self.check_device(device)?;
        let number = *self.pools.named.get(handle)?;
        let pool = self.pools.by_number.get(&number).ok_or(CuError::INVALID_VALUE)?;
        if pool.device == device {
            return if access == Access::ReadWrite { Ok(()) } else { Err(CuError::INVALID_DEVICE) };
        }
        let before = pool.access.get(&device).copied().unwrap_or_default();
        let chunks: Vec<(u64, u64)> =
            pool.chunks.iter().map(|(start, chunk)| (*start, chunk.bytes)).collect();
        for (place, &(start, bytes)) in chunks.iter().enumerate() {
            if let Err(error) = self.device.set_access(device, start, bytes, access) {
                for &(start, bytes) in &chunks[..place] {
                    let _ = self.device.set_access(device, start, bytes, before);
                }
                return Err(error);
            }
        }
        self.pool(handle)?.access.insert(device, access);
        Ok(())
    }

    fn pool(&mut self, handle: PoolHandle) -> CuResult<&mut Pool> {
        let number = *self.pools.named.get(handle)?;
        self.pools.by_number.get_mut(&number).ok_or(CuError::INVALID_VALUE)
    }

    pub(super) fn alloc_pooled(
        &mut self,
        call: Call,
        bytes: u64,
        handle: PoolHandle,
        stream: Stream,
    ) -> CuResult<DevicePtr> {
        let (context, place) = self.place_of(call, stream)?;
        let number = *self.pools.named.get(handle)?;
        let rounded = bytes.checked_next_multiple_of(self.device.granule_bytes());
        let rounded = rounded.ok_or(CuError::OUT_OF_MEMORY)?;
        // Of another's pool nothing new is given out.
        if bytes == 0 || matches!(self.pool(handle)?.owner, PoolOwner::Others(_)) {
            return Err(CuError::INVALID_VALUE);
        }
        if self.pools.allocations >= POOLED_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        self.give_space(number, place.context)?;
        let address = self.take_pooled(number, rounded, order_of(context, place))?;
        self.ranges.insert(address, bytes, 0, Origin::Pooled(number));
        self.pools.allocations += 1;
        Ok(DevicePtr(address))
    }

    pub(super) fn free_in_order(&mut self, call: Call, at: DevicePtr, stream: Stream) -> CuResult<()> {
        let (context, place) = self.place_of(call, stream)?;
        match self.ranges.freeable(at) {
            Ok(Origin::Pooled(number)) => self.free_pooled(number, at, order_of(context, place)),
            // After all that was queued before, in any stream.
            _ => self.free(call, at),
        }
    }

    pub(super) fn free_pooled(&mut self, number: u64, at: DevicePtr, order: Order) -> CuResult<()> {
        let pool = self.pools.by_number.get_mut(&number).ok_or(CuError::INVALID_VALUE)?;
        if !pool.space()?.give(at.0, order) {
            return Err(CuError::INVALID_VALUE);
        }
        // What is another's counts until it is unmapped.
        let goes = pool.ended || matches!(pool.owner, PoolOwner::Others(_));
        self.graphs.something_ended();
        self.ranges.remove(at.0);
        self.pools.allocations -= 1;
        if goes {
            self.look_for_idle_streams(number);
            self.trim(number, 0);
        }
        Ok(())
    }
}

impl Pools {
    /// That there can be one more, of this name.
    fn check_free(&self, handle: PoolHandle) -> CuResult<()> {
        self.named.check_free(handle)?;
        if self.by_number.len() < POOLS_MAX { Ok(()) } else { Err(CuError::OUT_OF_MEMORY) }
    }

    fn insert(&mut self, handle: PoolHandle, pool: Pool) -> CuResult<()> {
        self.last_number += 1;
        self.by_number.insert(self.last_number, pool);
        self.named.insert(handle, self.last_number)
    }

    /// The device of a pool, by its number.
    pub(super) fn device_of(&self, number: u64) -> Option<u32> {
        self.by_number.get(&number).map(|pool| pool.device)
    }

    fn numbers(&self) -> Vec<u64> {
        self.by_number.keys().copied().collect()
    }
}
