//! A pool's memory: where an allocation's comes from, and when it goes back. The order of streams: [`Order`].

use vgpu_api::{Access, ContextId, CuError, CuResult, DevicePtr};

use super::{ADDRESS_BYTES_MAX, ADDRESSES, Chunk, Pool, PoolOwner, order_of};
use crate::device::{Place, Raw};
use crate::exchange::Question;
use crate::pool_space::{Order, PoolSpace};
use crate::worker::session::Session;

impl Session {
    /// From what is free, what has become free, what can be mapped, what can be mapped when all keep nothing: in this order.
    pub(super) fn take_pooled(&mut self, number: u64, bytes: u64, order: Order) -> CuResult<u64> {
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
            self.all_must_be_done()?;
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
    pub(super) fn give_space(&mut self, number: u64, context: Raw) -> CuResult<()> {
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
            let space = PoolSpace::new(start, bytes);
            let space = if pool.owner == PoolOwner::Ours { space } else { space.apart() };
            pool.space = Some((start, bytes, space));
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
        let device = pool.device;
        let access = pool.all_access();
        let memory = self.map_chunk(device, address, bytes, access)?;
        let pool = self.pools.by_number.get_mut(&number).ok_or(CuError::INVALID_VALUE)?;
        pool.chunks.insert(address, Chunk { memory, bytes, token: None });
        pool.space()?.grown(address, bytes);
        Ok(())
    }

    /// Memory that counts and is mapped. On the way back, what the device does not let go of goes on counting.
    fn map_chunk(
        &mut self,
        device: u32,
        address: u64,
        bytes: u64,
        access: Vec<(u32, Access)>,
    ) -> CuResult<Raw> {
        self.quotas.charge(device, bytes)?;
        let created = self.device.create(device, bytes);
        let memory = created.inspect_err(|_| self.quotas.release(device, bytes))?;
        match self.show_chunk(address, bytes, memory, access) {
            Ok(()) => Ok(memory),
            Err((error, gone)) => {
                if gone {
                    self.quotas.release(device, bytes);
                }
                Err(error)
            }
        }
    }

    /// Maps memory, or lets it go; whether the device did that.
    pub(in crate::worker::session) fn show_chunk(
        &mut self,
        address: u64,
        bytes: u64,
        memory: Raw,
        access: Vec<(u32, Access)>,
    ) -> Result<(), (CuError, bool)> {
        let mut shown = self.device.map(address, bytes, memory);
        let mut unmapped = Ok(());
        if shown.is_ok() {
            let mut access = access.into_iter();
            shown = access.try_for_each(|(of, access)| self.device.set_access(of, address, bytes, access));
            if shown.is_err() {
                unmapped = self.device.unmap(address, bytes);
            }
        }
        shown.map_err(|error| (error, self.device.release(memory).and(unmapped).is_ok()))
    }

    /// What is kept for streams that are seen to have nothing left to do is anybody's.
    pub(super) fn look_for_idle_streams(&mut self, number: u64) {
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
    pub(super) fn trim(&mut self, number: u64, keep: u64) {
        let Some(pool) = self.pools.by_number.get_mut(&number) else { return };
        let (device, owner) = (pool.device, pool.owner);
        let idle = pool.space().map(|space| space.shrink(keep)).unwrap_or_default();
        for address in idle {
            let pool = self.pools.by_number.get_mut(&number);
            let Some(chunk) = pool.and_then(|pool| pool.chunks.remove(&address)) else { continue };
            let unmapped = self.device.unmap(address, chunk.bytes);
            // What the device does not let go of goes on counting.
            if unmapped.and_then(|()| self.device.release(chunk.memory)).is_err() {
                continue;
            }
            match (owner, chunk.token) {
                (PoolOwner::Others(_), token) => self.end_others_chunk(address, chunk.bytes, token),
                (_, token) => {
                    // What others still have of it counts before it does no longer here.
                    token.into_iter().for_each(|token| self.tell(Question::LetGo(token)));
                    self.quotas.release(device, chunk.bytes);
                }
            }
        }
        let Some(pool) = self.pools.by_number.get(&number) else { return };
        if pool.ended && pool.chunks.is_empty() {
            // Another's chunks had their own.
            let own = pool.space.as_ref().filter(|_| !matches!(pool.owner, PoolOwner::Others(_)));
            let addresses = own.map(|(start, bytes, _)| (*start, *bytes));
            self.pools.by_number.remove(&number);
            if let Some((start, bytes)) = addresses {
                // If the device keeps them, they go on counting.
                let _ = self.give_addresses(start, bytes);
            }
        }
    }

    /// Gives back what is kept beyond each pool's threshold, as far as streams are seen to be idle.
    pub(in crate::worker::session) fn trim_pools(&mut self) {
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
    pub(in crate::worker::session) fn stream_is_done(&mut self, context: ContextId, place: Place) {
        let done = order_of(context, place);
        self.reorder_all(|order| order == done, Order::Done);
        self.trim_pools();
    }

    /// A wait for a context has returned.
    pub(in crate::worker::session) fn context_is_done(&mut self, context: ContextId) {
        self.reorder_all(|order| is_of(order, context), Order::Done);
        self.trim_pools();
    }

    /// A stream ends; nobody can ask any more how far its work is.
    pub(in crate::worker::session) fn stream_is_gone(&mut self, context: ContextId, stream: Raw) {
        let gone = Order::Stream(context, Some(stream.0));
        self.reorder_all(|order| order == gone, Order::Context(context));
    }

    /// A context has ended, and its work with it. With a device's primary one all allocations of its pools end.
    pub(in crate::worker::session) fn end_pools_of(&mut self, context: ContextId, primary_of: Option<u32>) {
        self.reorder_all(|order| is_of(order, context), Order::Done);
        for number in self.pools.numbers() {
            let Some(pool) = self.pools.by_number.get_mut(&number) else { continue };
            let primary = primary_of == Some(pool.device);
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
