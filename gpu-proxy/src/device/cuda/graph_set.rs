//! Nodes of a graph of the driver get other works, while it is no graph that can be launched. What was made of it before does not change.

use std::ptr;

use vgpu_api::CuResult;

use super::graph_params::{copy_params, fill_params, host_params, is_of_node, with_kernel, with_words};
use super::table::{Ptr, Table};
use super::{Cuda, number};
use crate::device::{DeviceLaunch, DeviceNode, DeviceWork};

impl Cuda {
    /// Its kind and what it waits for are those of before; of a conditional node all is.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one arm runs")]
    pub(super) fn node_set(&mut self, there: Ptr, node: &DeviceNode<'_>, host: Ptr) -> CuResult<()> {
        self.enter(node.context)?;
        let (context, table) = (self.contexts.get(node.context)?, &self.table);
        // SAFETY: all arms: a live node of a graph of ours; the driver copies what it reads, which lives as long as the call. Handles are
        // ours and live, ranges the process's, a host buffer as long as what is made of the graph next.
        unsafe {
            match &node.work {
                DeviceWork::Empty | DeviceWork::Conditional { .. } => Ok(()),
                DeviceWork::Kernel(launch) => {
                    let function = self.images.function(table, launch.function)?;
                    with_kernel(table, function, launch, |params| {
                        table.cuGraphKernelNodeSetParams_v2(there, ptr::from_ref(params))
                    })?;
                    set_attributes(table, there, launch)
                }
                DeviceWork::Fill(memset) => {
                    let params = fill_params(memset)?;
                    table.cuGraphMemsetNodeSetParams(there, &raw const params)
                }
                DeviceWork::Copy(copy, side) => {
                    let params = copy_params(copy, *side, host)?;
                    table.cuGraphMemcpyNodeSetParams(there, &raw const params)
                }
                DeviceWork::ArrayCopy { to, from, size } => {
                    let params = self.array_copy_params((*to, *from), *size, host)?;
                    table.cuGraphMemcpyNodeSetParams(there, &raw const params)
                }
                DeviceWork::Record(event) => {
                    table.cuGraphEventRecordNodeSetEvent(there, self.events.get(*event)?)
                }
                DeviceWork::Wait(event) => {
                    table.cuGraphEventWaitNodeSetEvent(there, self.events.get(*event)?)
                }
                DeviceWork::Host(function) => {
                    let params = host_params(function);
                    table.cuGraphHostNodeSetParams(there, &raw const params)
                }
                DeviceWork::Words(ops) => with_words(context, ops, |params| {
                    table.cuGraphBatchMemOpNodeSetParams(there, ptr::from_ref(params))
                }),
            }
        }
    }
}

/// Gives a kernel's node those attributes that a node has.
pub(super) fn set_attributes(table: &Table, node: Ptr, launch: &DeviceLaunch<'_>) -> CuResult<()> {
    launch.attributes.iter().filter(|each| is_of_node(each.id)).try_for_each(|each| {
        let (id, value) = (number(each.id)?, each.value.as_ptr().cast());
        // SAFETY: a live node; the driver reads a union of 64 bytes.
        unsafe { table.cuGraphKernelNodeSetAttribute(node, id, value) }
    })
}
