//! Graphs of the driver, as they are built. A captured one and one of single nodes are the same to it, so every graph is made of single
//! nodes here. What is instantiated of it: `graph_exec.rs`.

use std::collections::HashMap;
use std::ptr;

use vgpu_api::graph::GraphEdge;
use vgpu_api::{CuError, CuResult};

use super::conditionals;
use super::graph_params::{copy_params, fill_params, host_params, with_kernel, with_words};
use super::graph_set::set_attributes;
use super::table::{EdgeData, NULL, Ptr, Table};
use super::{Cuda, Pointer};
use crate::device::{DeviceNode, DeviceWork};

/// Ends a graph of the driver, unless it is kept.
pub(super) struct Template<'a> {
    pub(super) table: &'a Table,
    pub(super) graph: Ptr,
}

impl Template<'_> {
    pub(super) fn keep(self) -> Ptr {
        let graph = self.graph;
        std::mem::forget(self);
        graph
    }
}

impl Drop for Template<'_> {
    fn drop(&mut self) {
        // SAFETY: a graph that `graph_build` made and nobody else has.
        let _ = unsafe { self.table.cuGraphDestroy(self.graph) };
    }
}

/// Nodes of a graph of the driver's, by place.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) nodes: Vec<Pointer>,
    /// By the place of their conditional node.
    bodies: HashMap<usize, Vec<Pointer>>,
}

fn named(edge: &GraphEdge, built: &[Pointer]) -> CuResult<Ptr> {
    built.get(edge.from as usize).map(|node| node.0).ok_or(CuError::INVALID_VALUE)
}

/// What all of which a node waits for.
fn plain_needs(node: &DeviceNode<'_>, built: &[Pointer]) -> CuResult<Vec<Ptr>> {
    node.needs.iter().filter(|edge| edge.is_plain()).map(|edge| named(edge, built)).collect()
}

impl Cuda {
    /// A graph of the driver with these nodes, and the driver's names of them.
    pub(super) fn graph_build(
        &mut self,
        nodes: &[DeviceNode<'_>],
        hosts: &mut HashMap<u32, Box<[u8]>>,
    ) -> CuResult<(Ptr, Vec<Pointer>)> {
        let mut graph = NULL;
        // SAFETY: the driver writes a pointer to a variable of ours.
        unsafe { self.table.cuGraphCreate(&raw mut graph, 0) }?;
        let mut built = Built::default();
        let added = (0..).zip(nodes).try_for_each(|(place, node)| {
            let host = hosts.get_mut(&place).map_or(NULL, |host| host.as_mut_ptr().cast());
            self.graph_add_to(graph, node, &mut built, host)
        });
        if added.is_err() {
            drop(Template { table: &self.table, graph });
        }
        added.map(|()| (graph, built.nodes))
    }

    /// Adds a node to a graph of the driver, or to a body in it.
    pub(super) fn graph_add_to(
        &mut self,
        graph: Ptr,
        node: &DeviceNode<'_>,
        built: &mut Built,
        host: Ptr,
    ) -> CuResult<()> {
        let graph = match node.body.conditional() {
            None => graph,
            Some(of) => {
                let body = built.bodies.get(&of).and_then(|bodies| bodies.get(node.body.number as usize));
                body.ok_or(CuError::INVALID_VALUE)?.0
            }
        };
        let added = if let DeviceWork::Conditional { conditional, .. } = &node.work {
            if node.needs.iter().any(|edge| !edge.is_plain()) {
                return Err(CuError::INVALID_VALUE);
            }
            self.enter(node.context)?;
            let (context, needs) = (self.contexts.get(node.context)?, plain_needs(node, &built.nodes)?);
            let (added, own) = conditionals::add(&self.table, graph, &needs, conditional, context)?;
            built.bodies.insert(built.nodes.len(), own);
            added
        } else {
            self.graph_add(graph, node, &built.nodes, host)?
        };
        built.nodes.push(Pointer(added));
        Ok(())
    }

    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one arm runs")]
    fn graph_add(
        &mut self,
        graph: Ptr,
        node: &DeviceNode<'_>,
        built: &[Pointer],
        host: Ptr,
    ) -> CuResult<Ptr> {
        self.enter(node.context)?;
        let context = self.contexts.get(node.context)?;
        let plain = plain_needs(node, built)?;
        let (needs, count) = (plain.as_ptr(), plain.len());
        let table = &self.table;
        let mut added = NULL;
        let at = &raw mut added;
        // SAFETY: all arms: a live graph and its own nodes; the driver writes a pointer to a variable of ours and copies what it
        // reads, which lives as long as the call. Handles are ours and live, ranges the process's, a host buffer as long as the
        // graph.
        unsafe {
            match &node.work {
                DeviceWork::Empty => table.cuGraphAddEmptyNode(at, graph, needs, count),
                DeviceWork::Kernel(launch) => {
                    let function = self.images.function(table, launch.function)?;
                    with_kernel(table, function, launch, |params| {
                        table.cuGraphAddKernelNode_v2(at, graph, needs, count, ptr::from_ref(params))
                    })
                }
                DeviceWork::Fill(memset) => {
                    let params = fill_params(memset)?;
                    table.cuGraphAddMemsetNode(at, graph, needs, count, &raw const params, context)
                }
                DeviceWork::Copy(copy, side) => {
                    let params = copy_params(copy, *side, host)?;
                    table.cuGraphAddMemcpyNode(at, graph, needs, count, &raw const params, context)
                }
                DeviceWork::ArrayCopy { to, from, size } => {
                    let params = self.array_copy_params((*to, *from), *size, host)?;
                    table.cuGraphAddMemcpyNode(at, graph, needs, count, &raw const params, context)
                }
                DeviceWork::Record(event) => {
                    table.cuGraphAddEventRecordNode(at, graph, needs, count, self.events.get(*event)?)
                }
                DeviceWork::Wait(event) => {
                    table.cuGraphAddEventWaitNode(at, graph, needs, count, self.events.get(*event)?)
                }
                DeviceWork::Host(function) => {
                    let params = host_params(function);
                    table.cuGraphAddHostNode(at, graph, needs, count, &raw const params)
                }
                DeviceWork::Words(ops) => with_words(context, ops, |params| {
                    table.cuGraphAddBatchMemOpNode(at, graph, needs, count, ptr::from_ref(params))
                }),
                // Added where its bodies are kept.
                DeviceWork::Conditional { .. } => Err(CuError::INVALID_VALUE),
            }
        }?;
        if let DeviceWork::Kernel(launch) = &node.work {
            set_attributes(table, added, launch)?;
        }
        for edge in node.needs.iter().filter(|edge| !edge.is_plain()) {
            let (from, to) = (named(edge, built)?, added);
            let data = EdgeData {
                from_port: edge.from_port,
                to_port: edge.to_port,
                kind: edge.kind,
                reserved: [0; 5],
            };
            // SAFETY: live nodes of a live graph; the driver reads one of each.
            unsafe {
                table.cuGraphAddDependencies_v2(graph, &raw const from, &raw const to, &raw const data, 1)
            }?;
        }
        Ok(added)
    }
}
