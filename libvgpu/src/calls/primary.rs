//! Primary contexts. The handle exists before the context does; only the first retain and the last release travel.

use std::sync::atomic::Ordering;

use vgpu_api::{ContextId, CuError, CuResult, ask};

use super::context::check_flags;
use super::device::device;
use crate::abi::{Out, export};
use crate::core::contexts::Primary;
use crate::core::process::{Process, process};
use crate::core::slab::lock;

/// The device's number at the worker and its primary context.
fn primary(dev: i32) -> CuResult<(&'static Process, u32, &'static Primary)> {
    let process = process()?;
    let (ordinal, _) = device(process, dev)?;
    let number = process.contexts.number(ordinal)?;
    Ok((process, number, process.contexts.primary(number)?))
}

fn retain(out: Out<u64>, dev: i32) -> CuResult<()> {
    let (process, number, primary) = primary(dev)?;
    out.wanted()?;
    hold(process, number, primary)?;
    out.set(ContextId::primary(number).handle().raw())
}

/// One retain more.
pub fn hold(process: &Process, number: u32, primary: &Primary) -> CuResult<()> {
    let _changing = lock(&primary.changing);
    if primary.count.load(Ordering::Relaxed) == 0 {
        process.channel.take_error()?;
        let flags = primary.flags.load(Ordering::Relaxed);
        ask::cuDevicePrimaryCtxRetain(&process.channel, ContextId::NONE, number, flags)?;
        process.contexts.made_primary();
    }
    primary.count.fetch_add(1, Ordering::Release);
    Ok(())
}

fn release(dev: i32) -> CuResult<()> {
    let (process, number, primary) = primary(dev)?;
    let_go(process, number, primary)
}

/// One retain less. With the last one the context ends, and all that it holds.
pub fn let_go(process: &Process, number: u32, primary: &Primary) -> CuResult<()> {
    let changing = lock(&primary.changing);
    match primary.count.load(Ordering::Relaxed) {
        0 => return Err(CuError::INVALID_CONTEXT),
        1 => {}
        more => {
            primary.count.store(more - 1, Ordering::Release);
            return Ok(());
        }
    }
    primary.ended.store(true, Ordering::Relaxed);
    primary.count.store(0, Ordering::Release);
    process.contexts.ended();
    let result = ask::cuDevicePrimaryCtxRelease_v2(&process.channel, ContextId::NONE, number);
    let ended = process.forget(ContextId::primary(number));
    drop(changing);
    ended.run();
    result
}

/// The count stays but for what its green contexts held: who retained the context before still holds the next one.
fn reset(dev: i32) -> CuResult<()> {
    let (process, number, primary) = primary(dev)?;
    let changing = lock(&primary.changing);
    if primary.count.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    let greens = process.contexts.greens_of(ContextId::primary(number));
    let left = primary.count.load(Ordering::Relaxed).saturating_sub(greens);
    primary.ended.store(left == 0, Ordering::Relaxed);
    primary.count.store(left, Ordering::Release);
    let reset = ask::cuDevicePrimaryCtxReset_v2(&process.channel, ContextId::NONE, number);
    let ended = process.forget(ContextId::primary(number));
    let flags = primary.flags.load(Ordering::Relaxed);
    let result = match reset {
        Ok(()) if left > 0 => ask::cuDevicePrimaryCtxRetain(&process.channel, ContextId::NONE, number, flags),
        other => other,
    };
    drop(changing);
    ended.run();
    result
}

fn set_flags(dev: i32, flags: u32) -> CuResult<()> {
    check_flags(flags)?;
    primary(dev)?.2.flags.store(flags, Ordering::Relaxed);
    Ok(())
}

export! {
    fn cuDevicePrimaryCtxRetain(out: Out<u64>, dev: i32) {
        retain(out, dev)
    }

    fn cuDevicePrimaryCtxRelease(dev: i32) {
        release(dev)
    }

    fn cuDevicePrimaryCtxRelease_v2(dev: i32) {
        release(dev)
    }

    fn cuDevicePrimaryCtxReset(dev: i32) {
        reset(dev)
    }

    fn cuDevicePrimaryCtxReset_v2(dev: i32) {
        reset(dev)
    }

    fn cuDevicePrimaryCtxSetFlags(dev: i32, flags: u32) {
        set_flags(dev, flags)
    }

    fn cuDevicePrimaryCtxSetFlags_v2(dev: i32, flags: u32) {
        set_flags(dev, flags)
    }

    fn cuDevicePrimaryCtxGetState(dev: i32, flags: Out<u32>, active: Out<i32>) {
        let (_, _, primary) = primary(dev)?;
        flags.set(primary.flags.load(Ordering::Relaxed))?;
        active.set(i32::from(primary.count.load(Ordering::Acquire) > 0))
    }
}
