//! Contexts: the stack is the thread's own and answered here; making, ending and waiting travel.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use vgpu_api::{ContextId, CuError, CuResult, EventHandle, ask};

use super::device::{device, multiprocessors};
use crate::abi::{In, Out, Raw, export};
use crate::core::contexts::{self, Created, Entered, current, enter, enter_with};
use crate::core::process::{EventInfo, Recorded, process};
use crate::core::slab::lock;
use crate::core::waited;

/// `CU_CTX_FLAGS_MASK`, and what of it says how a thread waits: one way or none.
const CONTEXT_FLAGS: u32 = 0xff;
const WAYS_TO_WAIT: u32 = 7;

/// That flags of a context are such.
/// # Errors
/// 1.
pub fn check_flags(flags: u32) -> CuResult<()> {
    let is_one_way = (flags & WAYS_TO_WAIT).count_ones() <= 1;
    if flags & !CONTEXT_FLAGS == 0 && is_one_way { Ok(()) } else { Err(CuError::INVALID_VALUE) }
}

/// Limits that a driver refuses above a bound, by `CUlimit`: bytes of a thread's stack, of a fetch from L2.
const STACK: (u32, usize) = (0, 512 << 10);
const FETCH: (u32, usize) = (5, 128);
/// `CU_LIMIT_PERSISTING_L2_CACHE_SIZE` and the device's attribute that bounds it.
const PERSISTING_L2: u32 = 6;
const PERSISTING_L2_MAX: u32 = 108;
/// The last `CUlimit`.
const LIMIT_LAST: u32 = 9;

fn check_limit(limit: u32) -> CuResult<()> {
    if limit <= LIMIT_LAST { Ok(()) } else { Err(CuError::INVALID_VALUE) }
}

/// How often each context was attached to beside its making.
static ATTACHED: LazyLock<Mutex<HashMap<ContextId, u32>>> = LazyLock::new(Mutex::default);

/// A living context and an event, as a call names them.
fn context_and_event(context: ContextId, event: Raw) -> CuResult<(Entered, EventHandle, EventInfo)> {
    let process = process()?;
    let entered = enter_with(process, context)?;
    let event = EventHandle::check(event.0)?;
    let known = process.events.get(event)?;
    process.graphs.refuses_context(entered.context)?;
    Ok((entered, event, known))
}

/// Records an event behind all that a context, green or not, has to do.
pub fn record(context: ContextId, event: Raw) -> CuResult<()> {
    let (entered, event, known) = context_and_event(context, event)?;
    if known.recorded != Recorded::Queued {
        entered.process.events.set(event, EventInfo { recorded: Recorded::Queued, ..known })?;
    }
    entered.process.event_words.recorded_unseen(event);
    ask::cuCtxRecordEvent(&entered.process.channel, context, event)
}

/// Lets all that a context, green or not, is given from now on wait for an event.
pub fn wait(context: ContextId, event: Raw) -> CuResult<()> {
    let (entered, event, known) = context_and_event(context, event)?;
    entered.process.graphs.refuses_event(known)?;
    ask::cuCtxWaitEvent(&entered.process.channel, context, event)
}

/// The context that a call names; NULL is the current one.
fn named_or_current(raw: Raw) -> CuResult<ContextId> {
    match raw.0 {
        0 => Ok(current()),
        raw => process()?.contexts.named(raw),
    }
}

fn create(out: Out<u64>, flags: u32, dev: i32) -> CuResult<()> {
    let process = process()?;
    out.wanted()?;
    let (ordinal, _) = device(process, dev)?;
    check_flags(flags)?;
    process.channel.take_error()?;
    let context = process.contexts.next_id();
    ask::cuCtxCreate_v2(
        &process.channel,
        ContextId::NONE,
        context,
        flags,
        process.contexts.number(ordinal)?,
    )?;
    process.contexts.add(context, Created { device: ordinal, flags, green: None });
    contexts::push(context);
    out.set(context.handle().raw())
}

