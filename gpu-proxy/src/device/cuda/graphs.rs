//! Graphs of the driver. A captured one and one of single nodes are the same to it, so every graph is made of single nodes here.
//!
//! The graph stays beside what was instantiated of it: the driver names nodes by it when they change. The host's sides of copies
//! are buffers here, as long as the graph is.

use std::collections::HashMap;
use std::ptr;

use vgpu_api::graph::GraphEdge;
use vgpu_api::{CuError, CuResult};

use super::conditionals::{self, shell_of};
use super::graph_params::{copy_params, fill_params, host_params, with_kernel, with_words};
use super::graph_set::set_attributes;
use super::table::{EdgeData, NULL, Ptr, Table, UpdateInfo};
use super::{Cuda, Pointer};
use crate::device::graph::{host_buffer, part};
use crate::device::{DeviceNode, DeviceWork, Raw};

/// A graph and what was instantiated of it.
#[derive(Debug)]
pub struct Graph {
    template: Own,
    exec: Pointer,
    nodes: Vec<Pointer>,
    /// By node. The driver has their addresses: they are never moved.
    hosts: HashMap<u32, Box<[u8]>>,
}

/// The graph that something was instantiated of.
#[derive(Debug)]
enum Own {
    /// It has no other use.
    Template(Pointer),
    /// One that numbers of conditional nodes were made for.
    Shell(Raw),
}

/// Ends a graph of the driver, unless it is kept.
struct Template<'a> {
    table: &'a Table,
    graph: Ptr,
}

