//! Conditional nodes: numbers that the device gives for them, and their bodies, graphs that belong to the node.

use vgpu_api::graph::Conditional;
use vgpu_api::{ContextId, CuError, CuResult, GraphHandle, ask};

use super::{Inner, Owner};
use crate::core::process::Process;

/// A conditional node.
#[derive(Clone, Debug)]
pub struct Choice {
    pub context: ContextId,
    pub conditional: Conditional,
    pub bodies: Box<[GraphHandle]>,
    /// As the program is shown them, as long as the node lives.
    shown: Box<[u64]>,
}

impl Choice {
    /// Where the program finds the bodies.
    pub fn shown(&self) -> u64 {
        self.shown.as_ptr().expose_provenance() as u64
    }
}

/// Numbers that were made for nodes of a graph, and of bodies in it.
#[derive(Debug)]
pub struct Numbers {
    process: &'static Process,
    graph: GraphHandle,
    /// Each with its context, and whether a node has it.
    all: Vec<(u64, ContextId, bool)>,
}

impl Drop for Numbers {
    fn drop(&mut self) {
        // Who is gone needs not be told.
        let _ = ask::vgpuConditionalsEnd(&self.process.channel, ContextId::NONE, self.graph.raw());
    }
}

impl Inner {
    /// The graph in whose bodies `graph` lies; `graph` itself, if it is none.
    /// # Errors
    /// 801 in a child graph.
    fn whole(&self, graph: GraphHandle) -> CuResult<GraphHandle> {
        let mut at = graph;
        while let Some(outer) = self.graph(at)?.body_of {
            at = outer;
        }
        if self.graph(at)?.owner == Owner::Another { Err(CuError::NOT_SUPPORTED) } else { Ok(at) }
    }

    /// A number for a conditional node of a graph.
    /// # Errors
    /// 801 in a child graph; what the worker says.
    pub fn number(
        &mut self,
        process: &'static Process,
        graph: GraphHandle,
        context: ContextId,
        value: u32,
        flags: u32,
    ) -> CuResult<u64> {
        let graph = self.whole(graph)?;
        let number = ask::vgpuConditionalCreate(&process.channel, context, graph.raw(), value, flags)?;
        let numbers = &mut self.graph_mut(graph)?.numbers;
        let numbers = numbers.get_or_insert_with(|| Numbers { process, graph, all: Vec::new() });
        numbers.all.push((number, context, false));
        Ok(number)
    }

    /// The work of a conditional node, whose number is its own from now on.
    /// # Errors
    /// 1 for what is none, a number that was not made for the graph in this context or that a node has; 2.
    pub fn choice(
        &mut self,
        graph: GraphHandle,
        context: ContextId,
        handle: u64,
        (flavor, bodies): (u32, u32),
    ) -> CuResult<Choice> {
        let whole = self.whole(graph)?;
        let conditional = Conditional { graph: whole.raw(), handle, flavor, bodies };
        conditional.check()?;
        let numbers = self.graph_mut(whole)?.numbers.as_mut().ok_or(CuError::INVALID_VALUE)?;
        let own = (conditional.handle, context, false);
        let place = numbers.all.iter().position(|each| *each == own).ok_or(CuError::INVALID_VALUE)?;
        let mut bodies = Vec::new();
        for _ in 0..conditional.bodies {
            let made = self.make(Owner::Another).and_then(|body| {
                self.graph_mut(body)?.body_of = Some(graph);
                Ok(body)
            });
            match made {
                Ok(body) => bodies.push(body),
                Err(error) => {
                    bodies.into_iter().for_each(|body| self.end(body));
                    return Err(error);
                }
            }
        }
        if let Some(numbers) = &mut self.graph_mut(whole)?.numbers {
            numbers.all[place].2 = true;
        }
        let shown = bodies.iter().map(|body| body.raw()).collect();
        Ok(Choice { context, conditional, bodies: bodies.into(), shown })
    }

    /// That no number is left over. Source: cuda.h, `cuGraphConditionalHandleCreate`: then an instantiation may fail.
    /// # Errors
    /// 1.
    pub fn check_numbers(&self, graph: GraphHandle) -> CuResult<()> {
        let numbers = self.graph(graph)?.numbers.as_ref();
        let all_used = numbers.is_none_or(|numbers| numbers.all.iter().all(|(_, _, is_used)| *is_used));
        if all_used { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }
}
