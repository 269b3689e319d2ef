//! What calls ask of captures: whether their work is captured, whether they may be made at all.

use std::sync::atomic::Ordering;

use vgpu_api::{ContextId, CuError, CuResult, EventHandle, GraphHandle, Stream, StreamHandle};

use super::{Capture, Captures, GLOBAL, Joined, RELAXED, mode, this_thread};
use crate::core::contexts::Entered;
use crate::core::graphs::{Edge, Graphs, Inner, Need, Work};
use crate::core::process::{EventInfo, Recorded};

impl Graphs {
    /// Whether any stream of the process captures.
    #[inline]
    pub fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::Acquire) != 0
    }

    /// Makes a node of a work if `stream` captures; else the work is to be queued, and this says no.
    /// # Errors
    /// 901 in a capture that was invalidated; 906 for the legacy stream that would wait for one; what `work` gives.
    #[inline]
    pub fn captured(
        &self,
        entered: Entered,
        stream: Stream,
        work: impl FnOnce(&mut Inner) -> CuResult<Work>,
    ) -> CuResult<bool> {
        self.captured_with(entered, stream, false, work)
    }

    /// As [`Graphs::captured`]; `early`: a kernel that may begin before the kernels that it waits for have ended.
    /// # Errors
    /// As [`Graphs::captured`].
    #[inline]
    pub fn captured_with(
        &self,
        entered: Entered,
        stream: Stream,
        early: bool,
        work: impl FnOnce(&mut Inner) -> CuResult<Work>,
    ) -> CuResult<bool> {
        if !self.is_capturing() {
            return Ok(false);
        }
        self.lock().capture(entered, stream, early, |inner, _, _| work(inner))
    }

    /// As [`Graphs::captured`], with the graph that the node will be in and what it will wait for.
    /// # Errors
    /// As [`Graphs::captured`].
    pub fn captured_in(
        &self,
        entered: Entered,
        stream: Stream,
        work: impl FnOnce(&mut Inner, GraphHandle, &[Need]) -> CuResult<Work>,
    ) -> CuResult<bool> {
        if !self.is_capturing() {
            return Ok(false);
        }
        self.lock().capture(entered, stream, false, work)
    }

    /// A launch in `stream` was refused: it ends a capture, as what else is wrong with a call does not.
    #[cold]
    pub fn launch_refused(&self, entered: Entered, stream: Stream) {
        if !self.is_capturing() {
            return;
        }
        let mut inner = self.lock();
        if let Ok(Some((_, id))) = inner.capture_of(entered, stream) {
            inner.captures.invalidate(id);
        }
    }

    /// That work or a wait in `stream` may pass by the captures: what belongs in none.
    /// # Errors
    /// 900 if it captures, 906 for the legacy stream that would wait for one.
    #[inline]
    pub fn refuses(&self, entered: Entered, stream: Stream) -> CuResult<()> {
        if !self.is_capturing() {
            return Ok(());
        }
        self.captured(entered, stream, |_| Err(CuError::STREAM_CAPTURE_UNSUPPORTED)).map(|_| ())
    }

    /// That the calling thread may wait for `stream`, or ask how far it is.
    /// # Errors
    /// 900, 906.
    #[inline]
    pub fn may_wait(&self, entered: Entered, stream: Stream) -> CuResult<()> {
        if !self.is_capturing() {
            return Ok(());
        }
        self.refuses(entered, stream)?;
        self.may_be_unsafe()
    }

    /// That work for all streams of a context may pass by the captures.
    /// # Errors
    /// 900 while a stream of it captures.
    #[inline]
    pub fn refuses_context(&self, context: ContextId) -> CuResult<()> {
        if !self.is_capturing() {
            return Ok(());
        }
        let of_context = |capture: &Capture| capture.streams.values().any(|joined| joined.context == context);
        self.lock().captures.refuse_if(of_context, CuError::STREAM_CAPTURE_UNSUPPORTED)
    }

    /// That a context may be waited for.
    /// # Errors
    /// 900 while a stream of it captures.
    #[inline]
    pub fn may_wait_for_context(&self, context: ContextId) -> CuResult<()> {
        self.refuses_context(context)?;
        self.may_be_unsafe()
    }

    /// That all streams of a context may wait for an event.
    /// # Errors
    /// 900 for one of a capture that goes on, 1 for one of a capture that has ended.
    pub fn refuses_event(&self, known: EventInfo) -> CuResult<()> {
        let Recorded::Capture(id) = known.recorded else { return Ok(()) };
        let mut inner = self.lock();
        if !inner.captures.by_id.contains_key(&id) {
            return Err(CuError::INVALID_VALUE);
        }
        inner.captures.invalidate(id);
        Err(CuError::STREAM_CAPTURE_UNSUPPORTED)
    }

    /// That an event may be waited for by the thread, or asked.
    /// # Errors
    /// 907 for one of a capture that goes on, 1 for one of a capture that has ended; 900.
    #[inline]
    pub fn may_ask(&self, known: EventInfo) -> CuResult<()> {
        if let Recorded::Capture(id) = known.recorded {
            let mut inner = self.lock();
            if !inner.captures.by_id.contains_key(&id) {
                return Err(CuError::INVALID_VALUE);
            }
            inner.captures.invalidate(id);
            return Err(CuError::CAPTURED_EVENT);
        }
        self.may_be_unsafe()
    }

    /// That the calling thread may make a call that a replay of a capture would not repeat.
    /// # Errors
    /// 900: the captures that forbid it are invalidated.
    #[inline]
    pub fn may_be_unsafe(&self) -> CuResult<()> {
        if !self.is_capturing() || mode() == RELAXED {
            return Ok(());
        }
        let (mode, thread) = (mode(), this_thread());
        let forbids = |capture: &Capture| {
            let own = capture.thread == thread && capture.mode != RELAXED;
            own || (mode == GLOBAL && capture.thread != thread && capture.mode == GLOBAL)
        };
        self.lock().captures.refuse_if(forbids, CuError::STREAM_CAPTURE_UNSUPPORTED)
    }

    /// What there is in captures only.
    fn only_captured(&self, entered: Entered, stream: Stream, work: Work) -> CuResult<bool> {
        if self.captured(entered, stream, |_| Ok(work))? { Ok(true) } else { Err(CuError::ILLEGAL_STATE) }
    }

    /// `event` is recorded in `stream`: by a capture, and this says yes, or to be queued. `external`: a node records it at each launch.
    /// # Errors
    /// 901, 906; 401 for an external one outside of a capture.
    pub fn records(
        &self,
        entered: Entered,
        stream: Stream,
        event: EventHandle,
        known: EventInfo,
        external: bool,
    ) -> CuResult<bool> {
        if external {
            return self.only_captured(entered, stream, Work::Record(event));
        }
        let id = if self.is_capturing() { self.lock().mark(entered, stream, event)? } else { None };
        let recorded = id.map_or(Recorded::Queued, Recorded::Capture);
        if known.recorded != recorded {
            entered.process.events.set(event, EventInfo { recorded, ..known })?;
        }
        Ok(id.is_some())
    }

    /// `stream` waits for `event`: in a capture, and this says yes, or to be queued. `external`: a node waits for it at each launch.
    /// # Errors
    /// 901, 902, 905, 906, 907; 401 for an external one outside of a capture.
    pub fn waits(
        &self,
        entered: Entered,
        stream: Stream,
        event: EventHandle,
        known: EventInfo,
        external: bool,
    ) -> CuResult<bool> {
        if external {
            return self.only_captured(entered, stream, Work::Wait(event));
        }
        match known.recorded {
            // Nothing to wait for, so no node.
            Recorded::Never if self.is_capturing() => Ok(self.lock().capture_of(entered, stream)?.is_some()),
            Recorded::Never => Ok(false),
            // What was not captured cannot be waited for in a capture.
            Recorded::Queued => self.captured(entered, stream, |_| Err(CuError::STREAM_CAPTURE_ISOLATION)),
            Recorded::Capture(id) => {
                let mut inner = self.lock();
                let result = inner.join(entered, stream, event, id);
                let of_stream = match stream {
                    Stream::Made(stream) => inner.captures.by_stream.get(&stream).copied(),
                    Stream::Legacy => None,
                };
                if result.is_err() {
                    inner.captures.invalidate(id);
                    of_stream.into_iter().for_each(|of| inner.captures.invalidate(of));
                }
                result.map(|()| true)
            }
        }
    }
}

