//! Numbers of conditional nodes. They are the device's own, so a device has to have the graph that they are of before it is instantiated.

use std::collections::{HashMap, HashSet};

use vgpu_api::graph::{Conditional, GraphNode, GraphWork};
use vgpu_api::{Call, ContextId, CuError, CuResult};

use super::Graphs;
use super::node::Node;
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
    /// Those that the guest has ended while something could be launched of them: until that ends a device keeps them.
    ended: HashMap<Raw, OfGraph>,
    /// Numbers of all of these.
    count: usize,
}

#[derive(Debug)]
struct OfGraph {
    raw: Raw,
    /// There is something that can be launched of it: no more than one at a time. Source: cuda.h, `CU_GRAPH_NODE_TYPE_CONDITIONAL`.
    has_exec: bool,
    /// By context and number, which may be another graph's as well: how many there were before it.
    numbers: HashMap<(ContextId, u64), usize>,
    /// Those of its numbers, and of all nodes that it was given: it ends with any of them, and with it what can be launched.
    contexts: HashSet<ContextId>,
    /// Of the worker's memory: the device keeps the nodes that it was given last, whatever becomes of what was made of them.
    bytes: u64,
}

/// What of a conditional node never changes. Source: CUDA programming guide, limits of whole graph updates: handles are made, and given to
/// nodes, in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    order: usize,
    flavor: u32,
    bodies: u32,
}

/// The graph whose conditional nodes a list has: what the guest calls it, and the device.
pub(super) type Of = (u64, Raw);

impl Conditionals {
    /// The device's name of the graph that a node's number was made for.
    pub(super) fn graph_of(&self, conditional: &Conditional, context: ContextId) -> CuResult<Raw> {
        self.find(conditional, context).map(|(of, _)| of.raw)
    }

    pub(super) fn choice(&self, conditional: &Conditional, context: ContextId) -> CuResult<Choice> {
        let (_, order) = self.find(conditional, context)?;
        Ok(Choice { order, flavor: conditional.flavor, bodies: conditional.bodies })
    }

    fn find(&self, conditional: &Conditional, context: ContextId) -> CuResult<(&OfGraph, usize)> {
        let of = self.graphs.get(&conditional.graph).ok_or(CuError::INVALID_VALUE)?;
        let order = of.numbers.get(&(context, conditional.handle)).ok_or(CuError::INVALID_VALUE)?;
        Ok((of, *order))
    }

    /// The device's names of the graphs that end with a context.
    pub(super) fn ending_with(&self, context: ContextId) -> HashSet<Raw> {
        let all = self.graphs.values().chain(self.ended.values());
        all.filter(|of| of.contexts.contains(&context)).map(|of| of.raw).collect()
    }

    /// The graph, if the guest did not end it.
    fn get_mut(&mut self, (graph, raw): Of) -> Option<&mut OfGraph> {
        self.graphs.get_mut(&graph).filter(|of| of.raw == raw)
    }
}

impl Graphs {
    /// There is something that can be launched of a graph from now on, or no longer.
    pub(super) fn set_exec(&mut self, of: Option<Of>, has_exec: bool) {
        let Some(of) = of else { return };
        match self.conditionals.get_mut(of) {
            Some(known) => known.has_exec = has_exec,
            None if has_exec => {}
            None => self.conditionals.ended.remove(&of.1).iter().for_each(|ended| self.uncount(ended)),
        }
    }

    /// A graph is no more, here and on the device.
    fn uncount(&mut self, ended: &OfGraph) {
        self.conditionals.count -= ended.numbers.len();
        self.bytes -= ended.bytes;
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
        let of = known.graphs.get(&graph).map(|of| of.raw);
        let made = self.device.conditional_create(context, of, value, flags);
        let (raw, number) = self.settle(call.context, made)?;
        let known = &mut self.graphs.conditionals;
        let (numbers, contexts) = (HashMap::new(), HashSet::new());
        let new = OfGraph { raw, has_exec: false, numbers, contexts, bytes: 0 };
        let of = known.graphs.entry(graph).or_insert(new);
        of.contexts.insert(call.context);
        let order = of.numbers.len();
        if of.numbers.insert((call.context, number), order).is_none() {
            known.count += 1;
        }
        Ok(number)
    }

    /// One that the guest never had, or had in a context that has ended, is nothing to tell of.
    pub(in crate::worker::session) fn conditionals_end(&mut self, graph: u64) -> CuResult<()> {
        let known = &mut self.graphs.conditionals;
        let Some(of) = known.graphs.remove(&graph) else { return Ok(()) };
        let raw = of.raw;
        if of.has_exec {
            known.ended.insert(raw, of);
        } else {
            self.graphs.uncount(&of);
        }
        self.device.conditionals_destroy(raw)
    }

    /// A context ends, and what could be launched with it: graphs with numbers or nodes of it are no more.
    pub(in crate::worker::session) fn end_conditionals(&mut self, context: ContextId) {
        let graphs = self.graphs.conditionals.graphs.iter();
        let ended = graphs.filter(|(_, of)| of.contexts.contains(&context)).map(|(graph, _)| *graph);
        for graph in ended.collect::<Vec<_>>() {
            let _ = self.conditionals_end(graph);
        }
    }

    /// That the conditional nodes of a list can be: all are of one graph, each number is one node's, and bodies have what they may. The
    /// graph, if there are any.
    pub(super) fn check_conditionals(&self, nodes: &[GraphNode<'_>]) -> CuResult<Option<Of>> {
        let inside = nodes.iter().filter(|node| node.body.conditional().is_some());
        if inside.clone().any(|node| !node.work.fits_in_body()) {
            return Err(CuError::NOT_SUPPORTED);
        }
        let mut numbers = HashSet::new();
        let mut graph = None;
        for node in nodes {
            let GraphWork::Conditional(conditional) = &node.work else { continue };
            let of = (conditional.graph, self.graphs.conditionals.graph_of(conditional, node.context)?);
            let is_first = numbers.insert((node.context, conditional.handle));
            if !is_first || *graph.get_or_insert(of) != of {
                return Err(CuError::INVALID_VALUE);
            }
        }
        Ok(graph)
    }

    /// That nothing can be launched of it yet.
    pub(super) fn check_has_no_exec(&self, of: Option<Of>) -> CuResult<()> {
        let of = of.and_then(|(graph, _)| self.graphs.conditionals.graphs.get(&graph));
        if of.is_some_and(|of| of.has_exec) { Err(CuError::NOT_SUPPORTED) } else { Ok(()) }
    }

    /// Before the device is given the nodes of a graph, which took so many bytes of the worker's memory: it keeps the most that it was given.
    pub(super) fn reserve_kept(&mut self, of: Option<Of>, bytes: u64, nodes: &[Node]) -> CuResult<()> {
        let Some(known) = of.and_then(|of| self.graphs.conditionals.get_mut(of)) else { return Ok(()) };
        known.contexts.extend(nodes.iter().map(|node| node.context));
        let more = bytes.saturating_sub(known.bytes);
        self.graphs.reserve(more)?;
        if let Some(known) = of.and_then(|of| self.graphs.conditionals.get_mut(of)) {
            known.bytes += more;
        }
        Ok(())
    }
}
