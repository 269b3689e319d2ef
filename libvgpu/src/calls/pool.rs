//! Memory allocated and freed in the order of a stream, and the pools it comes from. What a pool holds, the worker knows; which
//! pools there are and which one a device uses is answered here. In a capture both become nodes of the graph (`core/graph_memory.rs`).

use std::collections::BTreeMap;

use vgpu_api::symbols::Mode;
use vgpu_api::{Access, CuError, CuResult, DevicePtr, PoolHandle, ask};

use super::device::device;
use super::graph_memory::{captured_alloc, captured_free};
use super::stream::existing;
use super::virtual_memory::{AccessOf, Location, POSIX_FD, accessor, may_reach, ordinal_of, ready};
use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::{Entered, current, enter, enter_to_end};
use crate::core::process::{Process, process};
use crate::core::ranges::{GLOBAL, Home, MAPPED, OPENED, POOLED, Range};
use crate::core::streams::context_of;

/// `CUmemPool_attribute`: 1 to 3 are flags, the last is the high mark of what is used.
const FLAGS: std::ops::RangeInclusive<u32> = 1..=3;
const LAST: u32 = 8;

/// `CUmemPoolProps`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PoolProperties {
    pub kind: u32,
    pub handle_types: u32,
    pub location: Location,
    /// Windows.
    pub security: u64,
    pub bytes_max: u64,
    pub usage: u16,
    pub reserved: [u8; 54],
}
const _: () = assert!(size_of::<PoolProperties>() == 88);

fn alloc(
    entered: Entered,
    out: Out<DevicePtr>,
    bytes: usize,
    pool: PoolHandle,
    stream: Raw,
    mode: Mode,
) -> CuResult<()> {
    let (process, out) = (entered.process, out.wanted()?);
    let stream = existing(entered, stream, mode)?;
    let home = Home { device: process.pools.get(pool)?.allocates()?.device, handle: pool.raw() };
    if bytes == 0 {
        // As NVIDIA's driver 580: nothing, which can be freed.
        return out.set(DevicePtr(0));
    }
    let bytes = bytes as u64;
    if let Some(address) = captured_alloc(entered, stream, home.device, bytes)? {
        return out.set(DevicePtr(address));
    }
    let ask = || ask::cuMemAllocFromPoolAsync(&process.channel, entered.context, bytes, pool, stream);
    let address = process.graph_memory.with_room(ask)?;
    process.device_memory.insert_home(address.0, bytes, POOLED, home);
    out.set(address)
}

/// A device that a structure names and nobody has is a wrong value.
pub fn no_device(error: CuError) -> CuError {
    if error == CuError::INVALID_DEVICE { CuError::INVALID_VALUE } else { error }
}

fn create(out: Out<u64>, properties: In<PoolProperties>) -> CuResult<()> {
    let process = ready()?;
    let (out, properties) = (out.wanted()?, properties.get()?);
    let ordinal = ordinal_of(process, properties.kind, properties.location).map_err(no_device)?;
    if properties.bytes_max > i64::MAX.unsigned_abs() {
        return Err(CuError::OUT_OF_MEMORY);
    }
    if properties.security != 0 || properties.reserved != [0; 54] {
        return Err(CuError::INVALID_VALUE);
    }
    // Attribute 119 of the device is that one bit, attribute 136 is 0.
    if properties.handle_types & !POSIX_FD != 0 || properties.usage != 0 {
        return Err(CuError::NOT_SUPPORTED);
    }
    let PoolProperties { handle_types, bytes_max, .. } = properties;
    out.set(process.pools.create(process, ordinal, handle_types, bytes_max)?.raw())
}

/// The pools of a place, for calls that name it by location and kind.
fn located(location: In<Location>, kind: u32) -> CuResult<(&'static Process, u32)> {
    let process = ready()?;
    Ok((process, ordinal_of(process, kind, location.get()?)?))
}

fn ordinal(dev: i32) -> CuResult<(&'static Process, u32)> {
    let process = ready()?;
    Ok((process, device(process, dev)?.0))
}

fn named(raw: Raw) -> CuResult<(&'static Process, PoolHandle)> {
    let process = ready()?;
    let pool = PoolHandle::check(raw.0)?;
    process.pools.get(pool)?;
    Ok((process, pool))
}