fn destroy(raw: Raw) -> CuResult<()> {
    let process = process()?;
    let context = process.contexts.once_named(raw.0)?;
    if context.primary_device().is_none() {
        process.contexts.alive(context)?;
    }
    if process.contexts.green(context).is_some() {
        // It is `cuGreenCtxDestroy`'s to end.
        return Err(CuError::INVALID_CONTEXT);
    }
    // Of two threads that destroy it, one.
    process.contexts.remove(context)?;
    lock(&ATTACHED).remove(&context);
    if current() == context {
        contexts::pop()?;
    }
    let result = ask::cuCtxDestroy_v2(&process.channel, ContextId::NONE, context);
    process.forget(context).run();
    result
}

fn synchronize(context: ContextId) -> CuResult<()> {
    let entered = enter_with(process()?, context)?;
    entered.process.graphs.may_wait_for_context(entered.context)?;
    ask::cuCtxSynchronize(&entered.process.channel, context)?;
    // What failed on the way is this call's to tell.
    entered.told()?;
    if entered.green == ContextId::NONE {
        waited::for_context(entered);
    }
    Ok(())
}

fn push(raw: Raw) -> CuResult<()> {
    contexts::push(process()?.contexts.once_named(raw.0)?);
    Ok(())
}

fn pop(out: Out<u64>) -> CuResult<()> {
    process()?;
    out.set_if_wanted(contexts::pop()?.handle().raw());
    Ok(())
}

fn device_of(out: Out<i32>, context: ContextId) -> CuResult<()> {
    let process = process()?;
    if context == ContextId::NONE {
        return Err(CuError::INVALID_CONTEXT);
    }
    out.set(process.contexts.device_of(context)?.cast_signed())
}

