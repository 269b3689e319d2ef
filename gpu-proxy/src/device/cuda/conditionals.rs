//! Conditional nodes of the driver's graphs. It gives a number for one only in a graph that there is already: that graph is made with the
//! first number, and filled when the guest's is instantiated, which it is once. It ends with what was instantiated of it, or with the guest's if
//! that never was.

use std::collections::HashMap;
use std::ptr;

use vgpu_api::graph::Conditional;
use vgpu_api::{CuError, CuResult};

use super::table::{ConditionalParams, NULL, Ptr, Table};
use super::{Cuda, Pointer};
use crate::device::Raw;

/// `CU_GRAPH_NODE_TYPE_CONDITIONAL`.
const CONDITIONAL: i32 = 13;

/// Graphs that numbers were made for.
#[derive(Debug, Default)]
pub(super) struct Shells(HashMap<Raw, Shell>);

#[derive(Debug)]
struct Shell {
    graph: Pointer,
    /// What was instantiated of it goes by its nodes, and outlives the guest's.
    has_exec: bool,
}

impl Shells {
    pub(super) fn graph(&self, of: Raw) -> CuResult<Ptr> {
        self.0.get(&of).map(|shell| shell.graph.0).ok_or(CuError::INVALID_HANDLE)
    }

    /// What can be launched was made of it.
    pub(super) fn set_exec(&mut self, of: Raw) {
        if let Some(shell) = self.0.get_mut(&of) {
            shell.has_exec = true;
        }
    }

    /// No more will be made of it, and what was has ended.
    pub(super) fn end(&mut self, table: &Table, of: Raw) {
        if let Some(shell) = self.0.remove(&of) {
            // SAFETY: a live graph of ours, which nothing names any more.
            let _ = unsafe { table.cuGraphDestroy(shell.graph.0) };
        }
    }
}

impl Cuda {
    pub(super) fn conditional_make(
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
                let shell = Shell { graph: Pointer(graph), has_exec: false };
                self.shells.0.insert(Raw(self.last_graph), shell);
                Raw(self.last_graph)
            }
        };
        let (graph, mut number) = (self.shells.graph(of)?, 0);
        // SAFETY: a live graph and a live context; the driver writes a number to a variable of ours.
        let made = unsafe {
            self.table.cuGraphConditionalHandleCreate(&raw mut number, graph, pointer, value, flags)
        };
        if made.is_err() && is_new {
            self.shells.end(&self.table, of);
        }
        made.map(|()| (of, number))
    }

    pub(super) fn conditionals_finish(&mut self, of: Raw) {
        if self.shells.0.get(&of).is_some_and(|shell| !shell.has_exec) {
            self.shells.end(&self.table, of);
        }
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
