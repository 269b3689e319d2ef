//! What graphs do on a device that computes nothing: functions of the guest, none of which is held for the session, as with NVIDIA's
//! driver, and words that are written and waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use vgpu_api::{CuResult, MemoryOp};

use super::{Null, Step};
use crate::device::{DeviceNode, DeviceWork, Graphs as DeviceGraphs, Place, Raw, Streams};

/// A function of the guest's.
pub(super) type Called = Weak<dyn Fn() + Send + Sync>;

/// By graph and node.
#[derive(Default)]
pub(super) struct Graphs(HashMap<Raw, BTreeMap<u32, Work>>);

enum Work {
    Call(Called),
    Words(Vec<MemoryOp>),
}

impl std::fmt::Debug for Graphs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Graphs {
    pub(super) fn set(&mut self, graph: Raw, node: u32, work: &DeviceWork<'_>) {
        let work = match work {
            DeviceWork::Host(function) => Work::Call(Arc::downgrade(function)),
            DeviceWork::Words(ops) => Work::Words(ops.clone()),
            _ => return,
        };
        self.0.entry(graph).or_default().insert(node, work);
    }

    pub(super) fn set_all(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) {
        (0..).zip(nodes).for_each(|(place, node)| self.set(graph, place, &node.work));
    }

    /// All words of a graph, and all functions.
    pub(super) fn of(&self, graph: Raw) -> (Vec<MemoryOp>, Vec<Called>) {
        let (mut words, mut functions) = (Vec::new(), Vec::new());
        for work in self.0.get(&graph).into_iter().flat_map(BTreeMap::values) {
            match work {
                Work::Call(function) => functions.push(function.clone()),
                Work::Words(ops) => words.extend_from_slice(ops),
            }
        }
        (words, functions)
    }

    pub(super) fn remove(&mut self, graph: Raw) {
        self.0.remove(&graph);
    }
}

impl DeviceGraphs for Null {
    fn conditional_create(
        &mut self,
        _context: Raw,
        of: Option<Raw>,
        _value: u32,
        _flags: u32,
    ) -> CuResult<(Raw, u64)> {
        let of = of.unwrap_or_else(|| self.name());
        let last = self.numbers.entry(of).or_default();
        *last += 1;
        Ok((of, *last))
    }

    fn conditionals_destroy(&mut self, of: Raw) -> CuResult<()> {
        self.numbers.remove(&of);
        Ok(())
    }

    fn graph_instantiate(&mut self, nodes: &[DeviceNode<'_>], _flags: u64) -> CuResult<Raw> {
        let name = self.name();
        self.graphs.set_all(name, nodes);
        Ok(name)
    }

    fn graph_update(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        self.refuse(Step::GraphChange)?;
        self.graphs.set_all(graph, nodes);
        Ok(())
    }

    fn graph_set(&mut self, graph: Raw, node: u32, _context: Raw, work: &DeviceWork<'_>) -> CuResult<()> {
        self.refuse(Step::GraphChange)?;
        self.graphs.set(graph, node, work);
        Ok(())
    }

    fn graph_enable(&mut self, _graph: Raw, _node: u32, _enabled: bool) -> CuResult<()> {
        Ok(())
    }

    fn graph_put(&mut self, _graph: Raw, _node: u32, _offset: u64, _bytes: &[u8]) -> CuResult<()> {
        Ok(())
    }

    fn graph_get(&mut self, _graph: Raw, _node: u32, _offset: u64, bytes: &mut [u8]) -> CuResult<()> {
        bytes.fill(0);
        Ok(())
    }

    fn graph_upload(&mut self, _place: Place, _graph: Raw) -> CuResult<()> {
        Ok(())
    }

    fn graph_launch(&mut self, place: Place, graph: Raw) -> CuResult<()> {
        self.queue(place);
        let (words, functions) = self.graphs.of(graph);
        self.stream_memory(place, &words)?;
        if !functions.is_empty() {
            self.run_in_order(move || {
                functions.iter().filter_map(Weak::upgrade).for_each(|function| function());
            });
        }
        Ok(())
    }

    fn graph_destroy(&mut self, graph: Raw) -> CuResult<()> {
        self.graphs.remove(graph);
        Ok(())
    }
}