impl Template<'_> {
    fn keep(self) -> Ptr {
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

fn instantiate(table: &Table, graph: Ptr, flags: u64) -> CuResult<Ptr> {
    let mut exec = NULL;
    // SAFETY: a live graph of ours; the driver writes a pointer to a variable of ours.
    unsafe { table.cuGraphInstantiateWithFlags(&raw mut exec, graph, flags) }?;
    Ok(exec)
}

fn update(table: &Table, exec: Ptr, to: Ptr) -> CuResult<()> {
    let mut info = UpdateInfo { result: 0, node: NULL, from: NULL };
    // SAFETY: a live graph of each kind; the driver writes a struct of ours.
    unsafe { table.cuGraphExecUpdate_v2(exec, to, &raw mut info) }
}

impl Cuda {
    pub(super) fn graph(&mut self, name: Raw) -> CuResult<&mut Graph> {
        self.graphs.get_mut(&name.0).ok_or(CuError::INVALID_HANDLE)
    }

    pub(super) fn graph_make(&mut self, nodes: &[DeviceNode<'_>], flags: u64) -> CuResult<Raw> {
        let mut hosts = HashMap::new();
        for (place, node) in (0..).zip(nodes) {
            if let Some(buffer) = host_buffer(&node.work)? {
                hosts.insert(place, buffer);
            }
        }
        let (template, nodes, exec) = match shell_of(nodes) {
            Some(of) => {
                self.shell_fill(of, nodes, &mut hosts)?;
                let (graph, nodes) = self.shells.get(of)?;
                let made = (Own::Shell(of), nodes.to_vec(), instantiate(&self.table, graph, flags)?);
                self.shells.set_exec(&self.table, of, true);
                made
            }
            None => {
                let (template, nodes) = self.graph_build(nodes, &mut hosts)?;
                let template = Template { table: &self.table, graph: template };
                let exec = instantiate(&self.table, template.graph, flags)?;
                (Own::Template(Pointer(template.keep())), nodes, exec)
            }
        };
        self.last_graph += 1;
        self.graphs.insert(self.last_graph, Graph { template, exec: Pointer(exec), nodes, hosts });
        Ok(Raw(self.last_graph))
    }

    /// A graph of the driver with these nodes, and the driver's names of them.
    fn graph_build(
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

    pub(super) fn graph_change(&mut self, name: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        let mut graph = self.graphs.remove(&name.0).ok_or(CuError::INVALID_HANDLE)?;
        let result = self.graph_change_to(&mut graph, nodes);
        self.graphs.insert(name.0, graph);
        result
    }

    /// What it is changed to ends here, if no numbers were made for it. The driver goes on knowing nodes by the graph that was instantiated
    /// (cuda.h, `cuGraphExecKernelNodeSetParams`).
    fn graph_change_to(&mut self, graph: &mut Graph, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        if let Some(of) = shell_of(nodes) {
            self.shell_fill(of, nodes, &mut graph.hosts)?;
            let (changed, _) = self.shells.get(of)?;
            return update(&self.table, graph.exec.0, changed);
        }
        let (changed, _) = self.graph_build(nodes, &mut graph.hosts)?;
        let changed = Template { table: &self.table, graph: changed };
        update(&self.table, graph.exec.0, changed.graph)
    }

    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one arm runs")]
    pub(super) fn graph_change_node(
        &mut self,
        name: Raw,
        place: u32,
        context: Raw,
        work: &DeviceWork<'_>,
    ) -> CuResult<()> {
        self.enter(context)?;
        let context = self.contexts.get(context)?;
        let graph = self.graphs.get_mut(&name.0).ok_or(CuError::INVALID_HANDLE)?;
        let node = graph.nodes.get(place as usize).ok_or(CuError::INVALID_VALUE)?.0;
        let host = graph.hosts.get_mut(&place).map_or(NULL, |host| host.as_mut_ptr().cast());
        let (exec, table) = (graph.exec.0, &self.table);
        // SAFETY: all arms: a live graph and a node of what it was made of; the rest as in `graph_add`.
        unsafe {
            match work {
                DeviceWork::Empty => Ok(()),
                DeviceWork::Kernel(launch) => {
                    let function = self.images.function(table, launch.function)?;
                    with_kernel(table, function, launch, |params| {
                        table.cuGraphExecKernelNodeSetParams_v2(exec, node, ptr::from_ref(params))
                    })
                }
                DeviceWork::Fill(memset) => {
                    let params = fill_params(memset)?;
                    table.cuGraphExecMemsetNodeSetParams(exec, node, &raw const params, context)
                }
                DeviceWork::Copy(copy, side) => {
                    let params = copy_params(copy, *side, host)?;
                    table.cuGraphExecMemcpyNodeSetParams(exec, node, &raw const params, context)
                }
                DeviceWork::ArrayCopy { to, from, size } => {
                    let params = self.array_copy_params((*to, *from), *size, host)?;
                    table.cuGraphExecMemcpyNodeSetParams(exec, node, &raw const params, context)
                }
                DeviceWork::Record(event) => {
                    table.cuGraphExecEventRecordNodeSetEvent(exec, node, self.events.get(*event)?)
                }
                DeviceWork::Wait(event) => {
                    table.cuGraphExecEventWaitNodeSetEvent(exec, node, self.events.get(*event)?)
                }
                DeviceWork::Host(function) => {
                    let params = host_params(function);
                    table.cuGraphExecHostNodeSetParams(exec, node, &raw const params)
                }
                DeviceWork::Words(ops) => with_words(context, ops, |params| {
                    table.cuGraphExecBatchMemOpNodeSetParams(exec, node, ptr::from_ref(params))
                }),
                DeviceWork::Conditional { .. } => Err(CuError::NOT_SUPPORTED),
            }
        }
    }

    pub(super) fn graph_switch(&mut self, name: Raw, place: u32, enabled: bool) -> CuResult<()> {
        let graph = self.graphs.get(&name.0).ok_or(CuError::INVALID_HANDLE)?;
        let node = graph.nodes.get(place as usize).ok_or(CuError::INVALID_VALUE)?.0;
        // SAFETY: a live graph and a node of what it was made of.
        unsafe { self.table.cuGraphNodeSetEnabled(graph.exec.0, node, enabled.into()) }
    }

    pub(super) fn graph_end(&mut self, name: Raw) -> CuResult<()> {
        let graph = self.graphs.remove(&name.0).ok_or(CuError::INVALID_HANDLE)?;
        // The driver ends it when its launches are over, but the host's buffers end here.
        if !graph.hosts.is_empty() {
            self.context_synchronize_all();
        }
        // SAFETY: live graphs of ours, named no more.
        let result = unsafe { self.table.cuGraphExecDestroy(graph.exec.0) };
        match graph.template {
            Own::Template(template) => drop(Template { table: &self.table, graph: template.0 }),
            Own::Shell(of) => self.shells.set_exec(&self.table, of, false),
        }
        result
    }

    /// Waits for the work of every context: what failed there is told there.
    fn context_synchronize_all(&mut self) {
        let names: Vec<Raw> = self.contexts.pointers.keys().map(|name| Raw(*name)).collect();
        for name in names {
            if self.enter(name).is_ok() {
                // SAFETY: a context is current.
                let _ = unsafe { self.table.cuCtxSynchronize() };
            }
        }
    }
}

impl Graph {
    pub(super) fn exec(&self) -> Ptr {
        self.exec.0
    }

    /// The host's side of a copy.
    pub(super) fn host(&mut self, node: u32, offset: u64, bytes: usize) -> CuResult<&mut [u8]> {
        part(self.hosts.get_mut(&node).ok_or(CuError::INVALID_VALUE)?, offset, bytes)
    }
}
