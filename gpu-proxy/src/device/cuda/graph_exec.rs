//! Graphs of the driver, launched and changed.

use vgpu_api::CuResult;

use super::Cuda;
use crate::device::{DeviceNode, DeviceWork, Graphs, Place, Raw};

impl Graphs for Cuda {
    fn conditional_create(
        &mut self,
        context: Raw,
        of: Option<Raw>,
        value: u32,
        flags: u32,
    ) -> CuResult<(Raw, u64)> {
        self.conditional_make(context, of, value, flags)
    }

    fn conditionals_end(&mut self, of: Raw) -> CuResult<()> {
        self.conditionals_finish(of);
        Ok(())
    }

    fn graph_instantiate(&mut self, nodes: &[DeviceNode<'_>], flags: u64) -> CuResult<Raw> {
        self.graph_make(nodes, flags)
    }

    fn graph_update(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        self.graph_change(graph, nodes)
    }

    fn graph_set(&mut self, graph: Raw, node: u32, context: Raw, work: &DeviceWork<'_>) -> CuResult<()> {
        self.graph_change_node(graph, node, context, work)
    }

    fn graph_enable(&mut self, graph: Raw, node: u32, enabled: bool) -> CuResult<()> {
        self.graph_switch(graph, node, enabled)
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
        self.graph_end(graph)
    }
}
