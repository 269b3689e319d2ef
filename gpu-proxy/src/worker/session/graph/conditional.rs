//! Numbers of conditional nodes. They are the device's own, so a device has to have the graph that they are of before it is instantiated.

use std::collections::{HashMap, HashSet};

use vgpu_api::graph::{Conditional, GraphNode, GraphWork};
use vgpu_api::{Call, ContextId, CuError, CuResult};

use crate::device::Raw;
use crate::worker::session::Session;

/// Numbers of one process at once.
const NUMBERS_MAX: usize = 1 << 16;
/// `CU_GRAPH_COND_ASSIGN_DEFAULT`, the only flag.
const FLAGS: u32 = 1;

/// All of the process, by what the guest calls the graph.
#[derive(Debug, Default)]
pub(super) struct Conditionals {
    graphs: HashMap<u64, OfGraph>,
    /// By context and number: of which graph. Only in its context a number is no other's.
    numbers: HashMap<(ContextId, u64), u64>,
    /// Numbers of all graphs. A device may give one again once what was made of its graph has ended.
    count: usize,
}

#[derive(Debug)]
struct OfGraph {
    raw: Raw,
    /// It has been instantiated, which it is once.
    is_used: bool,
    numbers: Vec<(ContextId, u64)>,
}

impl Conditionals {
    /// The device's name of the graph that a node's number was made for.
    pub(super) fn graph_of(&self, number: u64, context: ContextId) -> CuResult<Raw> {
        let graph = self.numbers.get(&(context, number)).ok_or(CuError::INVALID_VALUE)?;
        self.graphs.get(graph).map(|of| of.raw).ok_or(CuError::INVALID_VALUE)
    }
}

impl Session {
    pub(in crate::worker::session) fn conditional_create(
        &mut self,
        call: Call,
        graph: u64,
        value: u32,
        flags: u32,
    ) -> CuResult<u64> {
        let context = self.context(call.context)?;
        if flags & !FLAGS != 0 {
            return Err(CuError::INVALID_VALUE);
        }
        let known = &self.graphs.conditionals;
        if known.count >= NUMBERS_MAX {
            return Err(CuError::OUT_OF_MEMORY);
        }
        let of = known.graphs.get(&graph);
        if of.is_some_and(|of| of.is_used) {
            return Err(CuError::NOT_SUPPORTED);
        }
        let of = of.map(|of| of.raw);
        let made = self.device.conditional_create(context, of, value, flags);
        let (raw, number) = self.settle(call.context, made)?;
        let known = &mut self.graphs.conditionals;
        let new = OfGraph { raw, is_used: false, numbers: Vec::new() };
        known.graphs.entry(graph).or_insert(new).numbers.push((call.context, number));
        known.numbers.insert((call.context, number), graph);
        known.count += 1;
        Ok(number)
    }

    /// One that the guest never had, or had in a context that has ended, is nothing to tell of.
    pub(in crate::worker::session) fn conditionals_end(&mut self, graph: u64) -> CuResult<()> {
        let known = &mut self.graphs.conditionals;
        let Some(of) = known.graphs.remove(&graph) else { return Ok(()) };
        known.count -= of.numbers.len();
        for number in of.numbers {
            if known.numbers.get(&number) == Some(&graph) {
                known.numbers.remove(&number);
            }
        }
        self.device.conditionals_end(of.raw)
    }

    /// A context ends: graphs with numbers of it can be made no more.
    pub(in crate::worker::session) fn end_conditionals(&mut self, context: ContextId) {
        let is_of = |of: &OfGraph| of.numbers.iter().any(|(owner, _)| *owner == context);
        let graphs = self.graphs.conditionals.graphs.iter();
        let ended: Vec<u64> = graphs.filter(|(_, of)| is_of(of)).map(|(graph, _)| *graph).collect();
        for graph in ended {
            let _ = self.conditionals_end(graph);
        }
    }

    /// That the conditional nodes of a list can be made: all are of one graph, which was not instantiated yet, each number is one node's,
    /// and bodies have what they may. The graph, if there are any.
    pub(super) fn check_conditionals(&self, nodes: &[GraphNode<'_>]) -> CuResult<Option<u64>> {
        let inside = nodes.iter().filter(|node| node.body.conditional().is_some());
        if inside.clone().any(|node| !node.work.fits_in_body()) {
            return Err(CuError::NOT_SUPPORTED);
        }
        let numbers: Vec<(ContextId, u64)> =
            nodes.iter().filter_map(|node| Some((node.context, of(&node.work)?.handle))).collect();
        let known = &self.graphs.conditionals;
        let graphs: HashSet<u64> =
            numbers.iter().filter_map(|number| known.numbers.get(number).copied()).collect();
        let different: HashSet<&(ContextId, u64)> = numbers.iter().collect();
        if graphs.len() > 1 || different.len() != numbers.len() {
            return Err(CuError::INVALID_VALUE);
        }
        let graph = graphs.into_iter().next();
        match graph.and_then(|graph| known.graphs.get(&graph)) {
            Some(of) if of.is_used => Err(CuError::NOT_SUPPORTED),
            _ => Ok(graph),
        }
    }

    /// The device is asked for what is instantiated: whatever it says, its graph has nodes from now on.
    pub(super) fn use_conditionals(&mut self, graph: Option<u64>) {
        if let Some(of) = graph.and_then(|graph| self.graphs.conditionals.graphs.get_mut(&graph)) {
            of.is_used = true;
        }
    }
}

fn of<'a>(work: &'a GraphWork<'_>) -> Option<&'a Conditional> {
    match work {
        GraphWork::Conditional(conditional) => Some(conditional),
        _ => None,
    }
}