export! {
    fn cuCtxCreate(out: Out<u64>, flags: u32, dev: i32) {
        create(out, flags, dev)
    }

    fn cuCtxCreate_v2(out: Out<u64>, flags: u32, dev: i32) {
        create(out, flags, dev)
    }

    /// Execution affinity (a share of the multiprocessors) is MPS's: not offered.
    fn cuCtxCreate_v3(out: Out<u64>, _affinity: In<u8>, count: i32, flags: u32, dev: i32) {
        if count != 0 {
            return Err(CuError::UNSUPPORTED_EXEC_AFFINITY);
        }
        create(out, flags, dev)
    }

    fn cuCtxCreate_v4(out: Out<u64>, params: In<u8>, flags: u32, dev: i32) {
        // `CUctxCreateParams`: an array of execution affinities @0, its length @8, CIG parameters (shared graphics) @16.
        if !params.is_null() {
            let (affinities, cig) = (params.cast::<i32>(8).get()?, params.cast::<u64>(16).get()?);
            if affinities != 0 {
                return Err(CuError::UNSUPPORTED_EXEC_AFFINITY);
            }
            if cig != 0 {
                return Err(CuError::NOT_SUPPORTED);
            }
        }
        create(out, flags, dev)
    }

    fn cuCtxDestroy(context: Raw) {
        destroy(context)
    }

    fn cuCtxDestroy_v2(context: Raw) {
        destroy(context)
    }

    fn cuCtxGetCurrent(out: Out<u64>) {
        process()?;
        match current() {
            ContextId::NONE => out.set(0),
            context => out.set(context.handle().raw()),
        }
    }

    fn cuCtxSetCurrent(context: Raw) {
        let process = process()?;
        contexts::set_current(if context.0 == 0 { ContextId::NONE } else { process.contexts.once_named(context.0)? });
        Ok(())
    }

    fn cuCtxPushCurrent(context: Raw) {
        push(context)
    }

    fn cuCtxPushCurrent_v2(context: Raw) {
        push(context)
    }

    fn cuCtxPopCurrent(out: Out<u64>) {
        pop(out)
    }

    fn cuCtxPopCurrent_v2(out: Out<u64>) {
        pop(out)
    }

    fn cuCtxGetDevice(out: Out<i32>) {
        device_of(out, current())
    }

    fn cuCtxGetDevice_v2(out: Out<i32>, context: Raw) {
        device_of(out, named_or_current(context)?)
    }

    fn cuCtxGetFlags(out: Out<u32>) {
        let entered = enter()?;
        out.set(entered.process.contexts.flags(entered.context)?)
    }

    /// How a thread waits, and where: kept for who asks, this library waits in its own way.
    fn cuCtxSetFlags(flags: u32) {
        let entered = enter()?;
        check_flags(flags)?;
        entered.process.contexts.set_flags(entered.context, flags)
    }

    fn cuCtxGetId(context: Raw, out: Out<u64>) {
        let process = process()?;
        let context = if context.0 == 0 { current() } else { process.contexts.once_named(context.0)? };
        process.contexts.alive(context)?;
        out.set(u64::from(context.0))
    }

    fn cuCtxGetApiVersion(context: Raw, out: Out<u32>) {
        process()?.contexts.alive(named_or_current(context)?)?;
        // CUDA's own drivers have answered this since API version 3.2.
        out.set(3020)
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        let entered = enter()?;
        least.set_if_wanted(entered.process.snapshot.priority_least);
        greatest.set_if_wanted(entered.process.snapshot.priority_greatest);
        Ok(())
    }

    /// The preference means nothing on devices of the last ten years.
    fn cuCtxGetCacheConfig(out: Out<u32>) {
        enter()?;
        out.set(0)
    }

    fn cuCtxSetCacheConfig(config: u32) {
        enter()?;
        if config <= 3 { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }

    /// Banks of four bytes: the only size that devices have since compute capability 5.
    fn cuCtxGetSharedMemConfig(out: Out<u32>) {
        enter()?;
        out.set(1)
    }

    fn cuCtxSetSharedMemConfig(config: u32) {
        enter()?;
        if config <= 2 { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }

    fn cuCtxResetPersistingL2Cache() {
        enter().map(|_| ())
    }

    fn cuCtxGetLimit(out: Out<usize>, limit: u32) {
        let entered = enter()?;
        check_limit(limit)?;
        let Entered { process, context, .. } = entered;
        let value = process.limits.get(process, context, limit)?;
        out.set(usize::try_from(value).unwrap_or(usize::MAX))
    }

    fn cuCtxSetLimit(limit: u32, value: usize) {
        let Entered { process, context, device: ordinal, .. } = enter()?;
        check_limit(limit)?;
        let (_, device) = device(process, ordinal.cast_signed())?;
        let persisting = device.attribute(PERSISTING_L2_MAX).and_then(|most| usize::try_from(most).ok());
        let bounds = [STACK, FETCH, (PERSISTING_L2, persisting.unwrap_or(0))];
        if bounds.iter().any(|(bounded, most)| limit == *bounded && value > *most) {
            return Err(CuError::INVALID_VALUE);
        }
        process.graphs.may_be_unsafe()?;
        let set = ask::cuCtxSetLimit(&process.channel, context, limit, value as u64);
        process.limits.forget();
        set
    }

    fn cuCtxSynchronize() {
        synchronize(current())
    }

    fn cuCtxSynchronize_v2(context: Raw) {
        synchronize(named_or_current(context)?)
    }

    fn cuCtxAttach(out: Out<u64>, flags: u32) {
        let entered = enter()?;
        let out = out.wanted()?;
        if flags != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let mut attached = lock(&ATTACHED);
        let count = attached.entry(entered.named()).or_default();
        *count = count.checked_add(1).ok_or(CuError::INVALID_VALUE)?;
        out.set(entered.named().handle().raw())
    }

    /// The counterpart of attaching; without one it ends a context that was created.
    fn cuCtxDetach(raw: Raw) {
        let context = process()?.contexts.named(raw.0)?;
        if context != current() {
            return Err(CuError::INVALID_CONTEXT);
        }
        if let Some(count) = lock(&ATTACHED).get_mut(&context).filter(|count| **count > 0) {
            *count -= 1;
            return Ok(());
        }
        destroy(raw)
    }

    /// A share of the multiprocessors is MPS's and not offered: a context has all of them. `out`: the type and their number.
    fn cuCtxGetExecAffinity(out: Out<[i32; 2]>, kind: i32) {
        let entered = enter()?;
        out.wanted()?;
        // `CU_EXEC_AFFINITY_TYPE_SM_COUNT` is the only one.
        if kind != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        out.set([kind, multiprocessors(entered)?])
    }

    fn cuCtxRecordEvent(context: Raw, event: Raw) {
        record(process()?.contexts.named(context.0)?, event)
    }

    fn cuCtxWaitEvent(context: Raw, event: Raw) {
        wait(process()?.contexts.named(context.0)?, event)
    }
}
