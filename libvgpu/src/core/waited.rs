//! What a thread has just waited for: a wait for the same, when nothing was queued since, needs no reply. Programs copy to pageable memory,
//! which waits, and then wait for the copy's stream.
//!
//! Nothing newer: no record of any thread, in whatever stream, since the call that waited. So nothing can be missed that is ordered by
//! other streams, the legacy stream, events or graphs, and another thread's work counts as soon as that thread's call has returned.

use std::cell::Cell;

use vgpu_api::{ContextId, Stream};

use super::channel::Moment;
use super::contexts::Entered;

/// A wait that succeeded.
#[derive(Clone, Copy)]
struct Waited {
    /// Just behind the call that waited.
    at: Moment,
    context: ContextId,
    /// `None`: for all of the context.
    stream: Option<Stream>,
}

thread_local! {
    static LAST: Cell<Option<Waited>> = const { Cell::new(None) };
}

/// The call that this thread has just been answered waited for all that `stream` held, and nothing failed.
pub fn for_stream(entered: Entered, stream: Stream) {
    note(entered, Some(stream));
}

/// The same of a whole context, the one of `entered`.
pub fn for_context(entered: Entered) {
    note(entered, None);
}

fn note(entered: Entered, stream: Option<Stream>) {
    LAST.set(Some(Waited { at: entered.process.channel.answered(), context: entered.context, stream }));
}

/// Whether a wait for `stream` would be over at once. The legacy stream is the current context's; one that was made may be another's.
pub fn is_over(entered: Entered, stream: Stream) -> bool {
    let same = |waited: Waited| match (waited.stream, stream) {
        (Some(Stream::Made(then)), Stream::Made(now)) => then == now,
        (Some(Stream::Legacy) | None, Stream::Legacy) => waited.context == entered.context,
        (None, Stream::Made(made)) => {
            entered.process.streams.get(made).is_ok_and(|known| known.context == waited.context)
        }
        _ => false,
    };
    LAST.get().is_some_and(|waited| entered.process.channel.is_newest(waited.at) && same(waited))
}
