//! Graphs: lists of nodes that run one after the other.

use vgpu_api::graph::{Body, Conditional, GraphWork, HostSide, parse};
use vgpu_api::wire::{from_slice, to_vec};
use vgpu_api::*;

use super::FakeDevice;

/// A node of a graph: its work as it travels, whether it does it, the host's side of a copy.
pub(super) struct FakeNode {
    body: Body,
    needs: Vec<u32>,
    work: Vec<u8>,
    enabled: bool,
    host: Vec<u8>,
}

impl FakeNode {
    fn list(upload: &[u8]) -> CuResult<Vec<Self>> {
        let nodes = parse(upload)?.into_iter().map(|node| {
            let host = node.work.host_bytes().unwrap();
            let needs = node.needs.iter().map(|edge| edge.from).collect();
            let host = vec![0; usize::try_from(host).unwrap()];
            Self { body: node.body, needs, work: to_vec(&node.work), enabled: true, host }
        });
        Ok(nodes.collect())
    }

    fn conditional(&self) -> Option<Conditional> {
        match from_slice::<GraphWork<'_>>(&self.work).unwrap() {
            GraphWork::Conditional(of) => Some(of),
            _ => None,
        }
    }
}

impl FakeDevice {
    pub(super) fn graph_node(&mut self, graph: GraphExecHandle, node: u32) -> CuResult<&mut FakeNode> {
        let nodes = self.graphs.get_mut(&graph.raw()).ok_or(CuError::INVALID_HANDLE)?;
        nodes.get_mut(node as usize).ok_or(CuError::INVALID_VALUE)
    }

    /// A loop's value is one less after each round, as if a kernel had set it.
    pub(super) fn run_body(&mut self, call: Call, nodes: &mut [FakeNode], body: Body) -> CuResult<()> {
        let places = (0..nodes.len()).filter(|place| nodes[*place].body == body).collect::<Vec<_>>();
        for place in places.into_iter().filter(|place| nodes[*place].enabled).collect::<Vec<_>>() {
            self.run(call, &mut nodes[place])?;
            let Some(of) = nodes[place].conditional() else { continue };
            assert_eq!(self.conditionals[&of.handle].0, of.graph, "a number of the graph that it says");
            let mut value = self.conditionals[&of.handle].1;
            while let Some(number) = of.body_at(value) {
                let within = Body::new(u32::try_from(place).unwrap(), number).unwrap();
                self.run_body(call, nodes, within)?;
                if of.flavor != Conditional::WHILE {
                    break;
                }
                value -= 1;
            }
        }
        Ok(())
    }

    pub(super) fn run(&mut self, call: Call, node: &mut FakeNode) -> CuResult<()> {
        match from_slice::<GraphWork<'_>>(&node.work).unwrap() {
            GraphWork::Empty | GraphWork::Wait(_) | GraphWork::Conditional(_) => Ok(()),
            GraphWork::Words(ops) => self.vgpuStreamMemory(call, Stream::Legacy, ops),
            GraphWork::Host(function) => {
                self.run_in_the_guest(function);
                Ok(())
            }
            GraphWork::Kernel(launch) => self.cuLaunchKernel(call, launch),
            GraphWork::Fill(memset) => self.vgpuMemset(call, memset, Stream::Legacy),
            GraphWork::Record(event) => self.cuEventRecordWithFlags(call, event, Stream::Legacy, 0),
            GraphWork::ArrayCopy(copy) => match (copy.sides(), copy.extent()) {
                ((Some(to), Some(from)), size) => self.vgpuCopyBox(call, to, from, size, Stream::Legacy),
                ((Some(BoxSide::Array(to)), _), size) => {
                    self.with_arrays("graph", |arrays| arrays.write(to, size, &node.host))
                }
                ((_, Some(BoxSide::Array(from))), size) => {
                    node.host = self.with_arrays("graph", |arrays| arrays.read(from, size))?;
                    Ok(())
                }
                sides => panic!("{sides:?} is no copy with an array"),
            },
            GraphWork::Copy(copy, side) => copy.rows().try_for_each(|(to, from, packed)| {
                let at = usize::try_from(packed).unwrap();
                let width = usize::try_from(copy.width).unwrap();
                match side {
                    HostSide::From => {
                        self.set(DevicePtr(to), &node.host[at..at + width])?;
                    }
                    HostSide::To => {
                        node.host[at..at + width].copy_from_slice(&self.get(DevicePtr(from), copy.width)?);
                    }
                    HostSide::Neither => {
                        let bytes = self.get(DevicePtr(from), copy.width)?;
                        self.set(DevicePtr(to), &bytes)?;
                    }
                }
                Ok(())
            }),
        }
    }
}

