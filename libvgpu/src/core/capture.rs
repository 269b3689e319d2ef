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

mod queued;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use vgpu_api::{
    ContextId, CuError, CuResult, EventHandle, GraphHandle, GraphNodeHandle, Stream, StreamHandle,
};

use super::contexts::Entered;
use super::graphs::{Edge, Graphs, Inner, Need, Owner};
use super::process::Process;

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
    /// Begins a capture of `stream`, into a new graph or into one of the program's.
    /// # Errors
    /// 1 for a mode that there is not; 400; 401 if the stream captures, or another into the graph; 2.
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
        let within = inner.graph_mut(graph)?;
        if within.captured {
            return Err(CuError::ILLEGAL_STATE);
        }
        within.captured = true;
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
}

impl Inner {
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
