//! Graphs of the software GPU: lists.

use vgpu_api::{CuError, CuResult};

use super::Soft;
use crate::device::conditional::Condition;
use crate::device::graph::Listed;
use crate::device::{DeviceNode, DeviceWork, Graphs, Place, Raw};

impl Graphs for Soft {
    fn conditional_create(
        &mut self,
        _context: Raw,
        of: Option<Raw>,
        value: u32,
        flags: u32,
    ) -> CuResult<(Raw, u64)> {
        let of = of.unwrap_or_else(|| self.name());
        let (number, place) = self.gpu.conditions().create(value);
        self.conditionals.add(of, number, Condition::new(place, value, flags));
        Ok((of, number))
    }

    fn conditionals_destroy(&mut self, of: Raw) -> CuResult<()> {
        self.conditionals.end(of);
        Ok(())
    }

    fn graph_instantiate(&mut self, nodes: &[DeviceNode<'_>], _flags: u64) -> CuResult<Raw> {
        let listed = Listed::new(nodes, &|of, number| self.conditionals.get(of, number))?;
        let name = self.name();
        self.graphs.insert(name, listed);
        Ok(name)
    }

    fn graph_update(&mut self, graph: Raw, nodes: &[DeviceNode<'_>]) -> CuResult<()> {
        let listed = self.graphs.get_mut(&graph).ok_or(CuError::INVALID_HANDLE)?;
        listed.update(nodes, &|of, number| self.conditionals.get(of, number))
    }

    fn graph_set(&mut self, graph: Raw, node: u32, _context: Raw, work: &DeviceWork<'_>) -> CuResult<()> {
        self.graph(graph)?.set(node, work)
    }

    fn graph_enable(&mut self, graph: Raw, node: u32, enabled: bool) -> CuResult<()> {
        self.graph(graph)?.enable(node, enabled)
    }

    fn graph_put(&mut self, graph: Raw, node: u32, offset: u64, bytes: &[u8]) -> CuResult<()> {
        self.graph(graph)?.host(node, offset, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn graph_get(&mut self, graph: Raw, node: u32, offset: u64, bytes: &mut [u8]) -> CuResult<()> {
        bytes.copy_from_slice(self.graph(graph)?.host(node, offset, bytes.len())?);
        Ok(())
    }

    fn graph_upload(&mut self, _place: Place, graph: Raw) -> CuResult<()> {
        self.graph(graph).map(drop)
    }

    fn graph_launch(&mut self, place: Place, graph: Raw) -> CuResult<()> {
        // Taken out, since its nodes run on this device.
        let mut listed = std::mem::take(self.graph(graph)?);
        let result = listed.run(self, place.stream);
        self.graphs.insert(graph, listed);
        result
    }

    fn graph_destroy(&mut self, graph: Raw) -> CuResult<()> {
        self.graphs.remove(&graph).map(drop).ok_or(CuError::INVALID_HANDLE)
    }
}

impl Soft {
    fn graph(&mut self, graph: Raw) -> CuResult<&mut Listed> {
        self.graphs.get_mut(&graph).ok_or(CuError::INVALID_HANDLE)
    }
}
