//! Events (`CudaEvent` where the word could be mistaken). Recording and waiting in a stream is queued; asking waits for a reply, unless a word
//! that the device has written tells (`core/event_words.rs`).

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, EventHandle, ask};

use crate::abi::{Out, Raw, export};
use crate::core::contexts::{Entered, enter, enter_with};
use crate::core::event_words::Standing;
use crate::core::process::{EventInfo, Recorded, process};
use crate::core::streams::{context_of, resolve};

/// `CU_EVENT_BLOCKING_SYNC`, `_DISABLE_TIMING`, `_INTERPROCESS`.
const FLAGS: u32 = 7;
const DISABLE_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;
/// `CU_EVENT_RECORD_EXTERNAL`.
const RECORD_EXTERNAL: u32 = 1;

fn existing(raw: Raw) -> CuResult<(Entered, EventHandle, EventInfo)> {
    let entered = enter()?;
    let event = EventHandle::check(raw.0)?;
    Ok((entered, event, entered.process.events.get(event)?))
}

/// One that the thread waits for or asks: in the event's own context, so by threads without one too. PyTorch's allocator of pinned memory
/// asks from whatever thread allocates.
fn asked(raw: Raw) -> CuResult<(Entered, EventHandle)> {
    let process = process()?;
    let event = EventHandle::check(raw.0)?;
    let known = process.events.get(event)?;
    let entered = enter_with(process, known.context)?;
    process.graphs.may_ask(known)?;
    Ok((entered, event))
}

fn destroy(raw: Raw) -> CuResult<()> {
    let process = process()?;
    let (channel, event) = (&process.channel, EventHandle::check(raw.0)?);
    process.events.end(event, |known| {
        process.event_words.ended(event);
        ask::cuEventDestroy_v2(channel, known.context, GoneHandle(event))
    })??;
    channel.take_error()
}

/// Waits until the worker has looked at what was queued with a shared event: what another process does with it from now on comes after
/// that. The work itself is not waited for.
pub fn settled(entered: Entered, event: EventHandle) -> CuResult<()> {
    match ask::cuEventQuery(&entered.process.channel, entered.context, event) {
        Err(CuError::NOT_READY) => Ok(()),
        answer => answer,
    }
}

fn record(event: Raw, stream: Raw, flags: u32, mode: Mode) -> CuResult<()> {
    let (entered, event, known) = existing(event)?;
    let stream = resolve(entered, stream.0, mode)?;
    if flags & !RECORD_EXTERNAL != 0 {
        return Err(CuError::INVALID_VALUE);
    }
    // In a stream of its own context only.
    if context_of(entered, stream)? != known.context {
        return Err(CuError::INVALID_HANDLE);
    }
    if entered.process.graphs.records(entered, stream, event, known, flags == RECORD_EXTERNAL)? {
        return Ok(());
    }
    // Outside of what, where nothing is captured?
    if flags == RECORD_EXTERNAL {
        return Err(CuError::ILLEGAL_STATE);
    }
    let words = &entered.process.event_words;
    let written = words.write(entered, event, stream)?;
    ask::cuEventRecordWithFlags(&entered.process.channel, entered.context, event, stream, flags)?;
    words.recorded(event, written);
    if known.is_shared { settled(entered, event) } else { Ok(()) }
}

fn elapsed(out: Out<f32>, start: Raw, end: Raw) -> CuResult<()> {
    let (entered, start) = asked(start)?;
    let (_, end) = asked(end)?;
    let is_timed = |event| entered.process.events.get(event).is_ok_and(|known| known.is_timed);
    if !is_timed(start) || !is_timed(end) {
        return Err(CuError::INVALID_HANDLE);
    }
    let Entered { process, context, .. } = entered;
    let elapsed = || ask::cuEventElapsedTime_v2(&process.channel, context, start, end);
    let first = elapsed();
    if first != Err(CuError::NOT_READY) {
        return out.set(first?);
    }
    // A word comes a moment before its record: what the program was told to be reached is so here, too.
    for event in [start, end] {
        if process.event_words.is_reached(process, event) {
            ask::cuEventSynchronize(&process.channel, context, event)?;
        }
    }
    out.set(elapsed()?)
}

export! {
    fn cuEventCreate(out: Out<u64>, flags: u32) {
        let entered = enter()?;
        out.wanted()?;
        let (is_timed, is_shared) = (flags & DISABLE_TIMING == 0, flags & INTERPROCESS != 0);
        // What is shared has to be without times. Source: CUDA Driver API, `cuEventCreate`.
        if flags & !FLAGS != 0 || (is_shared && is_timed) {
            return Err(CuError::INVALID_VALUE);
        }
        let Entered { process, context, .. } = entered;
        // Where others record it nobody here knows.
        let recorded = if is_shared { Recorded::Queued } else { Recorded::Never };
        let event = process.events.insert(EventInfo { context, recorded, is_timed, is_shared });
        match ask::cuEventCreate(&process.channel, context, NewHandle(event), flags) {
            Ok(()) => out.set(event.raw()),
            Err(error) => process.events.end(event, |_| Err(error))?,
        }
    }

    fn cuEventDestroy(event: Raw) {
        destroy(event)
    }

    fn cuEventDestroy_v2(event: Raw) {
        destroy(event)
    }

    fn cuEventRecord | cuEventRecord_ptsz(mode, event: Raw, stream: Raw) {
        record(event, stream, 0, mode)
    }

    fn cuEventRecordWithFlags | cuEventRecordWithFlags_ptsz(mode, event: Raw, stream: Raw, flags: u32) {
        record(event, stream, flags, mode)
    }

    fn cuEventQuery(event: Raw) {
        let (entered, event) = asked(event)?;
        let words = &entered.process.event_words;
        // Another process may have recorded it.
        if entered.process.events.get(event)?.is_shared {
            return ask::cuEventQuery(&entered.process.channel, entered.context, event);
        }
        match words.standing(entered.process, event) {
            Standing::Reached => return Ok(()),
            Standing::NotReached => return Err(CuError::NOT_READY),
            Standing::Unknown => {}
        }
        let answer = ask::cuEventQuery(&entered.process.channel, entered.context, event);
        words.answered(entered, event, answer.is_ok());
        answer
    }

    fn cuEventSynchronize(event: Raw) {
        let (entered, event) = asked(event)?;
        ask::cuEventSynchronize(&entered.process.channel, entered.context, event)?;
        entered.process.channel.take_error()
    }

    fn cuEventElapsedTime(out: Out<f32>, start: Raw, end: Raw) {
        elapsed(out, start, end)
    }

    fn cuEventElapsedTime_v2(out: Out<f32>, start: Raw, end: Raw) {
        elapsed(out, start, end)
    }
}
