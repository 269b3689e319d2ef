//! Conditional nodes of graphs: their numbers and their bodies (`core/graphs/conditional.rs`).

use vgpu_api::{CuError, CuResult};

use super::graph_memory::tell;
use super::graph_nodes::{Needs, add};
use super::graph_work::{UNION, entered_with};
use crate::abi::{In, Out, Raw, export};
use crate::core::graphs::Work;
use crate::core::process::process;

/// `CU_GRAPH_COND_ASSIGN_DEFAULT`, the only flag.
const ASSIGN: u32 = 1;

/// `CUDA_CONDITIONAL_NODE_PARAMS`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ConditionalParams {
    handle: u64,
    flavor: u32,
    size: u32,
    graphs: u64,
    context: Raw,
}
const _: () = assert!(size_of::<ConditionalParams>() == 32);

/// A node of a `CUgraphNodeParams`, which is told where its bodies are.
pub fn add_conditional(out: Out<u64>, graph: Raw, needs: Needs, given: In<u8>) -> CuResult<()> {
    let ConditionalParams { handle, flavor, size, context, .. } = given.cast(UNION).get()?;
    let context = entered_with(context)?.context;
    let mut shown = 0;
    add(out, graph, needs, |inner, graph, _| {
        let choice = inner.choice(graph, context, handle, (flavor, size))?;
        shown = choice.shown();
        Ok(Work::Choice(Box::new(choice)))
    })?;
    tell(given, UNION + std::mem::offset_of!(ConditionalParams, graphs), shown)
}

export! {
    fn cuGraphConditionalHandleCreate(out: Out<u64>, graph: Raw, context: Raw, value: u32, flags: u32) {
        let process = process()?;
        out.wanted()?;
        if flags & !ASSIGN != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let context = entered_with(context)?.context;
        let mut inner = process.graphs.lock();
        let graph = inner.named(graph.0)?;
        out.set(inner.number(process, graph, context, value, flags)?)
    }
}
