//! Which stream a call means: 0 is the default stream, which is the legacy one or, in the entries with `_ptsz` or `_ptds`, the thread's; 1 is
//! the legacy one by name (`CU_STREAM_LEGACY`), 2 the thread's (`CU_STREAM_PER_THREAD`).
//!
//! The per-thread default stream never travels: each thread makes an ordinary blocking stream for it at its first use, and ends
//! it when it ends.
//!
//! While a green context is current the legacy stream is that context's, which has a handle of its own that programs never see; there is no
//! per-thread one.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use vgpu_api::handle::{GoneHandle, NewHandle};
use vgpu_api::symbols::Mode;
use vgpu_api::{ContextId, CuError, CuResult, Stream, StreamHandle, ask};

use super::contexts::Entered;
use super::process::{Process, StreamInfo, process};

/// `CU_STREAM_LEGACY`.
pub const LEGACY: u64 = 1;
/// What NVIDIA's driver 580 says for the id of every context's legacy stream; streams that are made have larger ones.
pub const LEGACY_ID: u64 = 7;
/// `CU_STREAM_PER_THREAD`.
pub const PER_THREAD: u64 = 2;

/// The per-thread streams of one thread.
struct Mine {
    streams: Vec<(ContextId, StreamHandle)>,
    /// Of the table of streams, when they were all there.
    epoch: u64,
}

thread_local! {
    static MINE: RefCell<Mine> = const { RefCell::new(Mine { streams: Vec::new(), epoch: 0 }) };
}

impl Drop for Mine {
    fn drop(&mut self) {
        let Ok(process) = process() else { return };
        for (context, stream) in self.streams.drain(..) {
            process.graphs.stream_ended(stream);
            // The process or the context may be going away with the thread: then the worker ends the stream itself.
            let _ = process
                .streams
                .end(stream, |_| ask::cuStreamDestroy_v2(&process.channel, context, GoneHandle(stream)));
        }
    }
}

/// The stream that a program's number names in a call of mode `mode`.
/// # Errors
/// 400 for what is no stream. A stream that was destroyed is found out by the worker.
#[inline]
pub fn resolve(entered: Entered, raw: u64, mode: Mode) -> CuResult<Stream> {
    match (raw, mode) {
        (0, Mode::Legacy) | (LEGACY, _) if entered.green == ContextId::NONE => Ok(Stream::Legacy),
        (0, Mode::Legacy) | (LEGACY, _) => legacy_of_green(entered).map(Stream::Made),
        (0, Mode::PerThread) | (PER_THREAD, _) => per_thread(entered).map(Stream::Made),
        _ => StreamHandle::check(raw).map(Stream::Made),
    }
}

#[cold]
fn legacy_of_green(entered: Entered) -> CuResult<StreamHandle> {
    let green = entered.process.contexts.green(entered.green).ok_or(CuError::CONTEXT_IS_DESTROYED)?;
    Ok(green.stream)
}

/// Whether it is the legacy stream of the current green context, which captures no more than any legacy stream.
pub fn is_legacy_of_green(entered: Entered, stream: StreamHandle) -> bool {
    entered.green != ContextId::NONE && legacy_of_green(entered) == Ok(stream)
}

/// What is known of a stream that was made.
/// # Errors
/// 400; 709 if it was made in a green context that has ended, until its number is given again.
pub fn known(process: &Process, stream: StreamHandle) -> CuResult<StreamInfo> {
    let known = process.streams.get(stream)?;
    if known.green != ContextId::NONE {
        process.contexts.created(known.green).map_err(|_| CuError::CONTEXT_IS_DESTROYED)?;
    }
    Ok(known)
}

/// What the guest knows of a stream: flags, priority, context.
/// # Errors
/// As [`known`].
pub fn info(entered: Entered, raw: u64, mode: Mode) -> CuResult<StreamInfo> {
    match resolve(entered, raw, mode)? {
        // NVIDIA's ids of the two special streams are their handles' numbers.
        Stream::Legacy => Ok(legacy_info(entered.context, ContextId::NONE)),
        Stream::Made(handle) => known(entered.process, handle),
    }
}

/// What is known of a context's legacy stream.
pub fn legacy_info(context: ContextId, green: ContextId) -> StreamInfo {
    StreamInfo { context, green, flags: 0, priority: 0, id: LEGACY_ID }
}

/// The context that a stream's work runs in.
/// # Errors
/// 400.
pub fn context_of(entered: Entered, stream: Stream) -> CuResult<ContextId> {
    match stream {
        Stream::Legacy => Ok(entered.context),
        Stream::Made(handle) => entered.process.streams.get(handle).map(|known| known.context),
    }
}

/// Makes a stream: the number is ours, the message is only queued.
pub fn create(entered: Entered, flags: u32, priority: i32) -> CuResult<StreamHandle> {
    static NEXT_ID: AtomicU64 = AtomicU64::new(16);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let Entered { process, context, green, .. } = entered;
    let handle = process.streams.insert(StreamInfo { context, green, flags, priority, id });
    match ask::cuStreamCreateWithPriority(
        &process.channel,
        entered.named(),
        NewHandle(handle),
        flags,
        priority,
    ) {
        Ok(()) => Ok(handle),
        Err(error) => process.streams.end(handle, |_| Err(error))?,
    }
}

fn per_thread(entered: Entered) -> CuResult<StreamHandle> {
    if entered.green != ContextId::NONE {
        return Err(CuError::INVALID_HANDLE);
    }
    let known = MINE.try_with(|mine| {
        let mut mine = mine.borrow_mut();
        let epoch = entered.process.streams.epoch();
        if mine.epoch != epoch {
            // A context that ended has ended its streams.
            mine.streams.retain(|(_, stream)| entered.process.streams.get(*stream).is_ok());
            mine.epoch = epoch;
        }
        mine.streams.iter().find(|(context, _)| *context == entered.context).map(|(_, stream)| *stream)
    });
    if let Ok(Some(stream)) = known {
        return Ok(stream);
    }
    let stream = create(entered, 0, 0)?;
    // In a thread whose locals are gone the stream is used once; the worker ends it with the context.
    let _ = MINE.try_with(|mine| mine.borrow_mut().streams.push((entered.context, stream)));
    Ok(stream)
}
