//! Stream capture: begin, end, questions. What is captured: `core/capture.rs`.

use vgpu_api::symbols::Mode;
use vgpu_api::{CuError, CuResult, GraphHandle, Stream};

use super::stream::existing;
use crate::abi::{In, Out, Raw, export};
use crate::core::capture::{self, GLOBAL, RELAXED, Status};
use crate::core::contexts::{Entered, enter};
use crate::core::graphs::{Edge, Inner, Need};
use crate::core::process::process;
use crate::core::streams::is_legacy_of_green;

/// `CUstreamCaptureStatus`.
const NONE: u32 = 0;
const ACTIVE: u32 = 1;
const INVALIDATED: u32 = 2;
/// `CU_STREAM_SET_CAPTURE_DEPENDENCIES`; 0 adds.
const SET: u32 = 1;

/// What a program lists for a node of `graph` to wait for.
pub fn needs_of(
    inner: &Inner,
    graph: GraphHandle,
    nodes: In<u64>,
    edges: In<Edge>,
    count: usize,
) -> CuResult<Vec<Need>> {
    let need = |i: usize| {
        let place = inner.place_in(graph, nodes.at(i)?)?;
        let edge = if edges.is_null() { Edge::default() } else { edges.at(i)? };
        Ok(Need { place, edge })
    };
    (0..count).map(need).collect()
}

fn begin(
    raw: Raw,
    mode: Mode,
    capture_mode: u32,
    into: Option<(Raw, In<u64>, In<Edge>, usize)>,
) -> CuResult<()> {
    let entered = enter()?;
    let Stream::Made(stream) = existing(entered, raw, mode)? else {
        return Err(CuError::STREAM_CAPTURE_UNSUPPORTED);
    };
    if is_legacy_of_green(entered, stream) {
        return Err(CuError::STREAM_CAPTURE_UNSUPPORTED);
    }
    let graphs = &entered.process.graphs;
    let into = match into {
        None => None,
        Some((graph, nodes, edges, count)) => {
            let inner = graphs.lock();
            let handle = inner.named(graph.0)?;
            let needs = needs_of(&inner, handle, nodes, edges, count)?;
            Some((handle, needs))
        }
    };
    graphs.begin(entered, stream, capture_mode, into)
}

fn end(raw: Raw, mode: Mode, out: Out<u64>) -> CuResult<()> {
    let entered = enter()?;
    let Stream::Made(stream) = existing(entered, raw, mode)? else {
        return Err(CuError::ILLEGAL_STATE);
    };
    let ended = entered.process.graphs.finish(stream);
    out.set_if_wanted(ended.map_or(0, GraphHandle::raw));
    match ended {
        Ok(graph) if out.address() == 0 => entered.process.graphs.lock().destroy(graph),
        ended => ended.map(|_| ()),
    }
}

/// Where the answers about a capture go; places that are not wanted are null.
struct Answers {
    status: Out<u32>,
    id: Out<u64>,
    graph: Option<Out<u64>>,
    needs: Option<Shown>,
}

/// Where what the next node waits for is shown.
struct Shown {
    nodes: Out<u64>,
    /// Older forms have none.
    edges: Option<Out<u64>>,
    count: Out<usize>,
}

fn info(raw: Raw, mode: Mode, answers: &Answers) -> CuResult<()> {
    let (entered, stream) = asked(raw, mode)?;
    answers.status.wanted()?;
    let Answers { status, id, graph, needs } = answers;
    match entered.process.graphs.status(entered, stream)? {
        Status::None => status.set(NONE),
        Status::Invalidated => status.set(INVALIDATED),
        Status::Active { id: number, graph: handle } => {
            if let (Some(Shown { nodes, edges, count }), Stream::Made(stream)) = (needs, stream) {
                let plain = nodes.wanted().is_ok() && edges.is_none_or(|edges| edges.wanted().is_err());
                let shown = entered.process.graphs.shown(stream, plain)?;
                nodes.set_if_wanted(shown.0);
                if let Some(edges) = edges {
                    edges.set_if_wanted(shown.1);
                }
                count.set_if_wanted(shown.2);
            }
            id.set_if_wanted(number);
            if let Some(graph) = graph {
                graph.set_if_wanted(handle.raw());
            }
            status.set(ACTIVE)
        }
    }
}

