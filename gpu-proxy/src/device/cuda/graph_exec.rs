//! Graphs of the driver that can be launched.
//!
//! The graph stays beside what was instantiated of it: the driver names nodes by it when they change. The host's sides of copies
//! are buffers here, as long as the graph is.

use std::collections::HashMap;
use std::ptr;

use vgpu_api::{CuError, CuResult};

use super::conditionals::shell_of;
use super::graph_params::{copy_params, fill_params, host_params, with_kernel, with_words};
use super::graphs::Template;
use super::table::{NULL, Ptr, Table, UpdateInfo};
use super::{Cuda, Pointer};
use crate::device::graph::{host_buffer, part};
use crate::device::{DeviceNode, DeviceWork, Graphs, Place, Raw};

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

impl Graphs for Cuda {
    fn conditional_create(
        &mut self,
        context: Raw,
        of: Option<Raw>,
        value: u32,
        flags: u32,
    ) -> CuResult<(Raw, u64)> {
        self.enter(context)?;
        let (pointer, is_new) = (self.contexts.get(context)?, of.is_none());
        let of = match of {
            Some(of) => of,
            None => {
                let mut graph = NULL;
                // SAFETY: the driver writes a pointer to a variable of ours.
                unsafe { self.table.cuGraphCreate(&raw mut graph, 0) }?;
                self.last_graph += 1;
                self.shells.add(Raw(self.last_graph), graph);
                Raw(self.last_graph)
            }
        };
        let ((graph, _), mut number) = (self.shells.get(of)?, 0);
        // SAFETY: a live graph and a live context; the driver writes a number to a variable of ours.
        let made = unsafe {
            self.table.cuGraphConditionalHandleCreate(&raw mut number, graph, pointer, value, flags)
        };
        if made.is_err() && is_new {
            self.shells.end_name(&self.table, of);
        }
        made.map(|()| (of, number))
    }

    fn conditionals_destroy(&mut self, of: Raw) -> CuResult<()> {
        self.shells.end_name(&self.table, of);
        Ok(())
    }

    fn graph_instantiate(&mut self, nodes: &[DeviceNode<'_>], flags: u64) -> CuResult<Raw> {
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

    fn graph_update(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        let mut known = self.graphs.remove(&graph.0).ok_or(CuError::INVALID_HANDLE)?;
        let result = self.graph_update_to(&mut known, nodes);
        self.graphs.insert(graph.0, known);
        result
    }

    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one arm runs")]
    fn graph_set(&mut self, graph: Raw, node: u32, context: Raw, work: &DeviceWork<'_>) -> CuResult<()> {
        self.enter(context)?;
        let context = self.contexts.get(context)?;
        let graph = self.graphs.get_mut(&graph.0).ok_or(CuError::INVALID_HANDLE)?;
        let host = graph.hosts.get_mut(&node).map_or(NULL, |host| host.as_mut_ptr().cast());
        let node = graph.nodes.get(node as usize).ok_or(CuError::INVALID_VALUE)?.0;
        let (exec, table) = (graph.exec.0, &self.table);
        // SAFETY: all arms: a live graph and a node of what it was made of; the rest as in `graph_add` (`graphs.rs`).
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

    fn graph_enable(&mut self, graph: Raw, node: u32, enabled: bool) -> CuResult<()> {
        let graph = self.graphs.get(&graph.0).ok_or(CuError::INVALID_HANDLE)?;
        let node = graph.nodes.get(node as usize).ok_or(CuError::INVALID_VALUE)?.0;
        // SAFETY: a live graph and a node of what it was made of.
        unsafe { self.table.cuGraphNodeSetEnabled(graph.exec.0, node, enabled.into()) }
    }

    fn graph_put(&mut self, graph: Raw, node: u32, offset: u64, bytes: &[u8]) -> CuResult<()> {
        self.graph(graph)?.host(node, offset, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn graph_get(&mut self, graph: Raw, node: u32, offset: u64, bytes: &mut [u8]) -> CuResult<()> {
        bytes.copy_from_slice(self.graph(graph)?.host(node, offset, bytes.len())?);
        Ok(())
    }

    fn graph_upload(&mut self, place: Place, graph: Raw) -> CuResult<()> {
        let (stream, exec) = (self.stream(place)?, self.graph(graph)?.exec());
        // SAFETY: a live graph, and a live stream of ours or the default one.
        unsafe { self.table.cuGraphUpload(exec, stream) }
    }

    fn graph_launch(&mut self, place: Place, graph: Raw) -> CuResult<()> {
        let (stream, exec) = (self.stream(place)?, self.graph(graph)?.exec());
        // SAFETY: as above.
        unsafe { self.table.cuGraphLaunch(exec, stream) }
    }

    fn graph_destroy(&mut self, graph: Raw) -> CuResult<()> {
        let graph = self.graphs.remove(&graph.0).ok_or(CuError::INVALID_HANDLE)?;
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
}

impl Cuda {
    fn graph(&mut self, name: Raw) -> CuResult<&mut Graph> {
        self.graphs.get_mut(&name.0).ok_or(CuError::INVALID_HANDLE)
    }

    /// What it is changed to ends here, if no numbers were made for it. The driver goes on knowing nodes by the graph that was instantiated
    /// (cuda.h, `cuGraphExecKernelNodeSetParams`).
    fn graph_update_to(&mut self, graph: &mut Graph, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        if let Some(of) = shell_of(nodes) {
            self.shell_fill(of, nodes, &mut graph.hosts)?;
            let (changed, _) = self.shells.get(of)?;
            return update(&self.table, graph.exec.0, changed);
        }
        let (changed, _) = self.graph_build(nodes, &mut graph.hosts)?;
        let changed = Template { table: &self.table, graph: changed };
        update(&self.table, graph.exec.0, changed.graph)
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
    fn exec(&self) -> Ptr {
        self.exec.0
    }

    /// The host's side of a copy.
    fn host(&mut self, node: u32, offset: u64, bytes: usize) -> CuResult<&mut [u8]> {
        part(self.hosts.get_mut(&node).ok_or(CuError::INVALID_VALUE)?, offset, bytes)
    }
}
