//! Streams. Making and ending is only queued. Captures: `capture.rs`.

use vgpu_api::handle::GoneHandle;
use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, EventHandle, Stream, StreamHandle, ask};

use super::stream_attribute;
use crate::abi::{Out, Raw, export};
use crate::core::contexts::{Entered, enter, enter_to_end};
use crate::core::process::StreamInfo;
use crate::core::streams::{create, info, resolve};
use crate::core::waited;

/// `CU_STREAM_NON_BLOCKING`.
const FLAGS: u32 = 1;
/// `CU_EVENT_WAIT_EXTERNAL`.
const WAIT_EXTERNAL: u32 = 1;

fn make(out: Out<u64>, flags: u32, priority: i32) -> CuResult<()> {
    let entered = enter()?;
    out.wanted()?;
    if flags & !FLAGS != 0 {
        return Err(CuError::INVALID_VALUE);
    }
    // Out of range is cut, not refused: CUDA's contract.
    let (greatest, least) =
        (entered.process.snapshot.priority_greatest, entered.process.snapshot.priority_least);
    let priority = priority.max(greatest).min(least);
    out.set(create(entered, flags, priority)?.raw())
}

fn destroy(raw: Raw) -> CuResult<()> {
    let entered = enter_to_end()?;
    let (channel, stream) = (&entered.process.channel, StreamHandle::check(raw.0)?);
    entered.process.graphs.stream_ended(stream);
    entered.process.streams.end(stream, |known| {
        stream_attribute::forget(&known);
        ask::cuStreamDestroy_v2(channel, known.context, GoneHandle(stream))
    })??;
    entered.told()
}

fn known(raw: Raw, mode: Mode) -> CuResult<(Entered, StreamInfo)> {
    let entered = enter()?;
    Ok((entered, info(entered, raw.0, mode)?))
}

/// A stream that exists: what waits for it, or changes what is known here, can say 400 at once.
pub fn existing(entered: Entered, raw: Raw, mode: Mode) -> CuResult<Stream> {
    let stream = resolve(entered, raw.0, mode)?;
    if let Stream::Made(handle) = stream {
        entered.process.streams.get(handle)?;
    }
    Ok(stream)
}

export! {
    fn cuStreamCreate(out: Out<u64>, flags: u32) {
        make(out, flags, 0)
    }

    fn cuStreamCreateWithPriority(out: Out<u64>, flags: u32, priority: i32) {
        make(out, flags, priority)
    }

    fn cuStreamDestroy(stream: Raw) {
        destroy(stream)
    }

    fn cuStreamDestroy_v2(stream: Raw) {
        destroy(stream)
    }

    fn cuStreamSynchronize | cuStreamSynchronize_ptsz(mode, stream: Raw) {
        let entered = enter()?;
        let stream = existing(entered, stream, mode)?;
        entered.process.graphs.may_wait(entered, stream)?;
        if waited::is_over(entered, stream) {
            return Ok(());
        }
        ask::cuStreamSynchronize(&entered.process.channel, entered.context, stream)?;
        entered.told()?;
        waited::for_stream(entered, stream);
        Ok(())
    }

    fn cuStreamQuery | cuStreamQuery_ptsz(mode, stream: Raw) {
        let entered = enter()?;
        let stream = existing(entered, stream, mode)?;
        entered.process.graphs.may_wait(entered, stream)?;
        if waited::is_over(entered, stream) {
            return Ok(());
        }
        ask::cuStreamQuery(&entered.process.channel, entered.context, stream)
    }

    fn cuStreamWaitEvent | cuStreamWaitEvent_ptsz(mode, stream: Raw, event: Raw, flags: u32) {
        let entered = enter()?;
        let stream = existing(entered, stream, mode)?;
        let event = EventHandle::check(event.0)?;
        let known = entered.process.events.get(event)?;
        if flags & !WAIT_EXTERNAL != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        if entered.process.graphs.waits(entered, stream, event, known, flags == WAIT_EXTERNAL)? {
            return Ok(());
        }
        ask::cuStreamWaitEvent(&entered.process.channel, entered.context, stream, event, flags)?;
        if known.is_shared { super::event::settled(entered, event) } else { Ok(()) }
    }

    fn cuStreamGetPriority | cuStreamGetPriority_ptsz(mode, stream: Raw, out: Out<i32>) {
        out.set(known(stream, mode)?.1.priority)
    }

    fn cuStreamGetFlags | cuStreamGetFlags_ptsz(mode, stream: Raw, out: Out<u32>) {
        out.set(known(stream, mode)?.1.flags)
    }

    fn cuStreamGetId | cuStreamGetId_ptsz(mode, stream: Raw, out: Out<u64>) {
        out.set(known(stream, mode)?.1.id)
    }

    fn cuStreamGetDevice | cuStreamGetDevice_ptsz(mode, stream: Raw, out: Out<i32>) {
        let (entered, known) = known(stream, mode)?;
        out.set(entered.process.contexts.device_of(known.context)?.cast_signed())
    }

    fn cuStreamGetCtx | cuStreamGetCtx_ptsz(mode, stream: Raw, out: Out<u64>) {
        out.set(known(stream, mode)?.1.context.handle().raw())
    }

    /// No stream belongs to a green context: there are none.
    fn cuStreamGetCtx_v2 | cuStreamGetCtx_v2_ptsz(mode, stream: Raw, out: Out<u64>, green: Out<u64>) {
        out.set(known(stream, mode)?.1.context.handle().raw())?;
        green.set_if_wanted(0);
        Ok(())
    }
}
