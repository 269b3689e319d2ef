//! Streams. Making and ending is only queued. Captures: `capture.rs`.

use vgpu_api::handle::GoneHandle;
use vgpu_api::symbols::Mode;
use vgpu_api::{ContextId, CuError, CuResult, EventHandle, Stream, StreamHandle, ask};

use super::green::green_handle;
use super::stream_attribute;
use crate::abi::{Out, Raw, export};
use crate::core::contexts::{Entered, enter, enter_to_end};
use crate::core::process::StreamInfo;
use crate::core::streams::{self, create, info, resolve};
use crate::core::waited;

/// `CU_STREAM_NON_BLOCKING`.
const FLAGS: u32 = 1;
/// `CU_EVENT_WAIT_EXTERNAL`.
const WAIT_EXTERNAL: u32 = 1;

fn make(out: Out<u64>, flags: u32, priority: i32) -> CuResult<()> {
    let entered = enter()?;
    make_in(entered, out, flags, priority)
}

/// A stream of a context, green or not.
pub fn make_in(entered: Entered, out: Out<u64>, flags: u32, priority: i32) -> CuResult<()> {
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
    streams::known(entered.process, stream)?;
    entered.process.graphs.stream_ended(stream);
    entered.process.streams.end(stream, |known| {
        stream_attribute::forget(&known);
        ask::cuStreamDestroy_v2(channel, known.context, GoneHandle(stream))
    })??;
    entered.told()
}

/// What is known of a stream as a call names it.
pub fn known(raw: Raw, mode: Mode) -> CuResult<(Entered, StreamInfo)> {
    let entered = enter()?;
    Ok((entered, info(entered, raw.0, mode)?))
}

/// A stream that exists: what waits for it, or changes what is known here, can say 400 at once.
pub fn existing(entered: Entered, raw: Raw, mode: Mode) -> CuResult<Stream> {
    let stream = resolve(entered, raw.0, mode)?;
    if let Stream::Made(handle) = stream {
        streams::known(entered.process, handle)?;
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
        let known = known(stream, mode)?.1;
        let context = if known.green == ContextId::NONE { known.context } else { known.green };
        out.set(context.handle().raw())
    }

    fn cuStreamGetCtx_v2 | cuStreamGetCtx_v2_ptsz(mode, stream: Raw, out: Out<u64>, green: Out<u64>) {
        let known = known(stream, mode)?.1;
        out.set(known.context.handle().raw())?;
        green.set_if_wanted(green_handle(known.green));
        Ok(())
    }
}