#[allow(non_snake_case, reason = "CUDA's names")]
impl FakeDevice {
    pub(super) fn vgpuConditionalCreate(&mut self, _: Call, graph: u64, value: u32, _: u32) -> CuResult<u64> {
        self.saw("conditional create")?;
        let number = 1000 + self.conditionals.len() as u64;
        self.conditionals.insert(number, (graph, value));
        Ok(number)
    }

    pub(super) fn vgpuConditionalsEnd(&mut self, _: Call, graph: u64) -> CuResult<()> {
        assert!(self.conditionals.values().any(|(of, _)| *of == graph), "no number was made for it");
        self.saw("conditionals end")
    }

    pub(super) fn vgpuGraphInstantiate(
        &mut self,
        call: Call,
        graph: NewHandle<kind::GraphExec>,
        upload: u32,
        _: u64,
    ) -> CuResult<()> {
        self.saw("graph instantiate")?;
        let bytes = self.seen.lock().unwrap().uploads.remove(&upload).unwrap();
        let nodes = FakeNode::list(&bytes)?;
        let conditionals = nodes.iter().filter_map(FakeNode::conditional);
        if let Some(of) = conditionals.map(|conditional| conditional.graph).next() {
            if self.choosing.contains_key(&of) {
                return Err(CuError::NOT_SUPPORTED);
            }
            self.choosing.insert(of, graph.0.raw());
        }
        self.seen.lock().unwrap().graphs.push(nodes.iter().map(|node| node.needs.clone()).collect());
        self.occupy(call, "graph", graph.0)?;
        self.graphs.insert(graph.0.raw(), nodes);
        Ok(())
    }

    pub(super) fn vgpuGraphUpdate(&mut self, _: Call, graph: GraphExecHandle, upload: u32) -> CuResult<()> {
        self.saw("graph update")?;
        let bytes = self.seen.lock().unwrap().uploads.remove(&upload).unwrap();
        let new = FakeNode::list(&bytes)?;
        let old = self.graphs.get_mut(&graph.raw()).ok_or(CuError::INVALID_HANDLE)?;
        assert_eq!(old.len(), new.len(), "the library compares first");
        old.iter_mut().zip(new).for_each(|(old, new)| old.work = new.work);
        Ok(())
    }

    pub(super) fn vgpuGraphNodeSet(
        &mut self,
        _: Call,
        graph: GraphExecHandle,
        node: u32,
        work: GraphWork<'_>,
    ) -> CuResult<()> {
        self.saw("graph set")?;
        self.graph_node(graph, node)?.work = to_vec(&work);
        Ok(())
    }

    pub(super) fn vgpuGraphNodeEnable(
        &mut self,
        _: Call,
        graph: GraphExecHandle,
        node: u32,
        enabled: bool,
    ) -> CuResult<()> {
        self.saw("graph enable")?;
        self.graph_node(graph, node)?.enabled = enabled;
        Ok(())
    }

    pub(super) fn vgpuGraphHostPut(
        &mut self,
        _: Call,
        graph: GraphExecHandle,
        node: u32,
        at: u64,
        src: Staged,
    ) -> CuResult<()> {
        self.saw("graph put")?;
        let (bytes, at) = (self.staging.read(src), usize::try_from(at).unwrap());
        self.graph_node(graph, node)?.host[at..at + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }

    pub(super) fn vgpuGraphHostGet(
        &mut self,
        _: Call,
        graph: GraphExecHandle,
        node: u32,
        at: u64,
        out: Staged,
    ) -> CuResult<()> {
        self.saw("graph get")?;
        let (at, len) = (usize::try_from(at).unwrap(), usize::try_from(out.len).unwrap());
        let bytes = self.graph_node(graph, node)?.host[at..at + len].to_vec();
        self.staging.write(out, &bytes);
        Ok(())
    }

    pub(super) fn cuGraphUpload(&mut self, _: Call, _: GraphExecHandle, _: Stream) -> CuResult<()> {
        self.saw("graph upload")
    }

    pub(super) fn cuGraphLaunch(&mut self, call: Call, graph: GraphExecHandle, _: Stream) -> CuResult<()> {
        self.saw("graph launch")?;
        let mut nodes = self.graphs.remove(&graph.raw()).ok_or(CuError::INVALID_HANDLE)?;
        let result = self.run_body(call, &mut nodes, Body::NONE);
        self.graphs.insert(graph.raw(), nodes);
        result
    }

    pub(super) fn cuGraphExecDestroy(&mut self, _: Call, graph: GoneHandle<kind::GraphExec>) -> CuResult<()> {
        self.graphs.remove(&graph.0.raw());
        self.choosing.retain(|_, made| *made != graph.0.raw());
        self.places.remove(&("graph", graph.0.index()));
        self.saw("graph destroy")
    }
}