impl Captures {
    fn invalidate(&mut self, id: u64) {
        if let Some(capture) = self.by_id.get_mut(&id) {
            capture.invalid = true;
        }
    }

    /// Refuses a call with `error` if it breaks a rule of captures that go on: those are invalidated.
    fn refuse_if(&mut self, breaks: impl Fn(&Capture) -> bool, error: CuError) -> CuResult<()> {
        let mut result = Ok(());
        for capture in self.by_id.values_mut().filter(|capture| breaks(capture)) {
            capture.invalid = true;
            result = Err(error);
        }
        result
    }
}

impl Inner {
    /// The living capture of a stream.
    fn capture_of(&mut self, entered: Entered, stream: Stream) -> CuResult<Option<(StreamHandle, u64)>> {
        let Stream::Made(stream) = stream else {
            let blocks = |capture: &Capture| capture.blocks(entered.context);
            return self.captures.refuse_if(blocks, CuError::STREAM_CAPTURE_IMPLICIT).map(|()| None);
        };
        let Some(id) = self.captures.by_stream.get(&stream).copied() else { return Ok(None) };
        let capture = self.captures.by_id.get(&id).ok_or(CuError::UNKNOWN)?;
        if capture.invalid { Err(CuError::STREAM_CAPTURE_INVALIDATED) } else { Ok(Some((stream, id))) }
    }