fn default_of((process, ordinal): (&'static Process, u32), out: Out<u64>) -> CuResult<()> {
    out.wanted()?.set(process.pools.of_device(process, ordinal)?.default.raw())
}

fn current_of((process, ordinal): (&'static Process, u32), out: Out<u64>) -> CuResult<()> {
    out.wanted()?.set(process.pools.of_device(process, ordinal)?.current.raw())
}

fn set_current((process, ordinal): (&'static Process, u32), pool: Raw) -> CuResult<()> {
    process.pools.set_current(process, ordinal, PoolHandle::check(pool.0)?)
}

export! {
    fn cuMemAllocAsync | cuMemAllocAsync_ptsz(mode, out: Out<DevicePtr>, bytes: usize, stream: Raw) {
        let entered = enter()?;
        let pool = entered.process.pools.of_device(entered.process, entered.device)?.current;
        alloc(entered, out, bytes, pool, stream, mode)
    }

    fn cuMemAllocFromPoolAsync | cuMemAllocFromPoolAsync_ptsz(
        mode, out: Out<DevicePtr>, bytes: usize, pool: Raw, stream: Raw,
    ) {
        alloc(enter()?, out, bytes, PoolHandle::check(pool.0)?, stream, mode)
    }

    /// Also of what `cuMemAlloc` gave: the worker frees that after everything that was queued before, in any stream.
    fn cuMemFreeAsync | cuMemFreeAsync_ptsz(mode, address: DevicePtr, stream: Raw) {
        let entered = enter_to_end()?;
        let stream = existing(entered, stream, mode)?;
        if address.0 == 0 {
            return entered.told();
        }
        if captured_free(entered, stream, address.0)? {
            return entered.told();
        }
        let context = context_of(entered, stream)?;
        if entered.process.graph_memory.free(entered.process, address.0, context) {
            return entered.told();
        }
        let own = |range: &Range| !matches!(range.flags, GLOBAL | MAPPED | OPENED);
        let known = entered.process.device_memory.find(address.0);
        known.filter(|range| range.start == address.0 && own(range)).ok_or(CuError::INVALID_VALUE)?;
        entered.process.graphs.refuses(entered, stream)?;
        entered.process.device_memory.remove(address.0, own).ok_or(CuError::INVALID_VALUE)?;
        ask::cuMemFreeAsync(&entered.process.channel, entered.context, address, stream)?;
        entered.told()
    }

    fn cuDeviceGetDefaultMemPool(out: Out<u64>, dev: i32) {
        default_of(ordinal(dev)?, out)
    }

    fn cuDeviceGetMemPool(out: Out<u64>, dev: i32) {
        current_of(ordinal(dev)?, out)
    }

    fn cuDeviceSetMemPool(dev: i32, pool: Raw) {
        set_current(ordinal(dev)?, pool)
    }

    fn cuMemGetDefaultMemPool(out: Out<u64>, location: In<Location>, kind: u32) {
        default_of(located(location, kind)?, out)
    }

    fn cuMemGetMemPool(out: Out<u64>, location: In<Location>, kind: u32) {
        current_of(located(location, kind)?, out)
    }

    fn cuMemSetMemPool(location: In<Location>, kind: u32, pool: Raw) {
        set_current(located(location, kind)?, pool)
    }

    fn cuMemPoolCreate(out: Out<u64>, properties: In<PoolProperties>) {
        create(out, properties)
    }

    fn cuMemPoolDestroy(pool: Raw) {
        let process = process()?;
        process.pools.destroy(process, PoolHandle::check(pool.0)?)?;
        process.channel.take_error()
    }

    fn cuMemPoolTrimTo(pool: Raw, keep: usize) {
        let (process, pool) = named(pool)?;
        ask::cuMemPoolTrimTo(&process.channel, current(), pool, keep as u64)
    }

    fn cuMemPoolGetAttribute(pool: Raw, number: u32, out: Out<u64>) {
        let (process, pool) = named(pool)?;
        let out = out.wanted()?;
        if !(1..=LAST).contains(&number) {
            return Err(CuError::INVALID_VALUE);
        }
        let value = ask::cuMemPoolGetAttribute(&process.channel, current(), pool, number)?;
        if FLAGS.contains(&number) { out.cast::<u32>().set(u32::from(value != 0)) } else { out.set(value) }
    }

    /// The high marks can be set to 0, what is held now not at all.
    fn cuMemPoolSetAttribute(pool: Raw, number: u32, value: In<u64>) {
        let (process, pool) = named(pool)?;
        let value = match number {
            1..=3 => u64::from(value.cast::<u32>(0).get()? != 0),
            4 => value.get()?,
            6 | 8 if value.get()? == 0 => 0,
            _ => return Err(CuError::INVALID_VALUE),
        };
        ask::cuMemPoolSetAttribute(&process.channel, current(), pool, number, value)
    }

    /// A pool's own device reads and writes it, always; others as far as they can reach it.
    fn cuMemPoolSetAccess(pool: Raw, all: In<AccessOf>, count: usize) {
        let (process, pool) = named(pool)?;
        let own = process.pools.get(pool)?.device;
        let mut wanted = BTreeMap::new();
        for i in 0..count {
            let AccessOf { location, flags } = all.at(i)?;
            let access = Access::of_flags(flags).ok_or(CuError::INVALID_VALUE)?;
            let ordinal = accessor(process, location)?;
            match (ordinal == own, access) {
                (true, Access::ReadWrite) => continue,
                (true, _) => return Err(CuError::INVALID_DEVICE),
                (false, Access::None) => {}
                (false, _) if may_reach(process, ordinal, own) => {}
                (false, _) => return Err(CuError::NOT_SUPPORTED),
            }
            wanted.insert(ordinal, access);
        }
        let reached = wanted.into_iter().filter(|(ordinal, _)| may_reach(process, *ordinal, own));
        reached.into_iter().try_for_each(|(ordinal, access)| process.pools.set_access(process, pool, ordinal, access))
    }

    fn cuMemPoolGetAccess(flags: Out<u32>, pool: Raw, location: In<Location>) {
        let (process, pool) = named(pool)?;
        let ordinal = accessor(process, location.get()?).map_err(no_device)?;
        flags.set(process.pools.access_of(pool, ordinal)? as u32)
    }
}
