//! What graphs do on a device that computes nothing: functions of the guest, none of which is held for the session, as with NVIDIA's
//! driver, and words that are written and waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use vgpu_api::MemoryOp;

use crate::device::{DeviceNode, DeviceWork, Raw};

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