    fn capture(
        &mut self,
        entered: Entered,
        stream: Stream,
        early: bool,
        work: impl FnOnce(&mut Self, GraphHandle, &[Need]) -> CuResult<Work>,
    ) -> CuResult<bool> {
        let Some((stream, id)) = self.capture_of(entered, stream)? else { return Ok(false) };
        let capture = self.captures.by_id.get_mut(&id).ok_or(CuError::UNKNOWN)?;
        let (graph, mut needs) = (capture.graph, capture.stream(stream)?.needs.clone());
        let added = work(self, graph, &needs).and_then(|work| {
            if early {
                let within = self.graph(graph)?;
                let is_kernel =
                    |place| within.get(place).is_some_and(|node| matches!(node.work, Work::Kernel(_)));
                for need in needs.iter_mut().filter(|need| need.edge.is_plain() && is_kernel(need.place)) {
                    need.edge = Edge::PROGRAMMATIC;
                }
            }
            self.add(graph, needs, work)
        });
        match added {
            Ok(node) => {
                let capture = self.captures.by_id.get_mut(&id).ok_or(CuError::UNKNOWN)?;
                capture.stream(stream)?.needs = vec![Need::all(node.place())];
                Ok(true)
            }
            Err(error) => {
                // Parameters that are wrong are the call's own matter.
                if error != CuError::INVALID_VALUE && error != CuError::INVALID_HANDLE {
                    self.captures.invalidate(id);
                }
                Err(error)
            }
        }
    }

    /// An event is recorded: the capture that it stands for, if the stream captures.
    fn mark(&mut self, entered: Entered, stream: Stream, event: EventHandle) -> CuResult<Option<u64>> {
        let Some((stream, id)) = self.capture_of(entered, stream)? else { return Ok(None) };
        let capture = self.captures.by_id.get_mut(&id).ok_or(CuError::UNKNOWN)?;
        let needs = capture.stream(stream)?.needs.clone();
        capture.events.insert(event, needs);
        Ok(Some(id))
    }

    /// A stream waits for an event of the capture `id`, and joins it.
    fn join(&mut self, entered: Entered, stream: Stream, event: EventHandle, id: u64) -> CuResult<()> {
        let within = self.capture_of(entered, stream)?;
        let Some(capture) = self.captures.by_id.get_mut(&id) else {
            // That capture has ended.
            return Err(match within {
                Some(_) => CuError::STREAM_CAPTURE_ISOLATION,
                None => CuError::INVALID_VALUE,
            });
        };
        if capture.invalid {
            return Err(CuError::STREAM_CAPTURE_INVALIDATED);
        }
        let needs = capture.events.get(&event).cloned().ok_or(CuError::CAPTURED_EVENT)?;
        match (stream, within) {
            (Stream::Legacy, _) => Err(CuError::STREAM_CAPTURE_IMPLICIT),
            (Stream::Made(stream), None) => {
                capture.streams.insert(stream, Joined::new(entered.process, stream, needs)?);
                self.captures.by_stream.insert(stream, id);
                Ok(())
            }
            (Stream::Made(stream), Some((_, own))) if own == id => {
                capture.stream(stream)?.add(&needs);
                Ok(())
            }
            (Stream::Made(_), Some(_)) => Err(CuError::STREAM_CAPTURE_MERGE),
        }
    }
}
