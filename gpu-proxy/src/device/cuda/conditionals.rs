//! Conditional nodes of the driver's graphs. It gives a number for one only in a graph that there is already: that graph is made with the
//! first number and filled when the guest's is instantiated, or is what another one is changed to. From then on it has these nodes, which
//! what can be launched of it is known by: they get other works and new ones may follow, and any other change of the guest's graph is 801. It
//! ends with the guest's, or later with what can be launched of it.

use std::collections::HashMap;
use std::ptr;

use vgpu_api::graph::{Body, Conditional, GraphEdge};
use vgpu_api::{CuError, CuResult};

use super::graphs::Built;
use super::table::{ConditionalParams, NULL, Ptr, Table};
use super::{Cuda, Pointer};
use crate::device::{DeviceNode, DeviceWork, Raw};

/// `CU_GRAPH_NODE_TYPE_CONDITIONAL`.
const CONDITIONAL: i32 = 13;

/// Graphs that numbers were made for.
#[derive(Debug, Default)]
pub(super) struct Shells(HashMap<Raw, Shell>);

#[derive(Debug)]
struct Shell {
    graph: Pointer,
    built: Built,
    /// Of each node that was built.
    shapes: Vec<Shape>,
    /// The guest has the graph.
    is_named: bool,
    has_exec: bool,
    /// A node could not be added. Perhaps the driver has it all the same, with what it was to name: nothing is made of the graph any more.
    is_spoilt: bool,
}

/// What stays of a node.
#[derive(Debug, PartialEq)]
struct Shape {
    kind: &'static str,
    context: Raw,
    body: Body,
    needs: Vec<GraphEdge>,
    /// Numbers of a kernel's attributes: none that it has is taken away.
    attributes: Vec<u32>,
    conditional: Option<Conditional>,
}

impl Shape {
    fn of(node: &DeviceNode<'_>) -> Self {
        let attributes = match &node.work {
            DeviceWork::Kernel(launch) => launch.attributes.iter().map(|each| each.id).collect(),
            _ => Vec::new(),
        };
        let conditional = match node.work {
            DeviceWork::Conditional { conditional, .. } => Some(conditional),
            _ => None,
        };
        let (kind, needs) = (node.work.name(), node.needs.to_vec());
        Self { kind, context: node.context, body: node.body, needs, attributes, conditional }
    }
}

impl Shells {
    /// The driver's graph, and its names of the nodes.
    pub(super) fn get(&self, of: Raw) -> CuResult<(Ptr, &[Pointer])> {
        let shell = self.0.get(&of).ok_or(CuError::NOT_SUPPORTED)?;
        Ok((shell.graph.0, &shell.built.nodes))
    }

    pub(super) fn add(&mut self, of: Raw, graph: Ptr) {
        let (graph, built, shapes) = (Pointer(graph), Built::default(), Vec::new());
        let (is_named, has_exec, is_spoilt) = (true, false, false);
        self.0.insert(of, Shell { graph, built, shapes, is_named, has_exec, is_spoilt });
    }

    /// The guest no longer has it.
    pub(super) fn end_name(&mut self, table: &Table, of: Raw) {
        if let Some(shell) = self.0.get_mut(&of) {
            shell.is_named = false;
        }
        self.end_unused(table, of);
    }

    /// What can be launched was made of it, or has ended.
    pub(super) fn set_exec(&mut self, table: &Table, of: Raw, has_exec: bool) {
        if let Some(shell) = self.0.get_mut(&of) {
            shell.has_exec = has_exec;
        }
        self.end_unused(table, of);
    }

    fn end_unused(&mut self, table: &Table, of: Raw) {
        if let Some(shell) = self.0.remove(&of) {
            if shell.is_named || shell.has_exec {
                self.0.insert(of, shell);
                return;
            }
            // SAFETY: a live graph of ours, which nothing names any more.
            let _ = unsafe { table.cuGraphDestroy(shell.graph.0) };
        }
    }
}

/// The graph that numbers of a list were made for.
pub(super) fn shell_of(nodes: &[DeviceNode<'_>]) -> Option<Raw> {
    nodes.iter().find_map(|node| match node.work {
        DeviceWork::Conditional { of, .. } => Some(of),
        _ => None,
    })
}

impl Cuda {
    /// Gives a graph that numbers were made for these nodes.
    pub(super) fn shell_fill(
        &mut self,
        of: Raw,
        nodes: &[DeviceNode<'_>],
        hosts: &mut HashMap<u32, Box<[u8]>>,
    ) -> CuResult<()> {
        let mut shell = self.shells.0.remove(&of).ok_or(CuError::NOT_SUPPORTED)?;
        let filled = self.fill(&mut shell, nodes, hosts);
        self.shells.0.insert(of, shell);
        filled
    }

    fn fill(
        &mut self,
        shell: &mut Shell,
        nodes: &[DeviceNode<'_>],
        hosts: &mut HashMap<u32, Box<[u8]>>,
    ) -> CuResult<()> {
        let known = shell.shapes.len();
        let is_there = nodes.get(..known).filter(|_| !shell.is_spoilt).ok_or(CuError::NOT_SUPPORTED)?;
        if !is_there.iter().zip(&shell.shapes).all(|(node, shape)| Shape::of(node) == *shape) {
            return Err(CuError::NOT_SUPPORTED);
        }
        for (place, node) in (0..).zip(nodes) {
            let host = hosts.get_mut(&place).map_or(NULL, |host| host.as_mut_ptr().cast());
            match shell.built.nodes.get(place as usize) {
                Some(there) => self.node_set(there.0, node, host)?,
                None => {
                    let added = self.graph_add_to(shell.graph.0, node, &mut shell.built, host);
                    added.inspect_err(|_| shell.is_spoilt = true)?;
                    shell.shapes.push(Shape::of(node));
                }
            }
        }
        Ok(())
    }
}

/// Adds a conditional node: its name, and its bodies.
pub(super) fn add(
    table: &Table,
    graph: Ptr,
    needs: &[Ptr],
    conditional: &Conditional,
    context: Ptr,
) -> CuResult<(Ptr, Vec<Pointer>)> {
    let mut params = ConditionalParams {
        kind: CONDITIONAL,
        reserved: [0; 3],
        handle: conditional.handle,
        flavor: conditional.flavor,
        bodies: conditional.bodies,
        graphs: ptr::null(),
        context,
        rest: [0; 26],
    };
    let mut added = NULL;
    let (at, needs_at, count) = (&raw mut added, needs.as_ptr(), needs.len());
    // SAFETY: a live graph and its own nodes, without data of edges; the number was made for this graph. The driver writes a pointer to
    // a variable of ours and the address of its list to a structure of ours.
    unsafe { table.cuGraphAddNode_v2(at, graph, needs_at, ptr::null(), count, &raw mut params) }?;
    if params.graphs.is_null() {
        return Err(CuError::UNKNOWN);
    }
    let bodies = (0..conditional.bodies as usize).map(|number| {
        // SAFETY: the driver's list has as many graphs as were asked for, and lives as long as the node.
        Pointer(unsafe { *params.graphs.wrapping_add(number) })
    });
    Ok((added, bodies.collect()))
}
