//! Captures: what is given to a stream that captures becomes a node of a graph and does not run. The worker knows nothing of it, so no
//! question about a capture travels, and no rule depends on which of the worker's threads makes a call.
//!
//! ```text
//!  none ──begin──► active ──end──► none, with a graph
//!                    │ a call that breaks a rule (900, 902, 905, 906)
//!                    └──► invalidated (901 from every use) ──end (901)──► none
//! ```
//! An event that is recorded in a capture stands for the stream's nodes of that moment; a stream that waits for it joins the capture.
//! While no capture is active a call pays one load for all of this.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use vgpu_api::{
    ContextId, CuError, CuResult, EventHandle, GraphHandle, GraphNodeHandle, Stream, StreamHandle,
};

use super::contexts::Entered;
use super::graphs::{Edge, Graphs, Inner, Need, Owner, Work};
use super::process::{EventInfo, Process, Recorded};

/// `CUstreamCaptureMode`.
pub const GLOBAL: u32 = 0;
pub const RELAXED: u32 = 2;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

thread_local! {
    static MODE: Cell<u32> = const { Cell::new(GLOBAL) };
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// The calling thread's mode.
pub fn mode() -> u32 {
    MODE.get()
}

/// Changes the calling thread's mode.
pub fn set_mode(mode: u32) {
    MODE.set(mode);
}

/// A number that no other thread has.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let known = THREAD.get();
    if known != 0 {
        return known;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    THREAD.set(number);
    number
}

/// The captures that go on.
#[derive(Debug, Default)]
pub struct Captures {
    last: u64,
    by_id: HashMap<u64, Capture>,
    by_stream: HashMap<StreamHandle, u64>,
}

/// One capture.
#[derive(Debug)]
struct Capture {
    graph: GraphHandle,
    /// The graph was the program's before.
    into: bool,
    mode: u32,
    thread: u64,
    origin: StreamHandle,
    invalid: bool,
    streams: HashMap<StreamHandle, Joined>,
    /// Recorded in it and not recorded again.
    events: HashMap<EventHandle, Vec<Need>>,
}

/// A stream in a capture.
#[derive(Debug)]
struct Joined {
    context: ContextId,
    blocking: bool,
    /// What its next node waits for.
    needs: Vec<Need>,
    /// As the program was shown them last.
    shown: (Box<[u64]>, Box<[Edge]>),
}

/// What a program asks about a stream.
#[derive(Debug, Clone, Copy)]
pub enum Status {
    None,
    Active { id: u64, graph: GraphHandle },
    Invalidated,
}

impl Capture {
    fn blocks(&self, context: ContextId) -> bool {
        self.streams.values().any(|joined| joined.blocking && joined.context == context)
    }

    fn stream(&mut self, stream: StreamHandle) -> CuResult<&mut Joined> {
        self.streams.get_mut(&stream).ok_or(CuError::UNKNOWN)
    }
}

impl Joined {
    fn new(process: &Process, stream: StreamHandle, needs: Vec<Need>) -> CuResult<Self> {
        let info = process.streams.get(stream)?;
        let shown = (Box::default(), Box::default());
        Ok(Self { context: info.context, blocking: info.flags & NON_BLOCKING == 0, needs, shown })
    }

    fn add(&mut self, needs: &[Need]) {
        for need in needs {
            if !self.needs.iter().any(|known| known.place == need.place) {
                self.needs.push(*need);
            }
        }
    }
}

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
        self.lock().capture(entered, stream, early, work)
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

    /// Begins a capture of `stream`, into a new graph or into one of the program's.
    /// # Errors
    /// 1 for a mode that there is not; 400; 401 if the stream captures; 2.
    pub fn begin(
        &self,
        entered: Entered,
        stream: StreamHandle,
        mode: u32,
        into: Option<(GraphHandle, Vec<Need>)>,
    ) -> CuResult<()> {
        if mode > RELAXED {
            return Err(CuError::INVALID_VALUE);
        }
        let mut inner = self.lock();
        if inner.captures.by_stream.contains_key(&stream) {
            return Err(CuError::ILLEGAL_STATE);
        }
        let is_into = into.is_some();
        let (graph, needs) = match into {
            None => (None, Vec::new()),
            Some((graph, needs)) => (Some(graph), needs),
        };
        let joined = Joined::new(entered.process, stream, needs)?;
        let graph = match graph {
            Some(graph) => graph,
            None => inner.make(Owner::Capture)?,
        };
        inner.graph_mut(graph)?.captured = true;
        let captures = &mut inner.captures;
        captures.last += 1;
        let id = captures.last;
        captures.by_stream.insert(stream, id);
        let capture = Capture {
            graph,
            into: is_into,
            mode,
            thread: this_thread(),
            origin: stream,
            invalid: false,
            streams: HashMap::from([(stream, joined)]),
            events: HashMap::new(),
        };
        captures.by_id.insert(id, capture);
        self.capturing.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Ends the capture that began in `stream`; its graph.
    /// # Errors
    /// 401 if the stream doesn't capture, 903 if the capture began in another, 908 from another thread; then it goes on. 901, 904: it
    /// has ended, and its graph with it.
    pub fn finish(&self, stream: StreamHandle) -> CuResult<GraphHandle> {
        let mut inner = self.lock();
        let id = *inner.captures.by_stream.get(&stream).ok_or(CuError::ILLEGAL_STATE)?;
        let capture = inner.captures.by_id.get_mut(&id).ok_or(CuError::UNKNOWN)?;
        if capture.origin != stream {
            capture.invalid = true;
            return Err(CuError::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != RELAXED && capture.thread != this_thread() {
            return Err(CuError::STREAM_CAPTURE_WRONG_THREAD);
        }
        let Some(capture) = self.take(&mut inner, id) else { return Err(CuError::UNKNOWN) };
        let result = if capture.invalid {
            Err(CuError::STREAM_CAPTURE_INVALIDATED)
        } else {
            inner
                .is_joined(&capture)
                .and_then(|joined| if joined { Ok(()) } else { Err(CuError::STREAM_CAPTURE_UNJOINED) })
        };
        match result {
            Ok(()) if !capture.into => inner.graph_mut(capture.graph)?.owner = Owner::Program,
            Err(_) if !capture.into => inner.end(capture.graph),
            // It stays whose it was; a child graph may have gone with its node.
            Ok(()) => inner.graph(capture.graph).map(|_| ())?,
            Err(_) => {}
        }
        result.map(|()| capture.graph)
    }

    /// Takes a capture out of the tables.
    fn take(&self, inner: &mut Inner, id: u64) -> Option<Capture> {
        let capture = inner.captures.by_id.remove(&id)?;
        inner.captures.by_stream.retain(|_, of| *of != id);
        self.capturing.fetch_sub(1, Ordering::Release);
        if let Ok(graph) = inner.graph_mut(capture.graph) {
            graph.captured = false;
        }
        Some(capture)
    }

    /// A stream ends. Its capture cannot be finished as it was meant; with its first stream it ends.
    pub fn stream_ended(&self, stream: StreamHandle) {
        if !self.is_capturing() {
            return;
        }
        let mut inner = self.lock();
        let Some(id) = inner.captures.by_stream.remove(&stream) else { return };
        let Some(capture) = inner.captures.by_id.get_mut(&id) else { return };
        capture.invalid = true;
        capture.streams.remove(&stream);
        if capture.origin == stream {
            let ended = self.take(&mut inner, id);
            if let Some(capture) = ended.filter(|capture| !capture.into) {
                inner.end(capture.graph);
            }
        }
    }

    /// A context ends, and its streams with it.
    pub fn context_ended(&self, context: ContextId) {
        if !self.is_capturing() {
            return;
        }
        let inner = self.lock();
        let of_context = |capture: &Capture| {
            let gone = capture.streams.iter().filter(|(_, joined)| joined.context == context);
            gone.map(|(stream, _)| *stream).collect::<Vec<_>>()
        };
        let gone: Vec<StreamHandle> = inner.captures.by_id.values().flat_map(of_context).collect();
        drop(inner);
        gone.into_iter().for_each(|stream| self.stream_ended(stream));
    }

    /// Whether `stream` captures.
    /// # Errors
    /// 906 for the legacy stream beside one that captures; no capture is invalidated by the question.
    pub fn status(&self, entered: Entered, stream: Stream) -> CuResult<Status> {
        if !self.is_capturing() {
            return Ok(Status::None);
        }
        let inner = self.lock();
        let captures = &inner.captures;
        match stream {
            Stream::Legacy if captures.by_id.values().any(|capture| capture.blocks(entered.context)) => {
                Err(CuError::STREAM_CAPTURE_IMPLICIT)
            }
            Stream::Legacy => Ok(Status::None),
            Stream::Made(handle) => {
                let id = captures.by_stream.get(&handle);
                Ok(match id.and_then(|id| Some((*id, captures.by_id.get(id)?))) {
                    None => Status::None,
                    Some((_, Capture { invalid: true, .. })) => Status::Invalidated,
                    Some((id, capture)) => Status::Active { id, graph: capture.graph },
                })
            }
        }
    }

    /// What the next node of a stream that captures will wait for: addresses of the nodes and of their edges, good until the stream is
    /// used again, and how many there are. `plain`: the program does not ask for edges.
    /// # Errors
    /// 402 if the edges say more than that there is one.
    pub fn shown(&self, stream: StreamHandle, plain: bool) -> CuResult<(u64, u64, usize)> {
        let mut inner = self.lock();
        let captures = &mut inner.captures;
        let id = captures.by_stream.get(&stream).ok_or(CuError::UNKNOWN)?;
        let capture = captures.by_id.get_mut(id).ok_or(CuError::UNKNOWN)?;
        let graph = capture.graph;
        let joined = capture.stream(stream)?;
        if plain && joined.needs.iter().any(|need| !need.edge.is_plain()) {
            return Err(CuError::LOSSY_QUERY);
        }
        let raw = |need: &Need| GraphNodeHandle::of_graph(graph, need.place).raw();
        joined.shown =
            (joined.needs.iter().map(raw).collect(), joined.needs.iter().map(|need| need.edge).collect());
        let (nodes, edges) = (&joined.shown.0, &joined.shown.1);
        let (nodes, edges) = (nodes.as_ptr().expose_provenance(), edges.as_ptr().expose_provenance());
        Ok((nodes as u64, edges as u64, joined.needs.len()))
    }

    /// Adds to what the next node of a stream waits for, or puts others in its place. `needs` makes them of the capture's graph.
    /// # Errors
    /// 401 if the stream does not capture, 901; what `needs` gives.
    pub fn set_needs(
        &self,
        stream: Stream,
        replace: bool,
        needs: impl FnOnce(&Inner, GraphHandle) -> CuResult<Vec<Need>>,
    ) -> CuResult<()> {
        let mut inner = self.lock();
        let Stream::Made(stream) = stream else { return Err(CuError::ILLEGAL_STATE) };
        let id = *inner.captures.by_stream.get(&stream).ok_or(CuError::ILLEGAL_STATE)?;
        let capture = inner.captures.by_id.get(&id).ok_or(CuError::UNKNOWN)?;
        if capture.invalid {
            return Err(CuError::STREAM_CAPTURE_INVALIDATED);
        }
        let needs = needs(&inner, capture.graph)?;
        let joined = inner.captures.by_id.get_mut(&id).ok_or(CuError::UNKNOWN)?.stream(stream)?;
        if replace {
            joined.needs.clear();
        }
        joined.add(&needs);
        Ok(())
    }

    /// `event` is recorded in `stream`: by a capture, and this says yes, or to be queued. `external`: a node records it at each launch.
    /// # Errors
    /// 901, 906.
    pub fn records(
        &self,
        entered: Entered,
        stream: Stream,
        event: EventHandle,
        known: EventInfo,
        external: bool,
    ) -> CuResult<bool> {
        if external && self.captured(entered, stream, |_| Ok(Work::Record(event)))? {
            return Ok(true);
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
    /// 901, 902, 905, 906, 907.
    pub fn waits(
        &self,
        entered: Entered,
        stream: Stream,
        event: EventHandle,
        known: EventInfo,
        external: bool,
    ) -> CuResult<bool> {
        if external && self.captured(entered, stream, |_| Ok(Work::Wait(event)))? {
            return Ok(true);
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
        work: impl FnOnce(&mut Self) -> CuResult<Work>,
    ) -> CuResult<bool> {
        let Some((stream, id)) = self.capture_of(entered, stream)? else { return Ok(false) };
        let added = work(self).and_then(|work| {
            let capture = self.captures.by_id.get_mut(&id).ok_or(CuError::UNKNOWN)?;
            let (graph, mut needs) = (capture.graph, capture.stream(stream)?.needs.clone());
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

    /// Whether all that its streams did comes before the end of the first stream.
    fn is_joined(&self, capture: &Capture) -> CuResult<bool> {
        if capture.streams.len() <= 1 {
            return Ok(true);
        }
        let graph = self.graph(capture.graph)?;
        let mut reached = std::collections::HashSet::new();
        let origin = capture.streams.get(&capture.origin).ok_or(CuError::UNKNOWN)?;
        let mut next: Vec<u32> = origin.needs.iter().map(|need| need.place).collect();
        while let Some(place) = next.pop() {
            if reached.insert(place)
                && let Some(node) = graph.get(place)
            {
                next.extend(node.needs.iter().map(|need| need.place));
            }
        }
        let mut others = capture.streams.values().flat_map(|joined| &joined.needs);
        Ok(others.all(|need| reached.contains(&need.place)))
    }
}