fn asked(raw: Raw, mode: Mode) -> CuResult<(Entered, Stream)> {
    let entered = enter()?;
    Ok((entered, existing(entered, raw, mode)?))
}

fn update(raw: Raw, mode: Mode, nodes: In<u64>, edges: In<Edge>, count: usize, flags: u32) -> CuResult<()> {
    let (entered, stream) = asked(raw, mode)?;
    if flags > SET {
        return Err(CuError::INVALID_VALUE);
    }
    let graphs = &entered.process.graphs;
    graphs.set_needs(stream, flags == SET, |inner, graph| needs_of(inner, graph, nodes, edges, count))
}

/// No edges are given.
pub fn no_edges() -> In<Edge> {
    // SAFETY: null is always allowed.
    unsafe { In::from_raw(std::ptr::null()) }
}

export! {
    fn cuThreadExchangeStreamCaptureMode(capture_mode: Out<u32>) {
        process()?;
        let wanted = capture_mode.replace(capture::mode())?;
        if wanted > RELAXED {
            capture_mode.set(wanted)?;
            return Err(CuError::INVALID_VALUE);
        }
        capture::set_mode(wanted);
        Ok(())
    }

    fn cuStreamBeginCapture | cuStreamBeginCapture_ptsz(mode, stream: Raw) {
        begin(stream, mode, GLOBAL, None)
    }

    fn cuStreamBeginCapture_v2 | cuStreamBeginCapture_v2_ptsz(mode, stream: Raw, capture_mode: u32) {
        begin(stream, mode, capture_mode, None)
    }

    fn cuStreamBeginCaptureToGraph | cuStreamBeginCaptureToGraph_ptsz(
        mode, stream: Raw, graph: Raw, nodes: In<u64>, edges: In<Edge>, count: usize, capture_mode: u32,
    ) {
        begin(stream, mode, capture_mode, Some((graph, nodes, edges, count)))
    }

    fn cuStreamEndCapture | cuStreamEndCapture_ptsz(mode, stream: Raw, out: Out<u64>) {
        end(stream, mode, out)
    }

    fn cuStreamIsCapturing | cuStreamIsCapturing_ptsz(mode, stream: Raw, status: Out<u32>) {
        let (entered, stream) = asked(stream, mode)?;
        status.wanted()?.set(match entered.process.graphs.status(entered, stream)? {
            Status::None => NONE,
            Status::Active { .. } => ACTIVE,
            Status::Invalidated => INVALIDATED,
        })
    }

    fn cuStreamGetCaptureInfo | cuStreamGetCaptureInfo_ptsz(mode, stream: Raw, status: Out<u32>, id: Out<u64>) {
        info(stream, mode, &Answers { status, id, graph: None, needs: None })
    }

    fn cuStreamGetCaptureInfo_v2 | cuStreamGetCaptureInfo_v2_ptsz(
        mode, stream: Raw, status: Out<u32>, id: Out<u64>, graph: Out<u64>, nodes: Out<u64>, count: Out<usize>,
    ) {
        info(stream, mode, &Answers { status, id, graph: Some(graph), needs: Some(Shown { nodes, edges: None, count }) })
    }

    fn cuStreamGetCaptureInfo_v3 | cuStreamGetCaptureInfo_v3_ptsz(
        mode, stream: Raw, status: Out<u32>, id: Out<u64>, graph: Out<u64>, nodes: Out<u64>, edges: Out<u64>,
        count: Out<usize>,
    ) {
        info(stream, mode, &Answers { status, id, graph: Some(graph), needs: Some(Shown { nodes, edges: Some(edges), count }) })
    }

    fn cuStreamUpdateCaptureDependencies | cuStreamUpdateCaptureDependencies_ptsz(
        mode, stream: Raw, nodes: In<u64>, count: usize, flags: u32,
    ) {
        update(stream, mode, nodes, no_edges(), count, flags)
    }

    fn cuStreamUpdateCaptureDependencies_v2 | cuStreamUpdateCaptureDependencies_v2_ptsz(
        mode, stream: Raw, nodes: In<u64>, edges: In<Edge>, count: usize, flags: u32,
    ) {
        update(stream, mode, nodes, edges, count, flags)
    }
}
