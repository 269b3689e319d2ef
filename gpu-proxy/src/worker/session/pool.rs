//! Pools: `cuMemPool*`, `cuMemAllocAsync`, `cuMemFreeAsync`. The same for every device, made of its virtual memory, so that what
//! a pool keeps is counted to the byte and no context takes it along.
//!
//! A pool's memory is mapped in chunks, which count against the grant as long as they are. Freed memory waits for the stream it
//! was freed in; when that is done (a wait for it has returned, or it is seen to be idle) all may have it, and chunks that
//! nobody uses are given back as far as the release threshold says. An allocation that does not fit waits for all work,
//! takes back what all pools keep, and is refused only then.

use std::collections::{BTreeMap, HashMap};

use vgpu_api::{Access, Call, ContextId, CuError, CuResult, DevicePtr, PoolHandle, Stream};

use super::Session;
use crate::device::{Place, Raw};
use crate::worker::pool_space::{Order, PoolSpace};
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
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    memory: Raw,
    bytes: u64,
}

impl Pool {
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
        bytes_max: u64,
    ) -> CuResult<()> {
        self.whole(call)?;
        self.check_device(device)?;
        let pools = &mut self.pools;
        pools.named.check_free(handle)?;
        if pools.by_number.len() >= POOLS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        pools.last_number += 1;
        let pool = Pool {
            bytes_max: if bytes_max == 0 { u64::MAX } else { bytes_max },
            space: None,
            chunks: HashMap::new(),
            release_threshold: 0,
            may_reuse: [true; 3],
            ended: false,
        };
        pools.by_number.insert(pools.last_number, pool);
        pools.named.insert(handle, pools.last_number)
    }

    pub(super) fn pool_destroy(&mut self, handle: PoolHandle) -> CuResult<()> {
        let number = self.pools.named.remove(handle)?;
        if let Some(pool) = self.pools.by_number.get_mut(&number) {
            pool.ended = true;
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
        let (context, place) = self.place(call, stream)?;
        let number = *self.pools.named.get(handle)?;
        let rounded = bytes.checked_next_multiple_of(self.device.granule_bytes());
        let rounded = rounded.ok_or(CuError::OUT_OF_MEMORY)?;
        if bytes == 0 {
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

    /// From what is free, what has become free, what can be mapped, what can be mapped when all keep nothing: in this order.
    fn take_pooled(&mut self, number: u64, bytes: u64, order: Order) -> CuResult<u64> {
        let take =
            |session: &mut Self| session.pools.by_number.get_mut(&number)?.space().ok()?.take(bytes, order);
        if let Some(address) = take(self) {
            return Ok(address);
        }
        let opportunistic = self.pools.by_number.get(&number).is_some_and(|pool| pool.may_reuse[1]);
        if opportunistic {
            self.look_for_idle_streams(number);
            if let Some(address) = take(self) {
                return Ok(address);
            }
        }
        let grown = self.grow(number, bytes);
        if grown == Err(CuError::OUT_OF_MEMORY) {
            self.wait_for_all_work();
            if let Some(address) = take(self) {
                return Ok(address);
            }
            self.pools.numbers().into_iter().for_each(|other| self.trim(other, 0));
            self.grow(number, bytes)?;
        } else {
            grown?;
        }
        take(self).ok_or(CuError::OUT_OF_MEMORY)
    }

    /// Reserves a pool's addresses, if it has none yet.
    fn give_space(&mut self, number: u64, context: Raw) -> CuResult<()> {
        let pool = self.pools.by_number.get(&number).ok_or(CuError::INVALID_VALUE)?;
        if pool.space.is_some() {
            return Ok(());
        }
        let bytes_max = pool.bytes_max;
        let granule = self.device.mapping_bytes();
        let most = bytes_max.min(self.device.memory(context)?.total).min(ADDRESS_BYTES_MAX / ADDRESSES);
        let bytes = (most * ADDRESSES).max(1).next_multiple_of(granule);
        let start = self.take_addresses(bytes, 0, 0)?;
        if let Some(pool) = self.pools.by_number.get_mut(&number) {
            pool.space = Some((start, bytes, PoolSpace::new(start, bytes)));
        }
        Ok(())
    }

    /// Maps room for `bytes` more.
    fn grow(&mut self, number: u64, bytes: u64) -> CuResult<()> {
        let granule = self.device.mapping_bytes();
        let bytes = bytes.checked_next_multiple_of(granule).ok_or(CuError::OUT_OF_MEMORY)?;
        let pool = self.pools.by_number.get_mut(&number).ok_or(CuError::INVALID_VALUE)?;
        let bytes_max = pool.bytes_max;
        let space = pool.space()?;
        let sum = space.figures().reserved.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        let address = sum.and_then(|_| space.hole(bytes)).ok_or(CuError::OUT_OF_MEMORY)?;
        self.quota.charge(bytes)?;
        let memory = self.map_chunk(address, bytes).inspect_err(|_| self.quota.release(bytes))?;
        let pool = self.pools.by_number.get_mut(&number).ok_or(CuError::INVALID_VALUE)?;
        pool.chunks.insert(address, Chunk { memory, bytes });
        pool.space()?.grown(address, bytes);
        Ok(())
    }

    fn map_chunk(&mut self, address: u64, bytes: u64) -> CuResult<Raw> {
        let memory = self.device.create(bytes)?;
        let mut shown = self.device.map(address, bytes, memory);
        if shown.is_ok() {
            shown = self.device.set_access(address, bytes, Access::ReadWrite);
            if shown.is_err() {
                let _ = self.device.unmap(address, bytes);
            }
        }
        if shown.is_err() {
            let _ = self.device.release(memory);
        }
        shown.map(|()| memory)
    }

    pub(super) fn free_in_order(&mut self, call: Call, at: DevicePtr, stream: Stream) -> CuResult<()> {
        let (context, place) = self.place(call, stream)?;
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
        let ended = pool.ended;
        self.ranges.remove(at.0);
        self.pools.allocations -= 1;
        if ended {
            self.look_for_idle_streams(number);
            self.trim(number, 0);
        }
        Ok(())
    }

    /// What is kept for streams that are seen to have nothing left to do is anybody's.
    fn look_for_idle_streams(&mut self, number: u64) {
        let orders = self.pools.by_number.get(&number).and_then(|pool| pool.space.as_ref());
        for order in orders.map(|(_, _, space)| space.waited_for()).unwrap_or_default() {
            let Order::Stream(context, stream) = order else { continue };
            let Ok(raw) = self.context(context) else { continue };
            let place = Place { context: raw, stream: stream.map(Raw) };
            let idle = self.device.stream_query(place);
            if self.settle(context, idle).is_ok() {
                self.reorder(number, order, Order::Done);
            }
        }
    }

    fn reorder(&mut self, number: u64, order: Order, instead: Order) {
        if let Some(Ok(space)) = self.pools.by_number.get_mut(&number).map(Pool::space) {
            space.reorder(order, instead);
        }
    }

    /// What waits for the orders that `ends` says waits for `instead`.
    fn reorder_all(&mut self, ends: impl Fn(Order) -> bool, instead: Order) {
        for pool in self.pools.by_number.values_mut() {
            let Ok(space) = pool.space() else { continue };
            for order in space.waited_for().into_iter().filter(|order| ends(*order)) {
                space.reorder(order, instead);
            }
        }
    }

    /// Waits for the work of every context that an error has not ended. An error is told to who waits for that context.
    fn wait_for_all_work(&mut self) {
        let whole = self.contexts.iter().filter(|(_, context)| context.sticky.is_none());
        for (id, raw) in whole.map(|(id, context)| (*id, context.raw)).collect::<Vec<_>>() {
            let waited = self.device.context_synchronize(raw);
            if self.settle(id, waited).is_ok() {
                self.reorder_all(|order| is_of(order, id), Order::Done);
            }
        }
    }

    /// Gives back what nobody uses, but for `keep` bytes. An ended pool without allocations and chunks is no more.
    fn trim(&mut self, number: u64, keep: u64) {
        let Some(pool) = self.pools.by_number.get_mut(&number) else { return };
        let idle = pool.space().map(|space| space.shrink(keep)).unwrap_or_default();
        for address in idle {
            let pool = self.pools.by_number.get_mut(&number);
            let Some(chunk) = pool.and_then(|pool| pool.chunks.remove(&address)) else { continue };
            let unmapped = self.device.unmap(address, chunk.bytes);
            // What the device does not let go of goes on counting.
            if unmapped.and_then(|()| self.device.release(chunk.memory)).is_ok() {
                self.quota.release(chunk.bytes);
            }
        }
        let Some(pool) = self.pools.by_number.get(&number) else { return };
        if pool.ended && pool.chunks.is_empty() {
            let addresses = pool.space.as_ref().map(|(start, bytes, _)| (*start, *bytes));
            self.pools.by_number.remove(&number);
            if let Some((start, bytes)) = addresses {
                // If the device keeps them, they go on counting.
                let _ = self.give_addresses(start, bytes);
            }
        }
    }

    /// Gives back what is kept beyond each pool's threshold, as far as streams are seen to be idle.
    pub(super) fn trim_pools(&mut self) {
        for number in self.pools.numbers() {
            let Some(pool) = self.pools.by_number.get(&number) else { continue };
            let keep = if pool.ended { 0 } else { pool.release_threshold };
            let reserved = pool.space.as_ref().map_or(0, |(_, _, space)| space.figures().reserved);
            if reserved > keep || pool.ended {
                self.look_for_idle_streams(number);
                self.trim(number, keep);
            }
        }
    }

    /// A wait for a stream has returned.
    pub(super) fn stream_is_done(&mut self, context: ContextId, place: Place) {
        let done = order_of(context, place);
        self.reorder_all(|order| order == done, Order::Done);
        self.trim_pools();
    }

    /// A wait for a context has returned.
    pub(super) fn context_is_done(&mut self, context: ContextId) {
        self.reorder_all(|order| is_of(order, context), Order::Done);
        self.trim_pools();
    }

    /// A stream ends; nobody can ask any more how far its work is.
    pub(super) fn stream_is_gone(&mut self, context: ContextId, stream: Raw) {
        let gone = Order::Stream(context, Some(stream.0));
        self.reorder_all(|order| order == gone, Order::Context(context));
    }

    /// A context has ended, and its work with it. With the primary one all allocations of the device's pools end.
    pub(super) fn end_pools_of(&mut self, context: ContextId, primary: bool) {
        self.reorder_all(|order| is_of(order, context), Order::Done);
        for number in self.pools.numbers() {
            let Some(pool) = self.pools.by_number.get_mut(&number) else { continue };
            let used: Vec<u64> = match pool.space() {
                Ok(space) if primary => space.used().collect(),
                _ => Vec::new(),
            };
            for address in used {
                let _ = self.free_pooled(number, DevicePtr(address), Order::Done);
            }
            if primary {
                self.trim(number, 0);
            }
        }
    }
}

fn is_of(order: Order, context: ContextId) -> bool {
    matches!(order, Order::Stream(of, _) | Order::Context(of) if of == context)
}

impl Pools {
    fn numbers(&self) -> Vec<u64> {
        self.by_number.keys().copied().collect()
    }
}
